"""The bench of a prior: its measures obey their definitions, its heads are unseen, its runs resume."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d.bench import prior as bench
from talk3d.bench.prior import (
    VIEWS,
    PriorBenchConfig,
    bench_prior,
    depth_error,
    draw,
    psnr_inside,
    table,
    unseen_head,
    unseen_parameters,
)
from talk3d.errors import ConfigError
from talk3d.heads.latent import HeadEmbedding
from talk3d.heads.model import HELD_OUT, SCALE, HeadPack
from talk3d.personalize.invert import InvertConfig
from talk3d.personalize.tune import TuneConfig
from talk3d.prior.generator import MINI, Generator, LoadedPrior

FEW = PriorBenchConfig(1, 1, 1, InvertConfig(steps=3), TuneConfig(steps=2))


@pytest.fixture(scope="module")
def pack(shared: Path) -> HeadPack:
    return HeadPack(shared / "heads")


@pytest.fixture(scope="module")
def generator(tiny_prior: LoadedPrior) -> Generator:
    return tiny_prior.generator


def test_psnr_counts_the_inside_of_the_head_only() -> None:
    truth = torch.full((1, 4, 8, 8), -1.0)
    truth[:, :, 2:6, 2:6] = torch.tensor([0.5, 0.0, -0.5, 1.0])[:, None, None]
    worse = truth.clone()
    worse[:, :, :2] = 1.0  # a wall beside the head
    worse[:, :3, 2:6, 2:6] += 0.1
    # The colours are off by 0.1 of a range of 2: 20 log10(20) dB, whatever happens outside.
    assert float(psnr_inside(worse, truth)) == pytest.approx(20 * np.log10(20), abs=1e-3)


def test_depth_errors_are_centimetres_where_the_truth_is_known() -> None:
    truth = torch.full((2, 1, 4, 4), float("inf"))
    truth[:, :, 1:3, 1:3] = 2.5
    depth = torch.full_like(truth, 9.0)
    depth[0, :, 1:3, 1:3] = 2.5 + 2 * SCALE
    depth[1, :, 1:3, 1:3] = 2.5 - SCALE
    torch.testing.assert_close(depth_error(depth, truth), torch.tensor([2.0, 1.0]))


def test_unseen_heads_wear_held_out_textures_and_belong_to_their_number(pack: HeadPack, generator: Generator) -> None:
    worn = [unseen_parameters(number, pack) for number in (3, 3, 4)]
    one, same, other = (unseen_head(parameters, VIEWS[:2], pack, generator) for parameters in worn)
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)
    assert {name for p in worn for name in (p.skin, p.second_skin, p.brow, p.eye, p.hair)} - {None} <= HELD_OUT
    assert 0.15 < float(one.inside()[0].float().mean()) < 0.8
    # Depth and picture show the same head: a cell with depth is covered, if only by thin hair.
    assert (torch.nn.functional.avg_pool2d(one.images[:, 3:], 4)[torch.isfinite(one.depth)] > 0.7).all()


def test_a_bench_resumes_and_reports(
    pack: HeadPack, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    judge = bench._judge

    def counted(*arguments: object) -> object:
        done.append(str(arguments[2]))
        if len(done) == 2:
            raise KeyboardInterrupt
        return judge(*arguments)

    monkeypatch.setattr(bench, "_judge", counted)
    with pytest.raises(KeyboardInterrupt):
        bench_prior(generator, pack, tmp_path / "out", FEW, lambda *_: None)
    results = bench_prior(generator, pack, tmp_path / "out", FEW, lambda *_: None)
    assert done == ["one view", "five views", "five views", "random weights"]
    for start in bench.STARTS:
        for measure in ("psnr", "headnet", "depth"):
            values = np.array(results[start][measure])
            assert values.shape == (1, len(VIEWS))
            assert np.isfinite(values).all()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["results"] == results
    assert all((tmp_path / "out" / name).exists() for name in ("curves.png", "sheet.png"))
    lines = table(results).splitlines()
    assert len(lines) == 1 + 9
    assert lines[0].split() == ["heads", *(f"{yaw:+d},{pitch:+d}" for yaw, pitch in VIEWS)]
    assert float(lines[1].split()[4]) == pytest.approx(results["one view"]["psnr"][0][0], abs=0.06)
    other = dataclasses.replace(FEW, tune=TuneConfig(steps=9))
    with pytest.raises(ConfigError, match="another prior or of other settings"):
        bench_prior(generator, pack, tmp_path / "out", other, lambda *_: None)


def test_what_is_judged_is_what_the_tuned_generator_draws(pack: HeadPack, generator: Generator) -> None:
    """Drawing the views at once or one by one gives the same pictures, and perfect pictures have a perfect score."""
    truth = unseen_head(unseen_parameters(0, pack), VIEWS[:3], pack, generator)
    ws = generator.map(torch.zeros(1, 12))
    images, depth = draw(generator, ws, truth)
    assert images.shape == (3, 4, 64, 64)
    assert depth.shape == (3, 1, 16, 16)
    assert (psnr_inside(truth.images, truth.images) > 100).all()
    assert (psnr_inside(images, truth.images) < 30).all()


def test_a_prior_without_alpha_is_refused(pack: HeadPack, tmp_path: Path) -> None:
    torch.manual_seed(0)
    opaque = Generator(dataclasses.replace(MINI, alpha=False, z_dim=HeadEmbedding(pack).size))
    with pytest.raises(ConfigError, match="no alpha"):
        bench_prior(opaque, pack, tmp_path / "out", FEW, lambda *_: None)
    assert not (tmp_path / "out").exists()

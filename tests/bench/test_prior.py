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
from talk3d.errors import ConfigError, OutputExistsError
from talk3d.heads.model import HELD_OUT, SCALE, HeadPack
from talk3d.personalize.invert import InvertConfig
from talk3d.personalize.tune import TuneConfig
from talk3d.prior.generator import Generator, LoadedPrior, load_prior, save_prior

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
    assert 0.15 < float((one.images[0, 3:] > 0).float().mean()) < 0.8
    # Depth and picture show the same head: a cell with depth is covered, if only by thin hair.
    assert (torch.nn.functional.avg_pool2d(one.images[:, 3:], 4)[torch.isfinite(one.depth)] > 0.7).all()


def test_a_bench_resumes_and_reports(
    pack: HeadPack, tiny_prior: LoadedPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        bench_prior(tiny_prior, pack, tmp_path / "out", FEW, lambda *_: None)
    results = bench_prior(tiny_prior, pack, tmp_path / "out", FEW, lambda *_: None)
    assert done == ["one view", "five views", "five views", "random weights"]
    for start in bench.STARTS:
        for measure in ("psnr", "headnet", "depth"):
            values = np.array(results[start][measure])
            assert values.shape == (1, len(VIEWS))
            assert np.isfinite(values).all()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["results"] == results
    assert all((tmp_path / "out" / name).exists() for name in ("curves.png", "sheet.png"))
    lines = (tmp_path / "out" / "table.txt").read_text().splitlines()
    assert lines == table(results).splitlines()
    assert len(lines) == 1 + 9
    assert lines[0].split() == ["heads", *(f"{yaw:+d},{pitch:+d}" for yaw, pitch in VIEWS)]
    assert float(lines[1].split()[4]) == pytest.approx(results["one view"]["psnr"][0][0], abs=0.06)
    other = dataclasses.replace(FEW, tune=TuneConfig(steps=9))
    with pytest.raises(ConfigError, match="another prior or of other settings"):
        bench_prior(tiny_prior, pack, tmp_path / "out", other, lambda *_: None)
    # The same weights with other people to draw from are another prior.
    peopled = Generator(tiny_prior.profile)
    peopled.load_state_dict(tiny_prior.generator.state_dict())
    peopled.latents = torch.zeros(3, tiny_prior.profile.z_dim)
    save_prior(tmp_path / "peopled", peopled, None)
    with pytest.raises(ConfigError, match="another prior or of other settings"):
        bench_prior(load_prior(tmp_path / "peopled"), pack, tmp_path / "out", FEW, lambda *_: None)


def test_a_folder_of_something_else_is_left_alone(pack: HeadPack, tiny_prior: LoadedPrior, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("mine")
    with pytest.raises(OutputExistsError, match="something else"):
        bench_prior(tiny_prior, pack, tmp_path, FEW, lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_what_is_judged_is_what_the_generator_draws_from_there(pack: HeadPack, generator: Generator) -> None:
    truth = unseen_head(unseen_parameters(0, pack), VIEWS[:3], pack, generator)
    ws, orbit = generator.map(torch.zeros(1, 12)), generator.profile.orbit
    images, depth = draw(generator, ws, truth.yaw, truth.pitch)
    for view, (yaw, pitch) in enumerate(VIEWS[:3]):
        camera = orbit.pose(torch.tensor([yaw]).float().deg2rad(), torch.tensor([pitch]).float().deg2rad())
        alone = generator(ws, camera, orbit.intrinsics()[None])
        torch.testing.assert_close(images[view], alone.image[0])
        torch.testing.assert_close(depth[view], alone.raw.depth[0])
    assert not torch.allclose(depth[0], depth[1])
    assert (psnr_inside(truth.images, truth.images) > 100).all()
    assert (psnr_inside(images, truth.images) < 30).all()


def test_a_prior_without_alpha_is_refused(pack: HeadPack, tiny_prior: LoadedPrior, tmp_path: Path) -> None:
    save_prior(tmp_path / "opaque", Generator(dataclasses.replace(tiny_prior.profile, alpha=False)), None)
    with pytest.raises(ConfigError, match="no alpha"):
        bench_prior(load_prior(tmp_path / "opaque"), pack, tmp_path / "out", FEW, lambda *_: None)
    assert not (tmp_path / "out").exists()

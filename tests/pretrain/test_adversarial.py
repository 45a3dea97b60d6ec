"""The adversarial phase, tiny: schedules, an exact resume, and a generator that moves towards the real pictures."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from talk3d.camera import Orbit, camera_label
from talk3d.errors import ConfigError
from talk3d.heads.model import HeadPack
from talk3d.pretrain import adversarial
from talk3d.pretrain.adversarial import AdversarialConfig, HeadSource, LabelledSource, Reals, train_adversarially
from talk3d.pretrain.dataset import HeadShards
from talk3d.pretrain.labelled import LabelledDataset
from talk3d.pretrain.train import _fresh
from talk3d.prior.generator import Generator, Profile

SIZE = 64


def settings(**changes: Any) -> AdversarialConfig:
    base = {
        "steps": 6, "batch": 2, "channel_base": 512, "channel_max": 16, "r1_every": 3, "density_every": 2,
        "density_points": 50, "blur_sigma": 2.0, "save_every": 2, "sample_every": 6, "bfloat16": False,
    }  # fmt: skip
    return AdversarialConfig(**base | changes)


def ignore(step: int, steps: int, text: str) -> None:
    pass


def stop_after(last: int) -> Callable[[int, int, str], None]:
    def report(step: int, steps: int, text: str) -> None:
        if step == last:
            raise KeyboardInterrupt

    return report


def labelled(folder: Path, colour: tuple[int, int, int] | None = None) -> LabelledDataset:
    """Eight pictures of one colour (or of noise), seen from the orbit."""
    folder.mkdir()
    orbit, rng = Orbit(), np.random.default_rng(0)
    labels = camera_label(orbit.pose(torch.linspace(-0.4, 0.4, 8), torch.zeros(8)), orbit.intrinsics()).tolist()
    for number in range(8):
        image = rng.integers(0, 256, (SIZE, SIZE, 3)) if colour is None else np.broadcast_to(colour, (SIZE, SIZE, 3))
        cv2.imwrite(str(folder / f"{number}.png"), np.asarray(image, np.uint8)[..., ::-1])
    entries = [[f"{number}.png", label] for number, label in enumerate(labels)]
    (folder / "dataset.json").write_text(json.dumps({"labels": entries}))
    return LabelledDataset(folder)


@pytest.fixture
def opaque(profile: Profile) -> Generator:
    """A tiny EG3D-like generator: no alpha, conditioned on the camera."""
    torch.manual_seed(0)
    return Generator(dataclasses.replace(profile, alpha=False, c_dim=25, mapping_embed=8, camera_scale=1.0, density_gain=1.0))


def same(one: Generator, other: Generator) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("interruptions", [[2], [3], [1, 5]])
def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(
    opaque: Generator, tmp_path: Path, interruptions: list[int]
) -> None:
    source = LabelledSource(labelled(tmp_path / "data"))
    expected = train_adversarially(opaque, source, tmp_path / "whole", settings(), ignore)
    for last in interruptions:
        with pytest.raises(KeyboardInterrupt):
            train_adversarially(opaque, source, tmp_path / "parts", settings(), stop_after(last))
    assert same(train_adversarially(opaque, source, tmp_path / "parts", settings(), ignore), expected)
    assert not same(expected, opaque)
    entries = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    # R1 in steps 0 and 3, density in every second one.
    assert [("r1" in entry) for entry in entries] == [True, False, False] * 2
    assert [("density" in entry) for entry in entries] == [True, False] * 3
    assert (tmp_path / "whole" / "samples.png").exists()


def test_samples_take_on_the_colour_of_the_real_pictures(opaque: Generator, tmp_path: Path) -> None:
    source = LabelledSource(labelled(tmp_path / "data", (230, 40, 40)))
    config = settings(steps=120, batch=4, generator_rate=5e-3, blur_fade=0.0, ema=0.02, r1_weight=1.0, sample_every=1000)
    trained = train_adversarially(opaque, source, tmp_path / "run", config, ignore)

    def colour_error(generator: Generator) -> float:
        reals = source.draw(np.random.default_rng(1), 4, slice(0, 4))
        latents = torch.randn(4, generator.profile.z_dim, generator=torch.Generator().manual_seed(1))
        generator.eval()
        with torch.no_grad():
            image, _, _ = adversarial._fakes(generator, config, latents, reals, 0, np.random.default_rng(0))
        return float((image - reals.images).mean((0, 2, 3)).abs().mean())

    assert colour_error(trained) < 0.5 * colour_error(opaque)


def test_heads_anchor_the_prior_to_the_truth(shards: Path, pack: HeadPack, profile: Profile, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = _fresh(profile)
    source = HeadSource(HeadShards(shards, pack), generator)
    average = train_adversarially(generator, source, tmp_path, settings(steps=8), ignore)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 1 <= sum("anchor" in entry for entry in entries) <= 7
    assert all(torch.isfinite(value).all() for value in average.state_dict().values())


def test_reals_and_fakes_share_camera_and_background(shards: Path, pack: HeadPack, profile: Profile) -> None:
    generator = _fresh(profile)
    source = HeadSource(HeadShards(shards, pack), generator)
    whole = source.draw(np.random.default_rng(2), 4, slice(0, 4))
    half = source.draw(np.random.default_rng(2), 4, slice(2, 4))
    for name in vars(whole):
        assert torch.equal(getattr(whole, name)[2:], getattr(half, name)), name
    # Where nothing covers it, the picture shows its background.
    nothing = whole.straight[:, 3:] == -1
    assert nothing.any()
    assert ((whole.images - whole.background).abs() * nothing).max() < 1e-5


def test_schedules_begin_and_end_where_they_should(opaque: Generator) -> None:
    config = settings(steps=1000, start_resolution=8, resolution_fade=0.1, blur_fade=0.1, blur_sigma=4.0)
    sizes = [adversarial._raw_resolution(opaque, config, step) for step in (0, 50, 99, 100, 999)]
    assert sizes == [8, 12, 12, 16, 16]
    images = torch.zeros(1, 3, 33, 33)
    images[..., 16, 16] = 1.0
    spread = [(adversarial._blurred(images, config, step) > 1e-4).sum().item() for step in (0, 50, 100)]
    assert spread[0] > spread[1] > spread[2] == 3
    # The kernel halves at sigma, and its sum is one.
    blurred = adversarial._blurred(images, config, 0)[0, 0]
    assert float(blurred[16, 20] / blurred[16, 16]) == pytest.approx(0.5, rel=1e-4)
    assert float(blurred.sum()) == pytest.approx(1, rel=1e-4)


def test_cameras_are_swapped_less_and_less(opaque: Generator, tmp_path: Path) -> None:
    config = settings(steps=1000, swap_fade=0.1, swap_end=0.5)
    labels = torch.arange(400.0)[:, None].expand(-1, 25)
    shares = []
    for step in (0, 50, 100, 900):
        told = adversarial._conditioning(opaque, config, labels, step, np.random.default_rng(0))
        shares.append(float((told != labels)[:, 0].float().mean()))
    np.testing.assert_allclose(shares, [1.0, 0.75, 0.5, 0.5], atol=0.08)


def test_lazy_adam_allows_for_the_rare_regulariser() -> None:
    optimizer = adversarial._lazy_adam(torch.nn.Linear(2, 2), 0.002, 16)
    group = optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.002 * 16 / 17)
    assert group["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))


def test_a_prior_without_alpha_keeps_its_own_background(opaque: Generator, tmp_path: Path) -> None:
    reals = LabelledSource(labelled(tmp_path / "data")).draw(np.random.default_rng(0), 2, slice(0, 2))
    assert isinstance(reals, Reals)
    assert reals.background is None
    zero = torch.zeros(2, opaque.profile.z_dim)
    image, raw, _ = adversarial._fakes(opaque, settings(), zero, reals, 0, np.random.default_rng(0))
    assert image.shape == (2, 3, SIZE, SIZE)
    assert raw.shape == (2, 3, 16, 16)


def test_an_impossible_fade_is_refused(opaque: Generator, tmp_path: Path) -> None:
    source = LabelledSource(labelled(tmp_path / "data"))
    with pytest.raises(ConfigError, match="at most 1"):
        train_adversarially(opaque, source, tmp_path / "run", settings(blur_fade=2.0), ignore)

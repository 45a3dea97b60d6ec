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
from talk3d.errors import CheckpointError, ConfigError
from talk3d.heads.model import HeadPack
from talk3d.pretrain import adversarial
from talk3d.pretrain.adversarial import (
    AdversarialConfig,
    Draw,
    Fakes,
    HeadSource,
    LabelledSource,
    Reals,
    train_adversarially,
)
from talk3d.pretrain.dataset import HeadShards
from talk3d.pretrain.labelled import LabelledDataset
from talk3d.pretrain.train import _fresh
from talk3d.prior.discriminator import DiscriminatorConfig, DualDiscriminator
from talk3d.prior.generator import Generator, Profile
from talk3d.runs import Workers

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


def reals_and_draw(
    generator: Generator, source: LabelledSource | HeadSource, config: AdversarialConfig, step: int = 0
) -> tuple[Reals, Draw]:
    rng, mine = np.random.default_rng(7), slice(0, config.batch)
    reals = source.draw(rng, config.batch, mine)
    return reals, Draw.of(rng, generator, config, step, mine, torch.device("cpu"))


class Linear(torch.nn.Module):
    """A discriminator whose slope is known: the sum of the picture times `a`, and of the raw one times `b`."""

    def __init__(self, a: float, b: float):
        super().__init__()
        self.a, self.b = torch.nn.Parameter(torch.tensor(a)), torch.nn.Parameter(torch.tensor(b))

    def forward(self, image: torch.Tensor, raw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return self.a * image.sum((1, 2, 3)) + self.b * raw.sum((1, 2, 3))


def no_fakes(generator: Generator, count: int) -> Fakes:
    size = generator.profile.neural_resolution
    planes = torch.zeros(count, 3, 1, 1, 1)
    return Fakes(torch.zeros(count, 3, SIZE, SIZE), torch.zeros(count, 3, size, size), torch.zeros(count, 1, 1), planes)


def untyped(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let stand-ins for the discriminator through: the run-time type checks are taken off these functions."""
    for name in names:
        monkeypatch.setattr(adversarial, name, getattr(adversarial, name).__wrapped__)


def test_r1_is_the_squared_slope_at_the_real_pictures(
    opaque: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untyped(monkeypatch, "r1_penalty")
    source, config = LabelledSource(labelled(tmp_path / "data")), settings(r1_weight=3.0, blur_sigma=0.0)
    reals, _ = reals_and_draw(opaque, source, config)
    linear = Linear(0.5, 0.25)
    penalty = adversarial.r1_penalty(linear, config, reals, no_fakes(opaque, 2), 0)
    # Every pixel of the picture has slope a, every pixel of the raw one slope b.
    pixels, few = 3 * SIZE**2, 3 * opaque.profile.neural_resolution**2
    assert float(penalty.detach()) == pytest.approx(1.5 * (0.25 * pixels + 0.0625 * few), rel=1e-5)
    penalty.backward()
    assert float(linear.a.grad) == pytest.approx(1.5 * 2 * 0.5 * pixels, rel=1e-5)
    assert float(linear.b.grad) == pytest.approx(1.5 * 2 * 0.25 * few, rel=1e-5)


def test_logistic_losses_are_those_of_the_logits(opaque: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untyped(monkeypatch, "discriminator_losses", "generator_losses")
    source, config = LabelledSource(labelled(tmp_path / "data")), settings(blur_sigma=0.0)
    reals, drawn = reals_and_draw(opaque, source, config)
    linear = Linear(1e-3, 2e-3)
    fakes = adversarial.draw_fakes(opaque, config, drawn.latents, reals, drawn, 0)
    small = (opaque.profile.neural_resolution,) * 2
    raw = torch.nn.functional.interpolate(reals.images, small, mode="bilinear", antialias=True)
    real, fake = linear(reals.images, raw, reals.labels), linear(fakes.image, fakes.raw, reals.labels)
    terms = adversarial.discriminator_losses(linear, config, reals, fakes, 0)
    torch.testing.assert_close(terms["real"], torch.log1p(torch.exp(-real)).mean())
    torch.testing.assert_close(terms["fake"], torch.log1p(torch.exp(fake)).mean())
    fooling = adversarial.generator_losses(opaque, linear, config, reals, drawn, 0, anchored=False)
    assert fooling.keys() == {"fooling"}
    torch.testing.assert_close(fooling["fooling"], torch.log1p(torch.exp(-fake)).mean())


def test_real_raw_pictures_are_blurred_and_fake_ones_are_not(
    opaque: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untyped(monkeypatch, "discriminator_losses")
    source, config = LabelledSource(labelled(tmp_path / "data")), settings(blur_sigma=2.0)
    reals, drawn = reals_and_draw(opaque, source, config)
    fakes = adversarial.draw_fakes(opaque, config, drawn.latents, reals, drawn, 0)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def look(image: torch.Tensor, raw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.append((image, raw))
        return torch.zeros(len(image))

    adversarial.discriminator_losses(look, config, reals, fakes, 0)
    (fake, fake_raw), (real, real_raw) = seen
    small = (opaque.profile.neural_resolution,) * 2
    plain = torch.nn.functional.interpolate(reals.images, small, mode="bilinear", antialias=True)
    torch.testing.assert_close(fake, adversarial.blurred(fakes.image, config, 0))
    torch.testing.assert_close(real, adversarial.blurred(reals.images, config, 0))
    torch.testing.assert_close(real_raw, adversarial.blurred(plain, config, 0))
    assert torch.equal(fake_raw, fakes.raw)


def test_density_is_compared_inside_the_box(opaque: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = LabelledSource(labelled(tmp_path / "data"))
    config = settings(density_points=400, density_distance=0.01, density_weight=0.5)
    reals, drawn = reals_and_draw(opaque, source, config)
    asked: list[torch.Tensor] = []

    def slope(self: Generator, planes: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(points)
        return points, 7.0 * points[..., :1]

    monkeypatch.setattr(Generator, "query", slope)
    loss = adversarial.density_loss(opaque, config, reals, drawn)
    # Raw density rises by 7 per unit of x, and the mean of |N(0, 0.01)| is 0.01 sqrt(2 / pi).
    assert float(loss) == pytest.approx(0.5 * 7 * 0.01 * np.sqrt(2 / np.pi), rel=0.1)
    first, second = asked[0].chunk(2, 1)
    half = opaque.profile.render.box_warp / 2
    assert first.abs().max() <= half
    assert first.abs().mean() == pytest.approx(half / 2, rel=0.1)
    assert (second - first).abs().max() < 0.06


def test_the_anchor_leads_to_the_true_picture(shards: Path, pack: HeadPack, profile: Profile) -> None:
    torch.manual_seed(0)
    generator, config = _fresh(profile), settings()
    source = HeadSource(HeadShards(shards, pack), profile.orbit)
    reals, drawn = reals_and_draw(generator, source, config)
    optimizer = torch.optim.Adam(generator.parameters(), lr=5e-3)
    errors = []
    for _ in range(25):
        fakes = adversarial.draw_fakes(generator, config, reals.latents, reals, drawn, 0)
        loss = adversarial._anchor(generator, config, fakes, reals, drawn)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float((fakes.image - reals.images).abs().mean()))
    assert errors[-1] < 0.8 * errors[0]


def test_all_terms_come_and_the_average_style_moves(shards: Path, pack: HeadPack, profile: Profile, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = _fresh(profile)
    source = HeadSource(HeadShards(shards, pack), profile.orbit)
    average = train_adversarially(generator, source, tmp_path, settings(steps=8), ignore)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 1 <= sum("anchor" in entry for entry in entries) <= 7
    assert all({"fooling", "fake", "real"} <= entry.keys() for entry in entries)
    assert all(torch.isfinite(value).all() for value in average.state_dict().values())
    assert not torch.equal(average.backbone.mapping.w_avg, generator.backbone.mapping.w_avg)


class Greenish(torch.nn.Module):
    """A discriminator of fixed taste: the closer to one green, the more real, in the finished picture or in the raw one."""

    def __init__(self, finished: bool):
        super().__init__()
        self.finished = finished

    def forward(self, image: torch.Tensor, raw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        green = torch.tensor([-0.8, 0.8, -0.8])[:, None, None]
        return 3 - 5 * ((image if self.finished else raw) - green).abs().mean((1, 2, 3))


@pytest.mark.parametrize("finished", [True, False])
def test_the_generator_learns_what_the_discriminator_likes(
    opaque: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    untyped(monkeypatch, "generator_losses")
    source, config = LabelledSource(labelled(tmp_path / "data")), settings(blur_sigma=0.0)
    reals, drawn = reals_and_draw(opaque, source, config)
    optimizer = torch.optim.Adam(opaque.parameters(), lr=3e-3)
    fooling = []
    for _ in range(40):
        loss = adversarial.generator_losses(opaque, Greenish(finished), config, reals, drawn, 0, anchored=False)["fooling"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        fooling.append(float(loss.detach()))
    assert fooling[0] > 0.5
    assert fooling[-1] < 0.6 * fooling[0]


def test_the_discriminator_learns_to_tell_real_from_fake(opaque: Generator, tmp_path: Path) -> None:
    source, config = LabelledSource(labelled(tmp_path / "data", (230, 40, 40))), settings(blur_sigma=0.0, batch=4)
    reals, drawn = reals_and_draw(opaque, source, config)
    fakes = adversarial.draw_fakes(opaque, config, drawn.latents, reals, drawn, 0)
    fakes = Fakes(*(getattr(fakes, name).detach() for name in ("image", "raw", "ws", "planes")))
    torch.manual_seed(0)
    discriminator = DualDiscriminator(DiscriminatorConfig(SIZE, 25, config.channel_base, config.channel_max))
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.0, 0.99))
    totals = []
    for _ in range(30):
        losses = adversarial.discriminator_losses(discriminator, config, reals, fakes, 0)
        optimizer.zero_grad()
        (losses["fake"] + losses["real"]).backward()
        optimizer.step()
        totals.append(float(losses["fake"].detach() + losses["real"].detach()))
    assert totals[0] > 1.0
    assert totals[-1] < 0.3


def test_shares_of_a_batch_are_parts_of_the_whole(shards: Path, pack: HeadPack, profile: Profile) -> None:
    """Several processes see together what one would see alone, neighbours across the cut included."""
    generator = _fresh(profile)
    source, config = HeadSource(HeadShards(shards, pack), profile.orbit), settings(batch=4)

    def part(mine: slice) -> tuple[Reals, Draw]:
        rng = np.random.default_rng(2)
        return source.draw(rng, 4, mine), Draw.of(rng, generator, config, 3, mine, torch.device("cpu"))

    (whole, drawn), (half, cut) = part(slice(0, 4)), part(slice(2, 4))
    for name in vars(whole):
        assert torch.equal(getattr(whole, name)[2:], getattr(half, name)), name
    for name in ("latents", "swapped", "points", "steps"):
        assert torch.equal(getattr(drawn, name)[2:], getattr(cut, name)), name
    np.testing.assert_array_equal(drawn.windows.top[2:], cut.windows.top)
    assert cut.jitter != drawn.jitter
    assert torch.equal(whole.neighbours, whole.labels.roll(1, 0))
    # Where nothing covers it, the picture shows its background.
    nothing = whole.straight[:, 3:] == -1
    assert nothing.any()
    assert ((whole.images - whole.background).abs() * nothing).max() < 1e-5


def test_schedules_begin_and_end_where_they_should(opaque: Generator) -> None:
    config = settings(steps=1000, start_resolution=8, resolution_fade=0.1, blur_fade=0.1, blur_sigma=4.0)
    sizes = [adversarial.raw_resolution(opaque, config, step) for step in (0, 50, 99, 100, 999)]
    assert sizes == [8, 12, 12, 16, 16]
    images = torch.zeros(1, 3, 33, 33)
    images[..., 16, 16] = 1.0
    spread = [(adversarial.blurred(images, config, step) > 1e-4).sum().item() for step in (0, 50, 100)]
    assert spread[0] > spread[1] > spread[2] == 3
    # The kernel halves at sigma, and its sum is one.
    blurred = adversarial.blurred(images, config, 0)[0, 0]
    assert float(blurred[16, 20] / blurred[16, 16]) == pytest.approx(0.5, rel=1e-4)
    assert float(blurred.sum()) == pytest.approx(1, rel=1e-4)
    # From trained weights nothing is eased in.
    later = config.continued()
    assert torch.equal(adversarial.blurred(images, later, 0), images)
    assert adversarial.raw_resolution(opaque, later, 0) == 16


def test_cameras_are_swapped_less_and_less(opaque: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(steps=1000, swap_fade=0.1, swap_end=0.5, batch=400)

    def share(config: AdversarialConfig, step: int) -> float:
        drawn = Draw.of(np.random.default_rng(0), opaque, config, step, slice(0, 400), torch.device("cpu"))
        return float(drawn.swapped.float().mean())

    np.testing.assert_allclose([share(config, step) for step in (0, 50, 100, 900)], [1.0, 0.75, 0.5, 0.5], atol=0.08)
    assert share(config.continued(), 0) == pytest.approx(0.5, abs=0.08)


def test_the_mapping_is_told_the_neighbours_camera_where_swapped(
    opaque: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, config = LabelledSource(labelled(tmp_path / "data")), settings(swap_end=0.5, swap_fade=0.0, batch=6)
    reals, drawn = reals_and_draw(opaque, source, config)
    told: list[torch.Tensor] = []
    original = Generator.map

    def note(self: Generator, z: torch.Tensor, c: torch.Tensor | None = None, **options: object) -> torch.Tensor:
        told.append(c)
        return original(self, z, c, **options)

    monkeypatch.setattr(Generator, "map", note)
    adversarial.draw_fakes(opaque, config, drawn.latents, reals, drawn, 0)
    assert drawn.swapped.any()
    assert not drawn.swapped.all()
    assert torch.equal(told[0], torch.where(drawn.swapped, reals.neighbours, reals.labels))


def test_lazy_adam_allows_for_the_regularisers_own_step() -> None:
    optimizer = adversarial._lazy_adam(torch.nn.Linear(2, 2), 0.002, 16)
    group = optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.002 * 16 / 17)
    assert group["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))


def test_a_prior_without_alpha_keeps_its_own_background(opaque: Generator, tmp_path: Path) -> None:
    config = settings()
    reals, drawn = reals_and_draw(opaque, LabelledSource(labelled(tmp_path / "data")), config)
    assert reals.background is None
    fakes = adversarial.draw_fakes(opaque, config, drawn.latents, reals, drawn, 0)
    assert fakes.image.shape == (2, 3, SIZE, SIZE)
    assert fakes.raw.shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("changes", "workers", "message"),
    [
        ({"blur_fade": 2.0}, Workers(), "at most 1"),
        ({"steps": 0}, Workers(), "train nothing"),
        ({"batch": 1}, Workers(), "one picture each"),
        ({"batch": 4}, Workers(0, 4), "one picture each"),
        ({"batch": 4}, Workers(0, 3), "cannot be shared evenly"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    opaque: Generator, tmp_path: Path, changes: dict[str, Any], workers: Workers, message: str
) -> None:
    source = LabelledSource(labelled(tmp_path / "data"))
    with pytest.raises(ConfigError, match=message):
        train_adversarially(opaque, source, tmp_path / "run", settings(**changes), ignore, workers)
    assert not (tmp_path / "run").exists()


def test_other_pictures_do_not_continue_a_run(opaque: Generator, tmp_path: Path) -> None:
    source = LabelledSource(labelled(tmp_path / "data"))
    train_adversarially(opaque, source, tmp_path / "run", settings(steps=2), ignore, data="cats")
    train_adversarially(opaque, source, tmp_path / "run", settings(steps=2, save_every=9), ignore, data="cats")
    with pytest.raises(CheckpointError, match="another data"):
        train_adversarially(opaque, source, tmp_path / "run", settings(steps=2), ignore, data="dogs")

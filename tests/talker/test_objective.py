"""The training's terms: each against its definition, switched by its weight, zero for a perfect drawing."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from talk3d.capture.frames import Views
from talk3d.errors import ConfigError
from talk3d.judges.headnet import load_headnet
from talk3d.losses import fooling, l1, structure
from talk3d.prior.generator import Generator, composite
from talk3d.prior.patch import Patch, Windows
from talk3d.prior.superres import BORDER
from talk3d.talker import objective
from talk3d.talker.objective import IDENTITY_EVERY, R1_EVERY, LossWeights, Objective, Step
from talk3d.talker.reader import REACH, LipReader, LipSpace, SyncJudge, cut_mouths

SILENT = LossWeights(**{field.name: 0.0 for field in dataclasses.fields(LossWeights)})
B, SIZE, RAW = 4, 256, 64


@pytest.fixture(scope="module")
def generator(tiny_prior: Any) -> Generator:
    """The tiny prior, rendering as finely as the shipped one."""
    superres = dataclasses.replace(tiny_prior.profile.superres, input_resolution=RAW)
    profile = dataclasses.replace(tiny_prior.profile, neural_resolution=RAW, superres=superres)
    tall = Generator(profile).eval().requires_grad_(False)
    tall.load_state_dict(tiny_prior.generator.state_dict(), strict=False)
    return tall


def smooth(count: int, channels: int, seed: int) -> torch.Tensor:
    noise = torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(noise, (SIZE, SIZE), mode="bicubic").clamp(-1, 1)


def make_step(generator: Generator, drawn: torch.Tensor | None = None, **changes: Any) -> Step:
    """Windows around a mouth in the middle; `drawn` whole final pictures, the filmed ones by default."""
    target = torch.cat([smooth(B, 3, 1), torch.ones(B, 1, SIZE, SIZE)], 1)
    pictures = target if drawn is None else drawn
    centres = np.full((B, 2), 0.5)
    windows = Windows.around(centres, RAW, np.random.default_rng(0))
    patch = Patch(windows.cut(F.avg_pool2d(pictures, 4)), torch.ones(B, 1, 32, 32), windows.cut(pictures, BORDER))
    planes = generator.planes(generator.map(torch.zeros(1, generator.profile.z_dim))).expand(B, -1, -1, -1, -1)
    outline = torch.zeros(B, 1, SIZE, SIZE)
    outline[:, :, 120:136, 110:146] = 1
    step = Step(
        number=0, index=torch.tensor([6, 7, 20, 21]), patch=patch, windows=windows,
        views=Views(target, smooth(B, 3, 2), torch.ones(B, 1, SIZE, SIZE)),
        planes=planes, delta=torch.zeros_like(planes), cam2world=generator.profile.orbit.pose(torch.zeros(B), torch.zeros(B)),
        pose=torch.zeros(B, 2),
        residual=torch.zeros(B, 2), outline=outline, mouths=torch.full((B, 2), 0.5), tokens=torch.zeros(B, 5, 8),
        heard=torch.zeros(B, 2), shapes=torch.zeros(B, 2), own_sound=torch.ones(B, dtype=torch.bool),
    )  # fmt: skip
    return dataclasses.replace(step, **changes)


def only(**weights: float) -> LossWeights:
    return dataclasses.replace(SILENT, **weights)


def judged(generator: Generator, weights: LossWeights, step: Step, **judges: Any) -> dict[str, float]:
    objective = Objective(weights, generator, **judges)
    return {name: float(value.detach()) for name, value in objective(step, np.random.default_rng(0)).items()}


def test_a_perfect_drawing_costs_nothing(generator: Generator) -> None:
    """And what is worse costs more, by every term that looks at pictures."""
    weights = only(
        picture=1.0, structure=1.0, perceptual=1.0, mouth=1.0, mouth_perceptual=1.0, temporal=1.0, smoothness=1.0, delta=1.0,
        cameras=1.0, lips=1.0,
    )  # fmt: skip
    losses = judged(generator, weights, make_step(generator))
    assert {"raw", "final", "perceptual", "mouth", "mouth_perceptual", "temporal", "smoothness", "delta", "cameras"} <= set(
        losses
    )
    assert max(losses.values()) < 1e-5
    worse = judged(generator, weights, make_step(generator, torch.cat([smooth(B, 3, 9), torch.ones(B, 1, SIZE, SIZE)], 1)))
    assert min(worse[name] for name in ("raw", "final", "perceptual", "mouth", "mouth_perceptual", "temporal")) > 0.01


def test_a_term_without_weight_is_not_there(generator: Generator) -> None:
    losses = judged(generator, SILENT, make_step(generator))
    assert set(losses) <= {"raw", "raw_structure", "final", "final_structure", "mouth", "delta", "lips", "cameras"}
    assert all(value == 0 for value in losses.values())


def test_structure_does_not_need_the_pictures_weight(generator: Generator) -> None:
    worse = make_step(generator, torch.cat([smooth(B, 3, 9), torch.ones(B, 1, SIZE, SIZE)], 1))
    losses = judged(generator, only(structure=1.0), worse)
    assert losses["raw"] == losses["final"] == 0
    assert min(losses["raw_structure"], losses["final_structure"]) > 0.01


def test_terms_are_their_definitions_times_their_weights(generator: Generator) -> None:
    other = torch.cat([smooth(B, 3, 5), torch.ones(B, 1, SIZE, SIZE)], 1)
    step = make_step(generator, other, residual=torch.tensor([[0.01, 0.02]] * B), heard=torch.full((B, 2), 0.5))
    assert step.patch.final is not None
    cut = step.windows.cut(step.views.target, BORDER)
    losses = judged(generator, only(picture=2.0, structure=0.5, mouth=3.0, perceptual=4.0, cameras=5.0, lips=6.0), step)
    drawn, filmed = step.patch.final[:, :3], cut[:, :3]
    assert losses["final"] == pytest.approx(2 * float(l1(step.patch.final, cut).mean()), rel=1e-4)
    assert losses["final_structure"] == pytest.approx(0.5 * float(structure(drawn, filmed).mean()), rel=1e-3)
    lips = step.windows.cut(step.outline, BORDER)
    squares = (lips * (drawn - filmed).square()).sum((1, 2, 3)) / (3 * lips.sum((1, 2, 3)))
    assert losses["mouth"] == pytest.approx(3 * float(squares.mean()), rel=1e-4)
    seen = load_headnet().distance(F.avg_pool2d(drawn, 2), F.avg_pool2d(filmed, 2)).mean()
    assert losses["perceptual"] == pytest.approx(4 * float(seen), rel=1e-3)
    assert losses["cameras"] == pytest.approx(5 * (np.degrees(0.01) ** 2 + np.degrees(0.02) ** 2) / 2, rel=1e-4)
    assert losses["lips"] == pytest.approx(6 * 0.25)


def test_what_nobody_knows_costs_nothing(generator: Generator) -> None:
    """Beyond the filmed frame a drawing may be anything."""
    step = make_step(generator, torch.cat([smooth(B, 3, 5), torch.ones(B, 1, SIZE, SIZE)], 1))
    nowhere = dataclasses.replace(step.views, known=torch.zeros(B, 1, SIZE, SIZE))
    losses = judged(generator, only(picture=1.0, perceptual=1.0, temporal=1.0), dataclasses.replace(step, views=nowhere))
    assert max(losses.values()) < 1e-5


def test_mouths_are_read_where_they_are(generator: Generator) -> None:
    """The reader gets the square around each mouth; mouths at the edge of a window are left out."""
    reader = LipReader(2).eval().requires_grad_(False)
    step = make_step(generator)
    places = step.mouths.clone()
    places[2] = 0.9
    whole = torch.tensor([True, True, False, True])
    expected = reader(cut_mouths(F.avg_pool2d(step.views.target[:, :3], 2), step.mouths, REACH)[0])[whole]
    step = dataclasses.replace(step, mouths=places, shapes=torch.full((B, 2), 0.3))
    losses = judged(generator, only(mouth_shape=2.0), step, reader=reader)
    assert losses["mouth_shape"] == pytest.approx(2 * float((expected - 0.3).square().mean()), rel=1e-3)
    nowhere = dataclasses.replace(step, mouths=torch.full((B, 2), 0.9))
    assert judged(generator, only(mouth_shape=2.0), nowhere, reader=reader)["mouth_shape"] == 0


def test_sync_is_one_minus_the_cosine_of_the_experts_vectors(generator: Generator) -> None:
    rng = np.random.default_rng(1)
    lips, sound = rng.standard_normal((40, 80)) * 0.1, (rng.standard_normal(40 * 640) * 0.1).astype(np.float32)
    space, expert, reader = LipSpace.of(lips, 2), SyncJudge(lips, sound), LipReader(2).eval().requires_grad_(False)
    step = make_step(generator)
    final = step.patch.final
    assert final is not None
    final.requires_grad_()
    losses = Objective(only(sync=3.0), generator, space, reader, expert)(step, np.random.default_rng(0))
    read = reader(cut_mouths(F.avg_pool2d(step.views.target[:, :3], 2), step.mouths, REACH)[0])
    seen, heard = expert(step.index, space.lips(read))
    assert float(losses["sync"].detach()) == pytest.approx(3 * float((1 - (seen * heard).sum(1)).mean().detach()), rel=1e-3)
    losses["sync"].backward()
    assert final.grad is not None
    assert final.grad.abs().max() > 0, "the picture learns from the sound"


def test_identity_looks_at_whole_faces_now_and_then(generator: Generator) -> None:
    step = make_step(generator)
    losses = judged(generator, only(identity=0.5), step)
    seen = generator.render(step.planes[:1], step.cam2world[:1], generator.profile.orbit.intrinsics()[None], deterministic=True)
    behind = F.avg_pool2d(step.views.background[:1], 4)
    drawn = composite(torch.cat([seen.rgb, 2 * seen.alpha - 1], 1), behind)
    headnet = load_headnet()
    one, other = headnet(drawn).embedding, headnet(F.avg_pool2d(step.views.target[:1, :3], 4)).embedding
    assert losses["identity"] == pytest.approx(IDENTITY_EVERY * 0.5 * float(1 - (one * other).sum()), rel=1e-3)
    assert losses["identity"] > 0.1
    assert "identity" not in judged(generator, only(identity=0.5), dataclasses.replace(step, number=1))

    # Whoever hears another moment's sound has the wrong mouth: the next one is looked at, or nobody.
    second_only = dataclasses.replace(step, own_sound=torch.tensor([False, True, True, False]))
    looked = judged(generator, only(identity=0.5), second_only)["identity"]
    assert looked != pytest.approx(float(losses["identity"]), rel=1e-3)
    strangers = dataclasses.replace(step, own_sound=torch.zeros(B, dtype=torch.bool))
    assert judged(generator, only(identity=0.5), strangers)["identity"] == 0


def test_smoothness_forgives_what_was_asked_for(generator: Generator) -> None:
    step = make_step(generator)
    delta = torch.zeros_like(step.delta)
    delta[1] = 0.4
    still = dataclasses.replace(step, delta=delta)
    assert judged(generator, only(smoothness=1.0), still)["smoothness"] == pytest.approx(0.2)  # 0.4 in one pair of two
    tokens = step.tokens.clone()
    tokens[1, 0] = 3.0
    asked = dataclasses.replace(still, tokens=tokens)
    assert judged(generator, only(smoothness=1.0), asked)["smoothness"] == pytest.approx(0.2 * np.exp(-3), rel=1e-4)


def test_the_discriminator_and_the_generator_play(generator: Generator) -> None:
    """Their terms are the logistic game on the middle of the windows; drawn ones teach the discriminator, not the reverse."""
    drawn = torch.cat([smooth(B, 3, 5), torch.ones(B, 1, SIZE, SIZE)], 1).requires_grad_()
    step = make_step(generator, drawn)
    objective = Objective(only(adversarial=0.1), generator, seed=3)
    assert objective.discriminator is not None
    assert objective.discriminator.config.resolution == 64
    terms = objective.discriminator_losses(step)
    assert set(terms) == {"fake", "real", "r1"}
    torch.stack(list(terms.values())).sum().backward()
    assert drawn.grad is None
    assert all(parameter.grad is not None for parameter in objective.discriminator.parameters())
    assert "r1" not in objective.discriminator_losses(dataclasses.replace(step, number=R1_EVERY + 1))
    assert step.patch.final is not None
    middle = step.patch.final[:, :3, 20:84, 20:84]
    raw = step.patch.raw[:, :3, BORDER:-BORDER, BORDER:-BORDER][..., 5:21, 5:21]
    expected = 0.1 * fooling(objective.discriminator(middle, raw)).mean()
    found = objective(step, np.random.default_rng(0))["adversarial"]
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    found.backward()
    assert drawn.grad is not None
    assert drawn.grad.abs().max() > 0
    same = Objective(only(adversarial=0.1), generator, seed=3).discriminator
    assert same is not None
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), objective.discriminator.parameters(), strict=True))


def test_a_surface_has_one_colour_from_everywhere(generator: Generator) -> None:
    """The second camera is sent along rays to the first one's surface points; what it does not see says nothing."""

    def loss(painted: float = 0.0, behind: float = 0.0) -> float:
        """With colours changed by so much, or depths by so many scene units."""
        step, orbit = make_step(generator), generator.profile.orbit
        seen = generator.render(step.planes[:1], step.cam2world[:1], orbit.intrinsics()[None], deterministic=True)
        raw = torch.cat([seen.rgb + painted, 2 * seen.alpha - 1], 1).expand(B, -1, -1, -1)
        depth = step.windows.cut(seen.depth.expand(B, -1, -1, -1)) + behind
        patch = Patch(step.windows.cut(raw), depth, step.patch.final)
        return judged(generator, only(reprojection=1.0), dataclasses.replace(step, patch=patch))["reprojection"]

    assert 0 < loss() < 0.05, "a surface of the same colour, but for what is thin at its edges"
    assert loss(painted=0.5) == pytest.approx(0.5, abs=0.1)
    assert loss(painted=0.5, behind=0.3) == 0


@pytest.mark.parametrize("yaw", [0.0, 0.6])
def test_the_second_camera_turns_away_from_the_first(generator: Generator, yaw: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever that stands: without a turn it is the same camera, and sees the very same picture."""
    monkeypatch.setattr(objective, "OTHER_YAW", 0.0)
    monkeypatch.setattr(objective, "OTHER_PITCH", 0.0)
    step, orbit = make_step(generator), generator.profile.orbit
    pose = torch.tensor([[yaw, 0.1]]).expand(B, 2)
    step = dataclasses.replace(step, pose=pose, cam2world=orbit.pose(*pose.unbind(1)))
    seen = generator.render(step.planes[:1], step.cam2world[:1], orbit.intrinsics()[None], deterministic=True)
    raw = torch.cat([seen.rgb, 2 * seen.alpha - 1], 1).expand(B, -1, -1, -1)
    patch = Patch(step.windows.cut(raw), step.windows.cut(seen.depth.expand(B, -1, -1, -1)), step.patch.final)
    assert judged(generator, only(reprojection=1.0), dataclasses.replace(step, patch=patch))["reprojection"] < 1e-4


def test_weights_from_the_command_line() -> None:
    assert LossWeights.parse([]) == LossWeights()
    assert LossWeights.parse(["sync=0.05", "mouth=0"]) == LossWeights(sync=0.05, mouth=0.0)


@pytest.mark.parametrize("text", ["lip=1", "sync", "sync=", "sync=-1", "sync=nan", "sync=inf", "sync=much"])
def test_odd_weights_are_refused_with_all_names(text: str) -> None:
    with pytest.raises(ConfigError, match=r"NAME=WEIGHT.*adversarial"):
        LossWeights.parse([text])


def test_every_weight_weighs_its_own_term_and_no_other(generator: Generator) -> None:
    """A weight that nothing reads would be a promise that is not kept."""
    rng = np.random.default_rng(1)
    lips, sound = rng.standard_normal((40, 80)) * 0.1, (rng.standard_normal(40 * 640) * 0.1).astype(np.float32)
    judges = {"space": LipSpace.of(lips, 2), "reader": LipReader(2), "expert": SyncJudge(lips, sound)}
    step = make_step(
        generator, torch.cat([smooth(B, 3, 9), torch.ones(B, 1, SIZE, SIZE)], 1), delta=torch.rand(B, 3, 4, 32, 32),
        residual=torch.full((B, 2), 0.01), heard=torch.ones(B, 2),
    )  # fmt: skip
    one = LossWeights(**dict.fromkeys(LossWeights.__dataclass_fields__, 1.0))
    torch.manual_seed(0)
    usual = judged(generator, one, step, **judges)
    named = {"picture": {"raw", "final"}, "structure": {"raw_structure", "final_structure"}}
    for name in LossWeights.__dataclass_fields__:
        found = judged(generator, dataclasses.replace(one, **{name: 3.0}), step, **judges)
        for term in named.get(name, {name}):
            assert found.pop(term) == pytest.approx(3 * usual[term], rel=1e-3), name
            # No surface is seen twice here; `test_a_surface_has_one_colour_from_everywhere` looks at one.
            assert usual[term] != 0 or term == "reprojection", name
        assert found == pytest.approx({term: usual[term] for term in found}, rel=1e-3), name

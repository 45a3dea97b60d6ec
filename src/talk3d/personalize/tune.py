"""Pivotal tuning: the person's w stays, the generator moves until it draws the person (method 5.2).

A ball around the person keeps the rest of the prior where it was: latents near the person are drawn by the tuned and the
original generator from all sides, and must look the same. That is what protects views which no frame shows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..capture.frames import Views
from ..losses import l1
from ..prior.generator import Generator
from ..prior.patch import Windows, picture_losses, render_patch
from .invert import Inversion, w_statistics
from .preview import Preview

BALL_YAW = 1.0
BALL_PITCH = 0.35
"""The cameras of the ball lie within these angles, radians."""


@dataclass(frozen=True)
class TuneConfig:
    """Settings of the tuning."""

    steps: int = 150
    learning_rate: float = 6e-3
    windows: int = 4
    """Windows drawn in one step, each of another frame while there are enough; memory depends on this alone."""
    ball_radius: float = 1.0
    """Distance of the ball's latents from the person, in units of the prior's spread of w per component."""
    ball_weight: float = 0.5
    ball_every: int = 2
    """Steps from one comparison inside the ball to the next; it weighs that much more then."""
    structure_weight: float = 0.4
    seed: int = 0


def tune(
    generator: Generator,
    views: Views,
    inversion: Inversion,
    config: TuneConfig,
    progress: Callable[[int, int], None],
    preview: Preview | None = None,
) -> Generator:
    """A copy of the generator, tuned to the person; mapping and super-resolution stay as they are."""
    profile = generator.profile
    original = generator.eval().requires_grad_(False)
    tuned = copy.deepcopy(generator).requires_grad_(False)
    average, spread = w_statistics(generator, config.seed)
    parameters = [*tuned.backbone.synthesis.parameters(), *tuned.decoder.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
    ws_all = inversion.ws(profile.num_ws)
    for step in range(config.steps):
        rng = np.random.default_rng([config.seed, 2, step])
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (1 - step / config.steps) / 0.5)
        chosen = np.resize(rng.permutation(len(views)), config.windows)
        batch, index = views[chosen], torch.from_numpy(chosen)
        windows = Windows.random(len(chosen), profile.neural_resolution, rng)
        cameras = profile.orbit.pose(inversion.yaw[index], inversion.pitch[index])
        frames, which = index.unique(return_inverse=True)  # windows of one frame share its planes
        planes = tuned.planes(ws_all[frames])[which]
        patch = render_patch(tuned, planes, ws_all[index], cameras, windows, rng)
        terms = picture_losses(patch, batch.target, batch.background, windows, config.structure_weight, batch.known)
        loss = torch.stack([value.mean() for value in terms.values()]).sum()
        if step % config.ball_every == 0:
            ball = _ball(original, tuned, average, spread, inversion, config, rng)
            loss = loss + config.ball_every * config.ball_weight * ball
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if preview is not None and (preview.due() or step + 1 == config.steps):
            preview.write(tuned, ws_all, inversion.yaw, inversion.pitch, f"tuning, step {step + 1}")
        progress(step + 1, config.steps)
    return tuned.requires_grad_(False)


def _ball(
    original: Generator,
    tuned: Generator,
    average: torch.Tensor,
    spread: float,
    inversion: Inversion,
    config: TuneConfig,
    rng: np.random.Generator,
) -> torch.Tensor:
    profile = original.profile
    z = original.random_latents(1, int(rng.integers(2**62)))
    direction = original.map(z, original.frontal_label(1))[:, 0] - average
    radius = config.ball_radius * spread * len(average) ** 0.5
    w = inversion.w + radius * direction / direction.norm()
    ws = w[:, None].expand(-1, profile.num_ws, -1)
    yaw = torch.tensor([rng.uniform(-BALL_YAW, BALL_YAW)]).float()
    pitch = torch.tensor([rng.uniform(-BALL_PITCH, BALL_PITCH)]).float()
    cameras = profile.orbit.pose(yaw, pitch)
    windows = Windows.random(1, profile.neural_resolution, rng)
    seed = int(rng.integers(2**32))
    with torch.no_grad():
        before = render_patch(original, original.planes(ws), ws, cameras, windows, np.random.default_rng(seed), superres=False)
    after = render_patch(tuned, tuned.planes(ws), ws, cameras, windows, np.random.default_rng(seed), superres=False)
    covered = (before.raw[:, 3:] + 1) / 2
    return l1(after.raw, before.raw).mean() + l1(after.depth, before.depth, covered).mean()

"""Joint inversion: one w for the person, a small offset and camera correction for each chosen frame (method 5.1).

Letters: N frames, S side of the frames, L style vectors, W their width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..capture.frames import Views
from ..prior.generator import Generator
from ..prior.patch import Windows, picture_losses, render_patch
from .preview import Preview

MAPPING_SAMPLES = 2000


@dataclass(frozen=True)
class Inversion:
    """Where the person lies in the prior."""

    w: Float[Tensor, " w"]
    """The person."""
    offsets: Float[Tensor, "frames w"]
    """What each frame adds to it (expression, mostly)."""
    yaw: Float[Tensor, " frames"]
    """Corrected, radians."""
    pitch: Float[Tensor, " frames"]
    """Corrected, radians."""

    def ws(self, layers: int) -> Float[Tensor, "frames layers w"]:
        return (self.w + self.offsets)[:, None].expand(-1, layers, -1)


@dataclass(frozen=True)
class InvertConfig:
    """Settings of the inversion."""

    steps: int = 60
    learning_rate: float = 0.05
    """In units of the prior's own spread of w."""
    camera_learning_rate: float = 1e-3
    """Radians per step."""
    offset_weight: float = 0.05
    prior_weight: float = 2e-3
    """Pull towards the average w, in squared spreads."""
    structure_weight: float = 0.4
    seed: int = 0


def invert(
    generator: Generator,
    views: Views,
    yaw: Float[Tensor, " frames"],
    pitch: Float[Tensor, " frames"],
    config: InvertConfig,
    progress: Callable[[int, int], None],
    preview: Preview | None = None,
) -> Inversion:
    """Find the person in the prior's w space from a few frames at once, starting from their tracked poses (radians).

    Every step draws one random window of each frame. The learning rate rises over the first twentieth and falls over the
    last quarter of the steps; noise on w shrinks to nothing at three quarters, so that the search cannot settle in the
    first dent (method 5.1).
    """
    profile = generator.profile
    average, spread = w_statistics(generator, config.seed)
    frames = len(views)
    w = average.clone().requires_grad_()
    offsets = torch.zeros(frames, len(average)).requires_grad_()
    angles = torch.zeros(2, frames).requires_grad_()
    optimizer = torch.optim.Adam(
        [
            {"params": [w, offsets], "lr": config.learning_rate * spread},
            {"params": [angles], "lr": config.camera_learning_rate},
        ]
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    generator.requires_grad_(False)
    for step in range(config.steps):
        rng = np.random.default_rng([config.seed, 1, step])
        t = step / config.steps
        ramp = (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25))) * min(1.0, (t + 1 / config.steps) / 0.05)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * ramp
        noise = torch.from_numpy(rng.standard_normal(len(average))).float()
        noise = noise * (spread * 0.05 * max(0.0, 1 - t / 0.75) ** 2)
        # In the first half all frames share the person's planes, which is three times cheaper; then expression gets its own.
        latent = w + noise + offsets if t >= 0.5 else (w + noise)[None]
        planes = generator.planes(latent[:, None].expand(-1, profile.num_ws, -1)).expand(frames, -1, -1, -1, -1)
        ws = latent[:, None].expand(frames, profile.num_ws, -1)
        windows = Windows.random(frames, profile.neural_resolution, rng)
        cameras = profile.orbit.pose(yaw + angles[0], pitch + angles[1])
        # Enlarging costs as much as rendering and matters for detail only: it joins in for the last third.
        patch = render_patch(generator, planes, ws, cameras, windows, rng, superres=t >= 2 / 3)
        terms = picture_losses(patch, views.target, views.background, windows, config.structure_weight, views.known)
        loss = torch.stack([value.mean() for value in terms.values()]).sum()
        loss = loss + config.offset_weight * (offsets / spread).square().mean()
        loss = loss + config.prior_weight * ((w - average) / spread).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if preview is not None and preview.due():
            ws = (w + offsets)[:, None].expand(-1, profile.num_ws, -1)
            preview.write(generator, ws, yaw + angles[0], pitch + angles[1], f"inverting, step {step + 1}")
        progress(step + 1, config.steps)
    found = angles.detach()
    return Inversion(w.detach(), offsets.detach(), yaw + found[0], pitch + found[1])


@torch.no_grad()
def w_statistics(generator: Generator, seed: int) -> tuple[Float[Tensor, " w"], float]:
    """The average w over random latents, and the root mean square deviation of one component from it."""
    z = generator.random_latents(MAPPING_SAMPLES, seed)
    w = generator.map(z, generator.frontal_label(MAPPING_SAMPLES))[:, 0]
    average = w.mean(0)
    return average, float((w - average).square().mean().sqrt())

"""Camera refinement: each frame's yaw and pitch are corrected by what the personalised generator draws (method 5.3).

Landmarks give a pose within about a degree; comparing pictures removes what is left of it. All frames of a batch are
refined in parallel, and a frame may move only a little from its neighbours' corrections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..capture.frames import Views
from ..prior.fast import march
from ..prior.generator import Generator
from ..render.rays import rays_through

BATCH = 32
"""Frames refined together."""


@dataclass(frozen=True)
class CameraConfig:
    """Settings of the camera refinement."""

    steps: int = 6
    rays: int = 192
    """Rays per frame and step, drawn where the person is."""
    learning_rate: float = 2e-3
    """Radians per step."""
    anchor_weight: float = 20.0
    """Pull towards the tracked pose, per squared radian."""
    smoothing: float = 2.0
    """Standard deviation, in frames, of the filter over the corrections of consecutive frames."""
    seed: int = 0


def refine_cameras(
    generator: Generator,
    planes: Float[Tensor, "1 3 channels height width"],
    load: Callable[[np.ndarray], Views],
    yaw: Float[Tensor, " frames"],
    pitch: Float[Tensor, " frames"],
    config: CameraConfig,
    progress: Callable[[int, int], None],
) -> Float[Tensor, "2 frames"]:
    """Corrections of yaw and pitch (radians) for consecutive frames.

    Args:
        generator: the tuned generator.
        planes: the person's identity planes; no gradient reaches them.
        load: gives the frames of some indices, so that memory holds one batch.
        yaw: the tracked pose of each frame, radians.
        pitch: likewise.
        config: settings.
        progress: called with (frames done, frames in all).
    """
    count = len(yaw)
    corrections = torch.zeros(2, count)
    for first in range(0, count, BATCH):
        index = np.arange(first, min(first + BATCH, count))
        corrections[:, index] = _refine(generator, planes, load(index), yaw[index], pitch[index], config)
        progress(int(index[-1]) + 1, count)
    return _smooth(corrections, config.smoothing)


def _refine(generator: Generator, planes: Tensor, views: Views, yaw: Tensor, pitch: Tensor, config: CameraConfig) -> Tensor:
    profile = generator.profile
    count, size = len(views), profile.neural_resolution
    small = F.avg_pool2d(views.target, views.target.shape[-1] // size)  # [N, 4, R, R]
    intrinsics = profile.orbit.intrinsics().expand(count, 3, 3)
    angles = torch.zeros(2, count, requires_grad=True)
    optimizer = torch.optim.Adam([angles], lr=config.learning_rate, betas=(0.8, 0.95))
    # The lower third of the face moves with speech; the cameras must not follow it.
    rigid = torch.ones(size, size)
    rigid[int(0.58 * size) : int(0.78 * size), int(0.35 * size) : int(0.65 * size)] = 0.05
    known = F.avg_pool2d(views.known, views.known.shape[-1] // size)[:, 0] > 0.99
    weights = (small[:, 3] + 1).clamp(min=0.02) * rigid * known
    jitter = torch.Generator().manual_seed(config.seed)
    for _ in range(config.steps):
        pixels = torch.multinomial(weights.flatten(1), config.rays, generator=jitter)  # [N, rays]
        uv = torch.stack([pixels % size + 0.5, pixels // size + 0.5], -1) / size
        cameras = profile.orbit.pose(yaw + angles[0], pitch + angles[1])
        shared = planes.expand(count, -1, -1, -1, -1)
        seen = march(generator, shared, rays_through(cameras, intrinsics, uv))
        drawn = torch.cat([seen.features[..., :3], 2 * seen.alpha - 1], -1)
        wanted = small.flatten(2).mT.gather(1, pixels[..., None].expand(-1, -1, 4))
        loss = (drawn - wanted).abs().mean((1, 2)) + config.anchor_weight * angles.square().sum(0)
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimizer.step()
    return angles.detach()


def _smooth(values: Float[Tensor, "2 frames"], sigma: float) -> Float[Tensor, "2 frames"]:
    """Gaussian filter along the frames, ends repeated."""
    reach = int(3 * sigma)
    if values.shape[1] < 2 or reach == 0:
        return values
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    padded = F.pad(values[:, None], (reach, reach), mode="replicate")
    return F.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0]

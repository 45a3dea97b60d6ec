"""Canonical landmarks: where a prior's average face has the 468 points that the tracker finds in videos.

They are measured by looking: draw the average face from several sides, track it with the tracker that users' videos go
through, and lift each point with the drawn depth. So they fit the tracker's habits and exist for any prior.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..capture.track import FaceTracker
from ..errors import NoFaceError
from ..prior.generator import Generator, composite

YAWS = tuple(math.radians(angle) for angle in (-24, -16, -8, 0, 8, 16, 24))
PITCHES = tuple(math.radians(angle) for angle in (-8, 0, 8))
FEWEST_VIEWS = 5


@dataclass(frozen=True)
class DepthView:
    """A picture with its depth and camera."""

    rgb: NDArray[np.uint8]
    """[S, S, 3]."""
    depth: NDArray[np.float32]
    """[R, R] distance along the ray, scene units; inf or NaN where there is nothing."""
    cam2world: NDArray[np.float32]
    """[4, 4]."""
    intrinsics: NDArray[np.float32]
    """[3, 3], divided by the image size."""


def measure_canonical(generator: Generator) -> NDArray[np.float32]:
    """[468, 3] scene units: the landmarks of the prior's average face.

    Raises:
        NoFaceError: the tracker does not recognise the average face as one.
    """
    return lift_landmarks(_average_face(generator))


def lift_landmarks(views: Iterable[DepthView]) -> NDArray[np.float32]:
    """Track each view, lift its landmarks to the surface, and take the median over the views: [468, 3] scene units.

    Raises:
        NoFaceError: a face was found in fewer than five views.
    """
    lifted: list[NDArray] = []
    for view in views:
        # A tracker of its own per view: views are no video, and nothing may carry over.
        face = FaceTracker()(view.rgb)
        if face is None:
            continue
        uv = face.landmarks / view.rgb.shape[0]  # [468, 2] in 0..1
        distance = _sample(view.depth, uv)
        camera = np.concatenate(
            [(uv - view.intrinsics[:2, 2]) / view.intrinsics[[0, 1], [0, 1]], np.ones((len(uv), 1))], axis=1
        )
        directions = camera / np.linalg.norm(camera, axis=1, keepdims=True) @ view.cam2world[:3, :3].T
        lifted.append(view.cam2world[:3, 3] + distance[:, None] * directions)
    if len(lifted) < FEWEST_VIEWS:
        raise NoFaceError(
            f"The tracker found a face in only {len(lifted)} views of the prior's average face, {FEWEST_VIEWS} are needed. "
            "The prior is probably not trained enough to look like a face; train it longer."
        )
    return np.nanmedian(np.stack(lifted), axis=0).astype(np.float32)


@torch.no_grad()
def _average_face(generator: Generator) -> Iterable[DepthView]:
    profile = generator.profile
    ws = generator.map(torch.zeros(1, profile.z_dim), _frontal_label(generator), truncation=0.0)
    planes = generator.planes(ws)
    intrinsics = profile.orbit.intrinsics()
    for pitch in PITCHES:
        for yaw in YAWS:
            pose = profile.orbit.pose(torch.tensor([yaw]), torch.tensor([pitch]))
            raw = generator.render(planes, pose, intrinsics[None], deterministic=True)
            image = generator.superresolve(raw.features, raw.rgb, raw.alpha, ws)
            if profile.alpha:
                image = composite(image, torch.zeros(1, 3, *image.shape[2:]))
            rgb = ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            depth = torch.where(raw.alpha > 0.5, raw.depth, torch.nan)[0, 0].numpy()
            yield DepthView(np.ascontiguousarray(rgb), depth, pose[0].numpy(), intrinsics.numpy())


def _frontal_label(generator: Generator) -> torch.Tensor | None:
    if generator.profile.c_dim == 0:
        return None
    orbit = generator.profile.orbit
    pose = orbit.pose(torch.zeros(1), torch.zeros(1))
    return torch.cat([pose.flatten(1), orbit.intrinsics().reshape(1, 9)], 1)


def _sample(depth: NDArray[np.float32], uv: NDArray) -> NDArray[np.float64]:
    """Bilinear values of `depth` at `uv` [P, 2] in 0..1; NaN where a neighbour has none."""
    size = depth.shape[0]
    x, y = np.clip(uv.T * size - 0.5, 0, size - 1.001)
    column, row = x.astype(int), y.astype(int)
    fx, fy = x - column, y - row
    known = np.where(np.isfinite(depth), depth, np.nan)
    top = known[row, column] * (1 - fx) + known[row, column + 1] * fx
    bottom = known[row + 1, column] * (1 - fx) + known[row + 1, column + 1] * fx
    return top * (1 - fy) + bottom * fy

"""Canonical landmarks: where a prior's faces have the 468 points that the tracker finds in videos.

They are measured by looking: draw faces near the average from many sides, track each picture with the tracker that users'
videos go through, and triangulate. A triangulated point is the one that best explains what the tracker reports from all
sides, even where the tracker flattens a turned face; lifting its points onto the surface instead makes fitted poses too
small. It needs no morphable model and works for any prior.
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
PITCHES = tuple(math.radians(angle) for angle in (-12, -4, 4, 12))
FACES = 6
TRUNCATION = 0.5
"""The measured faces lie half-way between the average and random ones."""
FEWEST_VIEWS = 10


@dataclass(frozen=True)
class View:
    """A picture with its camera."""

    rgb: NDArray[np.uint8]
    """[S, S, 3]."""
    cam2world: NDArray[np.float32]
    """[4, 4]."""
    intrinsics: NDArray[np.float32]
    """[3, 3], divided by the image size."""


def measure_canonical(generator: Generator) -> NDArray[np.float32]:
    """[468, 3] scene units: the mean landmarks of faces near the prior's average, which is one of them.

    Raises:
        NoFaceError: the tracker does not recognise the prior's faces as such.
    """
    faces = []
    for index, z in enumerate(generator.random_latents(FACES, 0)):
        try:
            faces.append(triangulate_landmarks(_views(generator, z[None], TRUNCATION if index else 0.0)))
        except NoFaceError:
            # One odd sample does not matter, an average that is no face does.
            if index == 0:
                raise
    return np.mean(faces, axis=0).astype(np.float32)


def triangulate_landmarks(views: Iterable[View]) -> NDArray[np.floating]:
    """Track each view and intersect the rays through each landmark in the least-squares sense: [468, 3] scene units.

    Raises:
        NoFaceError: a face was found in fewer than ten views.
    """
    normal, moment, found = np.zeros((468, 3, 3)), np.zeros((468, 3)), 0
    for view in views:
        # A tracker of its own per view: views are no video, and nothing may carry over.
        face = FaceTracker()(view.rgb)
        if face is None:
            continue
        found += 1
        uv = face.landmarks / view.rgb.shape[0]  # [468, 2] in 0..1
        local = (uv - view.intrinsics[:2, 2]) / view.intrinsics[[0, 1], [0, 1]]
        directions = np.concatenate([local, np.ones((len(local), 1))], axis=1) @ view.cam2world[:3, :3].T
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        across = np.eye(3) - directions[:, :, None] * directions[:, None, :]  # [468, 3, 3]: keeps what is off the ray
        normal += across
        moment += across @ view.cam2world[:3, 3]
    if found < FEWEST_VIEWS:
        raise NoFaceError(
            f"The tracker found a face in only {found} views of one of the prior's faces, {FEWEST_VIEWS} are needed. "
            "The prior is probably not trained enough to draw faces; train it longer."
        )
    return np.linalg.solve(normal, moment[..., None])[..., 0]


@torch.no_grad()
def _views(generator: Generator, z: torch.Tensor, truncation: float) -> Iterable[View]:
    profile = generator.profile
    intrinsics = profile.orbit.intrinsics()
    ws = generator.map(z, generator.frontal_label(1), truncation=truncation)
    planes = generator.planes(ws)
    for pitch in PITCHES:
        for yaw in YAWS:
            pose = profile.orbit.pose(torch.tensor([yaw]), torch.tensor([pitch]))
            raw = generator.render(planes, pose, intrinsics[None], deterministic=True)
            image = generator.superresolve(raw.features, raw.rgb, raw.alpha, ws)
            if profile.alpha:
                image = composite(image, torch.zeros(1, 3, *image.shape[2:]))
            rgb = ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            yield View(np.ascontiguousarray(rgb), pose[0].numpy(), intrinsics.numpy())

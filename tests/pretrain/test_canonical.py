"""Canonical landmarks: triangulation gives back the points that were seen."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from talk3d.camera import Orbit
from talk3d.capture.track import FaceTracker
from talk3d.errors import NoFaceError
from talk3d.pretrain.canonical import FEWEST_VIEWS, View, triangulate_landmarks

SIZE = 256
POINTS = np.random.default_rng(0).uniform(-0.25, 0.25, (468, 3)).astype(np.float32)


class Seen:
    """A tracker's answer."""

    def __init__(self, landmarks: np.ndarray) -> None:
        self.landmarks = landmarks


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Seen | None]:
    """What the tracker will report for the next pictures, instead of looking at them."""
    queue: list[Seen | None] = []
    monkeypatch.setattr(FaceTracker, "__init__", lambda self: None)
    monkeypatch.setattr(FaceTracker, "__call__", lambda self, rgb: queue.pop(0))
    return queue


def views(answers: list[Seen | None], noise: float = 0.0, lost: int = 0) -> Iterator[View]:
    orbit = Orbit()
    rng = np.random.default_rng(1)
    angles = [(math.radians(y), math.radians(p)) for y in (-24, -12, 0, 12, 24) for p in (-10, 0, 10)]
    for index, (yaw, pitch) in enumerate(angles):
        y, p = torch.tensor([yaw]), torch.tensor([pitch])
        pixels = SIZE * orbit.project(torch.from_numpy(POINTS), y, p)[0].numpy()
        answers.append(None if index < lost else Seen(pixels + noise * rng.standard_normal(pixels.shape)))
        yield View(np.zeros((SIZE, SIZE, 3), np.uint8), orbit.pose(y, p)[0].numpy(), orbit.intrinsics().numpy())


def test_exact_landmarks_give_the_points_back(answers: list[Seen | None]) -> None:
    found = triangulate_landmarks(views(answers))
    assert found.shape == (468, 3)
    np.testing.assert_allclose(found, POINTS, atol=1e-5)


def test_noise_averages_out_over_the_views(answers: list[Seen | None]) -> None:
    error = np.abs(triangulate_landmarks(views(answers, noise=0.5)) - POINTS)
    assert np.median(error[:, :2]) < 1e-3  # half a pixel of 256, at focal 3.2 and distance 2.7, is 1.6e-3
    assert np.median(error[:, 2]) < 8e-3  # depth comes from the angle between views


def test_a_few_lost_views_do_not_matter_but_many_do(answers: list[Seen | None]) -> None:
    np.testing.assert_allclose(triangulate_landmarks(views(answers, lost=4)), POINTS, atol=1e-5)
    answers.clear()
    with pytest.raises(NoFaceError, match=f"only 9 views .* {FEWEST_VIEWS} are needed.*train it longer"):
        triangulate_landmarks(views(answers, lost=6))

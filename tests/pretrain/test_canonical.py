"""Canonical landmarks: triangulation gives back the points that were seen."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from talk3d.camera import Orbit
from talk3d.capture.track import FaceTracker
from talk3d.errors import NoFaceError
from talk3d.pretrain import canonical
from talk3d.pretrain.canonical import FACES, FEWEST_VIEWS, View, measure_canonical, triangulate_landmarks
from talk3d.prior.generator import LoadedPrior, composite

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


def test_the_average_face_comes_first_and_odd_samples_are_left_out(
    tiny_prior: LoadedPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faces half-way to people of the prior, their mean; one that is no face does not matter, unless it is the average."""
    generator, asked, odd = tiny_prior.generator, [], {2}

    def triangulated(views: Iterator[View]) -> np.ndarray:
        (view,) = views
        if len(asked) - 1 in odd:
            raise NoFaceError("none")
        return np.full((468, 3), float(view.rgb[0, 0, 0]))

    def seen(_: object, z: torch.Tensor, truncation: float) -> list[View]:
        asked.append((z, truncation))
        return [View(np.full((1, 1, 3), 10 * len(asked), np.uint8), np.eye(4, dtype=np.float32), np.eye(3, dtype=np.float32))]

    monkeypatch.setattr(canonical, "triangulate_landmarks", triangulated)
    monkeypatch.setattr(canonical, "_views", seen)
    np.testing.assert_allclose(measure_canonical(generator), np.mean([10, 20, 40, 50, 60]))
    assert [truncation for _, truncation in asked] == [0.0] + [0.5] * (FACES - 1)
    assert torch.equal(torch.cat([z for z, _ in asked]), generator.random_latents(FACES, 0))
    asked.clear()
    odd.add(0)
    with pytest.raises(NoFaceError):
        measure_canonical(generator)


def test_views_are_pictures_of_the_average_from_their_cameras(tiny_prior: LoadedPrior) -> None:
    generator = tiny_prior.generator
    orbit, ws = generator.profile.orbit, generator.backbone.mapping.w_avg.expand(1, generator.profile.num_ws, -1)
    seen = list(canonical._views(generator, torch.ones(1, generator.profile.z_dim), 0.0))
    assert len(seen) == len(canonical.YAWS) * len(canonical.PITCHES)
    assert len({view.cam2world.tobytes() for view in seen}) == len(seen)
    view = seen[5]
    camera = orbit.pose(torch.tensor([canonical.YAWS[5]]), torch.tensor([canonical.PITCHES[0]]))
    np.testing.assert_array_equal(view.cam2world, camera[0].numpy())
    image = composite(generator(ws, camera, orbit.intrinsics()[None]).image, torch.zeros(1, 3, 64, 64))
    expected = (image[0].clamp(-1, 1).permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(view.rgb - expected).max() < 0.51

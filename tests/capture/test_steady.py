"""Steadier poses: on made-up skulls whose truth is known, and on the synthetic subject's film."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talk3d.camera import Orbit
from talk3d.capture.pose import Poses, solve_clip
from talk3d.capture.steady import FROM, Follower, firm_points, refine
from talk3d.capture.track import track
from talk3d.video.read import read_frames

ORBIT = Orbit()
FRAMES = 60


def skull(rng: np.random.Generator) -> np.ndarray:
    """[468, 3] a round face with a nose: half an ellipsoid with a ridge; the order of its points has no meaning."""
    across, up = rng.uniform(-1, 1, (2, 468))
    depth = 0.25 * np.sqrt(np.clip(1 - across**2 * 0.9 - up**2 * 0.9, 0, 1)) + 0.08 * np.exp(-(across**2 + up**2) / 0.03)
    return np.stack([0.25 * across, 0.3 * up, 0.1 + depth], axis=-1)


def path(frames: int, degrees: float, period: float, phase: float) -> np.ndarray:
    return np.radians(degrees) * np.sin(2 * np.pi * np.arange(frames) / period + phase)


def looking(canonical: np.ndarray, yaw: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """[F, L, 2] pixels of a picture of 400 pixels."""
    points = torch.from_numpy(canonical)
    return 400 * ORBIT.project(points, torch.from_numpy(yaw), torch.from_numpy(pitch)).numpy()


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, np.ndarray, np.ndarray, Follower, Poses]:
    """A head whose tracked landmarks nod with the mouth and tremble, and flatten when it turns, while its skin does not."""
    rng = np.random.default_rng(5)
    canonical = skull(rng)
    yaw, pitch = path(FRAMES, 12, 50, 0.3), path(FRAMES, 6, 35, 1.0)
    nod = path(FRAMES, 2.0, 7, 0.0)
    landmarks = looking(canonical, yaw, 0.75 * pitch + nod) + rng.normal(0, 0.3, (FRAMES, 468, 2))
    rough = solve_clip(landmarks, canonical, ORBIT)
    points = firm_points(canonical)
    follower = Follower(rough, landmarks, np.ones(FRAMES, bool), np.ones(FRAMES, bool), points)
    # Skin, followed from three key pictures; where each of them says a point lies is a little off, as landmarks are.
    own = canonical * (1.0, 1.0, 1.1) + rng.normal(0, 0.004, canonical.shape)
    follower._keys = [(key, np.zeros((1, 1)), np.zeros((1, 2))) for key in range(3)]
    for key in range(FROM):
        shift = rng.normal(0, 0.004, (len(points), 3))
        follower.seen[:, key] = looking(own[points] + shift, yaw, pitch) + rng.normal(0, 0.05, (FRAMES, len(points), 2))
        follower.key[:, key] = key
    return canonical, yaw, pitch, follower, rough


def off(poses: Poses, yaw: np.ndarray, pitch: np.ndarray) -> float:
    """Degrees, root mean square, but for what is the same in all frames."""
    errors = np.stack([poses.yaw - yaw, poses.pitch - pitch])
    return float(np.degrees(np.sqrt(((errors - errors.mean(1, keepdims=True)) ** 2).sum(0).mean())))


def test_skin_is_believed_more_than_landmarks(seen: tuple) -> None:
    canonical, yaw, pitch, follower, rough = seen
    steady = refine(follower, canonical, ORBIT, [slice(0, FRAMES)])
    assert off(rough, yaw, pitch) > 1.0
    assert off(steady, yaw, pitch) < 0.4 * off(rough, yaw, pitch)


def test_where_nothing_was_followed_the_landmarks_decide(seen: tuple) -> None:
    canonical, _, _, follower, rough = seen
    blind = Follower(rough, follower.landmarks, np.zeros(FRAMES, bool), follower.learnt, follower.points)
    assert refine(blind, canonical, ORBIT, [slice(0, FRAMES)]) is rough


def test_test_frames_say_nothing_about_the_others(seen: tuple) -> None:
    canonical, _, _, follower, rough = seen
    learnt = np.arange(FRAMES) < 50
    parts = [slice(0, 50), slice(50, FRAMES)]
    results = []
    for noise in (0.0, 30.0):
        other = Follower(rough, follower.landmarks.copy(), np.ones(FRAMES, bool), learnt, follower.points)
        other._keys, other.key = follower._keys, follower.key
        other.seen = follower.seen.copy()
        other.seen[50:] += noise
        other.landmarks[50:] += noise
        results.append(refine(other, canonical, ORBIT, parts))
    for name in Poses.__dataclass_fields__:
        first, second = (getattr(result, name) for result in results)
        np.testing.assert_array_equal(first[:50], second[:50])
        assert name == "yaw" or not np.array_equal(first[50:], second[50:])


def test_key_pictures_come_from_the_training_part_and_cover_the_views() -> None:
    rng = np.random.default_rng(1)
    canonical = skull(rng)
    yaw = np.linspace(0, np.radians(30), 20)
    landmarks = looking(canonical, yaw, np.zeros(20))
    picture = cv2.GaussianBlur(rng.uniform(0, 255, (400, 400, 3)), (0, 0), 4).astype(np.uint8)
    rough = solve_clip(landmarks, canonical, ORBIT)
    follower = Follower(rough, landmarks, np.ones(20, bool), np.arange(20) < 12, firm_points(canonical))
    for index in range(20):
        follower(index, picture)
    assert follower.views == 2  # of 0 to 17 degrees, more than eight apart
    assert (follower.key[:, 0] >= 0).all()
    assert follower.key[0, 1] == -1  # there was only one yet
    # A key picture sees its own points where the landmarks are.
    np.testing.assert_allclose(follower.seen[0, 0], landmarks[0, follower.points], atol=1e-3)


def test_poses_of_a_film_against_the_truth(subject: Path, truth: dict[str, np.ndarray], canonical: np.ndarray) -> None:
    tracked = track(read_frames(subject / "A.mp4", stop=300))
    rough = solve_clip(tracked.landmarks, canonical, ORBIT, tracked.confidence)
    follower = Follower(rough, tracked.landmarks, tracked.found, np.ones(300, bool), firm_points(canonical))
    for index, frame in enumerate(read_frames(subject / "A.mp4", stop=300)):
        follower(index, frame)
    steady = refine(follower, canonical, ORBIT, [slice(0, 300)])
    yaw, pitch = truth["yaw"][:300], truth["pitch"][:300]
    assert off(steady, yaw, pitch) < 0.6 * off(rough, yaw, pitch)
    assert off(steady, yaw, pitch) < 1.1

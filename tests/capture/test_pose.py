"""Poses: exact recovery of planted ones, robustness, smoothing against a dense solve, a synthetic head's truth."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import talk3d
from talk3d.camera import Orbit
from talk3d.capture.detect import apply
from talk3d.capture.pose import PERIOD, Poses, rigid_weights, smooth, solve_clip, solve_poses, upright_brows
from talk3d.capture.track import LEFT_BROW, OUTER_EYE_CORNERS, RIGHT_BROW, brow_height, track
from talk3d.video.read import read_frames

ORBIT = Orbit()


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """468 points on the front half of an ellipsoid about as large as a face."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(468, 3))
    points[:, 2] = np.abs(points[:, 2])
    points *= np.array([0.2, 0.24, 0.25]) / np.linalg.norm(points, axis=1, keepdims=True)
    points[2] = (0.0, -0.06, 0.28)  # under the nose
    return points


def planted(head: np.ndarray, frames: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Landmarks in source pixels of smoothly moving poses: landmarks, yaw, pitch, source_from_crop."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / 25
    phase, speed = rng.uniform(0, 6, (1, 6)), rng.uniform(0.3, 1.5, (1, 6))
    wave = np.sin(speed * time + phase)
    yaw, pitch = 0.5 * wave[:, 0], 0.3 * wave[:, 1]
    scale, roll = 300 * (1 + 0.1 * wave[:, 2]), 0.2 * wave[:, 3]
    similarity = np.zeros((frames, 2, 3))
    similarity[:, 0, 0] = similarity[:, 1, 1] = scale * np.cos(roll)
    similarity[:, 1, 0], similarity[:, 0, 1] = scale * np.sin(roll), -scale * np.sin(roll)
    similarity[:, 0, 2], similarity[:, 1, 2] = 100 + 20 * wave[:, 4], 60 + 20 * wave[:, 5]
    image = ORBIT.project(torch.from_numpy(head), torch.from_numpy(yaw), torch.from_numpy(pitch)).numpy()
    return apply(similarity, image), yaw, pitch, similarity


def test_planted_poses_are_recovered_exactly(head: np.ndarray) -> None:
    landmarks, yaw, pitch, similarity = planted(head, 70)
    poses = solve_poses(landmarks, head, ORBIT)
    assert np.abs(poses.yaw - yaw).max() < 1e-4
    assert np.abs(poses.pitch - pitch).max() < 1e-4
    assert np.abs(poses.source_from_crop - similarity).max() < 0.02
    assert poses.residual.max() < 1e-5


def test_the_crop_map_is_the_inverse_similarity(head: np.ndarray) -> None:
    landmarks, yaw, pitch, _ = planted(head, 5)
    poses = solve_poses(landmarks, head, ORBIT)
    crops = apply(poses.crop_from_source(256), landmarks) / 256
    image = ORBIT.project(torch.from_numpy(head), torch.from_numpy(yaw), torch.from_numpy(pitch)).numpy()
    assert np.abs(crops - image).max() < 1e-4


def test_signs_of_the_angles(head: np.ndarray) -> None:
    """Yaw > 0 is a camera at +x: points near the camera, such as the nose tip, move to the viewer's left."""
    nose = torch.tensor([[0.0, 0.0, 0.3]], dtype=torch.float64)
    for yaw, pitch, axis, sign in ((0.3, 0.0, 0, -1), (0.0, 0.3, 1, 1)):
        angles = torch.tensor([yaw, 0.0]).double(), torch.tensor([pitch, 0.0]).double()
        turned, straight = ORBIT.project(nose, *angles).numpy()[:, 0]
        assert sign * (turned - straight)[axis] > 0
        image = ORBIT.project(torch.from_numpy(head), angles[0][:1], angles[1][:1]).numpy()
        poses = solve_poses(300 * image, head, ORBIT)
        assert (poses.yaw[0], poses.pitch[0]) == pytest.approx((yaw, pitch), abs=1e-4)


def test_talking_lips_hardly_move_the_pose(head: np.ndarray) -> None:
    landmarks, yaw, pitch, _ = planted(head, 40)
    low = head[:, 1] < head[2, 1]
    moved = landmarks.copy()
    moved[:, low, 1] += 12  # pixels: a jaw that drops by 4 % of the crop
    poses = solve_poses(moved, head, ORBIT)
    assert np.abs(poses.yaw - yaw).max() < np.radians(1)
    assert np.abs(poses.pitch - pitch).max() < np.radians(2.5)
    # The canary: with equal trust in all points the jaw drags the pose along.
    equal = solve_poses(moved, head, ORBIT, np.ones(468))
    assert np.abs(equal.pitch - pitch).max() > 1.5 * np.abs(poses.pitch - pitch).max()


def test_outliers_are_ignored(head: np.ndarray) -> None:
    landmarks, yaw, _, _ = planted(head, 20)
    spoilt = landmarks.copy()
    spoilt[:, ::11] += 40
    assert np.abs(solve_poses(spoilt, head, ORBIT).yaw - yaw).max() < np.radians(1)


def test_smoothing_a_clip_removes_noise_and_adds_no_delay(head: np.ndarray) -> None:
    landmarks, yaw, pitch, _ = planted(head, 150)
    noisy = (
        landmarks
        + np.random.default_rng(2).normal(0, 1, (150, 1, 2))
        + np.random.default_rng(3).normal(0, 2.5, landmarks.shape)
    )
    rough, smoothed = solve_poses(noisy, head, ORBIT), solve_clip(noisy, head, ORBIT)
    for name, true in (("yaw", yaw), ("pitch", pitch)):
        before, after = np.std(getattr(rough, name) - true), np.std(getattr(smoothed, name) - true)
        assert after < 0.75 * before
    lags = [np.corrcoef(np.roll(smoothed.yaw, lag)[5:-5], yaw[5:-5])[0, 1] for lag in (-1, 0, 1)]
    assert np.argmax(lags) == 1


def test_frames_without_confidence_are_bridged(head: np.ndarray) -> None:
    landmarks, yaw, _, _ = planted(head, 60)
    spoilt, confidence = landmarks.copy(), np.ones(60)
    spoilt[30:33], confidence[30:33] = landmarks[0], 0
    poses = solve_clip(spoilt, head, ORBIT, confidence)
    assert np.abs(poses.yaw - yaw)[30:33].max() < np.radians(1.5)


@pytest.mark.parametrize("frames", [3, 4, 5, 9, 60])
def test_smooth_is_the_exact_minimiser(frames: int) -> None:
    rng = np.random.default_rng(frames)
    values, weights = rng.normal(size=(frames, 3)), rng.uniform(0.1, 1, frames)
    second = np.diff(np.eye(frames), 2, axis=0)
    stiffness = (2 * np.sin(np.pi / PERIOD)) ** -4
    expected = np.linalg.solve(np.diag(weights) + stiffness * second.T @ second, weights[:, None] * values)
    assert np.allclose(smooth(values, weights), expected, atol=1e-9)


def test_smooth_keeps_straight_lines_and_halves_its_period() -> None:
    line = np.stack([np.arange(50.0), 3 - np.arange(50.0)], axis=-1)
    assert np.allclose(smooth(line, np.ones(50)), line)
    wave = np.sin(2 * np.pi * np.arange(400) / PERIOD)[:, None]
    middle = slice(100, 300)
    assert np.abs(smooth(wave, np.ones(400))[middle]).max() == pytest.approx(0.5, abs=0.02)
    assert np.array_equal(smooth(line[:2], np.ones(2)), line[:2])


def test_rigid_weights_distrust_the_jaw(head: np.ndarray) -> None:
    weights = rigid_weights(head)
    low = head[:, 1] < head[2, 1]
    assert weights[low].max() < 0.2 < weights[~low].mean()


def test_poses_of_the_synthetic_head(subject: Path, truth: dict[str, np.ndarray], canonical: np.ndarray) -> None:
    """Against the true camera; its distance is not the orbit's, so the two agree up to a factor near one."""
    frames = 250
    tracked = track(read_frames(subject / "A.mp4", stop=frames))
    poses = solve_clip(tracked.landmarks, canonical, ORBIT)
    camera, focal = truth["cam2world"][:frames].astype(np.float64), float(truth["intrinsics"][0, 0])
    local = np.einsum("fji,flj->fli", camera[:, :3, :3], canonical[None] - camera[:, None, :3, 3])
    exact = solve_poses(256 * (0.5 + focal * local[..., :2] / local[..., 2:]), canonical, ORBIT)
    for name, spread in (("yaw", 1.2), ("pitch", 1.6)):
        error = np.degrees(getattr(poses, name) - getattr(exact, name))
        assert abs(error.mean()) < 1.5
        assert error.std() < spread
        assert np.corrcoef(getattr(poses, name), truth[name][:frames])[0, 1] > 0.9
    centre = np.array([[0.5, 0.5]])
    off = apply(poses.source_from_crop, np.broadcast_to(centre, (frames, 1, 2))) - apply(
        exact.source_from_crop, np.broadcast_to(centre, (frames, 1, 2))
    )
    assert np.abs(off).mean() < 1.0  # pixels


def test_raised_brows_are_told_from_nods() -> None:
    """Brows lifted by known lengths on a head that turns, nods, tilts and comes closer."""
    path = Path(talk3d.__file__).parent / "assets/prior/canonical.safetensors"
    canonical = safetensors.torch.load_file(path)["landmarks"].double().numpy()
    _, yaw, pitch, source_from_crop = planted(canonical, 200)
    lifted = 0.004 * (1 + np.sin(np.arange(200) / 5))
    moving = np.repeat(canonical[None], 200, axis=0)
    moving[:, [*LEFT_BROW, *RIGHT_BROW], 1] += lifted[:, None]
    points = [
        ORBIT.project(torch.from_numpy(head), torch.tensor([y]), torch.tensor([p]))[0].numpy()
        for head, y, p in zip(moving, yaw, pitch, strict=True)
    ]
    frontal = ORBIT.project(torch.from_numpy(canonical), *torch.zeros(2, 1).double())[0].numpy()
    eyes = float(np.linalg.norm(np.subtract(*frontal[list(OUTER_EYE_CORNERS)])))
    seen = apply(source_from_crop, np.stack(points))
    raw = brow_height(seen) / (eyes * np.linalg.norm(source_from_crop[:, :, 0], axis=-1))
    upright = upright_brows(raw, Poses(yaw, pitch, source_from_crop, np.zeros(200)), canonical, ORBIT)
    corners = float(np.linalg.norm(np.subtract(*canonical[list(OUTER_EYE_CORNERS)])))
    assert np.corrcoef(raw, lifted)[0, 1] < 0.7
    assert np.corrcoef(upright, lifted)[0, 1] > 0.97
    assert np.polyfit(lifted / corners, upright, 1)[0] == pytest.approx(1, abs=0.1)
    resting = brow_height(frontal[None])[0] / eyes
    assert upright[lifted.argmin()] == pytest.approx(resting, abs=0.01)

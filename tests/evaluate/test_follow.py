"""Curves of a face: measured where the face is known, and the same however long a film is."""

from pathlib import Path

import numpy as np
import pytest

from talk3d import frozen
from talk3d.capture.detect import apply
from talk3d.evaluate.film import Film, open_video
from talk3d.evaluate.follow import Landmarks, expression, follow, head_pose, lips_of
from talk3d.judges.sync import lips_in_face
from talk3d.video.clock import FPS
from talk3d.video.read import read_frames
from talk3d.video.write import VideoWriter


@pytest.fixture
def faces() -> np.ndarray:
    return np.random.default_rng(0).uniform(80, 170, (8, 468, 2))


def moved(points: np.ndarray, scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T + np.array(shift)


def test_pose_is_where_the_head_is_and_nothing_else(faces: np.ndarray) -> None:
    pose, other = head_pose(faces), head_pose(moved(faces, 2.0, 0.1, (30.0, -5.0)))
    middle = faces[:, [33, 263]].mean(1)
    assert np.allclose(pose[:, :2], middle)
    assert np.allclose(other[:, :2], moved(middle, 2.0, 0.1, (30.0, -5.0)))
    assert np.allclose(other[:, 2] - pose[:, 2], np.log(2))
    assert np.allclose((other[:, 3] - pose[:, 3] + np.pi) % (2 * np.pi) - np.pi, 0.1)
    assert np.allclose(other[:, 4:], pose[:, 4:])  # turning the picture turns no head


def test_expressions_do_not_depend_on_where_the_head_is(faces: np.ndarray) -> None:
    assert np.allclose(expression(faces), expression(moved(faces, 1.7, -0.3, (9.0, 4.0))))


def test_each_measurement_sees_its_own_movement(faces: np.ndarray) -> None:
    face = faces[:1].copy()
    face[:, [33, 133]], face[:, [362, 263]] = [[90, 100], [110, 100]], [[140, 100], [160, 100]]
    before = expression(face)[0]
    for points, change, seen in (((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (0, -4), {0, 2}), ((152,), (0, 6), {6})):
        lifted = face.copy()
        lifted[:, list(points)] += change
        different = set(np.flatnonzero(~np.isclose(expression(lifted)[0], before)).tolist())
        assert different == seen


def test_landmarks_on_disk_are_read_in_any_piece(faces: np.ndarray, tmp_path: Path) -> None:
    landmarks = Landmarks(tmp_path / "l")
    for piece in np.array_split(faces.astype(np.float32), 3):
        landmarks.append(piece)
    assert np.array_equal(landmarks(2, 7), faces.astype(np.float32)[2:7])
    matrix = np.array([[2.0, 0.1, 5], [-0.1, 2.0, 7]])
    placed = landmarks.part(3).placed(matrix)
    assert np.allclose(placed(0, 2)[0], apply(matrix, faces[3].astype(np.float64)), atol=1e-3)
    assert np.allclose(lips_of(landmarks, 0, 8), lips_in_face(faces), atol=1e-4)


def test_a_film_is_followed_to_its_real_end(shared: Path, tmp_path: Path) -> None:
    """Whatever its container says; frames without a face are unknown, and the rest is what the tracker says."""
    if not all(status.installed for status in frozen.list_models()):
        pytest.skip(f"the face models are not installed; `{frozen.INSTALL_COMMAND}` puts them in the cache")
    path = tmp_path / "film.mp4"
    with VideoWriter(path, (256, 256), FPS, crf=12, preset="ultrafast") as writer:
        for number, frame in enumerate(read_frames(shared / "data/synthetic/A/A.mp4", stop=70)):
            writer.write(frame if not 20 <= number < 24 else np.full_like(frame, 90))
    opened = open_video(path, "film")
    assert (opened.count, opened.size, opened.sound) == (70, (256, 256), None)
    wrong = Film(opened.name, opened.size, 500, opened.frames, None)
    parts: list[float] = []
    count, landmarks, motion = follow(wrong, tmp_path / "l", parts.append)
    assert count == 70
    assert np.array_equal(np.flatnonzero(~motion.seen), [20, 21, 22, 23])
    assert np.isnan(landmarks(20, 24)).all()
    assert np.isfinite(landmarks(24, 70)).all()
    assert motion.pose.shape == (70, 6)
    assert np.allclose(motion.pose[5:6], head_pose(landmarks(5, 6).astype(np.float64)), atol=1e-4)
    assert parts == sorted(parts)


def test_pieces_and_single_frames_of_a_film(tmp_path: Path) -> None:
    frames = [np.full((8, 12, 3), number, np.uint8) for number in range(10)]
    film = Film("numbers", (12, 8), 10, lambda a, b: iter(frames[a:b]), None)
    part = film.part(3, 8)
    assert [int(frame[0, 0, 0]) for frame in part.frames(1, 3)] == [4, 5]
    assert int(part.at(4)[0, 0, 0]) == 7
    assert part.count == 5
    assert film.placed(None, (12, 8)) is film
    assert film.placed(None, (6, 4)).at(9).shape == (4, 6, 3)
    shifted = film.placed(np.array([[1.0, 0, 4], [0, 1, 0]]), (20, 8))
    assert shifted.at(6).shape == (8, 20, 3)

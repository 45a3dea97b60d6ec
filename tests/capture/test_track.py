"""Tracking against a head whose lips, blinks and mirror image are known exactly."""

from pathlib import Path

import numpy as np
import pytest

from talk3d.capture.track import (
    EYE_CORNERS,
    FaceTracker,
    Track,
    eye_opening,
    gaze,
    interocular,
    lip_gap,
    lip_width,
    track,
)
from talk3d.video.read import read_frames

FRAMES = 250


@pytest.fixture(scope="module")
def tracked(subject: Path) -> Track:
    return track(read_frames(subject / "A.mp4", stop=FRAMES))


def test_the_face_is_never_lost(tracked: Track) -> None:
    assert tracked.found.all()
    assert np.isfinite(tracked.landmarks).all()


def test_lips_follow_the_true_lips(tracked: Track, truth: dict[str, np.ndarray]) -> None:
    unit = interocular(tracked.landmarks)
    gap = np.corrcoef(lip_gap(tracked.landmarks) / unit, truth["lip_gap_cm"][:FRAMES])[0, 1]
    width = np.corrcoef(lip_width(tracked.landmarks) / unit, truth["lip_width_cm"][:FRAMES])[0, 1]
    assert gap > 0.95
    assert width > 0.85
    # The canary: one frame of delay must be noticed.
    assert np.corrcoef((lip_gap(tracked.landmarks) / unit)[1:], truth["lip_gap_cm"][: FRAMES - 1])[0, 1] < 0.9


def test_eyes_follow_the_true_blinks(tracked: Track, truth: dict[str, np.ndarray]) -> None:
    assert np.corrcoef(eye_opening(tracked.lids), truth["blink"][:FRAMES])[0, 1] < -0.8


def test_a_mirrored_face_gives_mirrored_landmarks(film_frames: np.ndarray) -> None:
    frame = film_frames[0]
    plain, mirrored = FaceTracker()(frame), FaceTracker()(np.ascontiguousarray(frame[:, ::-1]))
    assert plain is not None
    assert mirrored is not None
    nose, chin, left_corner, right_corner = 1, 152, 33, 263
    for there, here in ((nose, nose), (chin, chin), (left_corner, right_corner), (right_corner, left_corner)):
        expected = np.array([256, 0]) + [-1, 1] * plain.landmarks[here]
        assert np.linalg.norm(mirrored.landmarks[there] - expected) < 3
    assert np.linalg.norm(mirrored.irises - ([256, 0] + [-1, 1] * plain.irises[::-1]), axis=-1).max() < 2


def test_the_face_is_found_again_after_it_was_gone(film_frames: np.ndarray) -> None:
    gone = np.zeros_like(film_frames[:2])
    seen = track(np.concatenate([film_frames[:2], gone, film_frames[2:4]]))
    assert seen.found.tolist() == [True, True, False, False, True, True]
    assert np.isnan(seen.landmarks[2:4]).all()
    assert (seen.confidence[2:4] == 0).all()


def test_of_two_faces_the_larger_is_followed(film_frames: np.ndarray) -> None:
    import cv2

    tracker = FaceTracker()
    for frame in film_frames[:3]:
        picture = np.full((256, 512, 3), 100, np.uint8)
        picture[80:208, :128] = cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA)
        picture[:, 256:] = frame
        face = tracker(picture)
        assert face is not None
        assert face.landmarks[1, 0] > 256


def test_an_empty_film_gives_an_empty_track(models: None) -> None:
    assert track([]).landmarks.shape == (0, 468, 2)


def test_curves_of_planted_points() -> None:
    landmarks = np.zeros((1, 468, 2))
    landmarks[0, 33], landmarks[0, 263] = (10, 50), (70, 50)
    for upper, lower, gap in ((82, 87, 3), (13, 14, 6), (312, 317, 3)):
        landmarks[0, upper], landmarks[0, lower] = (40, 100), (40, 100 + gap)
    landmarks[0, 78], landmarks[0, 308] = (30, 100), (50, 100)
    assert interocular(landmarks)[0] == 60
    assert lip_gap(landmarks)[0] == pytest.approx(4.5)
    assert lip_width(landmarks)[0] == 20
    # One eye three units open and ten wide, turned by 30 degrees; the other one closed.
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    lids = np.zeros((1, 2, 16, 2))
    for eye, opening in ((0, 3.0), (1, 0.0)):
        outer, inner = (0.0, 10.0) if eye == 0 else (10.0, 0.0)
        lids[0, eye, 0], lids[0, eye, 8] = turn @ (outer, 0), turn @ (inner, 0)
        for number, (upper, lower) in enumerate(zip(range(10, 15), range(2, 7), strict=True)):
            lids[0, eye, upper], lids[0, eye, lower] = turn @ (3 + number, 0), turn @ (3 + number, opening)
    assert eye_opening(lids)[0] == pytest.approx(0.15)
    irises = np.stack([turn @ (6, 1), turn @ (6, 1)])[None]
    assert gaze(lids, irises)[0] == pytest.approx([0.1, 0.1])
    assert len(EYE_CORNERS) == 2

"""How a face looks, on drawn ones."""

import cv2
import numpy as np
import pytest

from talk3d.capture.looks import SKIN, look, looks_of
from talk3d.capture.track import FACE_OVAL, OUTER_LIPS


@pytest.fixture
def landmarks() -> np.ndarray:
    """A face of 100 x 140 pixels in a picture of 200 x 200: an oval, and points within."""
    points = np.full((468, 2), 100.0)
    for index, point in enumerate(FACE_OVAL):
        angle = 2 * np.pi * index / len(FACE_OVAL)
        points[point] = 100 + 50 * np.sin(angle), 100 - 70 * np.cos(angle)
    points[list(OUTER_LIPS)] = 100, 145
    points[2] = 100, 120
    return points


def plain(level: int) -> np.ndarray:
    return np.full((200, 200, 3), level, np.uint8)


@pytest.mark.parametrize("level", [20, 128, 240])
def test_a_plain_face_has_its_level_and_no_sharpness(landmarks: np.ndarray, level: int) -> None:
    sharpness, brightness, over, under = look(plain(level), landmarks)
    assert (sharpness, brightness, over, under) == pytest.approx((0, level, 0, 0), abs=1e-6)


def test_lost_light_is_counted_on_the_skin_alone(landmarks: np.ndarray) -> None:
    picture = plain(128)
    picture[:, 100:] = 255
    picture[:85, :100] = 5
    _, _, over, under = look(picture, landmarks)
    assert over == pytest.approx(0.5, abs=0.03)
    skin = cv2.fillConvexPoly(np.zeros((200, 200), np.uint8), cv2.convexHull(landmarks[list(SKIN)].astype(np.int32)), 1)
    assert under == pytest.approx((skin[:85, :100].sum()) / skin.sum(), abs=0.02)
    outside = plain(128)
    outside[:, :40] = 255
    outside[:20] = 0
    assert look(outside, landmarks)[1:] == pytest.approx((128, 0, 0), abs=1e-6)


def test_an_open_mouth_is_no_change_of_light(landmarks: np.ndarray) -> None:
    picture = plain(128)
    cv2.ellipse(picture, (100, 145), (20, 12), 0, 0, 360, (10, 10, 10), -1)
    assert look(picture, landmarks)[1] == pytest.approx(128, abs=1)


def test_sharpness_falls_with_blur(landmarks: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    picture = np.clip(rng.normal(128, 30, (200, 200, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    found = [look(cv2.GaussianBlur(picture, (0, 0), size) if size else picture, landmarks)[0] for size in (0.0, 0.7, 1.5, 3.0)]
    assert found == sorted(found, reverse=True)
    # White noise of deviation s: the Laplacian's weights are -4 and four times 1, so its deviation is s times the root of 20.
    assert found[0] == pytest.approx(30 * 20**0.5, rel=0.05)


def test_a_face_outside_the_picture_looks_like_nothing(landmarks: np.ndarray) -> None:
    assert look(plain(100), landmarks + 500) == (0.0, 0.0, 0.0, 0.0)
    assert look(plain(100), landmarks + 100)[1] == pytest.approx(100, abs=1e-6)  # half of it is inside


def test_rows_become_curves() -> None:
    looks = looks_of(np.array([(1.0, 2.0, 0.3, 0.4), (5.0, 6.0, 0.7, 0.8)]))
    assert looks.sharpness.tolist() == [1, 5]
    assert looks.under.tolist() == [0.4, 0.8]

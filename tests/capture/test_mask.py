"""Masks, regions and the background, on scenes whose every pixel is known."""

import cv2
import numpy as np
import pytest
from skimage.draw import polygon2mask

from talk3d.capture.mask import (
    PersonSegmenter,
    Plate,
    background_plate,
    certainty_of,
    fill_holes,
    hull_mask,
    mend_mask,
)


class DiskSegmenter(PersonSegmenter):
    """Stands in for the network: the person of these scenes is pure red."""

    def __init__(self) -> None:
        pass

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return ((image[..., 0] == 255) & (image[..., 1] == 0)).astype(np.uint8) * 255


@pytest.fixture
def scene() -> np.ndarray:
    """A background, smooth as rooms are."""
    x, y = np.meshgrid(np.linspace(0, 1, 160), np.linspace(0, 1, 120))
    return np.stack([80 + 60 * x, 90 + 50 * y, 120 - 40 * x * y], axis=-1).round().astype(np.uint8)


def with_person(scene: np.ndarray, x: int) -> np.ndarray:
    frame = scene.copy()
    cv2.circle(frame, (x, 70), 30, (255, 0, 0), -1)
    return frame


def test_the_background_is_recovered_where_it_was_seen(scene: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    frames = [
        np.where(
            (with_person(scene, x) == (255, 0, 0)).all(-1, keepdims=True),
            (255, 0, 0),
            np.clip(scene + rng.integers(-3, 4, scene.shape), 0, 255),
        ).astype(np.uint8)
        for x in range(65, 96, 2)
    ]
    plate = background_plate(frames, DiskSegmenter())
    always = np.all([DiskSegmenter()(frame) > 0 for frame in frames], axis=0)
    assert not plate.seen[always].any()
    assert plate.seen[:, :20].all()
    assert np.abs(plate.image.astype(int) - scene)[plate.seen].mean() < 1.0
    assert np.abs(plate.image.astype(int) - scene)[~plate.seen].mean() < 4.0
    assert 1 < plate.motion < 2.5  # the planted noise: uniform over -3..3, seen from its median


def test_a_mask_that_misses_now_and_then_does_no_harm(scene: np.ndarray) -> None:
    class Forgetful(DiskSegmenter):
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, image: np.ndarray) -> np.ndarray:
            self.calls += 1
            return super().__call__(image) * (self.calls % 12 != 0)

    frames = [with_person(scene, x) for x in range(60, 101)]
    plate = background_plate(frames, Forgetful())
    wrong = np.abs(plate.image.astype(int) - scene).max(axis=-1) > 2
    assert wrong[plate.seen].mean() < 0.02


def test_a_person_who_never_leaves_is_filled_smoothly(scene: np.ndarray) -> None:
    plate = background_plate([with_person(scene, 80)] * 8, DiskSegmenter())
    assert not plate.seen[70, 80]
    assert np.abs(plate.image.astype(int) - scene).max() < 14


def test_filling_keeps_what_is_known_and_copes_with_nothing_known(scene: np.ndarray) -> None:
    known = np.zeros(scene.shape[:2], bool)
    known[:10] = True
    filled = fill_holes(scene, known)
    assert np.array_equal(filled[:10], scene[:10])
    assert (fill_holes(scene, np.zeros_like(known)) == 128).all()
    flat = np.full_like(scene, 77)
    assert (fill_holes(flat, known) == 77).all()


def test_what_clearly_differs_from_the_background_joins_the_person(scene: np.ndarray) -> None:
    frame = with_person(scene, 80)
    cv2.rectangle(frame, (108, 60), (118, 80), (0, 0, 0), -1)  # hair that the network does not see
    cv2.rectangle(frame, (2, 2), (12, 12), (0, 0, 0), -1)  # something far from the person
    mask = DiskSegmenter()(frame)
    known = np.full(mask.shape, 255, np.uint8)
    mended = mend_mask(mask, frame, scene, known)
    assert mended[70, 112] == 255
    assert mended[5, 5] == 0
    assert (mended[:, 130:] == 0).all()
    assert (mended >= mask).all()
    # Where the background is not known, a difference says nothing.
    assert np.array_equal(mend_mask(mask, frame, scene, np.full_like(known, 128)), mask)


def test_certainty_needs_distance_from_the_seen_part() -> None:
    seen = np.ones((100, 100), bool)
    seen[30:70, 30:70] = False
    certainty = certainty_of(Plate(np.zeros((100, 100, 3), np.uint8), seen, 0.0))
    assert certainty[50, 50] == 0
    assert certainty[31, 50] == 128
    assert certainty[10, 10] == 255


def test_hull_is_the_polygon_of_scikit_image() -> None:
    points = np.array([[10.0, 12.0], [60.3, 20.1], [50.0, 70.8], [15.0, 55.0], [30.0, 40.0]])
    expected = polygon2mask((80, 90), points[[0, 1, 2, 3]][:, ::-1] - 0.5)
    assert (hull_mask(points, (80, 90)) ^ expected).sum() < 130  # at most about the outline


def test_the_person_is_masked(film_frames: np.ndarray) -> None:
    mask = PersonSegmenter()(film_frames[0])
    assert mask[100, 128] == 255
    assert mask[20, 10] < 10
    wide = PersonSegmenter()(cv2.resize(film_frames[0], (400, 300)))
    assert wide.shape == (300, 400)
    assert wide[117, 200] == 255

"""Detection against where the face is known to be; warps against scikit-image and against the laws of affine maps."""

import cv2
import numpy as np
import pytest
from skimage.transform import AffineTransform
from skimage.transform import warp as skimage_warp

from talk3d.capture import detect
from talk3d.capture.detect import Detection, FaceDetector, anchors, apply, invert, overlap, suppress, warp


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def test_anchors_are_those_of_the_network() -> None:
    centres = anchors()
    assert centres.shape == (896, 2)
    assert np.allclose(centres[:4], [[0.03125, 0.03125]] * 2 + [[0.09375, 0.03125]] * 2)
    assert np.allclose(centres[512:518], 0.0625)
    assert np.allclose(centres[-1], 0.9375)


def test_overlap() -> None:
    box = np.array([0.0, 0.0, 2.0, 2.0])
    assert overlap(box, box) == 1
    assert overlap(box, box + 1) == pytest.approx(1 / 7)
    assert overlap(box, box + 3) == 0
    assert overlap(np.zeros(4), np.zeros(4)) == 0


def test_suppression_merges_one_face_and_keeps_two() -> None:
    def at(x: float, score: float) -> Detection:
        return Detection(np.array([x, 0.0, x + 10, 10.0]), np.full((6, 2), float(x)), score)

    merged = suppress([at(1, 0.6), at(0, 0.9), at(100, 0.8)])
    assert [round(face.score, 3) for face in merged] == [0.9, 0.8]
    assert merged[0].box[0] == pytest.approx(0.4)
    assert merged[1].box[0] == 100


def test_affine_maps_undo_and_compose() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (5, 2))
    affine = similarity(0.7, 0.3, (5, -8))
    assert np.allclose(apply(invert(affine), apply(affine, points)), points)
    many = np.stack([affine, similarity(2, -1, (0, 1))])
    assert np.allclose(apply(invert(many), apply(many, np.stack([points, points]))), points)


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("scale", [2.5, 1.0, 0.7, 0.4, 0.13])
def test_a_warped_ramp_is_the_inverse_map(scale: float, cubic: bool) -> None:
    """Each pixel of a ramp tells its own position, so the result must tell where it was taken from."""
    height, width = 300, 400
    across = (np.arange(width) + 0.5) / width * 250
    down = (np.arange(height) + 0.5) / height * 250
    ramp = np.stack([*np.meshgrid(across, down), np.zeros((height, width))], axis=-1).round().astype(np.uint8)
    size = (64, 48)
    middle = similarity(scale, 0.2, (0, 0))[:, :2] @ (200, 150)
    affine = similarity(scale, 0.2, (32 - middle[0], 24 - middle[1]))
    result = warp(ramp, affine, size, cubic=cubic)
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    source = apply(invert(affine), np.stack([x, y], -1).reshape(-1, 2)).reshape(size[1], size[0], 2)
    margin = 4 + 2 / scale
    inside = ((source > margin) & (source < np.array([width, height]) - margin)).all(axis=-1)
    assert inside.sum() > 20
    expected = source / [width, height] * 250
    assert np.abs(result[..., :2].astype(float) - expected)[inside].max() < 1.6


def test_warp_agrees_with_scikit_image() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (80, 90, 3), dtype=np.uint8), (0, 0), 2)
    affine = similarity(1.4, -0.35, (12.3, 20.7))
    # scikit-image counts from pixel centres: shift by half a pixel on both sides.
    half = AffineTransform(translation=(0.5, 0.5))
    there = AffineTransform(np.vstack([affine, [0, 0, 1]]))
    centred = AffineTransform(half.inverse.params @ there.params @ half.params)
    expected = skimage_warp(image, centred.inverse, output_shape=(100, 110), order=1, preserve_range=True)
    result = warp(image, affine, (110, 100)).astype(float)
    assert np.abs(result - expected)[5:-5, 5:-5].mean() < 0.6


def test_the_identity_changes_nothing() -> None:
    image = np.random.default_rng(2).integers(0, 256, (33, 44, 3), dtype=np.uint8)
    for cubic in (False, True):
        assert np.array_equal(warp(image, similarity(1, 0, (0, 0)), (44, 33), cubic=cubic), image)


@pytest.mark.parametrize("scale", [0.5, 0.3, 0.1])
def test_shrinking_does_not_alias(scale: float) -> None:
    checks = (np.indices((200, 200)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = warp(checks, similarity(scale, 0.1, (5, 5)), (15, 15), replicate=True).astype(float)
    assert np.abs(small - 127.5).max() < 25
    # The canary: plain sampling turns the checks into a moiré.
    plain = cv2.warpAffine(checks, similarity(scale, 0.1, (5, 5)), (15, 15), flags=cv2.INTER_NEAREST).astype(float)
    assert np.abs(plain - 127.5).max() > 100


def test_the_face_is_found_where_it_is(film_frames: np.ndarray, truth: dict[str, np.ndarray]) -> None:
    """The head's point between the eyes, through the true camera, lies in the box and near the eyes' middle."""
    detect = FaceDetector()
    for number in (0, 40, 80):
        found = detect(film_frames[number])
        assert len(found) == 1
        camera = truth["cam2world"][number]
        local = camera[:3, :3].T @ (np.array([0.0, 0.07, 0.2]) - camera[:3, 3])
        where = 256 * (0.5 + truth["intrinsics"][0, 0] * local[:2] / local[2])
        assert np.linalg.norm(found[0].points[:2].mean(axis=0) - where) < 12
        assert (found[0].box[:2] < where).all()
        assert (where < found[0].box[2:]).all()


def test_a_small_face_in_a_large_picture_is_found(film_frames: np.ndarray) -> None:
    picture = np.full((720, 1280, 3), 90, np.uint8)
    picture[500:628, 1000:1128] = cv2.resize(film_frames[0], (128, 128), interpolation=cv2.INTER_AREA)
    found = FaceDetector()(picture)
    assert len(found) == 1
    assert np.linalg.norm(found[0].points.mean(axis=0) - [1064, 560]) < 40


def test_no_face_where_there_is_none(models: None) -> None:
    detect = FaceDetector()
    assert detect(np.full((240, 320, 3), 128, np.uint8)) == []
    assert detect(np.random.default_rng(3).integers(0, 256, (240, 320, 3), dtype=np.uint8)) == []


@pytest.mark.parametrize("replicate", [False, True])
@pytest.mark.parametrize("shrink", [0.4, 1.0, 1.4, 1.9, 2.0, 3.7, 6.0])
def test_only_what_a_warp_reads_matters(shrink: float, replicate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a window of the picture gives what reading all of it gives, wherever the window lies, also beyond the border."""
    image = np.random.default_rng(3).integers(0, 256, (240, 360, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1.0)
    for x, y in ((180, 120), (20, 30), (350, 235), (-400, 50), (180, 600)):
        moved = similarity(1 / shrink, 0.3, (0.0, 0.0))
        moved[:, 2] = 12 - moved[:, :2] @ (x, y)
        for cubic in (False, True):
            found = warp(image, moved, (24, 24), cubic=cubic, replicate=replicate)
            with monkeypatch.context() as patch:
                patch.setattr(detect, "_window", lambda image, affine, size, block: (image, affine))
                expected = warp(image, moved, (24, 24), cubic=cubic, replicate=replicate)
            # OpenCV rounds positions to 1/32 of a pixel, from another corner to another side.
            assert np.abs(found.astype(int) - expected).max() <= 16

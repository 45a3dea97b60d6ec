"""Finding faces in a picture: BlazeFace's anchors, decoding and non-maximum suppression, and the float warps all use.

Pixel (0, 0) has its centre at (0.5, 0.5). An affine map is float64 [2, 3] and takes a point of one picture, in pixels,
to a point of another: `q = A[:, :2] @ p + A[:, 2]`.

Source: Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019; the network is the
short-range model of `talk3d.frozen`.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..frozen import load_tflite

MIN_SCORE = 0.5
MAX_OVERLAP = 0.3


@dataclass(frozen=True)
class Detection:
    """One face: `box` (left, top, right, bottom) and six `points` [6, 2] in pixels of the picture.

    The points are the two eye centres (the viewer's left one first), nose tip, mouth centre and the two ears.
    """

    box: Float[np.ndarray, "4"]
    points: Float[np.ndarray, "6 2"]
    score: float

    @property
    def size(self) -> float:
        """Side of the box in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class FaceDetector:
    """All faces in a picture, the best first.

    Raises:
        ModelMissingError: the models are not installed.
    """

    def __init__(self) -> None:
        self._network = load_tflite("face_detection_short_range")
        self._side = self._network.input_shape[1]
        self._anchors = anchors(self._side)

    def __call__(self, image: UInt8[np.ndarray, "height width 3"]) -> list[Detection]:
        """Detect in the whole picture, or, if that finds nothing, in overlapping parts of it for smaller faces."""
        height, width = image.shape[:2]
        found = self._detect(image, (0.0, 0.0, float(max(width, height))))
        if not found:
            side = 0.6 * min(width, height)
            for top in np.linspace(0, height - side, 2 if height < 1.5 * width else 3):
                for left in np.linspace(0, width - side, 2 if width < 1.5 * height else 3):
                    found += self._detect(image, (left, top, side))
        return suppress(found)

    def _detect(self, image: np.ndarray, window: tuple[float, float, float]) -> list[Detection]:
        """Faces in a square `window` (left, top, side); what lies outside the picture is black."""
        left, top, side = window
        scale = self._side / side
        to_input = np.array([[scale, 0, -scale * left], [0, scale, -scale * top]])
        values = warp(image, to_input, (self._side, self._side)).astype(np.float32) / 127.5 - 1
        outputs = {output.shape[-1]: output[0] for output in self._network(values[None])}
        scores = 1 / (1 + np.exp(-np.clip(outputs[1][:, 0], -80, 80)))
        good = np.flatnonzero(scores >= MIN_SCORE)
        raw = outputs[16][good].astype(np.float64)  # [K, 16]: centre, size, six points; in input pixels from the anchor
        centre = raw[:, :2] / self._side + self._anchors[good]
        half = raw[:, 2:4] / self._side / 2
        points = raw[:, 4:].reshape(-1, 6, 2) / self._side + self._anchors[good, None]
        corner = np.array([left, top])
        return [
            Detection(np.concatenate([corner + side * (c - h), corner + side * (c + h)]), corner + side * p, float(score))
            for c, h, p, score in zip(centre, half, points, scores[good], strict=True)
        ]


def anchors(side: int = 128) -> Float[np.ndarray, "anchors 2"]:
    """Centres of BlazeFace's short-range anchors, 0..1: two per cell at stride 8, then six per cell at stride 16."""
    layers = []
    for stride, per_cell in ((8, 2), (16, 6)):
        cells = side // stride
        axis = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(axis, axis, indexing="xy"), axis=-1).reshape(-1, 2)  # rows of x, y
        layers.append(np.repeat(grid, per_cell, axis=0))
    return np.concatenate(layers)


def overlap(one: Float[np.ndarray, "4"], other: Float[np.ndarray, "4"]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    inner = float(np.prod(np.clip(high - low, 0, None)))
    total = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - inner
    return inner / total if total > 0 else 0.0


def suppress(found: list[Detection]) -> list[Detection]:
    """Merge detections of the same face into their score-weighted mean, as BlazeFace does to steady its boxes."""
    rest = sorted(found, key=lambda detection: -detection.score)
    merged = []
    while rest:
        group = [other for other in rest if overlap(rest[0].box, other.box) > MAX_OVERLAP] or rest[:1]
        rest = [other for other in rest if not any(other is member for member in group)]
        weights = np.array([member.score for member in group])
        weights /= weights.sum()
        merged.append(
            Detection(
                sum(w * member.box for w, member in zip(weights, group, strict=True)),
                sum(w * member.points for w, member in zip(weights, group, strict=True)),
                group[0].score,
            )
        )
    return merged


def warp(
    image: UInt8[np.ndarray, "height width *channels"],
    source_to_target: Float[np.ndarray, "2 3"],
    size: tuple[int, int],
    *,
    cubic: bool = False,
    replicate: bool = False,
) -> UInt8[np.ndarray, "out_height out_width *channels"]:
    """Resample `image` under an affine map, in float precision and without aliasing when it shrinks.

    Args:
        image: the source picture.
        source_to_target: affine map of pixel positions, see the module's top.
        size: (width, height) of the result.
        cubic: bicubic instead of bilinear sampling.
        replicate: repeat the border outwards instead of black.
    """
    shrink = 1 / math.sqrt(abs(float(np.linalg.det(source_to_target[:, :2]))))
    image, source_to_target = _window(image, source_to_target, size, max(1, int(shrink)))
    if shrink >= 2:  # average whole blocks first, which leaves a scale between 1 and 2
        height, width = image.shape[:2]
        small = max(1, width // int(shrink)), max(1, height // int(shrink))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        back = np.array([[width / small[0]], [height / small[1]]]).T
        source_to_target = np.column_stack([source_to_target[:, :2] * back, source_to_target[:, 2]])
        shrink /= float(np.sqrt(back.prod()))
    if shrink > 1.05:  # the blur that a pixel of the target has and one of the source lacks, as Gaussians
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * math.sqrt(shrink**2 - 1), borderType=cv2.BORDER_REPLICATE)
    linear = source_to_target[:, :2]
    shift = linear @ (0.5, 0.5) + source_to_target[:, 2] - 0.5  # from centres at .5 to OpenCV's centres at integers
    return cv2.warpAffine(
        image,
        np.column_stack([linear, shift]),
        size,
        flags=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE if replicate else cv2.BORDER_CONSTANT,
    )


def _window(
    image: np.ndarray, source_to_target: np.ndarray, size: tuple[int, int], block: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture that a warp reads, a whole number of blocks from its corner, and the map from there.

    An eye is a fiftieth of a film's frame: blurring all of it would cost more than the network that looks at the eye.
    """
    height, width = image.shape[:2]
    corners = apply(invert(source_to_target), np.array([[0.0, 0.0], [size[0], 0.0], [0.0, size[1]], list(size)]))
    reach = 6 * block  # what blurring and cubic sampling read around a pixel
    last = (np.array([width, height]) - 1) // block * block
    low = np.clip(np.floor((corners.min(axis=0) - reach) / block).astype(int) * block, 0, last)
    high = np.clip(np.ceil((corners.max(axis=0) + reach) / block).astype(int) * block, low + block, [width, height])
    shifted = np.column_stack([source_to_target[:, :2], source_to_target[:, 2] + source_to_target[:, :2] @ low])
    return image[low[1] : high[1], low[0] : high[0]], shifted


def invert(affine: Float[np.ndarray, "*batch 2 3"]) -> Float[np.ndarray, "*batch 2 3"]:
    """The affine map back."""
    linear = np.linalg.inv(affine[..., :2])
    return np.concatenate([linear, -linear @ affine[..., 2:]], axis=-1)


def apply(
    affine: Float[np.ndarray, "*batch 2 3"], points: Float[np.ndarray, "*batch points 2"]
) -> Float[np.ndarray, "*batch points 2"]:
    """Move points (pixels) through an affine map."""
    return points @ np.swapaxes(affine[..., :2], -1, -2) + affine[..., None, :, 2]

"""Who is where in the picture: the person's mask, the background behind the person, and outlines drawn as masks.

Masks are uint8, 0 outside to 255 inside, soft at edges. Letters: H, W picture size; S sampled frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from ..frozen import load_tflite
from .track import FACE_OVAL

MARGIN = 0.02
"""How far background must be from the person to be trusted, as a part of the picture's larger side."""


BY_DIFFERENCE = np.rint(np.clip((np.arange(256) - 30) / 30, 0, 1) * 255).astype(np.uint8)
"""How surely a pixel that differs by so many levels from the background is not background."""


class PersonSegmenter:
    """The mask of all people in a picture.

    Raises:
        ModelMissingError: the models are not installed.
    """

    def __init__(self) -> None:
        self._network = load_tflite("selfie_segmentation")

    def __call__(self, image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width"]:
        """Mask of `image` (RGB)."""
        height, width = image.shape[:2]
        side = self._network.input_shape[1]
        small = image
        if (height, width) != (side, side):
            shrinking = height * width > side * side
            small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        mask = np.rint(255 * self._network(small[None].astype(np.float32) / 255)[0][0, ..., 0]).astype(np.uint8)
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR) if mask.shape != image.shape[:2] else mask


# ----------------------------------------------------------------------------------------------------- the background


@dataclass(frozen=True)
class Plate:
    """The background without the person."""

    image: UInt8[np.ndarray, "height width 3"]
    seen: Bool[np.ndarray, "height width"]
    """Where it was really seen; elsewhere it is filled smoothly from its surroundings."""
    motion: float
    """Mean absolute deviation over time of the seen pixels, 0..255: what a still camera keeps near the noise."""


def background_plate(frames: Sequence[UInt8[np.ndarray, "height width 3"]], segment: PersonSegmenter) -> Plate:
    """The median over frames of what is clearly not the person, filled where it is never seen.

    Args:
        frames: samples of one scene, from a camera that stands still.
        segment: gives the person's mask.
    """
    height, width = frames[0].shape[:2]
    reach = 2 * round(MARGIN * max(height, width)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    free = np.stack([cv2.dilate(segment(frame), kernel) < 26 for frame in frames])  # [S, H, W]
    count = free.sum(axis=0)
    # A spot that a mask missed now and then is no background: ask for several samples, and for more than a speck.
    seen = count >= max(1, len(frames) // 10)
    seen = cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).astype(bool)
    median = np.zeros((height, width, 3), np.uint8)
    deviation = np.zeros((height, width), np.float32)
    rank = np.maximum(count - 1, 0) // 2
    for top in range(0, height, 16):  # in strips, so that memory stays near that of the samples
        rows = slice(top, top + 16)
        values = np.stack([np.where(mask[rows, :, None], frame[rows], 255) for mask, frame in zip(free, frames, strict=True)])
        ordered = np.sort(values, axis=0)  # what is covered sorts to the end
        median[rows] = np.take_along_axis(ordered, rank[None, rows, :, None], axis=0)[0]
        off = np.abs(values.astype(np.int16) - median[rows]).mean(axis=-1) * free[:, rows]
        deviation[rows] = off.sum(axis=0) / np.maximum(count[rows], 1)
    motion = float(deviation[seen].mean()) if seen.any() else 0.0
    return Plate(fill_holes(median, seen), seen, motion)


def fill_holes(
    image: UInt8[np.ndarray, "height width 3"], known: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Fill the unknown part smoothly from the known one; with nothing known it becomes mid-grey.

    Averages of known pixels are pulled down to coarser and coarser pictures until nothing is missing, and pushed back
    up where the finer picture has a hole.

    Source: Gortler et al., "The Lumigraph", 1996 (push-pull).
    """
    if not known.any():
        return np.full_like(image, 128)
    levels: list[tuple[np.ndarray, np.ndarray]] = [(image * known[..., None].astype(np.float32), known.astype(np.float32))]
    while (levels[-1][1] == 0).any():
        colour, weight = levels[-1]
        half = ((weight.shape[1] + 1) // 2, (weight.shape[0] + 1) // 2)
        colour = cv2.resize(cv2.GaussianBlur(colour, (5, 5), 1), half, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(cv2.GaussianBlur(weight, (5, 5), 1), half, interpolation=cv2.INTER_AREA)
        levels.append((colour, weight))
    filled = np.asarray(levels[-1][0] / levels[-1][1][..., None])
    for colour, weight in reversed(levels[:-1]):
        coarse = cv2.resize(filled, (weight.shape[1], weight.shape[0]), interpolation=cv2.INTER_LINEAR)
        certain = np.minimum(weight, 1)[..., None]
        filled = certain * colour / np.maximum(weight, 1e-6)[..., None] + (1 - certain) * coarse
    return np.where(known[..., None], image, np.clip(np.rint(filled), 0, 255).astype(np.uint8))


def certainty_of(plate: Plate) -> UInt8[np.ndarray, "height width"]:
    """What the plate says of each pixel: 255 the background is known, 0 it is always inside the person, 128 neither."""
    height, width = plate.seen.shape
    # The band that `background_plate` kept around the person, and once more its width, may be either.
    reach = 4 * round(MARGIN * max(height, width)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    covered = cv2.erode((~plate.seen).astype(np.uint8), kernel).astype(bool)
    return np.where(plate.seen, np.uint8(255), np.where(covered, np.uint8(0), np.uint8(128)))


def mend_mask(
    mask: UInt8[np.ndarray, "height width"],
    image: UInt8[np.ndarray, "height width 3"],
    plate: UInt8[np.ndarray, "height width 3"],
    certainty: UInt8[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width"]:
    """Add what the network missed next to the person, which is above all long dark hair.

    That is: pixels that clearly differ from a background known for certain, and pixels that are never background.
    Everything is given in the same frame; `certainty` as `certainty_of` gives it.
    """
    height, width = mask.shape
    reach = 2 * round(0.04 * max(height, width)) + 1
    near = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) > 25
    red, green, blue = cv2.split(cv2.absdiff(cv2.GaussianBlur(image, (3, 3), 0), plate))
    difference = cv2.max(cv2.max(red, green), blue)
    sure = np.where(near & (certainty > 250), BY_DIFFERENCE[difference], np.uint8(0))
    # Compression noise makes specks; opening removes them and keeps strands that are a few pixels wide.
    sure = cv2.morphologyEx(sure, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    sure[near & (certainty < 32)] = 255
    return cv2.max(mask, sure)


# ---------------------------------------------------------------------------------------------------------- outlines


def hull_mask(points: Float[np.ndarray, "points 2"], size: tuple[int, ...]) -> Bool[np.ndarray, "height width"]:
    """Pixels of a picture of `size` (height, width) whose centres lie in the convex hull of `points` (pixels)."""
    return polygon_mask(cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64), size)


def polygon_mask(points: Float[np.ndarray, "points 2"], size: tuple[int, ...]) -> Bool[np.ndarray, "height width"]:
    """Pixels of a picture of `size` (height, width) inside a polygon (pixels)."""
    mask = np.zeros(size, np.uint8)
    # Sixteenths of a pixel, from centres at .5 to OpenCV's centres at integers.
    cv2.fillPoly(mask, [np.rint((points - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return mask.astype(bool)


def above_jaw(landmarks: Float[np.ndarray, "468 2"], size: tuple[int, ...]) -> Bool[np.ndarray, "height width"]:
    """Pixels of a picture of `size` (height, width) above the jaw line; beside the jaw it runs level from its corners.

    Args:
        landmarks: positions in pixels of this picture.
        size: of the picture.
    """
    height, width = size
    lower = landmarks[[FACE_OVAL[i] for i in range(12, 25)]]  # from the viewer's right jaw corner to the left one
    far = 4 * max(height, width)
    right, left = lower[0], lower[-1]
    outline = np.concatenate([[[far, right[1]]], lower, [[-far, left[1]]], [[-far, -far]], [[far, -far]]])
    return polygon_mask(outline, size)

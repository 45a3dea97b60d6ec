"""Parts of one crop: face, mouth, eyes, hair, neck, clothes and background.

Landmarks say where the face is, and the person's mask where the person ends. What of the rest is hair, neck or clothes is told
by the film's own colours and places (`palette.py`); where those are not known, by proportions alone. Edges follow the picture.

Source of the smoothing: He and Sun, "Fast Guided Filter", 2015.

Letters: H, W picture size; G side of the grid that colours are judged on; P parts of a palette.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from .mask import above_jaw, hull_mask
from .palette import CLOTHES, GRID, HAIR, SKIN, Palette
from .track import FACE_OVAL, INNER_LIPS, LEFT_EYE, OUTER_LIPS, RIGHT_EYE

REACH = 3
"""Pixels of the grid around each, in which votes are smoothed along the picture's edges."""
EDGE = 0.002
"""Variance of brightness (0..1) in such a neighbourhood from which on it counts as an edge."""
WITHIN = 7.0
"""How much more likely skin is inside the landmarks' hull than its place and colour say: a fringe may cover it."""
NECK_WIDTH, NECK_HEIGHT = 0.75, 0.2
"""Of a neck that is only guessed: parts of the jaw's width, and of the face's height below the chin."""


@dataclass(frozen=True)
class Regions:
    """Parts of one picture; each True inside. Head, neck, torso and background share it among them."""

    face: Bool[np.ndarray, "height width"]
    """The hull of the landmarks, brow to chin, but for hair that hangs over it."""
    mouth: Bool[np.ndarray, "height width"]
    """The lips and a quarter of their size around."""
    inner_mouth: Bool[np.ndarray, "height width"]
    """What is seen between the lips."""
    eyes: Bool[np.ndarray, "height width"]
    """Both eyes with their lids."""
    head: Bool[np.ndarray, "height width"]
    """Face, ears and hair, however long that is."""
    hair: Bool[np.ndarray, "height width"]
    """Without palette: the person above the jaw line and outside the face."""
    neck: Bool[np.ndarray, "height width"]
    """Skin below the jaw line, bare shoulders included. Without palette: a box below the jaw."""
    torso: Bool[np.ndarray, "height width"]
    """Clothes. Without palette: all of the person below the jaw line but the neck, long hair included."""
    background: Bool[np.ndarray, "height width"]


def region_masks(
    landmarks: Float[np.ndarray, "468 2"],
    person: UInt8[np.ndarray, "height width"],
    picture: UInt8[np.ndarray, "height width 3"] | None = None,
    palette: Palette | None = None,
) -> Regions:
    """Regions of a picture.

    Args:
        landmarks: positions in pixels of this picture.
        person: the person's mask.
        picture: RGB, an aligned crop of the film that `palette` was learnt from.
        palette: tells skin, hair and clothes; without it, or without the picture, proportions do.
    """
    size = person.shape
    hull, above = hull_mask(landmarks, size), above_jaw(landmarks, size)
    mouth = hull_mask(_grown(landmarks[list(OUTER_LIPS)], 1.25), size)
    eyes = hull_mask(_grown(landmarks[list(LEFT_EYE)], 1.6), size) | hull_mask(_grown(landmarks[list(RIGHT_EYE)], 1.6), size)
    person_here = (person > 127) | hull
    if picture is None or palette is None:
        hair = person_here & above & ~hull
        torso = person_here & ~above & ~hull & ~_guessed_neck(landmarks, size)
    else:
        part = _parts(landmarks, picture, palette)
        hair = person_here & (part == HAIR) & ~mouth & ~eyes
        torso = person_here & (part == CLOTHES) & ~hull
    face = hull & ~hair
    head = (person_here & above & ~torso) | face | hair
    return Regions(
        face=face,
        mouth=mouth,
        inner_mouth=hull_mask(landmarks[list(INNER_LIPS)], size),
        eyes=eyes,
        head=head,
        hair=hair,
        neck=person_here & ~head & ~torso,
        torso=torso,
        background=~person_here,
    )


def _parts(landmarks: np.ndarray, picture: np.ndarray, palette: Palette) -> np.ndarray:
    """The likeliest part at each pixel [H, W], whether or not the person is there."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (GRID, GRID), interpolation=cv2.INTER_AREA)
    votes = palette.votes(small)
    hull = hull_mask(landmarks * [GRID / width, GRID / height], (GRID, GRID))
    # Its edge is left to the colours: landmarks may lie a little beside it.
    within = cv2.erode(hull.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    votes[SKIN][within] *= WITHIN
    votes /= votes.sum(axis=0)
    # As lines of the picture's brightness, votes keep its edges when they are brought back to its size.
    guide = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    mean = _around(guide)
    variance = _around(guide * guide) - mean * mean + EDGE
    fine = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    sharp = []
    for vote in votes:
        vote_mean = _around(vote)
        slope = (_around(guide * vote) - mean * vote_mean) / variance
        rest = _around(vote_mean - slope * mean)
        sharp.append(cv2.resize(_around(slope), (width, height)) * fine + cv2.resize(rest, (width, height)))
    return np.argmax(sharp, axis=0)


def _around(values: np.ndarray) -> np.ndarray:
    return cv2.blur(values, (2 * REACH + 1, 2 * REACH + 1))


def _guessed_neck(landmarks: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    jaw = landmarks[[FACE_OVAL[i] for i in range(12, 25)]]
    middle, half = (jaw[0, 0] + jaw[-1, 0]) / 2, NECK_WIDTH * abs(jaw[0, 0] - jaw[-1, 0]) / 2
    chin = landmarks[FACE_OVAL[18], 1]
    rows, columns = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
    lowest = chin + NECK_HEIGHT * (chin - landmarks[FACE_OVAL[0], 1])
    return (np.abs(columns - middle) < half) & (rows < lowest) & (rows > jaw[:, 1].min())


def _grown(points: np.ndarray, factor: float) -> np.ndarray:
    centre = points.mean(axis=0)
    return centre + factor * (points - centre)

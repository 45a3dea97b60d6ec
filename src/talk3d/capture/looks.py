"""How the face looks in each frame: how sharp, how bright, and whether its light is cut off.

Letters: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from .track import FACE_OVAL, UNDER_NOSE

SKIN = (*FACE_OVAL[:10], UNDER_NOSE, *FACE_OVAL[27:])
"""Around forehead, cheeks and nose: mouth and beard would make the light seem to change with every word."""
BRIGHT, DARK = 245, 16
"""Levels of 255 from which on, and below which, a film holds no more detail."""


@dataclass(frozen=True)
class Looks:
    """Of the face in F frames."""

    sharpness: Float[np.ndarray, " frames"]
    """Standard deviation of the Laplacian of brightness, levels of 255; it belongs to the size of the picture."""
    brightness: Float[np.ndarray, " frames"]
    """Mean of the skin, 0..255."""
    over: Float[np.ndarray, " frames"]
    """Part of the skin that is overexposed, 0..1."""
    under: Float[np.ndarray, " frames"]
    """Part of it that is lost in the dark, 0..1."""


def look(
    picture: UInt8[np.ndarray, "height width 3"], landmarks: Float[np.ndarray, "468 2"]
) -> tuple[float, float, float, float]:
    """Sharpness, brightness, over- and underexposed part of a face; zeros if it lies outside the picture.

    Args:
        picture: RGB.
        landmarks: pixels.
    """
    low = np.clip(landmarks.min(axis=0).astype(int), 0, None)
    high = landmarks.max(axis=0).astype(int)
    face = picture[low[1] : high[1], low[0] : high[0]]
    if not face.size:
        return 0.0, 0.0, 0.0, 0.0
    gray = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    sharpness = float(cv2.Laplacian(gray, cv2.CV_32F).std())
    skin = np.zeros_like(gray)
    cv2.fillConvexPoly(skin, cv2.convexHull((landmarks[list(SKIN)] - low).astype(np.int32)), 255)
    levels = cv2.calcHist([gray], [0], skin, [256], [0, 256]).ravel().astype(np.float64)
    total = max(float(levels.sum()), 1.0)
    return (
        sharpness,
        float(levels @ np.arange(256)) / total,
        float(levels[BRIGHT:].sum()) / total,
        float(levels[:DARK].sum()) / total,
    )


def looks_of(rows: Float[np.ndarray, "frames 4"]) -> Looks:
    """Rows of `look`, one for each frame."""
    return Looks(*rows.T)

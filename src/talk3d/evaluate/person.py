"""Is it the same person, does it move like one, and does the picture hold still?

HeadNet's judgement of heads, blinks, the spectrum of head motion, expressions, and flicker.

HeadNet (judges/headnet.py) is our own network; its numbers compare with each other only.

Letters: F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from ..capture.track import head_pictures
from ..judges.headnet import load_headnet
from ..video.clock import FPS
from .lips import FEWEST, Score


@torch.no_grad()
def likeness(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    landmarks: Float[np.ndarray, "frames 468 2"],
    true_landmarks: Float[np.ndarray, "frames 468 2"],
) -> dict[str, Float[np.ndarray, " frames"]]:
    """HeadNet's judgement of each frame: NaN where a face is not found.

    Args:
        pairs: (result, truth), uint8 RGB [H, W, 3].
        landmarks: the face in the result, pixels.
        true_landmarks: the face in the truth.

    Returns:
        `distance`: perceptual distance of the heads, both cut out where the true one is; 0 for equal pictures, at most 2.
        `identity`: cosine of the persons' embeddings, each cut out where it is; 1 for the same picture.
    """
    network = load_headnet()
    values = {name: np.full(len(pairs), np.nan) for name in ("distance", "identity")}
    seen = [i for i, points in enumerate(true_landmarks) if np.isfinite(points).all()]
    if seen:
        mine, true = (head_pictures([pairs[i][side] for i in seen], true_landmarks[seen]) for side in (0, 1))
        values["distance"][seen] = network.distance(mine, true).numpy()
    both = [i for i in seen if np.isfinite(landmarks[i]).all()]
    if both:
        mine = network(head_pictures([pairs[i][0] for i in both], landmarks[both])).embedding
        true = network(head_pictures([pairs[i][1] for i in both], true_landmarks[both])).embedding
        values["identity"][both] = (mine * true).sum(1).numpy()
    return values


BLINK, BLINKING = 0.65, 0.85
"""Parts of the usual opening below which an eye blinks, and below which it is on its way."""


@dataclass(frozen=True)
class Blinks:
    """How someone blinks."""

    rate: Score
    """A minute; `frames` counts frames."""
    duration: Score
    """Mean, milliseconds, from leaving to regaining 85 % of the usual opening; `frames` counts blinks, here and below."""
    depth: Score
    """Mean part of the usual opening that is lost: 1 would be an eye that shuts without a trace."""


def blinks(eyes: Float[np.ndarray, " frames"]) -> Blinks:
    """Count the times that eyes close to less than 65 % of what is usual, from their opening."""
    known = np.isfinite(eyes)
    count = int(known.sum())
    if count < FEWEST:
        return Blinks(Score(None, count), Score(None, 0), Score(None, 0))
    usual = float(np.median(eyes[known]))
    part = np.where(known, eyes, usual) / max(usual, 1e-9)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (part < BLINKING).astype(int), [0]])))
    events = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if part[a:b].min() < BLINK]
    rate = Score(60 * FPS * len(events) / count, count)
    if not events:
        return Blinks(rate, Score(None, 0), Score(None, 0))
    duration = float(np.mean([b - a for a, b in events])) * 1000 / FPS
    depth = float(np.mean([1 - part[a:b].min() for a, b in events]))
    return Blinks(rate, Score(duration, len(events)), Score(depth, len(events)))


BANDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Edges of the octaves in which head motion is compared, hertz."""
PIECE = 4 * FPS
"""Frames of the overlapping pieces whose spectra are averaged."""
MOST_DECIBELS = 30.0


def band_powers(curves: Float[np.ndarray, "frames curves"]) -> Float[np.ndarray, "curves bands"] | None:
    """Power of each curve in octave bands, from Welch's averaged spectra ("The use of fast Fourier transform for the estimation
    of power spectra", 1967): Hann windows of four seconds, half overlapping. None if no piece is whole."""
    window = np.hanning(PIECE + 1)[:-1]
    pieces = [curves[start : start + PIECE] for start in range(0, len(curves) - PIECE + 1, PIECE // 2)]
    pieces = [piece for piece in pieces if np.isfinite(piece).all()]
    if not pieces:
        return None
    total = np.zeros((PIECE // 2 + 1, curves.shape[1]))
    for piece in pieces:
        total += np.abs(np.fft.rfft((piece - piece.mean(axis=0)) * window[:, None], axis=0)) ** 2
    density = 2 * total / len(pieces) / (FPS * (window**2).sum())
    hertz = np.fft.rfftfreq(PIECE, 1 / FPS)
    step = FPS / PIECE
    inside = [(hertz >= low) & (hertz < high) for low, high in zip(BANDS, BANDS[1:], strict=False)]
    return np.stack([density[band].sum(axis=0) * step for band in inside], axis=1)


def motion_spectrum(pose: Float[np.ndarray, "frames 6"], truth: Float[np.ndarray, "frames 6"]) -> Score:
    """How far the spectra of two heads' motions are apart: mean absolute ratio over six curves and five octaves, decibels.

    It does not ask for the same motion, but for as much of it at each speed. `Motion.pose` says what the curves are.
    """
    mine, true = (band_powers(_relative(curves)) for curves in (pose, truth))
    count = int((np.isfinite(pose).all(1) & np.isfinite(truth).all(1)).sum())
    if mine is None or true is None:
        return Score(None, count)
    # A millionth of the truth's own power keeps a head that stands still from being infinitely far.
    floor = 1e-6 * true.sum(axis=1, keepdims=True) + 1e-20
    ratio = 10 * np.abs(np.log10((mine + floor) / (true + floor)))
    return Score(float(np.minimum(ratio, MOST_DECIBELS).mean()), count)


def _relative(pose: Float[np.ndarray, "frames 6"]) -> Float[np.ndarray, "frames 6"]:
    """Positions in sizes of the head instead of pixels."""
    size = np.exp(np.nanmedian(pose[:, 2])) if np.isfinite(pose[:, 2]).any() else 1.0
    return np.concatenate([pose[:, :2] / size, pose[:, 2:]], axis=1)


def expression_error(face: Float[np.ndarray, "frames 7"], truth: Float[np.ndarray, "frames 7"]) -> Score:
    """Root mean square difference of the face's measurements, each film's own median taken away, in deviations of the truth.

    0 for the same expressions, 1 for a face that never moves. It is read off landmarks and is no measure of action units.
    """
    known = np.isfinite(face).all(1) & np.isfinite(truth).all(1)
    count = int(known.sum())
    if count < FEWEST:
        return Score(None, count)
    mine, true = (curves[known] - np.median(curves[known], axis=0) for curves in (face, truth))
    spread = np.sqrt((true**2).mean(axis=0))
    if not (spread > 1e-9).all():
        return Score(None, count)
    return Score(float(np.sqrt((((mine - true) / spread) ** 2).mean())), count)


def new_edges(
    frame: UInt8[np.ndarray, "height width 3"], truth: UInt8[np.ndarray, "height width 3"], inside: np.ndarray
) -> float:
    """Edges that the truth has not within two pixels, mean over a region, levels a pixel; NaN if it is empty.

    Given the neck, it finds the seam where a head was set upon a body.
    """
    if not inside.any():
        return float("nan")
    mine, true = (_edges(picture) for picture in (frame, truth))
    return float(np.maximum(mine - cv2.dilate(true, np.ones((5, 5), np.uint8)), 0)[inside].mean())


def _edges(picture: np.ndarray) -> np.ndarray:
    """Size of the gradient of brightness, levels a pixel."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return cv2.magnitude(*(cv2.Sobel(gray, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))))


class Flicker:
    """How restless a film is beside the true one: the mean size of the second difference over time, divided by the truth's.

    A steady change, such as a moving head, has none; what comes and goes from frame to frame has much. 1 is as calm as the
    truth, more flickers, less is frozen or smeared. Frames are given one after another.
    """

    def __init__(self) -> None:
        self._last: list[tuple[np.ndarray, np.ndarray]] = []
        self._totals = np.zeros(2)
        self.frames = 0
        """Frames that had two before them."""

    def add(self, frame: UInt8[np.ndarray, "height width 3"], truth: UInt8[np.ndarray, "height width 3"]) -> None:
        """The next frame of both films."""
        now = (frame.astype(np.float32), truth.astype(np.float32))
        if len(self._last) == 2:
            before, last = self._last
            self._totals += [np.abs(x - 2 * y + z).mean() for x, y, z in zip(before, last, now, strict=True)]
            self.frames += 1
        self._last = [*self._last[-1:], now]

    @property
    def value(self) -> float | None:
        """The ratio; None for fewer than three frames or a true film that stands still."""
        mine, true = self._totals
        return float(mine / true) if true > 0 else None

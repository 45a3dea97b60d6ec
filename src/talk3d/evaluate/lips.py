"""How alike two faces move: landmark distances, and whether mouths open together.

Landmarks are [F, 468, 2] in pixels of the same picture size. Frames without a face have NaN landmarks; they are left
out, and each score comes with the number of frames that it rests on.

The landmark distance follows the usual LMD (Chen et al., "Lip Movements Generation at a Glance", 2018): each set of
points is centred on its own mean first, so that head position does not count.

Letters: F frames.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..capture.track import INNER_LIPS, LANDMARKS, OUTER_LIPS, interocular

MOUTH = OUTER_LIPS + INNER_LIPS
FACE = tuple(range(LANDMARKS))
MAX_LAG = 10
FEWEST = 10
"""A correlation over fewer frames is not reported."""
BLOCK, RESAMPLES = 25, 1000
"""Frames that are drawn together, and how often, to see how far a correlation would spread in other films."""


@dataclass(frozen=True)
class Score:
    """A number, and how many frames it rests on; `value` is None if there were too few."""

    value: float | None
    frames: int
    interval: tuple[float, float] | None = None
    """Where 95 of 100 such films would have the value, for correlations."""


def distances(
    result: Float[np.ndarray, "frames 468 2"], truth: Float[np.ndarray, "frames 468 2"], points: tuple[int, ...]
) -> Float[np.ndarray, "frames"]:
    """Mean distance of centred landmarks in each frame, pixels; NaN where a face is missing."""
    mine, other = result[:, list(points)], truth[:, list(points)]
    mine, other = mine - mine.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
    return np.linalg.norm(mine - other, axis=-1).mean(axis=1)


def landmark_distance(
    result: Float[np.ndarray, "frames 468 2"],
    truth: Float[np.ndarray, "frames 468 2"],
    points: tuple[int, ...] = MOUTH,
    *,
    relative: bool = False,
) -> Score:
    """Mean distance of centred landmarks.

    Args:
        result: tracked landmarks, pixels.
        truth: the same of the true film.
        points: which landmarks.
        relative: in percent of the true distance between the outer eye corners instead of pixels.
    """
    distance = distances(result, truth, points)
    if relative:
        distance = 100 * distance / interocular(truth)
    valid = np.isfinite(distance)
    return Score(float(distance[valid].mean()) if valid.any() else None, int(valid.sum()))


def correlation(result: Float[np.ndarray, "frames"], truth: Float[np.ndarray, "frames"], *, interval: bool = True) -> Score:
    """Pearson's correlation over frames where both curves are known; None if one of them never moves.

    The interval is from a circular block bootstrap (Politis and Romano, 1992): neighbouring frames are alike, so whole seconds
    are drawn with replacement and not single frames, which would make a short film look sure of itself.
    """
    valid = np.isfinite(result) & np.isfinite(truth)
    count = int(valid.sum())
    a, b = result[valid], truth[valid]
    if count < FEWEST or np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9:
        return Score(None, count)
    return Score(float(np.corrcoef(a, b)[0, 1]), count, _spread(a, b) if interval else None)


def _spread(a: Float[np.ndarray, "frames"], b: Float[np.ndarray, "frames"]) -> tuple[float, float] | None:
    """The middle 95 % of the correlation over resampled films; None for films of fewer than four blocks."""
    count = len(a)
    if count < 4 * BLOCK:
        return None
    rng = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        starts = rng.integers(0, count, (-(-count // BLOCK), 1))
        chosen = ((starts + np.arange(BLOCK)) % count).ravel()[:count]
        x, y = a[chosen] - a[chosen].mean(), b[chosen] - b[chosen].mean()
        values.append(x @ y / max(np.sqrt((x @ x) * (y @ y)), 1e-12))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Lag:
    """The shift at which two curves agree best: `frames` > 0 means that the result is late by so many frames."""

    frames: int | None
    correlation: Score


def best_lag(result: Float[np.ndarray, "frames"], truth: Float[np.ndarray, "frames"], most: int = MAX_LAG) -> Lag:
    """Search shifts of up to `most` frames either way for the highest correlation.

    All shifts are compared on the same number of true frames, those that every shift has a partner for, as otherwise
    short overlaps would win by chance.
    """
    count = len(truth)
    if count < 2 * most + FEWEST:
        return Lag(None, Score(None, max(0, count - 2 * most)))
    middle = truth[most : count - most]
    shifted = {lag: result[most + lag : count - most + lag] for lag in range(-most, most + 1)}
    scores = {lag: correlation(curve, middle, interval=False) for lag, curve in shifted.items()}
    known = {lag: score for lag, score in scores.items() if score.value is not None}
    if not known:
        return Lag(None, Score(None, 0))
    lag = max(known, key=lambda lag: (known[lag].value, -abs(lag)))
    return Lag(lag, correlation(shifted[lag], middle))

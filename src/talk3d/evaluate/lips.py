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


@dataclass(frozen=True)
class Score:
    """A number, and how many frames it rests on; `value` is None if there were too few."""

    value: float | None
    frames: int


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
    mine, other = result[:, list(points)], truth[:, list(points)]
    mine, other = mine - mine.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
    distance = np.linalg.norm(mine - other, axis=-1).mean(axis=1)
    if relative:
        distance = 100 * distance / interocular(truth)
    valid = np.isfinite(distance)
    return Score(float(distance[valid].mean()) if valid.any() else None, int(valid.sum()))


def correlation(result: Float[np.ndarray, "frames"], truth: Float[np.ndarray, "frames"]) -> Score:
    """Pearson's correlation over frames where both curves are known; None if one of them never moves."""
    valid = np.isfinite(result) & np.isfinite(truth)
    count = int(valid.sum())
    a, b = result[valid], truth[valid]
    if count < FEWEST or np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9:
        return Score(None, count)
    return Score(float(np.corrcoef(a, b)[0, 1]), count)


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
    scores = {lag: correlation(result[most + lag : count - most + lag], middle) for lag in range(-most, most + 1)}
    known = {lag: score for lag, score in scores.items() if score.value is not None}
    if not known:
        return Lag(None, Score(None, 0))
    lag = max(known, key=lambda lag: (known[lag].value, -abs(lag)))
    return Lag(lag, known[lag])

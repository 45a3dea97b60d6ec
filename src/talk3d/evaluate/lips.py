"""How alike two faces move: landmark distances, whether mouths open together, close where they must, and rest in silence.

Landmarks are [F, 468, 2] in pixels of the same picture size. Frames without a face have NaN landmarks; they are left
out, and each score comes with the number of frames that it rests on.

The landmark distance follows the usual LMD (Chen et al., "Lip Movements Generation at a Glance", 2018): each set of
points is centred on its own mean first, so that head position does not count.

Letters: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ..capture.track import INNER_LIPS, LANDMARKS, OUTER_LIPS, interocular

MOUTH = OUTER_LIPS + INNER_LIPS
FACE = tuple(range(LANDMARKS))
MAX_LAG = 10
FEWEST = 10
"""Over fewer frames, nothing is said of curves."""
STILL = 0.03
"""A curve with less than this part of the truth's deviation does not move: a tracker trembles even on a still picture."""
LIKELY = 0.3
"""A lag is known only where curves agree at least as much, and more than by chance."""
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
    result: Float[np.ndarray, "frames 468 2"],
    truth: Float[np.ndarray, "frames 468 2"],
    points: tuple[int, ...] = MOUTH,
    *,
    relative: bool = False,
) -> Float[np.ndarray, " frames"]:
    """Mean distance of centred landmarks in each frame; NaN where a face is missing.

    Args:
        result: tracked landmarks, pixels.
        truth: the same of the true film.
        points: which landmarks.
        relative: in percent of the true distance between the outer eye corners instead of pixels.
    """
    mine, other = result[:, list(points)], truth[:, list(points)]
    mine, other = mine - mine.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
    away = np.linalg.norm(mine - other, axis=-1).mean(axis=1)
    return 100 * away / interocular(truth) if relative else away


def correlation(result: Float[np.ndarray, " frames"], truth: Float[np.ndarray, " frames"], *, interval: bool = True) -> Score:
    """Pearson's correlation over frames where both curves, in one unit, are known; None if one of them never moves.

    The interval is from a circular block bootstrap (Politis and Romano, 1992): neighbouring frames are alike, so whole seconds
    are drawn with replacement and not single frames, which would make a short film look sure of itself.
    """
    valid = np.isfinite(result) & np.isfinite(truth)
    count = int(valid.sum())
    a, b = result[valid], truth[valid]
    if count < FEWEST or b.std() < 1e-9 or a.std() < STILL * b.std():
        return Score(None, count)
    return Score(float(np.corrcoef(a, b)[0, 1]), count, _spread(a, b) if interval else None)


def _spread(a: Float[np.ndarray, " frames"], b: Float[np.ndarray, " frames"]) -> tuple[float, float] | None:
    """The middle 95 % of the correlation over resampled films; None for films of fewer than four blocks."""
    if len(a) < 4 * BLOCK:
        return None
    low, high = np.quantile(_resampled(a, b), [0.025, 0.975])
    return float(low), float(high)


def _resampled(curve: Float[np.ndarray, " frames"], truth: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " resamples"]:
    """A curve's correlation with the truth in films made of random blocks; the same blocks for all curves of a length."""
    rng, count = np.random.default_rng(0), len(truth)
    blocks = -(-count // BLOCK)
    # Sums over the block that begins at each frame, so that a film of hours costs no more than its blocks.
    a, b = curve - curve.mean(), truth - truth.mean()
    terms = np.stack([a, b, a * a, b * b, a * b])
    running = np.cumsum(np.concatenate([np.zeros((5, 1)), terms, terms[:, : BLOCK - 1]], axis=1), axis=1)
    sums = running[:, BLOCK:] - running[:, :-BLOCK]  # [5, frames]
    found = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        x, y, xx, yy, xy = sums[:, rng.integers(0, count, blocks)].sum(1) / (blocks * BLOCK)
        found[k] = (xy - x * y) / np.sqrt(max((xx - x * x) * (yy - y * y), 1e-24))
    return found


def mean_interval(values: Float[np.ndarray, " frames"]) -> tuple[float, float] | None:
    """Where 95 of 100 such films would have the mean, from the same bootstrap as of correlations; None for fewer than four
    blocks. NaN is left out."""
    known = values[np.isfinite(values)]
    if len(known) < 4 * BLOCK:
        return None
    blocks = -(-len(known) // BLOCK)
    running = np.cumsum(np.concatenate([[0.0], known, known[: BLOCK - 1]]))
    sums = running[BLOCK:] - running[:-BLOCK]
    drawn = np.random.default_rng(0).integers(0, len(known), (RESAMPLES, blocks))
    low, high = np.quantile(sums[drawn].sum(axis=1) / (blocks * BLOCK), [0.025, 0.975])
    return float(low), float(high)


def moves(curve: Float[np.ndarray, " frames"], truth: Float[np.ndarray, " frames"]) -> bool:
    """Whether a curve moves at all, beside the truth's."""
    known, true = curve[np.isfinite(curve)], truth[np.isfinite(truth)]
    return len(known) >= FEWEST and len(true) >= FEWEST and bool(known.std() >= max(STILL * true.std(), 1e-9))


@dataclass(frozen=True)
class Lag:
    """The shift at which two curves agree best: `frames` > 0 means that the result is late by so many frames; None if they
    agree nowhere."""

    frames: int | None
    correlation: Score
    interval: tuple[int, int] | None = None
    """Where 95 of 100 such films would have the lag."""


def best_lag(result: Float[np.ndarray, " frames"], truth: Float[np.ndarray, " frames"], most: int = MAX_LAG) -> Lag:
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
    score = correlation(shifted[lag], middle)
    if (score.value or 0.0) < LIKELY or (score.interval is not None and score.interval[0] <= 0):
        return Lag(None, score)
    return Lag(lag, score, _lag_spread(shifted, middle))


def _lag_spread(shifted: dict[int, np.ndarray], truth: np.ndarray) -> tuple[int, int] | None:
    """The middle 95 % of the best lag over resampled films; None for films of fewer than four blocks."""
    lags = np.array(list(shifted))
    curves = np.stack(list(shifted.values()))
    known = np.isfinite(truth) & np.isfinite(curves).all(axis=0)
    if known.sum() < 4 * BLOCK:
        return None
    best = lags[np.stack([_resampled(curve[known], truth[known]) for curve in curves]).argmax(axis=0)]
    low, high = np.quantile(best, [0.025, 0.975], method="nearest")
    return int(low), int(high)


@dataclass(frozen=True)
class Aperture:
    """How a tracker sees the lips of one film: its gap where they are shut and where they are wide open."""

    shut: float
    wide: float

    @classmethod
    def of(cls, gap: Float[np.ndarray, " frames"]) -> Aperture | None:
        """From the true film; None without a face or if its lips never move.

        Shut lips have no gap of zero: the tracker reports the lips' edges. So the film says what shut is.
        """
        known = gap[np.isfinite(gap)]
        if len(known) < FEWEST:
            return None
        shut, wide = np.quantile(known, [0.01, 0.99])
        return cls(float(shut), float(wide)) if wide - shut > 1e-6 else None

    def part(self, gap: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
        """How far open: 0 shut, 1 wide."""
        return (gap - self.shut) / (self.wide - self.shut)


CLOSED, OPEN = 0.10, 0.30
"""Parts of the range up to which lips are closed, and from which on they are clearly open."""


def closure_recall(
    result: Float[np.ndarray, " frames"], truth: Float[np.ndarray, " frames"], events: Int[np.ndarray, "events 2"]
) -> Score:
    """In how many of the events in which the truth's lips close, the result's close too; `frames` is how many there are.

    Args:
        result: lip gap.
        truth: of the true film, which also says what closed is (`Aperture`).
        events: half-open ranges of frames in which lips should close, see `speech.listen`.
    """
    aperture = Aperture.of(truth)
    if aperture is None:
        return Score(None, 0)
    lowest = [
        (np.nanmin(result[a:b]), np.nanmin(truth[a:b]))
        for a, b in events
        if np.isfinite(result[a:b]).any() and np.isfinite(truth[a:b]).any()
    ]
    if not lowest:
        return Score(None, 0)
    mine, true = aperture.part(np.array(lowest)).T
    closes = true <= CLOSED
    return Score(float((mine[closes] <= CLOSED).mean()) if closes.any() else None, int(closes.sum()))


def wrongly_closed(result: Float[np.ndarray, " frames"], truth: Float[np.ndarray, " frames"]) -> Score:
    """Part of the frames with clearly open true lips in which the result's are closed: what a mouth that is always shut, and
    so has every closure, gets wrong."""
    aperture = Aperture.of(truth)
    if aperture is None:
        return Score(None, 0)
    known = np.isfinite(result) & np.isfinite(truth)
    is_open = aperture.part(truth[known]) >= OPEN
    if not is_open.any():
        return Score(None, 0)
    return Score(float((aperture.part(result[known])[is_open] <= CLOSED).mean()), int(is_open.sum()))


def silent_aperture(
    gap: Float[np.ndarray, " frames"], truth: Float[np.ndarray, " frames"], silent: Bool[np.ndarray, " frames"]
) -> Score:
    """Mean opening of the lips inside pauses, in percent of the true film's range."""
    aperture = Aperture.of(truth)
    known = np.isfinite(gap) & silent
    if aperture is None or not known.any():
        return Score(None, 0)
    return Score(float(100 * aperture.part(gap[known]).mean()), int(known.sum()))


def jitter(lips: Float[np.ndarray, "frames 80"]) -> Float[np.ndarray, " frames"]:
    """Tremor of the lips around each frame: the second difference of their points, root mean square, face sizes; NaN at the
    ends and beside frames without a face. Steady motion has none."""
    tremor = np.full(len(lips), np.nan)
    if len(lips) > 2:
        second = lips[:-2] - 2 * lips[1:-1] + lips[2:]
        tremor[1:-1] = np.sqrt((second**2).mean(axis=1))
    return tremor

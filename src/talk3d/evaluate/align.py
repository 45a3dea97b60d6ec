"""Where and when a film shows what the true one shows.

When: from the sound, if one is a copy of the other or both are loud at the same times; else from how the head moves. Lips have
no say, as their lateness is a fault to be scored and not to be mended. Where: one similarity for the whole film, which carries
points that move with the head onto the true ones; a film that only has another size is resized.

Letters: F frames of the result, G frames of the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..capture.detect import apply
from ..video.clock import AUDIO_RATE, SAMPLES_PER_FRAME
from .film import Sound
from .follow import RIGID, Landmarks, Motion

HERTZ = 100
"""Of the loudness curves that are compared."""
SURE, CLEAR = 0.8, 0.1
"""Correlation of loudness above which two sounds are one, and by how much it must beat all other places."""
LEAST = 4.0
"""Seconds of loudness that must overlap: over two, one of a hundred pieces of other speech is as loud at the same times."""
SHORTEST_COPY, LONGEST_COPY = 1.4, 4.0
"""Seconds of the stretch that is looked for in the other sound, to see whether one is a copy of the other."""
COPY, UNIQUE = 0.45, 0.25
"""Cosine of the waves above which a stretch is a copy, and by how much it must beat all other places."""
MOVES_ALIKE, BETTER, NEAR = 0.5, 0.25, 8
"""Correlation of head motion from which on it places a film, and by how much it must beat all shifts further than so many
frames away: slow heads move alike by chance."""
LEAST_MOTION = 75
"""Frames of motion that must overlap."""
MOST_SHIFT = 50
"""Frames of shift that head motion is searched over."""
SAMPLED = 400
"""Frames that a similarity is fitted to."""
CLEARLY, SAME = 1.1, 0.015
"""A similarity is taken if it leaves faces nearer to the true ones than a resize does: by this factor, and this part of the
distance between the eyes, which is what trackers tremble by and a system may be off by itself."""


@dataclass(frozen=True)
class Place:
    """How a film lies on the truth."""

    offset: int
    """The truth's frame that its first frame shows."""
    by: str
    """What says so, for people; empty if nothing does, and it is taken for granted."""
    matrix: Float[np.ndarray, "2 3"]
    """From its pixels to the truth's."""
    resize: bool
    """Whether that is a plain resize."""


def loudness(sound: Sound) -> Float[np.ndarray, " hundredths"]:
    """Log of the root mean square, a hundred times a second; silence ends 50 dB below the loudest."""
    step, levels = SAMPLES_PER_FRAME * 25 // HERTZ, []
    for start in range(0, sound.frames, 1500):
        samples = sound(start, min(start + 1500, sound.frames)).astype(np.float64)
        levels.append(np.sqrt((samples.reshape(-1, step) ** 2).mean(axis=1)))
    level = np.concatenate(levels) if levels else np.zeros(0)
    return np.log(level + 10**-2.5 * level.max(initial=0.0) + 1e-9)


def by_waves(result: Sound, truth: Sound) -> float | None:
    """Seconds of the truth at which the result's sound begins, if one sound is a copy of the other; None if it is not.

    The liveliest stretch of the shorter sound is looked for in the longer one, wave by wave, which tells a second and a half
    from all other speech. What has another wave, as from another microphone or out of a vocoder, is left to `by_sound`.
    """
    short, long = (result, truth) if result.frames <= truth.frames else (truth, result)
    level = loudness(short)
    length = min(len(level), int(LONGEST_COPY * HERTZ))
    if length < SHORTEST_COPY * HERTZ:
        return None
    begin = int(np.convolve(level, np.ones(length), "valid").argmax()) * (AUDIO_RATE // HERTZ)
    end = begin + length * (AUDIO_RATE // HERTZ)
    first = begin // SAMPLES_PER_FRAME
    known = short(first, -(-end // SAMPLES_PER_FRAME))
    scores, places = _likeness(known[begin - first * SAMPLES_PER_FRAME :][: end - begin], long)
    best = _stands_out(scores, places, COPY, UNIQUE, AUDIO_RATE // 4)
    if best is None:
        return None
    return (best - begin if short is result else begin - best) / AUDIO_RATE


def _likeness(piece: np.ndarray, sound: Sound) -> tuple[np.ndarray, np.ndarray]:
    """The highest cosine of a piece with what lies at the places of each hundredth of a second, and the sample where."""
    piece = piece.astype(np.float64) - piece.mean()
    energy = (piece**2).sum()
    size = 1 << (4 * len(piece)).bit_length()
    spectrum = np.conj(np.fft.rfft(piece, size))
    step = (size - len(piece)) // SAMPLES_PER_FRAME - 1
    scores, places = [], []
    for start in range(0, sound.frames, step):
        stop = min(start + step, sound.frames)
        count = (stop - start) * SAMPLES_PER_FRAME
        beyond = -(-len(piece) // SAMPLES_PER_FRAME)
        samples = sound(start, stop + beyond).astype(np.float64)
        products = np.fft.irfft(np.fft.rfft(samples, size) * spectrum, size)[:count]
        running = np.concatenate([[0.0], np.cumsum(samples**2)])
        # Silence is like nothing: where there is next to none of the piece's energy, its rounding errors are no likeness.
        there = np.maximum(running[len(piece) :][:count] - running[:count], 1e-4 * energy)
        cosines = (products / np.sqrt(there * energy + 1e-30)).reshape(-1, AUDIO_RATE // HERTZ)
        best = cosines.argmax(axis=1)
        scores.append(cosines[np.arange(len(best)), best])
        places.append(start * SAMPLES_PER_FRAME + np.arange(len(best)) * (AUDIO_RATE // HERTZ) + best)
    return np.concatenate(scores), np.concatenate(places)


def by_sound(result: Float[np.ndarray, " f"], truth: Float[np.ndarray, " g"]) -> float | None:
    """Seconds of the truth at which the result's sound begins, from both loudness curves; None if it is not the same sound."""
    scores, shifts = _correlations(result, truth, max(int(LEAST * HERTZ), min(len(result), len(truth)) // 2))
    best = _stands_out(scores, shifts, SURE, CLEAR, HERTZ // 4)
    return None if best is None else best / HERTZ


def _stands_out(scores: np.ndarray, places: np.ndarray, sure: float, clear: float, near: int) -> int | None:
    """The place with the highest score; None if that is below `sure`, or not `clear` above all that are further than `near`."""
    if not len(scores):
        return None
    best = int(scores.argmax())
    far = np.abs(places - places[best]) > near
    if scores[best] < sure or (far.any() and scores[far].max() > scores[best] - clear):
        return None
    return int(places[best])


def _correlations(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's correlation of the overlap, at each shift s (a[i] beside b[i + s]) that leaves at least `least`."""
    if min(len(a), len(b)) < least:
        return np.zeros(0), np.zeros(0, int)
    # The same constant on both curves changes no correlation, and keeps the sums small.
    a, b = a - a.mean(), b - b.mean()
    size = 1 << (len(a) + len(b)).bit_length()

    def slide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        product = np.fft.irfft(np.conj(np.fft.rfft(x, size)) * np.fft.rfft(y, size), size)
        return np.concatenate([product[-(len(x) - 1) :] if len(x) > 1 else product[:0], product[: len(y)]])

    ones_a, ones_b = np.ones(len(a)), np.ones(len(b))
    count = np.rint(slide(ones_a, ones_b))
    shifts = np.arange(-(len(a) - 1), len(b))
    kept = count >= least
    count = np.maximum(count, 1)
    sum_a, sum_b = slide(a, ones_b), slide(ones_a, b)
    var_a, var_b = slide(a * a, ones_b) - sum_a**2 / count, slide(ones_a, b * b) - sum_b**2 / count
    scores = (slide(a, b) - sum_a * sum_b / count) / np.sqrt(np.maximum(var_a * var_b, 1e-12))
    return scores[kept], shifts[kept]


def by_motion(result: Motion, truth: Motion) -> int | None:
    """The truth's frame that the result's first frame shows, from how heads move; None if they do not move alike."""
    mine, true = _lively(result), _lively(truth)
    scores: dict[int, float] = {}
    for shift in range(-MOST_SHIFT, MOST_SHIFT + 1):
        start, stop = max(0, shift), min(len(true), len(mine) + shift)
        if stop - start < max(LEAST_MOTION, min(len(mine), len(true)) / 2):
            continue
        a, b = mine[start - shift : stop - shift], true[start:stop]
        known = np.isfinite(a).all(1) & np.isfinite(b).all(1)
        a, b = a[known], b[known]
        if len(a) < LEAST_MOTION:
            continue
        a, b = a - a.mean(0), b - b.mean(0)
        spread = np.sqrt((a**2).sum(0) * (b**2).sum(0))
        scores[shift] = float(np.mean((a * b).sum(0) / np.maximum(spread, 1e-12)))
    if not scores:
        return None
    best = max(scores, key=lambda shift: (scores[shift], -abs(shift)))
    others = max((score for shift, score in scores.items() if abs(shift - best) > NEAR), default=-1.0)
    return best if scores[best] >= MOVES_ALIKE and scores[best] >= others + BETTER else None


def _lively(motion: Motion) -> np.ndarray:
    """[F, 4] how the head turns and moves: place, yaw and pitch; what is slow is left out, as it fits anywhere."""
    pose = motion.pose[:, [0, 1, 4, 5]]
    changes = np.full_like(pose, np.nan)
    changes[2:-2] = pose[4:] - pose[:-4]
    return changes


def similarity(source: Float[np.ndarray, "points 2"], target: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "2 3"]:
    """The least-squares scale, rotation and shift that take points to points."""
    a, b = source - source.mean(0), target - target.mean(0)
    z = (a[:, 0] + 1j * a[:, 1]).conj() @ (b[:, 0] + 1j * b[:, 1]) / (np.abs(a) ** 2).sum()
    linear = np.array([[z.real, -z.imag], [z.imag, z.real]])
    return np.column_stack([linear, target.mean(0) - linear @ source.mean(0)])


def resizing(size: tuple[int, int], true_size: tuple[int, int]) -> Float[np.ndarray, "2 3"]:
    """The map that only changes a picture's width and height."""
    return np.array([[true_size[0] / size[0], 0, 0], [0, true_size[1] / size[1], 0]])


def fit(
    result: Landmarks, truth: Landmarks, offset: int, frames: range, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[Float[np.ndarray, "2 3"], bool]:
    """The map from the result's pixels to the truth's, and whether it is a plain resize.

    Size and rotation are medians over frames, of faces about their own middle: a head that moves on its own must not shrink
    the picture. It is a plain resize unless a similarity brings the faces clearly nearer to the true ones.

    Args:
        result: landmarks of the result.
        truth: landmarks of the truth.
        offset: the truth's frame that the result's first frame shows.
        frames: of the truth, those that both have.
        sizes: (width, height) of the result's and of the truth's pictures.
    """
    plain = resizing(*sizes)
    chosen = np.unique(np.linspace(frames.start, frames.stop - 1, min(SAMPLED, len(frames))).astype(int)).tolist()
    mine, true = (
        np.array([film(k - first, k - first + 1)[0, list(RIGID)] for k in chosen], np.float64)
        for film, first in ((result, offset), (truth, 0))
    )
    known = np.isfinite(mine).all((1, 2)) & np.isfinite(true).all((1, 2))
    if not known.any():
        return plain, True
    mine, true = mine[known], true[known]
    a, b = (points[..., 0] + 1j * points[..., 1] for points in (mine, true))  # [K, P]
    middle_a, middle_b = a.mean(1), b.mean(1)
    a, b = a - middle_a[:, None], b - middle_b[:, None]
    scale = float(np.median(np.sqrt((np.abs(b) ** 2).sum(1) / (np.abs(a) ** 2).sum(1))))
    turns = np.angle((a.conj() * b).sum(1))
    turn = float(np.median(np.angle(np.exp(1j * (turns - turns[0]))))) + float(turns[0])
    z = scale * np.exp(1j * turn)
    shift = middle_b - z * middle_a
    matrix = np.array([[z.real, -z.imag, np.median(shift.real)], [z.imag, z.real, np.median(shift.imag)]])

    def away(map_: np.ndarray) -> float:
        moved = apply(map_, mine.reshape(-1, 2)).reshape(true.shape)
        return float(np.median(np.linalg.norm(moved - true, axis=-1).mean(axis=1)))

    eyes = float(np.median(np.linalg.norm(true[:, 3] - true[:, 0], axis=-1)))
    return (plain, True) if away(plain) <= CLEARLY * away(matrix) + SAME * eyes else (matrix, False)

"""What is said in a sound, as far as lips are concerned: where it is silent, and where lips must close.

Letters: F frames, K events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from ..phone_decoder import HOP, segments
from ..video.clock import SAMPLES_PER_FRAME
from .film import Sound

CLOSING = ("P", "B", "M")
"""Phones that cannot be said with open lips."""
PIECE, CONTEXT = 1500, 100
"""Frames decoded at a time, and before and after them that are thrown away."""
QUIET = 0.03
"""Part of the loud frames' level (-30 dB) below which a frame is silent."""
SHORTEST, SETTLE = 6, 2
"""Frames that a pause lasts at least, and those at either end in which lips still move."""


@dataclass(frozen=True)
class Speech:
    """What is said over F frames."""

    closures: Int[np.ndarray, "events 2"]
    """Half-open ranges of frames in which /p/, /b/ or /m/ is heard, a frame wider on both sides."""
    silent: Bool[np.ndarray, " frames"]
    """Frames inside pauses."""

    @property
    def pauses(self) -> int:
        """How many pauses there are."""
        return int((np.diff(np.concatenate([[0], self.silent.astype(int)])) == 1).sum())


def listen(sound: Sound, start: int, stop: int) -> Speech:
    """Find pauses and closures in a half-open range of frames, a minute at a time."""
    count = stop - start
    level, events = np.zeros(count), []
    for first in range(0, count, PIECE):
        last = min(first + PIECE, count)
        samples = sound(start + first, start + last)
        level[first:last] = np.sqrt((samples.reshape(-1, SAMPLES_PER_FRAME).astype(np.float64) ** 2).mean(axis=1))
        around = sound(start + first - CONTEXT, start + last + CONTEXT)
        for name, begin, end in segments((around.clip(-1, 1) * 32767).astype(np.int16)):
            # Of the phone's columns, as frames of the film.
            begun, ended = begin * HOP / SAMPLES_PER_FRAME + first - CONTEXT, end * HOP / SAMPLES_PER_FRAME + first - CONTEXT
            if name in CLOSING and first <= (begun + ended) / 2 < last:
                events.append((max(0, int(begun) - 1), min(count, int(np.ceil(ended)) + 1)))
    return Speech(np.array(events, np.int64).reshape(-1, 2), pauses(level))


def pauses(level: np.ndarray) -> Bool[np.ndarray, " frames"]:
    """Which frames lie inside pauses, from each frame's root mean square."""
    quiet = level < QUIET * np.quantile(level, 0.95) if len(level) else np.zeros(0, bool)
    inside = np.zeros(len(level), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(int), [0]])))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if end - begin >= SHORTEST:
            inside[begin + SETTLE : end - SETTLE] = True
    return inside

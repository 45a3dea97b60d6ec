"""How loud a sound is to people: integrated loudness of a mono sound.

Source: Recommendation ITU-R BS.1770-5, "Algorithms to measure audio programme loudness and true-peak audio level", annex 1.

Letters: N samples, B gating blocks of 0.4 s, of which three quarters overlap.
"""

from __future__ import annotations

import math

import numpy as np
import soxr
from jaxtyping import Float

from ..video.clock import AUDIO_RATE

RATE = 48_000
"""Samples per second for which the recommendation gives its filters."""
SHELF = (1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)
"""Its stage 1, the head's effect: coefficients of the numerator and the denominator."""
HIGH_PASS = (1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)
"""Its stage 2."""
STEP = RATE // 10
"""A block is four of these."""
STRETCH = 90
"""Steps that are filtered at once; with what lies around them, just below a power of two samples."""
LEAD = RATE // 2
"""Samples before a stretch that the filters and the resampler hear first; what is older than that has died away in them."""
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0
"""LKFS below which a block does not count, and below the mean of the blocks that are left."""


def integrated_loudness(samples: Float[np.ndarray, " samples"], rate: int = AUDIO_RATE) -> float | None:
    """Loudness in LKFS: a sine of full scale at 997 Hz has -3.01. None for silence and for less than a block.

    Args:
        samples: mono, -1..1.
        rate: samples per second.
    """
    power = _step_powers(samples, rate)
    if len(power) < 4:
        return None
    blocks = np.lib.stride_tricks.sliding_window_view(power, 4).mean(axis=1)
    heard = blocks[loudness_of(blocks) > ABSOLUTE_GATE]
    if not len(heard):
        return None
    heard = heard[loudness_of(heard) > loudness_of(heard.mean()) + RELATIVE_GATE]
    return float(loudness_of(heard.mean()))


def loudness_of(power: Float[np.ndarray, " blocks"] | float) -> Float[np.ndarray, " blocks"] | float:
    """LKFS of the mean square of a weighted mono sound."""
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-12))


def _step_powers(samples: np.ndarray, rate: int) -> np.ndarray:
    """Mean square of the weighted sound in each whole step."""
    count = math.floor(len(samples) / rate * 10 + 1e-9)
    parts = []
    for first in range(0, count, STRETCH):
        last = min(first + STRETCH, count)
        begin = max(0, first * rate // 10 - LEAD * rate // RATE)
        piece = samples[begin : last * rate // 10 + rate // 10].astype(np.float64)
        piece = soxr.resample(piece, rate, RATE) if rate != RATE else piece
        skip = first * STEP - begin * RATE // rate
        weighted = k_weighted(piece)[skip : skip + (last - first) * STEP]
        weighted = np.pad(weighted, (0, (last - first) * STEP - len(weighted)))  # a resampler may end a sample early
        parts.append((weighted.reshape(-1, STEP) ** 2).mean(axis=1))
    return np.concatenate(parts) if parts else np.zeros(0)


def k_weighted(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """The sound at 48 kHz after both filters.

    They are applied as a product of spectra; behind the sound there is silence enough for them to die away in.
    """
    size = 2 ** math.ceil(math.log2(len(samples) + LEAD)) if len(samples) else LEAD
    spectrum = np.fft.rfft(samples, size)
    for above, below in (SHELF, HIGH_PASS):
        spectrum *= np.fft.rfft(above, size) / np.fft.rfft(below, size)
    return np.fft.irfft(spectrum, size)[: len(samples)]

"""What a recording sounds like: loudness, noise, bandwidth, pauses, and a voice that the lips do not belong to.

Levels are in dB of full scale (dBFS): 0 is a square wave between -1 and 1. Letters: F frames at 25 per second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ..video.clock import AUDIO_RATE, FPS, SAMPLES_PER_FRAME
from .loudness import integrated_loudness

SPEAKS, PAUSES = 0.5, 0.25
"""Probability of a voice from which on somebody speaks, and up to which nobody does."""
NEAR = 2
"""Frames beside speech in which breath and echo are still heard, and which are no pause for that reason."""
ENOUGH = 10
"""Frames of speech and of pauses from which on noise can be told."""
SILENT, MOST = -120.0, 80.0
"""Level of digital silence, dBFS; and the largest ratio of signal to noise that is told, dB."""
BAND = 250.0
"""Width in Hz of the bands in which the spectrum is looked at."""
EDGE = 55.0
"""dB below the loudest band. Between 6 and 7 kHz twelve good recordings lie 21 to 41 dB below it, and an old one of narrow band
62 to 66; what resampling to 8 kHz leaves there lies 106 dB below or more."""

STILL, STILL_PART = 0.005, 0.2
"""Lips stand still if they move less than this (eye distances), or than this part of what is usual for them."""
ALONE = FPS
"""Frames in which lips must stand still, with the half second before and after them, beside a voice."""


@dataclass(frozen=True)
class Sounding:
    """What was heard."""

    loudness: float | None
    """Integrated, LKFS; None if there is nothing to hear."""
    speech_level: float | None
    """Mean level of frames with a voice, dBFS; None without any."""
    noise_level: float | None
    """Of pauses; None if there are too few."""
    signal_to_noise: float | None
    """dB between speech without its noise, and noise; at most 80."""
    bandwidth: float | None
    """Hz up to which speech holds anything."""
    voiced_seconds: float
    seconds: float


def listen(samples: Float[np.ndarray, " samples"], voiced: Float[np.ndarray, " frames"]) -> Sounding:
    """Measure a sound.

    Args:
        samples: mono, 16 kHz, 640 for each frame.
        voiced: how probable a voice is in each frame, 0..1.
    """
    level = levels(samples)
    power = 10 ** (level / 10)
    speaks, pause = voiced > SPEAKS, pauses(voiced)
    speech = float(power[speaks].mean()) if speaks.sum() >= ENOUGH else None
    noise = float(power[pause].mean()) if pause.sum() >= ENOUGH else None
    ratio = None
    if speech is not None and noise is not None:
        ratio = min(MOST, _decibels(max(speech - noise, 1e-3 * noise)) - _decibels(noise))
    return Sounding(
        integrated_loudness(samples),
        None if speech is None else _decibels(speech),
        None if noise is None else _decibels(noise),
        ratio,
        bandwidth(samples, speaks),
        float(speaks.sum()) / FPS,
        len(voiced) / FPS,
    )


def levels(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " frames"]:
    """Level of each whole frame, dBFS."""
    frames = len(samples) // SAMPLES_PER_FRAME
    cut = samples[: frames * SAMPLES_PER_FRAME].reshape(frames, SAMPLES_PER_FRAME)
    power = np.einsum("fs,fs->f", cut, cut, dtype=np.float64) / SAMPLES_PER_FRAME  # without a copy, for long films
    return 10 * np.log10(power + 10 ** (SILENT / 10))


def pauses(voiced: Float[np.ndarray, " frames"]) -> Bool[np.ndarray, " frames"]:
    """Frames in which nobody speaks, nor shortly before or after."""
    reach = 2 * NEAR + 1
    around = np.lib.stride_tricks.sliding_window_view(np.pad(voiced, NEAR), reach).max(axis=1) if len(voiced) else voiced
    return around < PAUSES


def bandwidth(samples: Float[np.ndarray, " samples"], speaks: Bool[np.ndarray, " frames"]) -> float | None:
    """Hz up to which the mean spectrum of these frames stays within 55 dB of its loudest band; None if there is too little."""
    if speaks.sum() < ENOUGH:
        return None
    cut = samples[: len(speaks) * SAMPLES_PER_FRAME].reshape(len(speaks), SAMPLES_PER_FRAME)
    power = np.zeros(SAMPLES_PER_FRAME // 2 + 1)
    for some in np.array_split(np.flatnonzero(speaks), max(1, speaks.sum() // (60 * FPS))):
        power += (np.abs(np.fft.rfft(cut[some] * np.hanning(SAMPLES_PER_FRAME), axis=1)) ** 2).sum(axis=0)
    power = power[:-1] / speaks.sum()
    width = round(BAND * SAMPLES_PER_FRAME / AUDIO_RATE)  # bins of 25 Hz in a band
    bands = power.reshape(-1, width).mean(axis=1)
    loud = np.flatnonzero(bands > bands.max() * 10 ** (-EDGE / 10))
    return float((loud[-1] + 1) * BAND) if len(loud) else None


def lip_motion(lip_gap: Float[np.ndarray, " frames"], lip_width: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    """How much the lips move in the second around each frame, eye distances: the deviation of gap or of half the width."""

    def deviation(curve: np.ndarray) -> np.ndarray:
        padded = np.pad(curve, FPS // 2, mode="edge")
        return np.lib.stride_tricks.sliding_window_view(padded, 2 * (FPS // 2) + 1).std(axis=1)

    return np.maximum(deviation(lip_gap), 0.5 * deviation(lip_width))


def strange_voices(
    voiced: Float[np.ndarray, " frames"], motion: Float[np.ndarray, " frames"], parts: Sequence[slice]
) -> list[slice]:
    """Stretches in which somebody speaks while the lips stand still: another person, off camera, or dubbed sound.

    Args:
        voiced: how probable a voice is, 0..1.
        motion: of `lip_motion`.
        parts: runs of frames that follow each other in the film.

    Returns:
        Ranges of frames, in order.
    """
    # The upper quartile is the person's own way to speak, even if another one speaks for half of the time.
    still = motion < max(STILL, STILL_PART * float(np.quantile(motion, 0.75)))
    found = []
    for part in parts:
        # Pauses between the other one's words are shorter than this.
        talk = _closed(voiced[part] > SPEAKS, FPS // 2)
        alone = np.zeros(len(talk), bool)
        for run in _runs(talk & still[part]):
            if run.stop - run.start >= ALONE:
                alone[max(0, run.start - FPS // 2) : run.stop + FPS // 2] = True
        found += [slice(part.start + run.start, part.start + run.stop) for run in _runs(alone & talk)]
    return found


def _runs(active: np.ndarray) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.r_[False, active, False].astype(int))).tolist()
    return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _closed(active: np.ndarray, gap: int) -> np.ndarray:
    """Without its gaps of up to `gap` frames between two active ones."""
    out = active.copy()
    on = np.flatnonzero(active)
    for before, after in zip(on[:-1], on[1:], strict=True):
        if after - before <= gap + 1:
            out[before:after] = True
    return out


def _decibels(power: float) -> float:
    return float(10 * np.log10(power + 10 ** (SILENT / 10)))

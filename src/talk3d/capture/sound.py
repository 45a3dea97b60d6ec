"""A capture's sound: cut to its takes, and in step with its lips.

Sound tracks of films found on the way are often some frames late. Nothing could learn from them which mouth makes which sound,
so the lip-sync expert measures it on the training frames, and the sound is moved; if its clock is another one, it is stretched.

Letters: F usable frames at 25 per second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int

from ..errors import ConfigError, NoAudioError, ScoringError
from ..judges.sync import sync_offset
from ..video.clock import AUDIO_RATE, FPS, SAMPLES_PER_FRAME
from ..video.look import probe
from ..video.read import read_audio_chunks
from .drift import LEFT, MINUTE, Drift, measure_drift

SILENCE = 1e-3
"""Sound that never exceeds this amplitude (-60 dB) is no sound."""
LEAST = 1.0
"""Frames by which sound must be out of step to be moved: the expert errs by a few tenths on a whole clip."""
SURE = 0.25
"""Confidence of the expert from which on it is believed; clips whose lips and sound belong together have 0.3 to 1."""
ENOUGH = 150
"""Frames that it must have judged; over fewer, confidence is high by chance."""
FULL, RUN = 0.995, 3
"""So many samples in a row at this part of full scale were cut off; a whole sound may touch it with one or two."""


@dataclass(frozen=True)
class Heard:
    """What a sound file holds."""

    seconds: float
    peak: float
    """Of full scale, 0..1."""
    rate: int
    """Samples per second."""
    channels: int
    clipped: float = 0.0
    """Part of its frames (of 1/25 s) in which peaks are cut off."""


@dataclass(frozen=True)
class Lateness:
    """How late a recording's sound came, and what was done about it."""

    frames: float | None
    """By the expert, positive if late; None if it could not say."""
    confidence: float | None
    """Of the expert, 0..4."""
    moved: float
    """Frames by which the sound was moved forward."""


def parse_sync(text: str) -> float | None:
    """The command line's form: `auto` (None), `keep` (0), or by how many frames the sound is late.

    Raises:
        ConfigError: anything else, or more than two seconds.
    """
    if text == "auto":
        return None
    try:
        frames = 0.0 if text == "keep" else float(text)
    except ValueError:
        frames = float("nan")
    if not abs(frames) <= 50:
        raise ConfigError(
            f"`{text}` says nothing about the sound. Use auto (measure how late it is, and mend it), keep (leave it), or the "
            "number of frames (of 0.04 s, at most 50) by which it is late; negative if it is early."
        )
    return frames


def hear(sound_file: Path, seconds: float) -> Heard:
    """Listen through the sound of a film of so many seconds, before any long work.

    Raises:
        MediaError: the file cannot be read.
        NoAudioError: it has no sound, only silence, or sound for less than half of the film.
    """
    described = probe(sound_file).audio
    if described is None:
        raise NoAudioError(
            f"`{sound_file}` has no sound track. An avatar learns from sound and picture together: use a recording "
            "with sound, or give its sound as a file of its own, with `--audio`."
        )
    samples, peak, cut, last = 0, 0.0, set(), np.zeros(RUN - 1, bool)
    for chunk in read_audio_chunks(sound_file, described.rate):  # at its own rate: a resampler rounds what was cut off
        full = np.concatenate([last, np.abs(chunk) >= FULL])
        runs = np.lib.stride_tricks.sliding_window_view(full, RUN).all(axis=1)
        cut.update(((samples + np.flatnonzero(runs)) * FPS // described.rate).tolist())
        last = full[1 - RUN :]
        samples += len(chunk)
        peak = max(peak, float(np.abs(chunk).max()))
    heard = samples / described.rate
    if peak < SILENCE:
        raise NoAudioError(
            f"The sound of `{sound_file}` is silent throughout (its peak is {peak:.4f} of full scale). "
            "Check the recording, or give its sound as a file of its own, with `--audio`."
        )
    if heard < seconds / 2:
        raise NoAudioError(
            f"`{sound_file}` has {heard:.1f} s of sound for {seconds:.1f} s of picture. Use a recording whose sound is "
            "whole, or give its sound as a file of its own, with `--audio`."
        )
    return Heard(heard, peak, described.rate, described.channels, round(len(cut) / max(1.0, heard * FPS), 5))


def write_in_step(
    path: Path,
    source: Path,
    takes: Sequence[Sequence[int]],
    landmarks: Float[np.ndarray, "frames 468 2"],
    numbers: Int[np.ndarray, " frames"],
    parts: Sequence[slice],
    asked: float | None,
) -> tuple[Lateness, Drift]:
    """`write_sound`, in step with the lips as far as the expert is sure of it, and what it found.

    Args:
        path: file to write.
        source: any file with sound.
        takes: half-open ranges of frames of the film, in order.
        landmarks: any unit; of the training frames, the first ones of the takes.
        numbers: which frames of the film those are.
        parts: runs of them that follow each other in the film.
        asked: frames by which the user says that the sound is late; None to believe the expert where it is sure.
    """
    frames = len(landmarks)
    write_sound(path, source, takes)
    samples = read_sound(path, 0, frames)
    lateness = measure_lateness(landmarks, samples, asked)
    drift = measure_drift(landmarks, samples, numbers, parts)
    if asked is None and drift.certain(int(numbers[-1])) and drift.start is not None and drift.per_minute is not None:
        write_sound(path, source, takes, drift.start, drift.per_minute / MINUTE)
        left = measure_drift(landmarks, read_sound(path, 0, frames), numbers, parts)
        if left.per_minute is not None and abs(left.per_minute) <= LEFT * abs(drift.per_minute):
            return replace(lateness, moved=round(drift.start, 2)), replace(drift, moved=drift.per_minute)
        write_sound(path, source, takes)
    if lateness.moved:
        write_sound(path, source, takes, lateness.moved)
    return lateness, drift


def write_sound(path: Path, source: Path, takes: Sequence[Sequence[int]], late: float = 0.0, drift: float = 0.0) -> None:
    """The takes' sound, 16 kHz mono FLAC, exactly as long as their frames; silence where the source has none.

    Args:
        path: file to write.
        source: any file with sound.
        takes: half-open ranges of frames, in order.
        late: frames by which the source's sound comes late at the first frame.
        drift: frames by which it comes later with each frame.
    """
    shift = round(late / (1 + drift) * SAMPLES_PER_FRAME)
    pending = [[start * SAMPLES_PER_FRAME + shift, stop * SAMPLES_PER_FRAME + shift] for start, stop in takes]
    with soundfile.SoundFile(path, "w", AUDIO_RATE, 1, subtype="PCM_16") as sink:
        for part in pending:
            if part[0] < 0:
                sink.write(np.zeros(min(part[1], 0) - part[0], np.float32))
                part[0] = min(part[1], 0)
        position = 0
        for chunk in _at_the_pictures_clock(source, drift):
            for part in pending:
                low, high = max(part[0], position), min(part[1], position + len(chunk))
                if low < high:
                    sink.write(chunk[low - position : high - position])
                    part[0] = high
            position += len(chunk)
        for start, stop in pending:
            sink.write(np.zeros(stop - start, np.float32))


def _at_the_pictures_clock(source: Path, drift: float) -> Iterator[np.ndarray]:
    """Sound at 16 kHz that runs faster by the factor 1 + `drift`, in pieces."""
    if drift == 0:
        yield from read_audio_chunks(source)
        return
    stretch = soxr.ResampleStream(AUDIO_RATE * (1 + drift), AUDIO_RATE, 1, dtype="float32")
    for chunk in chain(read_audio_chunks(source), [None]):
        end = chunk is None
        yield stretch.resample_chunk(np.zeros(0, np.float32) if end else chunk, last=end)


def read_sound(path: Path, start: int, stop: int) -> Float[np.ndarray, " samples"]:
    """The sound of a capture's frames `start` to `stop`, mono, 16 kHz."""
    return soundfile.read(path, dtype="float32", start=start * SAMPLES_PER_FRAME, stop=stop * SAMPLES_PER_FRAME)[0]


def measure_lateness(
    landmarks: Float[np.ndarray, "frames 468 2"], samples: Float[np.ndarray, " samples"], asked: float | None
) -> Lateness:
    """By how much the sound of these frames has to be moved.

    Args:
        landmarks: any unit; of training frames only, for what they say changes what is learnt.
        samples: their sound, mono, 16 kHz.
        asked: frames that the user says; None to believe the expert where it is sure.
    """
    try:
        heard = sync_offset(landmarks, samples)
    except ScoringError:
        return Lateness(None, None, asked or 0.0)
    believed = heard.frames >= ENOUGH and heard.confidence >= SURE and abs(heard.offset) >= LEAST
    moved = (heard.offset if believed else 0.0) if asked is None else asked
    return Lateness(round(heard.offset, 2), round(heard.confidence, 3), round(moved, 2))

"""Reading media: frames at one clock (see `clock`) and sound at one rate.

Letters: H, W frame height and width in pixels. Frames are uint8 RGB [H, W, 3], pixel (0, 0) has its centre at (0.5, 0.5);
sound is float32 mono in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import chain

import numpy as np

from .clock import AUDIO_RATE, FPS
from .door import ask
from .source import Source


def read_frames(
    path: Source, fps: float | int = FPS, start: int = 0, stop: int | None = None, gray: bool = False
) -> Iterator[np.ndarray]:
    """Decode a video at a constant rate, upright and with square pixels, a few frames in memory at a time.

    Output frame k is the stored frame nearest to the time k / fps after the first frame, so variable frame rate and
    rates other than `fps` keep their timing. `frames_in` says how many frames a film gives.

    Args:
        path: any file that FFmpeg decodes, or a folder of pictures.
        fps: output frames per second.
        start: first output frame wanted; earlier ones are skipped by seeking.
        stop: output frame to end before; None for all.
        gray: give [H, W] brightness instead, exact for files of `GrayWriter`.

    Yields:
        uint8 RGB [H, W, 3], or uint8 [H, W] if `gray`.

    Raises:
        MediaError: as `probe`; no picture track; damaged data in the wanted part.
    """
    with closing(ask("frames", path, fps=fps, start=start, stop=stop, gray=gray)) as found:
        yield from found


def read_audio(path: Source, rate: int = AUDIO_RATE) -> np.ndarray:
    """The whole sound track as float32 mono [N] at `rate`; see `read_audio_chunks` for timing, errors and streaming."""
    chunks = list(read_audio_chunks(path, rate))
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)


def read_audio_chunks(path: Source, rate: int = AUDIO_RATE) -> Iterator[np.ndarray]:
    """Decode a sound track in pieces: channels averaged, resampled, on the clock of the video frames.

    In a file with a picture, sample 0 belongs to the first video frame: earlier sound is dropped, a late start and gaps
    become silence. In a sound file, sample 0 is its first sample.

    Yields:
        float32 [n] in [-1, 1].

    Raises:
        MediaError: as `probe`, or damaged data.
        NoAudioError: the file has no sound track.
    """
    import soxr

    with closing(ask("sound", path)) as found:
        source_rate = next(found)["rate"]
        if source_rate == rate:
            yield from found
            return
        resampler = soxr.ResampleStream(source_rate, rate, 1, dtype="float32")
        for piece, last in chain(((piece, False) for piece in found), [(np.zeros(0, np.float32), True)]):
            out = resampler.resample_chunk(piece, last=last)
            if len(out):
                yield out

"""Films as a report sees them: frames at one rate and in one size, readable from any place on, and their sound.

Nothing here grows with the length of a film: frames are streams, and sound waits on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from ..capture.artifact import Capture
from ..capture.detect import warp
from ..errors import NoAudioError
from ..video.clock import SAMPLES_PER_FRAME
from ..video.look import count_frames, require_video
from ..video.read import read_audio_chunks, read_frames


@dataclass(frozen=True)
class Film:
    """Frames, 25 a second, uint8 RGB [H, W, 3]."""

    name: str
    size: tuple[int, int]
    """Width and height of its frames, pixels."""
    count: int
    """Frames; of a video about right until somebody has read it."""
    frames: Callable[[int, int], Iterator[np.ndarray]]
    """The frames of a half-open range."""
    sound: Path | None
    """Where its sound is; its first sample belongs to frame 0."""

    def part(self, start: int, stop: int) -> Film:
        """The frames of a half-open range, counted from 0 again; of its sound nothing is said."""
        return replace(self, count=stop - start, frames=lambda a, b: self.frames(start + a, start + b), sound=None)

    def placed(self, matrix: Float[np.ndarray, "2 3"] | None, size: tuple[int, int]) -> Film:
        """Its pictures brought to another size, by an affine map of pixels, or resized if there is none."""

        def frames(start: int, stop: int) -> Iterator[np.ndarray]:
            for frame in self.frames(start, stop):
                if matrix is not None:
                    yield warp(frame, matrix, size, cubic=True, replicate=True)
                else:
                    # For enlarging, OpenCV's area method only repeats pixels.
                    larger = size[0] > frame.shape[1] or size[1] > frame.shape[0]
                    yield cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC if larger else cv2.INTER_AREA)

        return self if matrix is None and size == self.size else replace(self, size=size, frames=frames)

    def cut(self, window: tuple[int, int, int, int]) -> Film:
        """A part of its pictures: left, top, right and bottom, half-open, pixels."""
        left, top, right, bottom = window

        def frames(start: int, stop: int) -> Iterator[np.ndarray]:
            for frame in self.frames(start, stop):
                yield np.ascontiguousarray(frame[top:bottom, left:right])

        return replace(self, size=(right - left, bottom - top), frames=frames)

    def at(self, number: int) -> np.ndarray:
        """One frame."""
        return next(self.frames(number, number + 1))


def open_video(path: Path, name: str) -> Film:
    """A video file.

    Raises:
        MediaError: it cannot be read, or has no picture.
    """
    info = require_video(path)
    sound: Path | None = path
    try:
        next(read_audio_chunks(path), None)
    except NoAudioError:
        sound = None
    return Film(name, (info.width, info.height), count_frames(path), lambda a, b: read_frames(path, start=a, stop=b), sound)


def open_capture(capture: Capture, name: str) -> Film:
    """The aligned crops of a capture."""
    return Film(name, (capture.resolution,) * 2, capture.count, capture.frames, capture.path("audio.flac"))


class Sound:
    """Sound on disk, mono float32 at 16 kHz, readable from any frame on.

    Args:
        source: any file with sound.
        scratch: file to write.
    """

    def __init__(self, source: Path, scratch: Path):
        self._path = scratch
        with scratch.open("wb") as file:
            for chunk in read_audio_chunks(source):
                file.write(chunk.astype("<f4").tobytes())
        self.frames = -(-scratch.stat().st_size // (4 * SAMPLES_PER_FRAME))
        """How many frames there is sound for."""

    def __call__(self, start: int, stop: int) -> Float[np.ndarray, " samples"]:
        """Sound of a half-open range of frames; silence before its beginning and after its end."""
        first = max(0, start)
        known = np.zeros(0, np.float32)
        if stop > first:
            known = np.fromfile(self._path, "<f4", (stop - first) * SAMPLES_PER_FRAME, offset=4 * SAMPLES_PER_FRAME * first)
        before = (min(first, stop) - start) * SAMPLES_PER_FRAME
        return np.pad(known.astype(np.float32), (before, max(0, (stop - start) * SAMPLES_PER_FRAME - before - len(known))))

    def part(self, first: int) -> Callable[[int, int], Float[np.ndarray, " samples"]]:
        """The same from frame `first` on, counted from 0 again."""
        return lambda start, stop: self(first + start, first + stop)

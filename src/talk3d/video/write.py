"""Writing media: frames and sound as they come, into files that are whole or absent.

Letters: H, W frame height and width in pixels; N sound samples. Frames are uint8 RGB [H, W, 3], sound is float32 mono in
[-1, 1].
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..errors import ConfigError
from ..partials import partial_path, refuse_existing, remove_stale_partials
from .clock import FPS

W = TypeVar("W", bound="_Writer")


class _Writer:
    """What all writers end with: the whole file, or none."""

    _container: Any
    _file: _PendingFile

    def close(self) -> None:
        """Finish the file and move it to its name. Called by leaving the `with` block without an exception."""
        self._container.close()
        self._file.commit()

    def abort(self) -> None:
        """Drop everything written so far. Called by leaving the `with` block with an exception."""
        self._container.close()
        self._file.discard()

    def __enter__(self: W) -> W:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class VideoWriter(_Writer):
    """Write frames and sound to an MP4 as they come; the file appears under its name only when complete.

    Use as a context manager. Frames and sound may be given in any order and in pieces of any size: sound waits until
    its frames have been written, is cut at the end of the last frame, and is filled with silence if it is too short.
    An exception inside the `with` block, or a kill, leaves no file at `path`.

        with VideoWriter("out.mp4", (256, 256), audio_rate=16_000, metadata={"talk3d": {...}}) as writer:
            writer.write_audio(samples)   # float32 [N] in [-1, 1]
            for frame in frames:
                writer.write(frame)       # uint8 RGB [256, 256, 3]

    Args:
        path: the final file, ending in `.mp4`.
        size: (width, height) in pixels, both even.
        fps: constant frame rate.
        audio_rate: samples per second of the mono sound; None for a file without sound.
        metadata: stored as JSON in the container's comment; `probe(path).metadata` gives it back.
        crf: H.264 quality, 0 (exact) to 51 (bad).
        full_colour: keep colour at full resolution (4:4:4). Not all players show this; meant for intermediate files.
        preset: x264's trade of time for size.
        gop: frames between key frames, thus the most a seek has to decode.
        causal: encode each frame without knowing the later ones, so that the start of the film does not depend on
            what follows.
        audio_bit_rate: bits a second of the sound; the default is transparent for speech.
        overwrite: replace an existing file.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is not set.
        ConfigError: odd size, or a name that does not end in `.mp4`.
    """

    def __init__(
        self,
        path: Path | str,
        size: tuple[int, int],
        fps: int = FPS,
        audio_rate: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        crf: int = 18,
        *,
        full_colour: bool = False,
        preset: str = "medium",
        gop: int = FPS,
        causal: bool = False,
        audio_bit_rate: int | None = None,
        overwrite: bool = False,
    ) -> None:
        width, height = size
        if width % 2 or height % 2 or width <= 0 or height <= 0:
            raise ConfigError(f"A video of {width}x{height} cannot be written: H.264 needs an even width and height.")
        self._file = _PendingFile(Path(path), ".mp4", overwrite)
        self.size, self.fps, self.frames = size, fps, 0
        self._container = av.open(str(self._file.partial), "w", format="mp4", options={"movflags": "+faststart"})
        if metadata is not None:
            self._container.metadata["comment"] = json.dumps(metadata)
        self._pixels = "yuv444p" if full_colour else "yuv420p"
        self._reformatter = VideoReformatter()
        options = {"crf": str(crf), "preset": preset, "g": str(gop)}
        if causal:
            # With several threads pictures are cut into as many slices: files would differ from machine to machine.
            options |= {"tune": "zerolatency", "threads": "1"}
        self._video = self._container.add_stream("libx264", rate=fps, options=options)
        self._video.width, self._video.height, self._video.pix_fmt = width, height, self._pixels
        context = self._video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        self._audio: Any = None
        if audio_rate is not None:
            self._audio = self._container.add_stream("aac", rate=audio_rate, layout="mono")
            self._audio.bit_rate = audio_bit_rate or min(128_000, 5 * audio_rate)
            self._audio.format = "fltp"
        self._waiting: list[np.ndarray] = []
        self._sound_written = 0

    def write(self, frame: np.ndarray) -> None:
        """Append `frame` uint8 RGB [H, W, 3]."""
        width, height = self.size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"expected uint8 [{height}, {width}, 3], got {frame.dtype} {list(frame.shape)}")
        picture = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            format=self._pixels,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        picture.pts, picture.time_base = self.frames, Fraction(1, self.fps)
        self._container.mux(self._video.encode(picture))
        self.frames += 1
        self._drain_sound()

    def write_audio(self, samples: np.ndarray) -> None:
        """Append `samples` float [N] in [-1, 1]; sound that runs ahead of the frames is held back in memory."""
        if self._audio is None:
            raise ValueError("this writer was opened without audio_rate")
        if samples.ndim != 1:
            raise ValueError(f"expected mono samples [N], got {list(samples.shape)}")
        self._waiting.append(np.asarray(samples, np.float32))
        self._drain_sound()

    def _drain_sound(self) -> None:
        """Encode the waiting sound up to the end of the last frame written."""
        room = self._sound_due() - self._sound_written
        while self._waiting and room > 0:
            piece = self._waiting.pop(0)
            if len(piece) > room:
                self._waiting.insert(0, piece[room:])
                piece = piece[:room]
            room -= len(piece)
            self._encode_sound(piece)

    def _sound_due(self) -> int:
        return round(self.frames / self.fps * self._audio.rate) if self._audio is not None else 0

    def _encode_sound(self, samples: np.ndarray) -> None:
        if len(samples) == 0:
            return
        frame = av.AudioFrame.from_ndarray(np.clip(samples, -1, 1)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self._audio.rate, self._sound_written
        frame.time_base = Fraction(1, self._audio.rate)
        self._sound_written += len(samples)
        self._container.mux(self._audio.encode(frame))

    def close(self) -> None:
        """Finish the file and move it to its name. Called by leaving the `with` block without an exception."""
        if self._audio is not None:
            self._encode_sound(np.zeros(max(0, self._sound_due() - self._sound_written), np.float32))
            self._container.mux(self._audio.encode(None))
        self._container.mux(self._video.encode(None))
        super().close()


class GrayWriter(_Writer):
    """Write uint8 [H, W] pictures, such as masks, to a Matroska file without any loss (FFV1); streaming and atomic.

    Read them back with `read_frames(path, gray=True)`.

    Args:
        path: the final file, ending in `.mkv`.
        size: (width, height) in pixels.
        fps: constant frame rate.
        overwrite: replace an existing file.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is not set.
        ConfigError: a name that does not end in `.mkv`.
    """

    def __init__(self, path: Path | str, size: tuple[int, int], fps: int = FPS, *, overwrite: bool = False) -> None:
        self._file = _PendingFile(Path(path), ".mkv", overwrite)
        self.size, self.frames = size, 0
        # Without this flag Matroska gets a random number, and equal pictures would give unequal files.
        self._container = av.open(str(self._file.partial), "w", format="matroska", options={"fflags": "+bitexact"})
        self._stream = self._container.add_stream("ffv1", rate=fps, options={"level": "3"})
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "gray"
        self._time_base = Fraction(1, fps)

    def write(self, picture: np.ndarray) -> None:
        """Append `picture` uint8 [H, W]."""
        width, height = self.size
        if picture.shape != (height, width) or picture.dtype != np.uint8:
            raise ValueError(f"expected uint8 [{height}, {width}], got {picture.dtype} {list(picture.shape)}")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray")
        frame.pts, frame.time_base = self.frames, self._time_base
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def close(self) -> None:
        """Finish the file and move it to its name."""
        self._container.mux(self._stream.encode(None))
        super().close()


def join_films(parts: Sequence[Path], path: Path) -> None:
    """One film of several that `VideoWriter` or `GrayWriter` wrote alike, without encoding anything again.

    Args:
        parts: at least one, without sound, and written `causal` if they are of `VideoWriter`.
        path: the new file, of the same kind.

    Raises:
        OutputExistsError: `path` exists.
    """
    suffix = parts[0].suffix
    file = _PendingFile(path, suffix, overwrite=False)
    try:
        if len(parts) == 1:
            shutil.copyfile(parts[0], file.partial)
        else:
            options = {"fflags": "+bitexact"} if suffix == ".mkv" else {"movflags": "+faststart"}
            with av.open(str(file.partial), "w", format=_MUXERS[suffix], options=options) as whole:
                _append(parts, whole)
        file.commit()
    finally:
        file.discard()


_MUXERS = {".mp4": "mp4", ".mkv": "matroska"}


def _append(parts: Sequence[Path], whole: Any) -> None:
    """Copy the packets of films into a container, one film after the other; each packet is the next picture."""
    target: Any = None
    count = 0
    for part in parts:
        with av.open(str(part)) as film:
            stream: Any = film.streams.video[0]
            if target is None:
                target = whole.add_stream_from_template(stream)
            for packet in film.demux(stream):
                if packet.dts is None:  # the end of the file
                    continue
                packet.pts = packet.dts = round(count / (stream.average_rate * packet.time_base))
                packet.stream = target
                whole.mux(packet)
                count += 1


class _PendingFile:
    """A file under a hidden name beside its final one, until it is committed."""

    def __init__(self, path: Path, suffix: str, overwrite: bool) -> None:
        if path.suffix.lower() != suffix:
            raise ConfigError(f"`{path}` must end in `{suffix}`, the only format written here.")
        refuse_existing(path, overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_partials(path)
        self.path = path
        self.partial = partial_path(path)

    def commit(self) -> None:
        os.replace(self.partial, self.path)

    def discard(self) -> None:
        self.partial.unlink(missing_ok=True)

"""Reading and writing media: frames at one clock, sound at one rate, and files that are whole or absent.

One clock rules everything: time zero is the first video frame, output frame k stands for the time k / fps, and the
sample n of `read_audio` for n / rate on the same axis, whatever the file's own frame rate, start offsets or gaps.

Letters: H, W frame height and width in pixels; F frames; N sound samples. Frames are uint8 RGB [H, W, 3], pixel (0, 0)
has its centre at (0.5, 0.5); sound is float32 mono in [-1, 1].
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from .errors import ConfigError, MediaError, NoAudioError
from .partials import partial_path, refuse_existing, remove_stale_partials

FPS = 25
"""Frames per second of everything talk3d makes."""

AUDIO_RATE = 16_000
"""Samples per second of everything talk3d listens to."""

SAMPLES_PER_FRAME = AUDIO_RATE // FPS
"""640."""


# ---------------------------------------------------------------------------------------------------------- looking


@dataclass(frozen=True)
class VideoInfo:
    """The picture track of a file, as it is displayed: after rotation and with square pixels."""

    width: int
    height: int
    fps: float
    """Mean rate; frames may be spaced unevenly."""
    duration: float
    """Seconds, as the file declares; 0 if it does not say."""
    rotation: int
    """Degrees counter-clockwise that the stored picture is turned for display: 0, 90, 180 or 270."""
    codec: str


@dataclass(frozen=True)
class AudioInfo:
    """The sound track of a file."""

    rate: int
    """Samples per second."""
    channels: int
    duration: float
    """Seconds, as the file declares; 0 if it does not say."""
    codec: str


@dataclass(frozen=True)
class MediaInfo:
    """What `probe` learns about a file without decoding more than its first frame."""

    path: Path
    video: VideoInfo | None
    audio: AudioInfo | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What `VideoWriter` was given as `metadata`; empty for files made elsewhere."""


def probe(path: Path | str) -> MediaInfo:
    """Open a video or sound file and look at its tracks.

    Raises:
        MediaError: there is no such file, it is empty, it is no media file, or its first frame cannot be decoded.
    """
    path = Path(path)
    with _opened(path) as container:
        video = _video_info(path, container)
        stream = _audio_stream(container)
        audio = None
        if stream is not None:
            context = stream.codec_context
            audio = AudioInfo(context.sample_rate, context.channels, _seconds(stream, container), context.name)
        if video is None and audio is None:
            raise MediaError(f"`{path}` has neither a picture nor a sound track. Give a video or sound file.")
        try:
            metadata = json.loads(container.metadata.get("comment", ""))
        except ValueError:
            metadata = {}
        return MediaInfo(path, video, audio, metadata if isinstance(metadata, dict) else {})


def require_video(path: Path | str) -> VideoInfo:
    """`probe`'s picture track, or a typed error.

    Raises:
        MediaError: as `probe`, or the file has no picture track.
    """
    info = probe(path)
    if info.video is None:
        raise MediaError(f"`{path}` has sound but no picture. Give a video file.")
    return info.video


def count_frames(path: Path | str) -> int:
    """How many frames `read_frames` will give, from the packets' own times: containers may declare no length, or a wrong one.

    Raises:
        MediaError: as `require_video`.
    """
    info = require_video(path)
    with _opened(Path(path)) as container:
        stream = _video_stream(container)
        first, end, packets = None, 0.0, 0
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and packet.time_base is not None:
                    time = float(packet.pts * packet.time_base)
                    first = time if first is None else min(first, time)
                    end = max(end, time + float((packet.duration or 0) * packet.time_base or 1 / info.fps))
                packets += packet.size > 0
        except av.FFmpegError:
            pass  # reading will say where it is damaged
    return frames_in(end - first) if first is not None else frames_in(packets / info.fps)


def check_complete(path: Path | str) -> None:
    """Walk through a file's packets without decoding them, to find a cut-off file before any expensive work.

    Raises:
        MediaError: as `probe`, or the file ends before the length that it declares.
    """
    path = Path(path)
    with _opened(path) as container:
        for stream in (_video_stream(container), _audio_stream(container)):
            if stream is None:
                continue
            container.seek(0)
            declared, end, first, corrupt = _seconds(stream, container), 0.0, None, False
            try:
                for packet in container.demux(stream):
                    corrupt = corrupt or packet.is_corrupt
                    if packet.pts is not None and packet.time_base is not None:
                        time = float(packet.pts * packet.time_base)
                        first = time if first is None else min(first, time)
                        end = max(end, time + float((packet.duration or 0) * packet.time_base))
            except av.FFmpegError:
                corrupt = True
            found = end - (first or 0.0)
            # Containers round, and encoders pad sound, so the ends may disagree by a fraction of a second.
            if corrupt or found < declared - max(0.5, 0.02 * declared):
                raise MediaError(
                    f"`{path}` is cut off: it declares {declared:.1f} s of {stream.type} but only {found:.1f} s can be "
                    "read. Copy or download it again, or re-encode the good part."
                )


# ---------------------------------------------------------------------------------------------------------- reading


def read_frames(
    path: Path | str, fps: float | int = FPS, start: int = 0, stop: int | None = None, gray: bool = False
) -> Iterator[np.ndarray]:
    """Decode a video at a constant rate, upright and with square pixels, one frame in memory at a time.

    Output frame k is the stored frame nearest to the time k / fps after the first frame, so variable frame rate and
    rates other than `fps` keep their timing. `frames_in` says how many frames a film gives.

    Args:
        path: any file PyAV decodes.
        fps: output frames per second.
        start: first output frame wanted; earlier ones are skipped by seeking.
        stop: output frame to end before; None for all.
        gray: give [H, W] brightness instead, exact for files of `GrayWriter`.

    Yields:
        uint8 RGB [H, W, 3], or uint8 [H, W] if `gray`.

    Raises:
        MediaError: as `probe`; no picture track; damaged data in the wanted part.
    """
    path = Path(path)
    with _opened(path) as container:
        info = _video_info(path, container)
        if info is None:
            raise MediaError(f"`{path}` has no picture track. Give a video file.")
        convert = _converter(info, gray)
        index = start
        previous: tuple[float, av.VideoFrame] | None = None
        for time, frame in _timed_frames(path, container, start / fps):
            if previous is not None:
                while abs(index / fps - previous[0]) <= abs(index / fps - time) and (stop is None or index < stop):
                    yield convert(previous[1])
                    index += 1
            if stop is not None and index >= stop:
                return
            previous = (time, frame)
        if previous is None:
            raise MediaError(f"`{path}` has a picture track but no frame in it can be decoded. Re-encode it.")
        last, frame = previous
        shown = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / info.fps
        while index < frames_in(last + shown, fps) and (stop is None or index < stop):
            yield convert(frame)
            index += 1


def frames_in(seconds: float, fps: float | int = FPS) -> int:
    """How many frames `read_frames` gives for a film of `seconds`: the last one must have a quarter of its time.

    Without that margin, time stamps rounded to milliseconds would now and then add a frame.
    """
    return max(1, math.ceil(seconds * fps - 0.25))


def read_audio(path: Path | str, rate: int = AUDIO_RATE) -> np.ndarray:
    """The whole sound track as float32 mono [N] at `rate`; see `read_audio_chunks` for timing, errors and streaming."""
    chunks = list(read_audio_chunks(path, rate))
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)


def read_audio_chunks(path: Path | str, rate: int = AUDIO_RATE) -> Iterator[np.ndarray]:
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

    path = Path(path)
    with _opened(path) as container:
        stream = _audio_stream(container)
        if stream is None:
            raise NoAudioError(f"`{path}` has no sound track. Use a recording with sound, or give a sound file as well.")
        source_rate = stream.codec_context.sample_rate
        resampler = soxr.ResampleStream(source_rate, rate, 1, dtype="float32") if source_rate != rate else None
        for piece in _placed_audio(path, container, stream, _first_frame_time(path, container)):
            out = piece if resampler is None else resampler.resample_chunk(piece)
            if len(out):
                yield out
        if resampler is not None:
            tail = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            if len(tail):
                yield tail


def _opened(path: Path) -> av.container.InputContainer:
    if not path.exists():
        raise MediaError(f"`{path}` does not exist. Check the path.")
    if path.is_dir():
        raise MediaError(f"`{path}` is a folder. Give a video or sound file.")
    if path.stat().st_size == 0:
        raise MediaError(f"`{path}` is empty (0 bytes). Copy or download it again.")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(
            f"`{path}` cannot be read as video or sound ({_reason(error)}). It is cut off, damaged, or no media file; "
            "copy it again or convert it to MP4."
        ) from error
    # FFmpeg is willing to show text files as a film of a terminal.
    if container.format.name == "tty":
        container.close()
        raise MediaError(f"`{path}` is a text file. Give a video or sound file.")
    for stream in container.streams.video:
        stream.thread_type = "AUTO"
    return container


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _video_stream(container: av.container.InputContainer) -> Any:
    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def _audio_stream(container: av.container.InputContainer) -> Any:
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def _seconds(stream: Any, container: av.container.InputContainer) -> float:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _video_info(path: Path, container: av.container.InputContainer) -> VideoInfo | None:
    """Rewinds the container."""
    stream = _video_stream(container)
    if stream is None:
        return None
    frame = _first_frame(path, container)
    rotation = round(frame.rotation / 90) * 90 % 360
    aspect = float(stream.sample_aspect_ratio or 1)
    width, height = round(frame.width * aspect), frame.height
    if rotation in (90, 270):
        width, height = height, width
    rate = float(stream.average_rate or stream.guessed_rate or FPS)
    return VideoInfo(width, height, rate, _seconds(stream, container), rotation, stream.codec_context.name)


def _first_frame(path: Path, container: av.container.InputContainer) -> av.VideoFrame:
    stream = _video_stream(container)
    try:
        frame = next(container.decode(stream), None)
        if frame is not None:
            container.seek(0)
            return frame
    except av.FFmpegError as error:
        raise MediaError(f"`{path}`: its first frame cannot be decoded ({_reason(error)}). Re-encode it.") from error
    raise MediaError(f"`{path}` has a picture track but no frame in it can be decoded. Re-encode it.")


def _first_frame_time(path: Path, container: av.container.InputContainer) -> float | None:
    """The file's own time of its first video frame in seconds, None without a picture track. Rewinds the container."""
    if _video_stream(container) is None:
        return None
    return _first_frame(path, container).time or 0.0


def _timed_frames(path: Path, container: av.container.InputContainer, seek: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decoded frames with times in seconds after the first frame, strictly rising, from some time before `seek` on."""
    stream = _video_stream(container)
    first = _first_frame(path, container).time
    zero = first or 0.0
    time = -1.0
    try:
        if seek > 0 and first is not None:
            # Lands on a key frame before that time, unless the file's index is wrong.
            container.seek(max(0, int((zero + seek - 0.1) * av.time_base)))
            landed = next(container.decode(stream), None)
            late = landed is None or landed.time is None or landed.time - zero > seek
            container.seek(0 if late else max(0, int((zero + seek - 0.1) * av.time_base)))
        for frame in container.decode(stream):
            stamp = frame.time - zero if frame.time is not None else time + 1 / float(stream.guessed_rate or FPS)
            if stamp > time:
                time = stamp
                yield time, frame
    except av.FFmpegError as error:
        raise MediaError(
            f"`{path}` is damaged {max(time, 0):.1f} s after its start ({_reason(error)}). Copy it again or re-encode it."
        ) from error


def _converter(info: VideoInfo, gray: bool) -> Any:
    turns = info.rotation // 90
    width, height = (info.height, info.width) if turns % 2 else (info.width, info.height)

    reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def convert(frame: av.VideoFrame) -> np.ndarray:
        if not (gray and frame.format.name.startswith("gray")):
            frame = reformatter.reformat(frame, width, height, "gray" if gray else "rgb24", threads=1)
        picture = frame.to_ndarray()
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    return convert


def _placed_audio(path: Path, container: av.container.InputContainer, stream: Any, zero: float | None) -> Iterator[np.ndarray]:
    """Mono float32 pieces at the source's rate, contiguous, the first sample at file time `zero` (None: wherever)."""
    rate = stream.codec_context.sample_rate
    to_float = av.AudioResampler(format="fltp", rate=rate)
    written, first = 0, True
    try:
        for frame in container.decode(stream):
            for planar in to_float.resample(frame):
                samples = planar.to_ndarray().mean(axis=0, dtype=np.float32)
                if planar.time is not None:
                    if zero is None:
                        zero = planar.time
                    ahead = round((planar.time - zero) * rate) - written
                    # Stamps jitter by a few samples in many files; only a real gap or overlap is made good.
                    if abs(ahead) > (0 if first else 0.02 * rate):
                        if ahead > 0:
                            yield np.zeros(ahead, np.float32)
                            written += ahead
                        else:
                            samples = samples[-ahead:]
                first = first and len(samples) == 0
                written += len(samples)
                yield samples
    except av.FFmpegError as error:
        raise MediaError(
            f"The sound of `{path}` is damaged {written / rate:.1f} s after its start ({_reason(error)}). "
            "Copy it again or re-encode it."
        ) from error


# ---------------------------------------------------------------------------------------------------------- writing


class VideoWriter:
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
            options["tune"] = "zerolatency"
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
        self._container.close()
        self._file.commit()

    def abort(self) -> None:
        """Drop everything written so far. Called by leaving the `with` block with an exception."""
        self._container.close()
        self._file.discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class GrayWriter:
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
        self._container.close()
        self._file.commit()

    def abort(self) -> None:
        """Drop everything written so far."""
        self._container.close()
        self._file.discard()

    def __enter__(self) -> GrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


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

"""Reading media: frames at one clock (see `clock`) and sound at one rate.

Letters: H, W frame height and width in pixels. Frames are uint8 RGB [H, W, 3], pixel (0, 0) has its centre at (0.5, 0.5);
sound is float32 mono in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from ..errors import MediaError, NoAudioError
from .clock import AUDIO_RATE, FPS, frames_in
from .container import audio_stream, first_frame, first_frame_time, opened, reason, video_stream
from .look import VideoInfo, video_info


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
    with opened(path) as container:
        info = video_info(path, container)
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
    with opened(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise NoAudioError(f"`{path}` has no sound track. Use a recording with sound, or give a sound file as well.")
        source_rate = stream.codec_context.sample_rate
        resampler = soxr.ResampleStream(source_rate, rate, 1, dtype="float32") if source_rate != rate else None
        for piece in _placed_audio(path, container, stream, first_frame_time(path, container)):
            out = piece if resampler is None else resampler.resample_chunk(piece)
            if len(out):
                yield out
        if resampler is not None:
            tail = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            if len(tail):
                yield tail


def _timed_frames(path: Path, container: av.container.InputContainer, seek: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decoded frames with times in seconds after the first frame, strictly rising, from some time before `seek` on."""
    stream = video_stream(container)
    first = first_frame(path, container).time
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
            f"`{path}` is damaged {max(time, 0):.1f} s after its start ({reason(error)}). Copy it again or re-encode it."
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
            f"The sound of `{path}` is damaged {written / rate:.1f} s after its start ({reason(error)}). "
            "Copy it again or re-encode it."
        ) from error

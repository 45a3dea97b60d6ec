"""What the process that decodes may be asked to do (see `worker`): the generators in `JOBS`.

Each gives what it finds, a dict or an array, or None where it has nothing yet but is still at work.

Letters: H, W frame height and width in pixels. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from ..errors import MediaError, NoAudioError
from .clock import frames_in
from .film import LONGEST_STILL, Film, Slides, audio_stream, declared_seconds, film_of, opened, reason, too_large, video_stream
from .wire import MAX_PIXELS

PIECE = 1 << 16
"""Samples of sound that are handed over together."""

RATES = (1_000, 768_000)
"""Samples per second that sound may have."""

LOUDEST = 8.0
"""Of full scale. Decoders overshoot it by a little where peaks were cut off; damaged floats by any amount."""


def look(source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tracks: `video` and `audio`, None where there is none, and `comment`."""
    if Path(source["path"]).is_dir():
        yield {"video": Slides(source).info, "audio": None, "comment": ""}
        return
    with opened(source) as container:
        video = Film(source["shown"], container).info if video_stream(container) is not None else None
        stream, audio = audio_stream(container), None
        if stream is not None:
            context = stream.codec_context
            audio = {
                "rate": context.sample_rate,
                "channels": context.channels,
                "duration": declared_seconds(stream, container),
                "codec": context.name,
                "tracks": len(container.streams.audio),
            }
        if video is None and audio is None:
            raise MediaError(f"`{source['shown']}` has neither a picture nor a sound track. Give a video or sound file.")
        yield {"video": video, "audio": audio, "comment": container.metadata.get("comment", "")}


def count(source: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """How many frames `frames` gives at 25 a second, without decoding them."""
    with film_of(source) as film:
        if isinstance(film, Slides):
            yield {"frames": frames_in(film.info["duration"])}
            return
        first, end, packets = None, 0.0, 0
        try:
            for packet in film.container.demux(film.stream):
                if packet.pts is not None and packet.time_base is not None:
                    time = float(packet.pts * packet.time_base)
                    first = time if first is None else min(first, time)
                    shown = float((packet.duration or 0) * packet.time_base)
                    end = max(end, time + (shown if 0 < shown <= LONGEST_STILL else 1 / film.info["fps"]))
                packets += packet.size > 0
                yield None
        except av.FFmpegError:
            pass  # reading will say where it is damaged
        yield {"frames": frames_in(end - first) if first is not None else frames_in(packets / film.info["fps"])}


def check(source: dict[str, Any]) -> Iterator[None]:
    """Raises MediaError if the file ends before the length that it declares, or a folder's pictures are not of one size."""
    if Path(source["path"]).is_dir():
        for _ in Slides(source).timed(0.0):
            yield None
        return
    with opened(source) as container:
        if video_stream(container) is not None:
            Film(source["shown"], container)
        for stream in (video_stream(container), audio_stream(container)):
            if stream is None:
                continue
            container.seek(0)
            declared, end, first, corrupt = declared_seconds(stream, container), 0.0, None, False
            try:
                for packet in container.demux(stream):
                    corrupt = corrupt or packet.is_corrupt
                    if packet.pts is not None and packet.time_base is not None:
                        time = float(packet.pts * packet.time_base)
                        first = time if first is None else min(first, time)
                        end = max(end, time + float((packet.duration or 0) * packet.time_base))
                    yield None
            except av.FFmpegError:
                corrupt = True
            found = end - (first or 0.0)
            # Containers round, and encoders pad sound, so the ends may disagree by a fraction of a second.
            if corrupt or found < declared - max(0.5, 0.02 * declared):
                raise MediaError(
                    f"`{source['shown']}` is cut off: it declares {declared:.1f} s of {stream.type} but only {found:.1f} s "
                    "can be read. Copy or download it again, or re-encode the good part."
                )


def frames(source: dict[str, Any], fps: float, start: int, stop: int | None, gray: bool) -> Iterator[np.ndarray | None]:
    """The frames of `read_frames`; None for each that was decoded on the way and is not shown."""
    with film_of(source) as film:
        convert = _converter(film, gray)
        index = start
        previous: tuple[float, av.VideoFrame] | None = None
        for time, frame in film.timed(start / fps):
            if previous is not None:
                if time - previous[0] > LONGEST_STILL:
                    raise MediaError(
                        f"`{film.shown}` shows one picture for {time - previous[0]:.0f} s, {previous[0]:.1f} s after its "
                        "start. Its times are damaged; re-encode it."
                    )
                while abs(index / fps - previous[0]) <= abs(index / fps - time) and (stop is None or index < stop):
                    yield convert(previous[1])
                    index += 1
            if stop is not None and index >= stop:
                return
            previous = (time, frame)
            yield None
        if previous is None:
            raise MediaError(f"`{film.shown}` has a picture track but no frame in it can be decoded. Re-encode it.")
        last, frame = previous
        end = last + film.length_of(frame)
        while index < frames_in(end, fps) and (stop is None or index < stop):
            yield convert(frame)
            index += 1


def _converter(film: Film | Slides, gray: bool) -> Callable[[av.VideoFrame], np.ndarray]:
    """From a decoded frame to uint8 [H, W, 3] or [H, W], upright, with square pixels."""
    turns = film.info["rotation"] // 90
    width, height = film.info["width"], film.info["height"]
    if turns % 2:
        width, height = height, width
    reformatter = VideoReformatter()  # keeps its tables from frame to frame
    last: tuple[av.VideoFrame, np.ndarray] | None = None

    def convert(frame: av.VideoFrame) -> np.ndarray:
        nonlocal last
        if last is not None and last[0] is frame:  # slow films show a frame several times
            return last[1]
        if frame.width * frame.height > MAX_PIXELS:
            raise MediaError(too_large(film.shown, frame.width, frame.height))
        picture = frame
        if not (gray and frame.format.name.startswith("gray") and (frame.width, frame.height) == (width, height)):
            picture = reformatter.reformat(film.light.to_sdr(frame), width, height, "gray" if gray else "rgb24", threads=1)
        array = picture.to_ndarray()
        last = frame, np.ascontiguousarray(np.rot90(array, turns)) if turns else array
        return last[1]

    return convert


def sound(source: dict[str, Any]) -> Iterator[dict[str, Any] | np.ndarray | None]:
    """First the source's `rate`, then its mono float32 samples, contiguous, the first at the time of the first frame."""
    shown = source["shown"]
    if Path(source["path"]).is_dir():
        raise NoAudioError(f"`{shown}` is a folder of pictures, which have no sound. Give a sound file as well (`--audio`).")
    with opened(source) as container:
        stream = audio_stream(container)
        if stream is None:
            raise NoAudioError(f"`{shown}` has no sound track. Give one that has sound.")
        rate = stream.codec_context.sample_rate
        if not RATES[0] <= rate <= RATES[1]:
            raise MediaError(
                f"The sound of `{shown}` has {rate} samples per second, which no recording has. It is damaged; re-encode it."
            )
        zero = Film(shown, container).zero if video_stream(container) is not None else None
        yield {"rate": rate}
        pieces: list[np.ndarray] = []
        for piece in _placed(shown, container, stream, rate, zero):
            pieces.append(piece)
            if sum(map(len, pieces)) >= PIECE:
                yield np.concatenate(pieces)
                pieces = []
            else:
                yield None
        if sum(map(len, pieces)):
            yield np.concatenate(pieces)


def _placed(
    shown: str, container: av.container.InputContainer, stream: Any, rate: int, zero: float | None
) -> Iterator[np.ndarray]:
    """Pieces of sound in order, the first sample at the file's time `zero` (None: wherever)."""
    written, first = 0, True
    try:
        for planar in _resampled(container, stream, rate):
            samples = planar.to_ndarray().mean(axis=0, dtype=np.float32)
            samples = np.clip(np.nan_to_num(samples, nan=0.0), -LOUDEST, LOUDEST)
            if planar.time is not None:
                if zero is None:
                    zero = planar.time
                ahead = round((planar.time - zero) * rate) - written
                # Stamps jitter by a few samples in many files; only a real gap or overlap is made good.
                if abs(ahead) > (0 if first else 0.02 * rate):
                    if ahead > LONGEST_STILL * rate:
                        raise MediaError(
                            f"The sound of `{shown}` has a hole of {ahead / rate:.0f} s, {written / rate:.1f} s after its "
                            "start. Its times are damaged; re-encode it."
                        )
                    while ahead > 0:
                        yield np.zeros(min(ahead, PIECE), np.float32)
                        written += min(ahead, PIECE)
                        ahead -= min(ahead, PIECE)
                    if ahead < 0:
                        samples = samples[-ahead:]
            first = first and len(samples) == 0
            written += len(samples)
            yield samples
    except av.FFmpegError as error:
        raise MediaError(
            f"The sound of `{shown}` is damaged {written / rate:.1f} s after its start ({reason(error)}). "
            "Copy it again or re-encode it."
        ) from error


def _resampled(container: av.container.InputContainer, stream: Any, rate: int) -> Iterator[av.AudioFrame]:
    """Decoded sound as planar floats at `rate`, also where a file changes its layout or rate on the way."""
    form, to_float = None, av.AudioResampler(format="fltp", rate=rate)
    for frame in container.decode(stream):
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form is not None and form != found:
            to_float = av.AudioResampler(format="fltp", rate=rate)
        form = found
        yield from to_float.resample(frame)


JOBS: dict[str, Callable[..., Iterator[Any]]] = {
    "look": look,
    "count": count,
    "check": check,
    "frames": frames,
    "sound": sound,
}

"""Decoding, in the process that may come to harm by it (see `worker`): everything that touches FFmpeg to read.

The functions that the parent may ask for are in `JOBS`. Each is a generator of what it finds: a dict, an array, or None
where it has nothing yet but is still at work.

Letters: H, W frame height and width in pixels. Times are in seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from ..errors import MediaError, NoAudioError
from .clock import FPS, frames_in
from .light import Light, light_of
from .wire import MAX_PIXELS, MAX_SIDE

FORMATS = (
    "mov,mp4,matroska,webm,avi,asf,flv,mpeg,mpegts,mxf,ogg,ivf,yuv4mpegpipe,h264,hevc,obu,gif,apng,"
    "wav,w64,aiff,au,caf,flac,mp3,aac,amr,ac3,eac3,wv,ape,tta"
)
"""Containers that hold their own media. What only names other files (playlists, lists of parts) is refused, and so is text, of
which FFmpeg would make a film of a terminal."""
PICTURE_FORMATS = "png_pipe,jpeg_pipe,webp_pipe"
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

THREADS = 4
"""Of a decoder, at most: each holds a frame of its own, and memory is limited."""

LONGEST_STILL = 600.0
"""Seconds that one picture may stand, or silence last where a file has no sound. Damaged times would else fill the disk."""

PIECE = 1 << 16
"""Samples of sound that are handed over together."""

RATES = (1_000, 768_000)
"""Samples per second that sound may have."""


# ---------------------------------------------------------------------------------------------------------- opening


@contextmanager
def opened(source: dict[str, Any], formats: str = FORMATS) -> Iterator[av.container.InputContainer]:
    """A file as FFmpeg sees it.

    FFmpeg is given an open file and no name, and no protocol but that one: whatever the file says, nothing else can be reached.
    """
    path, shown = Path(source["path"]), source["shown"]
    if not path.exists():
        raise MediaError(f"`{shown}` does not exist. Check the path.")
    if path.is_dir():
        raise MediaError(f"`{shown}` is a folder. Give a video or sound file.")
    if not path.is_file():
        raise MediaError(f"`{shown}` is no ordinary file. Give a video or sound file.")
    if path.stat().st_size == 0:
        raise MediaError(f"`{shown}` is empty (0 bytes). Copy or download it again.")
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise MediaError(f"`{shown}` cannot be opened ({reason(error)}). Check its permissions.") from error
    try:
        options = {"fd": str(file), "protocol_whitelist": "fd", "format_whitelist": formats}
        try:
            container = av.open("fd:", options=options, metadata_errors="replace")
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(
                f"`{shown}` cannot be read as video or sound ({reason(error)}). It is cut off, damaged, no media file, or a "
                "list of other files; copy it again or convert it to MP4."
            ) from error
        with container:
            for stream in container.streams.video:
                stream.thread_type = "AUTO"
                stream.codec_context.thread_count = min(THREADS, os.cpu_count() or 1)
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container
    finally:
        os.close(file)


def reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def video_stream(container: av.container.InputContainer) -> Any:
    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def audio_stream(container: av.container.InputContainer) -> Any:
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def declared_seconds(stream: Any, container: av.container.InputContainer) -> float:
    if stream.duration is not None:
        return max(0.0, float(stream.duration * stream.time_base))
    return max(0.0, container.duration / av.time_base) if container.duration else 0.0


# ------------------------------------------------------------------------------------------------------------- films


class Film:
    """The picture track of an opened file."""

    def __init__(self, shown: str, container: av.container.InputContainer) -> None:
        self.shown, self.container, self.stream = shown, container, video_stream(container)
        if self.stream is None:
            raise MediaError(f"`{shown}` has sound but no picture. Give a video file.")
        context = self.stream.codec_context
        if context is None:
            raise MediaError(f"`{shown}`: its pictures are in a format that cannot be decoded. Convert it to MP4.")
        if context.width * context.height > MAX_PIXELS:
            raise MediaError(too_large(shown, context.width, context.height))
        frame = self._first_frame()
        self.zero = frame.time or 0.0
        """The file's own time of its first frame."""
        self.light = light_of(frame, context)
        rate = float(self.stream.average_rate or self.stream.guessed_rate or FPS)
        self.info = described_frame(shown, frame, float(self.stream.sample_aspect_ratio or 1)) | {
            "fps": rate if rate > 0 else float(FPS),
            "duration": declared_seconds(self.stream, container),
            "codec": context.name,
            "interlaced": self.light.interlaced,
            "transfer": self.light.transfer,
            "notes": self.light.notes,
        }

    def _first_frame(self) -> av.VideoFrame:
        """Rewinds the container."""
        try:
            frame = next(self.container.decode(self.stream), None)
            if frame is not None:
                self.container.seek(0)
                return frame
        except av.FFmpegError as error:
            raise MediaError(f"`{self.shown}`: its first frame cannot be decoded ({reason(error)}). Re-encode it.") from error
        raise MediaError(f"`{self.shown}` has a picture track but no frame in it can be decoded. Re-encode it.")

    def timed(self, seek: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """Decoded frames with times after the first frame, strictly rising, from some time before `seek` on."""
        time = -1.0
        try:
            if seek > 0:
                # Lands on a key frame before that time, unless the file's index is wrong.
                self.container.seek(max(0, int((self.zero + seek - 0.1) * av.time_base)))
                landed = next(self.container.decode(self.stream), None)
                late = landed is None or landed.time is None or landed.time - self.zero > seek
                self.container.seek(0 if late else max(0, int((self.zero + seek - 0.1) * av.time_base)))
            for frame in self.light.mended(self.container.decode(self.stream)):
                stamp = frame.time - self.zero if frame.time is not None else time + 1 / self.info["fps"]
                if stamp > time:
                    time = stamp
                    yield time, frame
        except av.FFmpegError as error:
            raise MediaError(
                f"`{self.shown}` is damaged {max(time, 0):.1f} s after its start ({reason(error)}). Copy it again or "
                "re-encode it."
            ) from error


class Slides:
    """A folder of pictures as a film."""

    light = Light()

    def __init__(self, source: dict[str, Any]) -> None:
        self.shown, self.rate = source["shown"], float(source["fps"])
        folder = Path(source["path"])
        names = [p.name for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
        self.paths = [folder / name for name in sorted(names, key=natural)]
        if not self.paths:
            raise MediaError(
                f"`{self.shown}` is a folder without PNG, JPEG or WEBP pictures. Give a video or sound file, or a folder of "
                "pictures."
            )
        self.info = {
            **self._describe(self.paths[0], self._picture(self.paths[0])),
            "fps": self.rate,
            "duration": len(self.paths) / self.rate,
            "codec": self.paths[0].suffix.lower().lstrip("."),
            "interlaced": False,
            "transfer": "sdr",
            "notes": holes(names),
        }

    def _picture(self, path: Path) -> av.VideoFrame:
        shown = os.path.join(self.shown, path.name)
        with opened({"path": path, "shown": shown}, PICTURE_FORMATS) as container:
            return Film(shown, container)._first_frame()

    def _describe(self, path: Path, frame: av.VideoFrame) -> dict[str, Any]:
        return described_frame(os.path.join(self.shown, path.name), frame, 1.0)

    def timed(self, seek: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """As `Film.timed`."""
        for index in range(max(0, int(seek * self.rate) - 1), len(self.paths)):
            path = self.paths[index]
            frame = self._picture(path)
            found = self._describe(path, frame)
            if any(found[key] != self.info[key] for key in ("width", "height", "rotation")):
                raise MediaError(
                    f"`{os.path.join(self.shown, path.name)}` is {found['width']}x{found['height']}, but the pictures before "
                    f"it are {self.info['width']}x{self.info['height']}. All must have one size and lie the same way round; "
                    "scale or remove those that do not."
                )
            yield index / self.rate, frame


def natural(name: str) -> list[tuple[str, int]]:
    """A key by which 2 comes before 10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], "0"], strict=True)] + [(name, 0)]


def holes(names: list[str]) -> list[str]:
    """What to say about numbers that are missing from the names."""
    numbers = sorted({int(found[-1]) for name in names if (found := re.findall(r"\d+", Path(name).stem))})
    missing = [(low, high) for low, high in pairwise(numbers) if high > low + 1]
    if not missing:
        return []
    count, (low, high) = sum(high - low - 1 for low, high in missing), missing[0]
    return [
        f"The pictures' numbers have holes ({count} missing, the first between {low} and {high}); nothing stands in for them, "
        "and the sound may come late after them."
    ]


def described_frame(shown: str, frame: av.VideoFrame, aspect: float) -> dict[str, Any]:
    """Size as displayed, and how far the stored picture is turned for it."""
    rotation = round(frame.rotation / 90) * 90 % 360
    width, height = max(1, round(frame.width * (aspect if aspect > 0 else 1))), frame.height
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise MediaError(too_large(shown, width, height))
    if rotation in (90, 270):
        width, height = height, width
    return {"width": width, "height": height, "rotation": rotation}


def too_large(shown: str, width: int, height: int) -> str:
    return (
        f"`{shown}` declares pictures of {width}x{height} pixels, more than can be read here ({MAX_PIXELS / 1e6:.0f} million). "
        "It is damaged, or has to be scaled down first."
    )


@contextmanager
def film_of(source: dict[str, Any]) -> Iterator[Film | Slides]:
    if Path(source["path"]).is_dir():
        yield Slides(source)
    else:
        with opened(source) as container:
            yield Film(source["shown"], container)


# -------------------------------------------------------------------------------------------------------------- jobs


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
        shown = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        end = last + (shown if 0 < shown <= LONGEST_STILL else min(1 / film.info["fps"], 1.0))
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
            raise NoAudioError(f"`{shown}` has no sound track. Use a recording with sound, or give a sound file as well.")
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
            samples = np.clip(np.nan_to_num(samples, nan=0.0), -1.0, 1.0)
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

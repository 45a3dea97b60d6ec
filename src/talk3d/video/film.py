"""Opened files and folders: their picture track as frames with times, in the process that decodes (see `worker`).

Times are in seconds.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from ..errors import MediaError
from .clock import FPS
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
    if not path.is_file():  # opening a pipe would wait for someone to write into it
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
                if stream.codec_context is None:  # nothing here decodes it
                    continue
                stream.thread_type = "AUTO"
                stream.codec_context.thread_count = min(THREADS, os.cpu_count() or 1)
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container
    finally:
        os.close(file)


def reason(error: Exception) -> str:
    """What FFmpeg says. Raises MemoryError if it says that there is no memory left."""
    if getattr(error, "errno", None) == errno.ENOMEM:
        raise MemoryError from error
    if getattr(error, "errno", None) == errno.EPERM:  # decoders say -1 where they have no number for it
        return "the decoder gave up"
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


# ------------------------------------------------------------------------------------------------------------ films


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
        self.light = light_of(frame)
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

    def length_of(self, frame: av.VideoFrame) -> float:
        """How long the last frame stands."""
        declared = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        return declared if 0 < declared <= LONGEST_STILL else min(1 / self.info["fps"], 1.0)

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

    def __init__(self, source: dict[str, Any]) -> None:
        self.shown, self.rate, self.light = source["shown"], float(source["fps"]), Light()
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

    def length_of(self, frame: av.VideoFrame) -> float:
        return 1 / self.rate

    def timed(self, seek: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """As `Film.timed`."""
        for index in range(min(max(0, int(seek * self.rate) - 1), len(self.paths) - 1), len(self.paths)):
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
    parts = re.split(r"(\d+)", Path(name).stem.casefold())
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

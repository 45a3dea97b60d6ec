"""Opened files: their tracks, and where the first of them begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from ..errors import MediaError


def opened(path: Path) -> av.container.InputContainer:
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
            f"`{path}` cannot be read as video or sound ({reason(error)}). It is cut off, damaged, or no media file; "
            "copy it again or convert it to MP4."
        ) from error
    # FFmpeg is willing to show text files as a film of a terminal.
    if container.format.name == "tty":
        container.close()
        raise MediaError(f"`{path}` is a text file. Give a video or sound file.")
    for stream in container.streams.video:
        stream.thread_type = "AUTO"
    return container


def reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def video_stream(container: av.container.InputContainer) -> Any:
    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def audio_stream(container: av.container.InputContainer) -> Any:
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def seconds(stream: Any, container: av.container.InputContainer) -> float:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def first_frame(path: Path, container: av.container.InputContainer) -> av.VideoFrame:
    stream = video_stream(container)
    try:
        frame = next(container.decode(stream), None)
        if frame is not None:
            container.seek(0)
            return frame
    except av.FFmpegError as error:
        raise MediaError(f"`{path}`: its first frame cannot be decoded ({reason(error)}). Re-encode it.") from error
    raise MediaError(f"`{path}` has a picture track but no frame in it can be decoded. Re-encode it.")


def first_frame_time(path: Path, container: av.container.InputContainer) -> float | None:
    """The file's own time of its first video frame in seconds, None without a picture track. Rewinds the container."""
    if video_stream(container) is None:
        return None
    return first_frame(path, container).time or 0.0

"""Looking at media before anything is done with them: tracks, lengths, whether a file is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MediaError
from .door import ask
from .source import Pictures, Source


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
    interlaced: bool = False
    """Stored as half pictures."""
    transfer: str = "sdr"
    """How numbers become light: `sdr`, or the HDR transfers `pq` and `hlg`."""
    notes: tuple[str, ...] = ()
    """What a person should know before using this film, in sentences."""


@dataclass(frozen=True)
class AudioInfo:
    """The sound track of a file."""

    rate: int
    """Samples per second."""
    channels: int
    duration: float
    """Seconds, as the file declares; 0 if it does not say."""
    codec: str
    tracks: int = 1
    """How many the file has; the first is the one that is read."""


@dataclass(frozen=True)
class MediaInfo:
    """What `probe` learns about a file without decoding more than its first frame."""

    path: Path
    video: VideoInfo | None
    audio: AudioInfo | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What `VideoWriter` was given as `metadata`; empty for files made elsewhere."""


def probe(path: Source) -> MediaInfo:
    """Open a video or sound file, or a folder of pictures, and look at its tracks.

    Raises:
        MediaError: there is no such file, it is empty, it is no media file, or its first frame cannot be decoded.
    """
    (found,) = ask("look", path)
    video, audio = found["video"], found["audio"]
    try:
        metadata = json.loads(found["comment"])
    except (ValueError, RecursionError):
        metadata = {}
    return MediaInfo(
        path.folder if isinstance(path, Pictures) else Path(path),
        VideoInfo(**(video | {"notes": tuple(video["notes"])})) if video is not None else None,
        AudioInfo(**audio) if audio is not None else None,
        metadata if isinstance(metadata, dict) else {},
    )


def require_video(path: Source) -> VideoInfo:
    """`probe`'s picture track, or a typed error.

    Raises:
        MediaError: as `probe`, or the file has no picture track.
    """
    info = probe(path)
    if info.video is None:
        raise MediaError(f"`{path}` has sound but no picture. Give a video file.")
    return info.video


def count_frames(path: Source) -> int:
    """How many frames `read_frames` will give, from the packets' own times: containers may declare no length, or a wrong one.

    Raises:
        MediaError: as `require_video`.
    """
    (found,) = ask("count", path)
    return int(found["frames"])


def check_complete(path: Source) -> None:
    """Walk through a file's packets without decoding them, to find a cut-off file before any expensive work; for a folder of
    pictures, through the pictures.

    Raises:
        MediaError: as `probe`, or the file ends before the length that it declares, or the pictures differ in size.
    """
    for _ in ask("check", path):
        pass

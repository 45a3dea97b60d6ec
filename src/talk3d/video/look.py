"""Looking at media before anything is done with them: tracks, lengths, whether a file is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from ..errors import MediaError
from .clock import FPS, frames_in
from .container import audio_stream, first_frame, opened, seconds, video_stream


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
    with opened(path) as container:
        video = video_info(path, container)
        stream = audio_stream(container)
        audio = None
        if stream is not None:
            context = stream.codec_context
            audio = AudioInfo(context.sample_rate, context.channels, seconds(stream, container), context.name)
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
    with opened(Path(path)) as container:
        stream = video_stream(container)
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
    with opened(path) as container:
        for stream in (video_stream(container), audio_stream(container)):
            if stream is None:
                continue
            container.seek(0)
            declared, end, first, corrupt = seconds(stream, container), 0.0, None, False
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


def video_info(path: Path, container: av.container.InputContainer) -> VideoInfo | None:
    """Rewinds the container."""
    stream = video_stream(container)
    if stream is None:
        return None
    frame = first_frame(path, container)
    rotation = round(frame.rotation / 90) * 90 % 360
    aspect = float(stream.sample_aspect_ratio or 1)
    width, height = round(frame.width * aspect), frame.height
    if rotation in (90, 270):
        width, height = height, width
    rate = float(stream.average_rate or stream.guessed_rate or FPS)
    return VideoInfo(width, height, rate, seconds(stream, container), rotation, stream.codec_context.name)

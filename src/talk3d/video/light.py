"""Pictures that are not plain ones: half pictures (interlaced), and light beyond what a screen shows (HDR)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import av

TRANSFERS = {16: "pq", 18: "hlg"}
"""Of ITU-T H.273; all others are taken for ordinary ones."""


@dataclass(frozen=True)
class Light:
    """What has to be done to a film's frames before they are RGB."""

    interlaced: bool = False
    transfer: str = "sdr"
    notes: list[str] = field(default_factory=list)

    def mended(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        yield from frames

    def to_sdr(self, frame: av.VideoFrame) -> av.VideoFrame:
        return frame


def light_of(frame: av.VideoFrame, context: av.video.codeccontext.VideoCodecContext) -> Light:
    """From a film's first frame."""
    return Light(bool(frame.interlaced_frame), TRANSFERS.get(int(frame.color_trc), "sdr"))

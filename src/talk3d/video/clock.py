"""The clock that picture and sound share.

Time zero is the first video frame, output frame k stands for the time k / fps, and the sample n of `read_audio` for n / rate on
the same axis, whatever the file's own frame rate, start offsets or gaps.
"""

from __future__ import annotations

import math

FPS = 25
"""Frames per second of everything talk3d makes."""

AUDIO_RATE = 16_000
"""Samples per second of everything talk3d listens to."""

SAMPLES_PER_FRAME = AUDIO_RATE // FPS
"""640."""


def frames_in(seconds: float, fps: float | int = FPS) -> int:
    """How many frames `read_frames` gives for a film of `seconds`: the last one must have a quarter of its time.

    Without that margin, time stamps rounded to milliseconds would now and then add a frame.
    """
    return max(1, math.ceil(seconds * fps - 0.25))

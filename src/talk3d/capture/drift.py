"""Whether sound and picture run at one clock: how late the sound is, over the time of the film.

A camera and a recorder apart from each other, or a film whose frame rate was declared wrongly (29.97 as 30), start in step and
end out of it. One number for the whole film cannot mend that. So the lip-sync expert is asked about one window after the other,
and a line is laid through its answers, robustly, for it is wrong about some.

Letters: W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..errors import ScoringError
from ..judges.sync import sync_offset
from ..video.clock import FPS, SAMPLES_PER_FRAME

WINDOW = 6 * FPS
"""Frames: short enough that the drift within is small, long enough that the expert's confidence means something."""
SURE = 0.2
"""Confidence from which on it is believed about a window; where lips and sound belong together it has 0.2 to 1."""
FEWEST = 5
"""Windows that a line is laid through."""
NOISE = 0.2
"""Frames by which it errs about a window at least: on four clips with planted drift, answers lay 0.03 to 0.2 off their line."""
STANDARD_ERRORS, LEAST, STRAIGHT = 5.0, 1.0, 0.5
"""What makes a drift certain: so many times its own error, so many frames over the film, answers so near to the line."""
LEFT = 0.25
"""Part of a drift that may be left once it is taken out."""
MINUTE = 60 * FPS


@dataclass(frozen=True)
class Drift:
    """The line through the lateness of all windows, and what was done about it."""

    per_minute: float | None
    """Frames of lateness that come with each minute; None if it could not be told."""
    error: float | None
    """Of that number, one standard error."""
    start: float | None
    """Frames by which the sound is late at the film's first frame."""
    spread: float | None
    """Deviation of the windows from the line, frames."""
    windows: int
    """That the line rests on."""
    moved: float = 0.0
    """Frames per minute that were taken out of the sound."""

    def certain(self, frames: int) -> bool:
        """Whether it is beyond doubt, and matters in a film of so many frames."""
        if self.per_minute is None or self.error is None or self.spread is None:
            return False
        matters = abs(self.per_minute) * frames / MINUTE >= LEAST
        return matters and abs(self.per_minute) >= STANDARD_ERRORS * self.error and self.spread <= STRAIGHT


def measure_drift(
    landmarks: Float[np.ndarray, "frames 468 2"],
    samples: Float[np.ndarray, " samples"],
    numbers: Int[np.ndarray, " frames"],
    parts: Sequence[slice],
) -> Drift:
    """Ask the expert about each window of these frames.

    Args:
        landmarks: any unit; of training frames only, for what they say may change what is learnt.
        samples: their sound, mono, 16 kHz.
        numbers: which frames of the film they are; the drift belongs to its clock.
        parts: runs of them that follow each other.
    """
    middles, offsets = [], []
    for part in parts:
        for start in range(part.start, min(part.stop, len(landmarks)) - WINDOW + 1, WINDOW):
            sound = samples[start * SAMPLES_PER_FRAME : (start + WINDOW) * SAMPLES_PER_FRAME]
            try:
                heard = sync_offset(landmarks[start : start + WINDOW], sound)
            except ScoringError:
                continue
            if heard.confidence >= SURE:
                middles.append(float(numbers[start + WINDOW // 2]))
                offsets.append(heard.offset)
    return fit_line(np.array(middles), np.array(offsets))


def fit_line(middles: Float[np.ndarray, " windows"], offsets: Float[np.ndarray, " windows"]) -> Drift:
    """The line with the median slope of all pairs of windows; up to 29 % of them may say anything.

    Args:
        middles: of the windows, in frames of the film.
        offsets: frames by which the sound is late there.

    Source: Theil, 1950; Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.
    """
    if len(middles) < FEWEST:
        return Drift(None, None, None, None, len(middles))
    first, second = np.triu_indices(len(middles), 1)
    slope = float(np.median((offsets[second] - offsets[first]) / (middles[second] - middles[first])))
    start = float(np.median(offsets - slope * middles))
    # 1.48 times the median deviation is the standard deviation of a normal one, whatever a few outliers do.
    spread = 1.4826 * float(np.median(np.abs(offsets - slope * middles - start)))
    error = max(spread, NOISE) / float(np.sqrt(((middles - middles.mean()) ** 2).sum()))
    return Drift(round(slope * MINUTE, 3), round(error * MINUTE, 3), round(start, 3), round(spread, 3), len(middles))

"""The sheet that a training shows of itself: fixed frames as filmed, as drawn, their difference, and the same from the side.

Letters: B frames, S side of the pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..capture.artifact import Capture
from ..capture.frames import PersonFrames, Views
from ..pictures import Image, as_image, captioned, in_rows, write_png
from ..prior.generator import composite
from ..prior.subject import Subject
from .clip import ClipConditions
from .draw import Talker, draw_frames

SIDE = math.radians(30)
"""How far the side view is turned."""
ERROR_GAIN = 4.0
"""Differences are shown so many times as large."""
GREY = 0.2
"""What the side view is shown over, -1..1."""


@dataclass(frozen=True)
class Preview:
    """What to show, and where."""

    path: Path
    subject: Subject
    conditions: ClipConditions
    index: Int[Tensor, " shown"]
    """Which of the training frames."""
    views: Views
    """The same, as filmed."""
    note: str = ""
    """What else the caption says."""

    @classmethod
    def of(
        cls,
        path: Path,
        subject: Subject,
        capture: Capture,
        conditions: ClipConditions,
        frames: PersonFrames,
        learnt: Int[np.ndarray, " learnt"],
        validated: Int[np.ndarray, " validated"],
    ) -> Preview:
        """Of the most closed and the most open mouth among the frames that are learnt from, and among those held out."""
        gap = capture.lip_gap[slice(*capture.train)]
        shown = np.concatenate([closed_and_open(gap, learnt), closed_and_open(gap, validated)])
        note = "; the lower half is held out" if len(validated) else ""
        return cls(path, subject, conditions, torch.from_numpy(shown), frames.views(capture.train[0] + shown), note)

    def write(self, talker: Talker, step: int, elapsed: float) -> None:
        """Draw the sheet and replace the earlier one.

        Args:
            talker: draws with its present weights.
            step: for the caption.
            elapsed: likewise, seconds.
        """
        drawn, side = (draw_frames(talker, self.subject, self.conditions, self.index, turn) for turn in (0.0, SIDE))
        caption = f"step {step}, {elapsed / 60:.1f} min: filmed, drawn, error x {ERROR_GAIN:g}, from the side{self.note}"
        write_png(self.path, sheet(self.views, drawn, side, caption))


def closed_and_open(gap: Float[np.ndarray, " frames"], among: Int[np.ndarray, " some"]) -> Int[np.ndarray, " shown"]:
    """Of some frames, the ones with the smallest and the largest gap between the lips; none of none."""
    return among[[int(gap[among].argmin()), int(gap[among].argmax())]] if len(among) else among


def sheet(
    views: Views, drawn: Float[Tensor, "batch 4 size size"], side: Float[Tensor, "batch 4 size size"], caption: str
) -> Image:
    """One row per frame: filmed, drawn, error, from the side; the caption beneath."""
    filmed, ours = composite(views.target, views.background), composite(drawn, views.background)
    error = ERROR_GAIN * (ours - filmed).abs().mean(1, keepdim=True).expand_as(filmed) - 1
    turned = composite(side, torch.full_like(filmed, GREY))
    rows = torch.stack([filmed, ours, error, turned], 1).flatten(0, 1)
    return captioned(in_rows([as_image(picture) for picture in rows], columns=4), caption)

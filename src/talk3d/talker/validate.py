"""Validation: a slice at the end of the training part is not learnt from, and says whether learning still helps.

Frames next to each other are nearly the same, so single frames held out would tell nothing: it has to be a stretch of speech.
What it scores is averaged weights on a few whole frames, and the state that scores best in the second half of a training is
the one that is kept. The price is that nothing is learnt from that stretch, and a short clip has none to spare: of one minute,
holding out four seconds cost more than it gave (docs/notebook.md).

Letters: V frames, S side of the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..capture.artifact import Capture
from ..capture.frames import PersonFrames, Views
from ..losses import l1, l2, structure
from ..prior.generator import composite
from .sampler import draw_outlines, lip_outlines

SLICE = 200
"""Frames that are held out: eight seconds hold nearly every sound of a language."""
DRAWN = 12
"""Frames that are drawn, evenly spread over the slice."""
TIMES = 4
"""How often a training is validated, the last time at its end. The more states there are to choose from and the fewer frames
judge them, the more the best one owes to luck."""
STRUCTURE, MOUTH = 0.4, 10.0
"""What the score weighs these by, whatever the training does, so that trainings can be compared."""


def held_out(frames: int, part: float) -> int:
    """How many of the last of so many training frames are not learnt from: none if that were more than a `part` of them."""
    return SLICE if part * frames >= SLICE else 0


def spread_over(start: int, stop: int) -> Int[np.ndarray, " drawn"]:
    """The frames to draw of a slice; none of an empty one."""
    count = min(DRAWN, stop - start)
    return start + ((2 * np.arange(count) + 1) * (stop - start)) // max(1, 2 * count)


def is_due(before: float, now: float) -> bool:
    """Whether a quarter of the training was completed between these parts of it (0..1).

    By parts and not by the clock: which states are compared must not depend on interruptions.
    """
    return int(TIMES * now) > int(TIMES * before)


@dataclass(frozen=True)
class Validation:
    """What the held-out frames look like."""

    index: Int[Tensor, " frames"]
    """Which of the training frames."""
    views: Views
    mouth: Float[Tensor, "frames 1 size size"]
    """1 inside the lips' outline."""

    @classmethod
    def of(cls, capture: Capture, frames: PersonFrames, index: Int[np.ndarray, " frames"]) -> Validation:
        """Of some training frames, 0 being the first one."""
        rows = index + capture.train[0]
        mouth = draw_outlines(lip_outlines(capture)[rows], capture.resolution)
        return cls(torch.from_numpy(index), frames.views(rows), mouth)

    def scores(self, drawn: Float[Tensor, "frames 4 size size"]) -> dict[str, float]:
        """Mean L1, structural distance over the background, squared error of the mouth, and `val_score`: less is better."""
        views = self.views
        drawn = torch.lerp(views.target, drawn, views.known)
        seen, filmed = composite(drawn, views.background), composite(views.target, views.background)
        picture, shape = l1(drawn, views.target).mean(), structure(seen, filmed).mean()
        mouth = l2(drawn[:, :3], views.target[:, :3], self.mouth).mean()
        terms = {"picture": picture, "structure": shape, "mouth": mouth, "score": picture + STRUCTURE * shape + MOUTH * mouth}
        return {f"val_{name}": float(value) for name, value in terms.items()}

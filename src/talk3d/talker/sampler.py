"""Where training looks: which frames a step takes, which windows of them, and whose sound is heard with them.

Letters: B frames per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..capture.artifact import Capture
from ..capture.mask import polygon_mask
from ..capture.track import OUTER_EYE_CORNERS, OUTER_LIPS
from ..prior.patch import Windows


@dataclass(frozen=True)
class WindowSampler:
    """Which frames a step looks at, and where in them."""

    mouths: Float[np.ndarray, "frames 2"]
    """Middle of the mouth, x and y, 0..1 of the frame."""
    eyes: Float[np.ndarray, "frames 2"]
    """Middle of the outer corners of the eyes, likewise."""
    blinking: Float[np.ndarray, " frames"]
    """Odds of the frames that are chosen for their eyes: half of them evenly, half by how closed the eyes are."""
    lips_top: Float[np.ndarray, " frames"]
    """Upper edge of the lips' outline, y, likewise."""
    firsts: Int[np.ndarray, " frames"]
    """Where a pair begins that is to hold each frame: at it, or at the nearest one that its successor in the film follows."""

    @classmethod
    def of(cls, capture: Capture) -> WindowSampler:
        """Of the training frames."""
        landmarks = capture.landmarks[slice(*capture.train)]
        top = lip_outlines(capture)[slice(*capture.train), :, 1].min(1)
        blink = np.clip(capture.blink[slice(*capture.train)], 0, 1).astype(np.float64) + 1e-6
        odds = 0.5 / len(blink) + 0.5 * blink / blink.sum()
        return cls(
            landmarks[:, list(OUTER_LIPS)].mean(1),
            landmarks[:, list(OUTER_EYE_CORNERS)].mean(1),
            odds,
            top,
            _firsts(np.arange(len(odds))),
        )

    def among(self, rows: Int[np.ndarray, " some"]) -> WindowSampler:
        """At some of the frames only."""
        odds = self.blinking[rows]
        return WindowSampler(self.mouths[rows], self.eyes[rows], odds / odds.sum(), self.lips_top[rows], _firsts(rows))

    def choose(self, count: int, size: int, rng: np.random.Generator, pairs: bool = False) -> tuple[np.ndarray, Windows]:
        """Frames [B] and a window of each: every second one at the mouth, one in four at the eyes, the others anywhere.

        Windows at the eyes end above the lips.

        Args:
            count: B; even if they come in pairs.
            size: of raw pictures.
            rng: chooses.
            pairs: each odd frame follows its predecessor and is seen through the same window.
        """
        if pairs:
            first, windows = self.choose(count // 2, size, rng)
            index = self.firsts[first][:, None] + [0, 1]
            return index.reshape(-1), windows.repeat(2)
        turn = (np.arange(count) + rng.integers(4)) % 4  # so that smaller counts have their turns too
        index = rng.integers(0, len(self.mouths), count)
        index[turn == 3] = rng.choice(len(self.eyes), int((turn == 3).sum()), p=self.blinking)
        windows = Windows.around(self.mouths[index], size, rng).where(turn % 2 == 0, Windows.random(count, size, rng))
        eyes = Windows.around(self.eyes[index], size, rng).above(self.lips_top[index])
        return index, windows.where(turn != 3, eyes)

    def strangers(
        self, index: Int[np.ndarray, " batch"], windows: Windows, part: float, rng: np.random.Generator, pairs: bool = False
    ) -> Int[np.ndarray, " batch"]:
        """The frames whose sound is heard with these: their own where the mouth may be seen, any other's above it.

        Somebody's eyes, brows and pose happen to go with what is said in the one film there is, and a network will learn
        that by heart. If their sound tells nothing about what is above the mouth, only the other tokens can.

        Args:
            index: frames, as `choose` gives them.
            windows: of them.
            part: of the windows above the mouth whose sound is exchanged.
            rng: chooses.
            pairs: each odd frame follows its predecessor, and goes on doing so in the sound.
        """
        each = 2 if pairs else 1
        seen = (windows.top + windows.side) / windows.size > self.lips_top[index]
        taken = ~seen.reshape(-1, each).any(1) & (rng.random(len(index) // each) < part)
        others = rng.integers(0, len(self.mouths) - each + 1, len(taken))
        others = (self.firsts[others] if pairs else others)[:, None] + np.arange(each)
        return np.where(taken[:, None], others, index.reshape(-1, each)).reshape(-1)


def _firsts(rows: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
    """See `WindowSampler.firsts`, of frames that ascend and may have gaps."""
    here, followed = np.arange(len(rows)), np.flatnonzero(np.diff(rows) == 1)
    if not len(followed):
        return np.minimum(here, len(rows) - 2)
    after = np.searchsorted(followed, here).clip(max=len(followed) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(here - followed[before]) < np.abs(here - followed[after])
    return followed[np.where(nearer, before, after)]


def lip_outlines(capture: Capture) -> Float[np.ndarray, "frames points 2"]:
    """The lips' outline, widened by a quarter so that the skin which moves along is inside."""
    lips = capture.landmarks[:, list(OUTER_LIPS)]
    centre = lips.mean(1, keepdims=True)
    return centre + 1.25 * (lips - centre)


def draw_outlines(outlines: Float[np.ndarray, "frames points 2"], size: int) -> Float[Tensor, "frames 1 size size"]:
    """1 inside outlines (0..1 of the frame), 0 outside."""
    masks = np.stack([polygon_mask(outline * size, (size, size)) for outline in outlines])
    return torch.from_numpy(masks)[:, None].float()

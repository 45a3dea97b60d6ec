"""Where training looks: which frames a step takes, and which windows of them.

Letters: B frames per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..capture.build import Capture
from ..capture.track import OUTER_EYE_CORNERS, OUTER_LIPS
from ..prior.patch import Windows


@dataclass(frozen=True)
class Gaze:
    """Which frames a step looks at, and where in them."""

    mouths: Float[np.ndarray, "frames 2"]
    eyes: Float[np.ndarray, "frames 2"]
    blinking: Float[np.ndarray, " frames"]
    """Odds of the frames that are chosen for their eyes: half of them evenly, half by how closed the eyes are."""

    @classmethod
    def of(cls, capture: Capture) -> Gaze:
        """Of the training frames."""
        landmarks = capture.landmarks[slice(*capture.train)]
        blink = np.clip(capture.blink[slice(*capture.train)], 0, 1).astype(np.float64) + 1e-6
        odds = 0.5 / len(blink) + 0.5 * blink / blink.sum()
        return cls(landmarks[:, list(OUTER_LIPS)].mean(1), landmarks[:, list(OUTER_EYE_CORNERS)].mean(1), odds)

    def choose(self, count: int, size: int, rng: np.random.Generator, pairs: bool = False) -> tuple[np.ndarray, Windows]:
        """Frames [B] and a window of each: every second one at the mouth, one in four at the eyes, the others anywhere.

        Args:
            count: B; even if they come in pairs.
            size: of raw pictures.
            rng: chooses.
            pairs: each odd frame follows its predecessor and is seen through the same window.
        """
        if pairs:
            first, windows = self.choose(count // 2, size, rng)
            index = np.minimum(first, len(self.mouths) - 2)[:, None] + [0, 1]
            return index.reshape(-1), windows.repeat(2)
        turn = (np.arange(count) + rng.integers(4)) % 4  # so that smaller counts have their turns too
        index = rng.integers(0, len(self.mouths), count)
        index[turn == 3] = rng.choice(len(self.eyes), int((turn == 3).sum()), p=self.blinking)
        windows = Windows.around(self.mouths[index], size, rng).where(turn % 2 == 0, Windows.random(count, size, rng))
        return index, windows.where(turn != 3, Windows.around(self.eyes[index], size, rng))


def lip_outlines(capture: Capture) -> Float[np.ndarray, "frames points 2"]:
    """The lips' outline, widened by a quarter so that the skin which moves along is inside."""
    lips = capture.landmarks[:, list(OUTER_LIPS)]
    centre = lips.mean(1, keepdims=True)
    return centre + 1.25 * (lips - centre)


def draw_outlines(outlines: Float[np.ndarray, "frames points 2"], size: int) -> Float[Tensor, "frames 1 size size"]:
    masks = np.zeros((len(outlines), size, size), np.uint8)
    for mask, outline in zip(masks, outlines, strict=True):
        cv2.fillPoly(mask, [np.round(outline * size).astype(np.int32)], 1)
    return torch.from_numpy(masks)[:, None].float()

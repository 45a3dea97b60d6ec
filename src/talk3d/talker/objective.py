"""What the talker's training minimises: every term by name, with its weight (method 7).

Letters: B frames of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..capture.frames import Views
from ..losses import l2, magnitude
from ..prior.patch import Patch, Windows, picture_losses
from ..prior.superres import BORDER


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; 0 switches it off."""

    picture: float = 1.0
    """L1 of raw and final picture (its perceptual part has a weight of its own)."""
    structure: float = 0.4
    mouth: float = 10.0
    """Squared error inside the lips' outline, final picture."""
    delta: float = 0.001
    """Mean size of the delta planes."""
    lips: float = 0.1
    """The audio code's prediction of the lip shape."""


@dataclass(frozen=True)
class Step:
    """What a step has drawn, and what it should look like."""

    patch: Patch
    windows: Windows
    views: Views
    mouth: Float[Tensor, "batch 1 size size"]
    """1 inside the lips' outline; whole frames."""
    delta: Float[Tensor, "batch 3 channels side side"]
    """In units of the identity planes' deviation."""
    lips: Float[Tensor, "batch shapes"]
    """The lip shapes that are heard..."""
    lips_seen: Float[Tensor, "batch shapes"]
    """...and those of the frames."""


def weighted_losses(step: Step, weights: LossWeights) -> dict[str, Float[Tensor, ""]]:
    """All terms, each times its weight and a mean over the frames."""
    patch, windows, views = step.patch, step.windows, step.views
    assert patch.final is not None
    terms = picture_losses(patch, views.target, views.background, windows, weights.structure, views.known)
    losses = {name: weights.picture * value.mean() for name, value in terms.items()}
    mask = windows.cut(step.mouth, BORDER)
    losses["mouth"] = weights.mouth * l2(patch.final[:, :3], windows.cut(views.target, BORDER)[:, :3], mask).mean()
    losses["delta"] = weights.delta * magnitude(step.delta).mean()
    losses["lips"] = weights.lips * F.mse_loss(step.lips, step.lips_seen)
    return losses

"""Training losses. Every term is a mean per sample, so that no weight depends on the batch size.

Letters: B samples, C channels, H rows, W columns. Pictures are in -1..1 unless said otherwise.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Picture = Float[Tensor, "batch channels height width"]
PerSample = Float[Tensor, " batch"]

SSIM_LEVELS = 3
# Stabilisers of SSIM (Wang et al. 2004) for a value range of 2.
_C1, _C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2


def l1(x: Picture, y: Picture, mask: Float[Tensor, "batch 1 height width"] | None = None) -> PerSample:
    """Mean absolute difference; with a mask, its mean over the mask. An empty mask gives 0, never NaN."""
    difference = (x - y).abs()
    if mask is None:
        return difference.mean((1, 2, 3))
    return (difference * mask).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * x.shape[1]).clamp(min=1.0)


def l2(x: Picture, y: Picture, mask: Float[Tensor, "batch 1 height width"] | None = None) -> PerSample:
    """Mean squared difference; with a mask, its mean over the mask (method: mouth L2). An empty mask gives 0."""
    difference = (x - y).square()
    if mask is None:
        return difference.mean((1, 2, 3))
    return (difference * mask).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * x.shape[1]).clamp(min=1.0)


def structure(x: Picture, y: Picture) -> PerSample:
    """A perceptual distance without weights: structural dissimilarity and edge difference over three octaves.

    At each octave it adds 1 - SSIM (Wang et al. 2004, 7 x 7 box window), which compares local contrast and pattern rather
    than values, and the L1 difference of the image gradients, which blur cannot hide from. 0 for equal pictures.
    """
    total = x.new_zeros(x.shape[0])
    for level in range(SSIM_LEVELS):
        if level:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        if min(x.shape[-2:]) < 7:
            break
        total = total + _dissimilarity(x, y) + _edge_difference(x, y)
    return total / SSIM_LEVELS


def _dissimilarity(x: Picture, y: Picture) -> PerSample:
    channels = x.shape[1]
    moments = F.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y], 1), 7, stride=2)
    mean_x, mean_y, xx, yy, xy = moments.split(channels, 1)
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x.square() + yy - mean_y.square()
    # The brightness term compares means as ratios, so they must start at zero: 0..2.
    light_x, light_y = mean_x + 1, mean_y + 1
    ssim = (2 * light_x * light_y + _C1) * (2 * covariance + _C2)
    ssim = ssim / ((light_x.square() + light_y.square() + _C1) * (variances + _C2))
    return (1 - ssim).mean((1, 2, 3))


def _edge_difference(x: Picture, y: Picture) -> PerSample:
    difference = x - y
    horizontal = (difference[..., 1:] - difference[..., :-1]).abs().mean((1, 2, 3))
    vertical = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean((1, 2, 3))
    return horizontal + vertical


def frame_difference(x: Picture, x_next: Picture, y: Picture, y_next: Picture) -> PerSample:
    """How differently two films change from one frame to the next: mean absolute difference of their changes."""
    return ((x_next - x) - (y_next - y)).abs().mean((1, 2, 3))


def unexplained_change(
    delta: Float[Tensor, "batch planes channels height width"],
    delta_next: Float[Tensor, "batch planes channels height width"],
    reason: PerSample,
) -> PerSample:
    """Mean change of a delta tri-plane between neighbouring frames, as far as nothing asked for it.

    Args:
        delta: of some frames.
        delta_next: of the frames after them.
        reason: how much their conditions change, 0 or more; 1 forgives all but 37 % of the change.
    """
    return (delta_next - delta).abs().mean((1, 2, 3, 4)) * (-reason).exp()


def unlikeness(x: Float[Tensor, "batch size"], y: Float[Tensor, "batch size"]) -> PerSample:
    """1 minus the cosine of two vectors, 0..2: identity, and lips against sound."""
    return 1 - F.cosine_similarity(x, y, dim=1)


def fooling(logits: PerSample) -> PerSample:
    """The generator's side of the non-saturating logistic loss (method 3.2)."""
    return F.softplus(-logits)


def slope(logits: PerSample, *pictures: Float[Tensor, "batch channels _ _"]) -> PerSample:
    """Squared slope of a discriminator's logits at its input (R1, Mescheder et al. 2018; method 3.2).

    Args:
        logits: of the pictures.
        pictures: what they were computed from; they need gradients.
    """
    slopes = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
    return torch.stack([one.square().sum((1, 2, 3)) for one in slopes]).sum(0)


def magnitude(delta: Float[Tensor, "batch planes channels height width"]) -> PerSample:
    """Mean absolute value of a delta tri-plane: what speech need not change should stay where it is."""
    return _Magnitude.apply(delta)


class _Magnitude(torch.autograd.Function):
    """Delta planes are the largest thing in a step of training: the way back makes one more of them, not three."""

    @staticmethod
    def forward(ctx: Any, delta: Tensor) -> Tensor:
        ctx.save_for_backward(delta)
        return delta.abs().mean((1, 2, 3, 4))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *wanted: Tensor) -> Tensor:
        (delta,) = ctx.saved_tensors
        return delta.sign().mul_(wanted[0][:, None, None, None, None] / delta[0].numel())

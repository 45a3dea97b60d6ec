"""Training losses. Every term is a mean per sample, so that no weight depends on the batch size.

Letters: B samples, C channels, H rows, W columns. Pictures are in -1..1 unless said otherwise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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


def magnitude(delta: Float[Tensor, "batch planes channels height width"]) -> PerSample:
    """Mean absolute value of a delta tri-plane: what speech need not change should stay where it is."""
    return delta.abs().mean((1, 2, 3, 4))

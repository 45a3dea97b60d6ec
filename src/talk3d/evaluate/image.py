"""How alike two pictures are: PSNR, mean absolute error, SSIM and MS-SSIM, over everything or within a mask.

Pictures are float [F, 3, H, W] in 0..1, masks float [F, H, W] in 0..1; each score is one number per picture, [F].

Sources: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, with its Gaussian
window of 11 pixels and sigma 1.5, on each colour channel, as scikit-image computes it; Wang et al., "Multiscale Structural
Similarity for Image Quality Assessment", 2003, with its five scales and weights. What is called published follows the
evaluation code of Talk3D: scikit-image's own settings (a flat window of 7 pixels, unbiased variances), and regions on grey.

Letters: F frames.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BEST_PSNR = 100.0
"""Decibels given for pictures that are equal, whose true value is infinite."""

WINDOW, SIGMA = 11, 1.5
FLAT_WINDOW = 7
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM's scales, from the full size to a sixteenth of it."""
SMALLEST = WINDOW * 2 ** (len(SCALES) - 1)
"""Sides that MS-SSIM needs at least, or the window does not fit the coarsest scale."""


def squared_error(
    picture: Float[Tensor, "frames 3 height width"],
    truth: Float[Tensor, "frames 3 height width"],
    mask: Float[Tensor, "frames height width"] | None = None,
) -> Float[Tensor, " frames"]:
    """Mean squared error over the mask's pixels and all channels; NaN where a mask is empty."""
    return masked_mean((picture - truth).square().mean(dim=1), mask)


def absolute_error(
    picture: Float[Tensor, "frames 3 height width"],
    truth: Float[Tensor, "frames 3 height width"],
    mask: Float[Tensor, "frames height width"] | None = None,
) -> Float[Tensor, " frames"]:
    """Mean absolute error over the mask's pixels and all channels, 0..1; NaN where a mask is empty."""
    return masked_mean((picture - truth).abs().mean(dim=1), mask)


def decibels(squared: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """PSNR of a mean squared error of values in 0..1."""
    return (-10 * squared.clamp_min(1e-30).log10()).clamp_max(BEST_PSNR)


def ssim_published(
    picture: Float[Tensor, "frames 3 height width"], truth: Float[Tensor, "frames 3 height width"]
) -> Float[Tensor, " frames"]:
    """Mean structural similarity of whole pictures as scikit-image computes it when nothing else is said.

    On values of -1..1, as published: their luminance is compared around grey instead of black, which is not the same.
    """
    flat = [1 / FLAT_WINDOW] * FLAT_WINDOW
    luminance, structure = _similarities(2 * picture - 1, 2 * truth - 1, flat, span=2.0, unbiased=True)
    return (luminance * structure).mean(dim=(1, 2, 3))


def ms_ssim(
    picture: Float[Tensor, "frames 3 height width"],
    truth: Float[Tensor, "frames 3 height width"],
    masks: Sequence[Float[Tensor, "frames height width"] | None] = (None,),
) -> list[Float[Tensor, " frames"]]:
    """Multi-scale structural similarity within each mask: contrast and structure at five scales, luminance at the last.

    NaN for pictures with a side below `SMALLEST`, for which it is not defined, and for masks that hold nothing at the coarsest
    scale. A scale that agrees less than not at all counts as 0.
    """
    if min(picture.shape[-2:]) < SMALLEST:
        return [picture.new_full((len(picture),), math.nan) for _ in masks]
    totals = [picture.new_ones(len(picture)) for _ in masks]
    scaled = list(masks)
    for scale, exponent in enumerate(SCALES):
        if scale:
            picture, truth = F.avg_pool2d(picture, 2), F.avg_pool2d(truth, 2)
            scaled = [None if mask is None else F.avg_pool2d(mask[:, None], 2)[:, 0] for mask in scaled]
        luminance, structure = _similarities(picture, truth)
        similar = (luminance * structure if scale == len(SCALES) - 1 else structure).mean(dim=1)
        for k, mask in enumerate(scaled):
            pooled = masked_mean(similar, None if mask is None else inner(mask))
            totals[k] = totals[k] * pooled.clamp_min(0) ** exponent
    return totals


def greyed(
    picture: Float[Tensor, "frames 3 height width"], mask: Float[Tensor, "frames height width"]
) -> Float[Tensor, "frames 3 height width"]:
    """The picture with mid grey outside a mask, as the published protocol compares regions: the grey is equal in both
    pictures and counts, so that small regions score high."""
    return 0.5 + (picture - 0.5) * mask[:, None]


def inner(mask: Float[Tensor, "frames height width"]) -> Float[Tensor, "frames inner_height inner_width"]:
    """The part of a mask that `ssim_map` covers."""
    edge = WINDOW // 2
    return mask[:, edge:-edge, edge:-edge]


def ssim_map(
    picture: Float[Tensor, "frames 3 height width"], truth: Float[Tensor, "frames 3 height width"]
) -> Float[Tensor, "frames inner_height inner_width"]:
    """Structural similarity around each pixel whose window lies inside, mean over channels; 5 pixels less per side."""
    luminance, structure = _similarities(picture, truth)
    return (luminance * structure).mean(dim=1)


GAUSSIAN = [math.exp(-0.5 * ((i - WINDOW // 2) / SIGMA) ** 2) for i in range(WINDOW)]
GAUSSIAN = [weight / sum(GAUSSIAN) for weight in GAUSSIAN]


def _similarities(
    picture: Float[Tensor, "frames 3 height width"],
    truth: Float[Tensor, "frames 3 height width"],
    weights: Sequence[float] = GAUSSIAN,
    span: float = 1.0,
    unbiased: bool = False,
) -> tuple[Float[Tensor, "frames 3 inner_height inner_width"], Float[Tensor, "frames 3 inner_height inner_width"]]:
    """How alike luminance is around each pixel, and how alike contrast and structure together."""

    def blur(x: Tensor) -> Tensor:
        # Shifted copies added in place are ten times faster on a CPU than a convolution with one channel.
        for axis in (-1, -2):
            size = x.shape[axis] - len(weights) + 1
            total = weights[0] * x.narrow(axis, 0, size)
            for shift in range(1, len(weights)):
                total.add_(x.narrow(axis, shift, size), alpha=weights[shift])
            x = total
        return x

    mean_a, mean_b = blur(picture), blur(truth)
    var_a, var_b = blur(picture * picture) - mean_a**2, blur(truth * truth) - mean_b**2
    covariance = blur(picture * truth) - mean_a * mean_b
    if unbiased:
        count = len(weights) ** 2
        var_a, var_b, covariance = (x * count / (count - 1) for x in (var_a, var_b, covariance))
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return luminance, structure


def masked_mean(
    values: Float[Tensor, "frames height width"], mask: Float[Tensor, "frames height width"] | None
) -> Float[Tensor, " frames"]:
    """Mean of each picture's values, weighted by a mask; NaN where a mask is empty."""
    if mask is None:
        return values.mean(dim=(1, 2))
    return (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))  # 0 / 0 is NaN, and says that there was nothing

"""Tri-planes and rays to pictures, in plain PyTorch: the twin that every faster renderer is compared with.

Letters: B batch, P points, R rays, C channels of one plane, F colour features. The decoder is passed in; nothing here
owns weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from talk3d.render.rays import Rays, importance_depths, ray_limits, stratified_depths
from talk3d.render.volume import expected_depth, finish_features, ray_weights, sample_weights

PlaneAxes = Literal["eg3d", "aligned"]
Decode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""features [B, P, C] -> (colour [B, P, F] in 0..1, raw density [B, P, 1])."""

# The world axes that index (width, height) of each plane. EG3D's release read (z, x) on the third plane, a duplicate of the
# second; most published weights need that. "aligned" is the corrected set (docs/quirks.md).
PLANE_AXES: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "eg3d": ((0, 1), (0, 2), (2, 0)),
    "aligned": ((0, 1), (0, 2), (2, 1)),
}


@dataclass(frozen=True)
class RenderOptions:
    """How rays are sampled and planes are read. Stored in the profile of a prior."""

    samples_coarse: int = 48
    """Depths per ray, evenly spread."""
    samples_fine: int = 48
    """Further depths per ray where the coarse pass found matter; 0 turns the second pass off."""
    near: float | None = 2.25
    """First depth, scene units; None means where the ray enters the box."""
    far: float | None = 3.3
    """Last depth, scene units; None means where the ray leaves the box."""
    box_warp: float = 1.0
    """Side of the cube the planes cover, scene units."""
    plane_axes: PlaneAxes = "aligned"
    """Which world axes index each plane."""
    white_back: bool = False
    """Fill what no matter covers with white instead of nothing."""
    disparity: bool = False
    """Space coarse depths evenly in 1 / depth."""


@dataclass(frozen=True)
class Rendering:
    """What rays saw."""

    features: Float[Tensor, "batch rays features"]
    """Composited colour features, premultiplied by alpha and mapped so that nothing is -1; the first three are RGB."""
    depth: Float[Tensor, "batch rays 1"]
    """Mean distance along the ray, scene units."""
    alpha: Float[Tensor, "batch rays 1"]
    """Opacity, 0..1."""


def project_points(
    points: Float[Tensor, "batch points 3"], axes: PlaneAxes
) -> Float[Tensor, "batch 3 points 2"]:
    """The (width, height) coordinates of points on each of the three planes, in the points' own units."""
    return torch.stack([points[..., list(pair)] for pair in PLANE_AXES[axes]], dim=1)


def lookup_planes(
    planes: Float[Tensor, "batch 3 channels height width"],
    points: Float[Tensor, "batch points 3"],
    axes: PlaneAxes,
    box_warp: float,
) -> Float[Tensor, "batch 3 channels points"]:
    """Bilinear lookups on each plane: zero outside, texels at half-pixel centres. Points in scene units."""
    batch, three, channels, height, width = planes.shape
    grid = project_points(points * (2 / box_warp), axes)  # the box becomes -1..1
    sampled = torch.nn.functional.grid_sample(
        planes.reshape(batch * three, channels, height, width),
        grid.reshape(batch * three, 1, -1, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled.reshape(batch, three, channels, -1)


def sample_planes(
    planes: Float[Tensor, "batch 3 channels height width"],
    points: Float[Tensor, "batch points 3"],
    axes: PlaneAxes,
    box_warp: float,
) -> Float[Tensor, "batch points channels"]:
    """The mean of the three planes' lookups at points (scene units)."""
    return lookup_planes(planes, points, axes, box_warp).mean(dim=1).mT


def render(
    planes: Float[Tensor, "batch 3 channels height width"],
    decoder: Decode,
    rays: Rays,
    options: RenderOptions,
    *,
    deterministic: bool,
    generator: torch.Generator | None = None,
    jitter: float | Float[Tensor, "batch rays coarse"] | None = None,
    u: float | Float[Tensor, "batch rays fine"] | None = None,
) -> Rendering:
    """Render rays: a coarse pass, a fine pass where the coarse one found matter, one compositing of both.

    ``deterministic`` puts coarse samples in the middle of their bins and fine ones at evenly spaced quantiles, so that a video
    does not shimmer; otherwise both are random, from ``generator``. ``jitter`` and ``u`` (0..1) override either.
    Gradients reach planes, decoder and rays through colours and densities, never through the choice of depths.
    """
    near, far = _limits(rays, options)
    shape = rays.origins.shape[:2]

    def numbers(given: float | Tensor | None, count: int, even: Callable[[], Tensor]) -> Tensor:
        if isinstance(given, Tensor):
            return given
        if given is not None:
            return rays.origins.new_full((*shape, count), given)
        if deterministic:
            return even().to(rays.origins).expand(*shape, count)
        return torch.rand(
            *shape, count, generator=generator, dtype=rays.origins.dtype, device=rays.origins.device
        )

    def decode(depths: Tensor) -> tuple[Tensor, Tensor]:
        count = depths.shape[-1]
        points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]  # [B, R, N, 3]
        features = sample_planes(planes, points.flatten(1, 2), options.plane_axes, options.box_warp)
        colour, sigma = decoder(features)
        return colour.unflatten(1, (-1, count)), sigma.reshape(*shape, count)

    coarse = options.samples_coarse
    depths = stratified_depths(
        near, far, numbers(jitter, coarse, lambda: torch.full((coarse,), 0.5)), disparity=options.disparity
    )
    colour, sigma = decode(depths)
    fine = options.samples_fine
    if fine == 0:
        weights = ray_weights(sigma, depths)
        features = _blend(sample_weights(weights), colour)
    else:
        with torch.no_grad():
            quantiles = numbers(u, fine, lambda: (torch.arange(fine) + 0.5) / fine)
            depths_fine = importance_depths(depths, ray_weights(sigma, depths), quantiles)
        colour_fine, sigma_fine = decode(depths_fine)
        depths, order = torch.sort(torch.cat([depths, depths_fine], dim=-1), dim=-1)
        weights = ray_weights(torch.cat([sigma, sigma_fine], dim=-1).gather(-1, order), depths)
        # Colours stay where they are; it is the weights that go back to the unsorted order. Sorting would copy F + 1
        # numbers per sample, in the backward pass as well.
        per_sample = torch.empty_like(depths).scatter(-1, order, sample_weights(weights))
        features = _blend(per_sample[..., :coarse], colour) + _blend(per_sample[..., coarse:], colour_fine)
    alpha = weights.sum(-1)
    return Rendering(
        features=finish_features(features, alpha, options.white_back),
        depth=expected_depth(weights, depths)[..., None],
        alpha=alpha[..., None],
    )


def _blend(weights: Tensor, colour: Tensor) -> Tensor:
    """Weighted sum over samples: [B, R, N] and [B, R, N, F] to [B, R, F], as one batched matrix product."""
    return (weights[..., None, :] @ colour).squeeze(-2)


def _limits(rays: Rays, options: RenderOptions) -> tuple[float | Tensor, float | Tensor]:
    if options.near is not None and options.far is not None:
        return options.near, options.far
    entry, leave = ray_limits(rays, options.box_warp)
    return entry if options.near is None else options.near, leave if options.far is None else options.far

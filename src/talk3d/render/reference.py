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

# The world axes that index (width, height) of each plane. EG3D's release read (z, x) on the third plane, a duplicate
# of the second; most published weights need that. "aligned" is the corrected set (docs/quirks.md).
PLANE_AXES: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "eg3d": ((0, 1), (0, 2), (2, 0)),
    "aligned": ((0, 1), (0, 2), (2, 1)),
}

# Numbers read from planes at once when no gradient is recorded: 16 MiB of them. At EG3D's size twice as fast as one
# piece. A GPU has other caches, and needs more to be busy.
_LOOKUPS_AT_ONCE = 2**22
_LOOKUPS_AT_ONCE_ON_GPU = 2**28


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


def project_points(points: Float[Tensor, "batch points 3"], axes: PlaneAxes) -> Float[Tensor, "batch 3 points 2"]:
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

    ``deterministic`` puts coarse samples in the middle of their bins and fine ones at evenly spaced quantiles, so
    that a video does not shimmer; otherwise both are random, from ``generator``. ``jitter`` and ``u`` (0..1) override
    either. Gradients reach planes, decoder and rays through colours and densities, never through the choice of
    depths.
    """
    depths, quantiles = places_along(rays, options, deterministic=deterministic, generator=generator, jitter=jitter, u=u)
    count = options.samples_fine
    # Fine samples lie between coarse ones, so these are the limits of all samples of the batch.
    nearest, farthest = depths.detach().amin(), depths.detach().amax()

    def some(rays: Rays, depths: Tensor, quantiles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        colour, sigma = _decode_along(planes, decoder, rays, depths, options)
        if count == 0:
            weights = ray_weights(sigma, depths)
            features = _blend(sample_weights(weights), colour)
        else:
            with torch.no_grad():
                depths_fine = importance_depths(depths, ray_weights(sigma, depths), quantiles)
            colour_fine, sigma_fine = _decode_along(planes, decoder, rays, depths_fine, options)
            coarse = depths.shape[-1]
            depths, order = torch.sort(torch.cat([depths, depths_fine], dim=-1), dim=-1)
            weights = ray_weights(torch.cat([sigma, sigma_fine], dim=-1).gather(-1, order), depths)
            # Colours stay where they are; it is the weights that go back to the unsorted order. Sorting would copy F
            # + 1 numbers per sample, in the backward pass as well.
            unsorted = torch.empty_like(depths).scatter(-1, order, sample_weights(weights))
            features = _blend(unsorted[..., :coarse], colour) + _blend(unsorted[..., coarse:], colour_fine)
        alpha = weights.sum(-1)
        return features, expected_depth(weights, depths, nearest, farthest), alpha

    step = _rays_at_once(planes, depths.shape)
    parts = [
        some(Rays(origins, directions), *rest)
        for origins, directions, *rest in zip(
            *(x.split(step, dim=1) for x in (rays.origins, rays.directions, depths, quantiles)), strict=True
        )
    ]
    features, depth, alpha = (torch.cat(values, dim=1) for values in zip(*parts, strict=True))
    return Rendering(finish_features(features, alpha, options.white_back), depth[..., None], alpha[..., None])


def places_along(
    rays: Rays,
    options: RenderOptions,
    *,
    deterministic: bool,
    generator: torch.Generator | None = None,
    jitter: float | Float[Tensor, "batch rays coarse"] | None = None,
    u: float | Float[Tensor, "batch rays fine"] | None = None,
) -> tuple[Float[Tensor, "batch rays coarse"], Float[Tensor, "batch rays fine"]]:
    """The depths of the coarse samples, and the quantiles (0..1) of the fine ones; arguments are those of `render`."""
    near, far = limits(rays, options)
    shape, like = rays.origins.shape[:2], rays.origins

    def numbers(given: float | Tensor | None, count: int) -> Tensor:
        """Numbers in 0..1 for each ray, [B, R, count]; None means random ones."""
        if isinstance(given, Tensor):
            return given
        if given is not None:
            return like.new_full((*shape, count), given)
        return torch.rand(*shape, count, generator=generator, dtype=like.dtype, device=like.device)

    count = options.samples_fine
    if deterministic and jitter is None:
        jitter = 0.5
    if deterministic and u is None:
        u = ((torch.arange(count, device=like.device) + 0.5) / count).to(like.dtype).expand(*shape, count)
    depths = stratified_depths(near, far, numbers(jitter, options.samples_coarse), disparity=options.disparity)
    return depths, numbers(u, count)


def _decode_along(planes: Tensor, decoder: Decode, rays: Rays, depths: Tensor, options: RenderOptions) -> tuple[Tensor, Tensor]:
    """Colour [B, R, N, F] and raw density [B, R, N] at the given depths [B, R, N] of rays."""
    points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]  # [B, R, N, 3]
    colour, sigma = decoder(sample_planes(planes, points.flatten(1, 2), options.plane_axes, options.box_warp))
    return colour.unflatten(1, tuple(depths.shape[1:])), sigma.reshape(depths.shape)


def _rays_at_once(planes: Tensor, shape: torch.Size) -> int:
    """How many rays to take together so that their lookups stay in cache; all of them while gradients are recorded.

    The backward pass of a lookup writes a whole set of planes per piece, so there pieces cost more than they save.
    """
    batch, rays, samples = shape
    if torch.is_grad_enabled():
        return max(rays, 1)
    channels = planes.shape[1] * planes.shape[2]
    at_once = _LOOKUPS_AT_ONCE_ON_GPU if planes.is_cuda else _LOOKUPS_AT_ONCE
    return max(1, min(rays, at_once // (batch * samples * channels)))


def _blend(weights: Tensor, colour: Tensor) -> Tensor:
    """Weighted sum over samples: [B, R, N] and [B, R, N, F] to [B, R, F], as one batched matrix product."""
    return (weights[..., None, :] @ colour).squeeze(-2)


def limits(rays: Rays, options: RenderOptions) -> tuple[float | Tensor, float | Tensor]:
    """Where rays are sampled from and to: the options' own depths, or else where each ray meets the box."""
    if options.near is not None and options.far is not None:
        return options.near, options.far
    entry, leave = ray_limits(rays, options.box_warp)
    return entry if options.near is None else options.near, leave if options.far is None else options.far

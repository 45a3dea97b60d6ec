"""Rays of a camera and the depths at which they are sampled.

Letters: B batch, R rays, N samples along a ray. Depths are Euclidean distances along unit directions, scene units.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from talk3d.render.volume import sample_pdf, smooth_weights


@dataclass(frozen=True)
class Rays:
    """A batch of rays in world coordinates."""

    origins: Float[Tensor, "batch rays 3"]
    """Where the rays start: the camera centre, scene units."""
    directions: Float[Tensor, "batch rays 3"]
    """Unit vectors."""


def pixel_centres(resolution: int, *, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "rays 2"]:
    """Normalised centres of a square picture's pixels, (x, y) in 0..1, row by row."""
    centre = (torch.arange(resolution, dtype=dtype, device=device) + 0.5) / resolution
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def rays_through(
    cam2world: Float[Tensor, "batch 4 4"], intrinsics: Float[Tensor, "batch 3 3"], uv: Float[Tensor, "batch rays 2"]
) -> Rays:
    """Rays through arbitrary picture positions ``uv``: (x right, y down), 0..1 across the picture."""
    fx, fy = intrinsics[:, 0, 0, None], intrinsics[:, 1, 1, None]
    cx, cy, skew = intrinsics[:, 0, 2, None], intrinsics[:, 1, 2, None], intrinsics[:, 0, 1, None]
    u, v = uv.unbind(-1)
    y = (v - cy) / fy
    x = (u - cx + cy * skew / fy - skew * v / fy) / fx
    one = torch.ones_like(x)
    # Points at depth 1 are moved to the world and the origin is subtracted again. Rotating directions would be
    # neater, but rounds differently in the last bit, and a plane with fine texture turns that bit into a visible
    # 3e-4.
    points = (cam2world @ torch.stack([x, y, one, one], dim=-2)).mT[..., :3]  # [B, R, 3]
    origins = cam2world[:, None, :3, 3]
    directions = torch.nn.functional.normalize(points - origins, dim=-1)
    return Rays(origins.expand_as(directions), directions)


def generate_rays(cam2world: Float[Tensor, "batch 4 4"], intrinsics: Float[Tensor, "batch 3 3"], resolution: int) -> Rays:
    """One ray through the centre of each pixel of a square picture, row by row (R = resolution squared)."""
    uv = pixel_centres(resolution, dtype=cam2world.dtype, device=cam2world.device)
    return rays_through(cam2world, intrinsics, uv.expand(len(cam2world), -1, 2))


def box_limits(
    rays: Rays, side: float
) -> tuple[Float[Tensor, "batch rays 1"], Float[Tensor, "batch rays 1"], Bool[Tensor, "batch rays 1"]]:
    """Depths at which rays enter and leave the axis-aligned cube of the given side about the origin, and who hits it.

    The limits of a ray that misses are meaningless (entry behind exit).
    """
    a = (-side / 2 - rays.origins) / rays.directions
    b = (side / 2 - rays.origins) / rays.directions
    entry = torch.minimum(a, b).amax(-1, keepdim=True)
    leave = torch.maximum(a, b).amin(-1, keepdim=True)
    return entry, leave, entry <= leave


def ray_limits(rays: Rays, side: float) -> tuple[Float[Tensor, "batch rays 1"], Float[Tensor, "batch rays 1"]]:
    """Sampling limits from the box.

    A ray that misses gets the smallest valid entry as its start and the largest valid *entry* as its end; the second
    half is a slip of the reference that weights were trained with (docs/quirks.md).
    """
    entry, leave, hit = box_limits(rays, side)
    if not bool(hit.any()):
        return entry, leave
    valid = entry[hit]
    return torch.where(hit, entry, valid.min()), torch.where(hit, leave, valid.max())


def stratified_depths(
    near: float | Float[Tensor, "batch rays 1"],
    far: float | Float[Tensor, "batch rays 1"],
    jitter: Float[Tensor, "batch rays samples"],
    *,
    disparity: bool = False,
) -> Float[Tensor, "batch rays samples"]:
    """N depths from near to far, each moved by its jitter (0..1) towards the next.

    Steps are ``(far - near) / (N - 1)``, so jitter 0 gives both ends exactly and a jittered last sample lies beyond
    ``far``, as in EG3D. ``disparity`` spaces them evenly in 1 / depth instead.
    """
    samples = jitter.shape[-1]
    if disparity:
        t = torch.linspace(0, 1, samples, dtype=jitter.dtype, device=jitter.device) + jitter / (samples - 1)
        return 1 / (1 / near * (1 - t) + 1 / far * t)
    if isinstance(near, Tensor) or isinstance(far, Tensor):
        even = torch.arange(samples, dtype=jitter.dtype, device=jitter.device) / (samples - 1)
        return near + even * (far - near) + jitter * ((far - near) / (samples - 1))
    # The order of these operations decides the last bit, which matters for the same reason as in `rays_through`.
    even = torch.linspace(near, far, samples, dtype=jitter.dtype, device=jitter.device)
    return even + jitter * ((far - near) / (samples - 1))


def importance_depths(
    depths: Float[Tensor, "batch rays coarse"],
    weights: Float[Tensor, "batch rays intervals"],
    u: Float[Tensor, "batch rays fine"],
) -> Float[Tensor, "batch rays fine"]:
    """Further depths where the coarse compositing weights are high; ``u`` (0..1) picks the quantiles. No gradient."""
    with torch.no_grad():
        middles = 0.5 * (depths[..., 1:] + depths[..., :-1])
        # One bin edge more than the method needs is left unused at the far end, exactly as in EG3D.
        return sample_pdf(middles[..., :-1], smooth_weights(weights)[..., 1:-1], u)

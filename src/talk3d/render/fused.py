"""Tri-planes and rays to pictures, compiled: sampling, decoding and marching in one pass over tiles of rays that stay in cache.

The twin of `reference.render` with deterministic samples, for a decoder of two layers and without gradients. It takes the same
depths and decodes the same points, but the colours of points that nobody sees are never computed. Needs numba.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt64
from torch import Tensor

from talk3d.render.compiled import render_rays
from talk3d.render.layers import Layers
from talk3d.render.rays import Rays
from talk3d.render.reference import PLANE_AXES, Rendering, RenderOptions, limits, places_along
from talk3d.render.volume import finish_features

T = TypeVar("T")

# Rays that one thread takes at a time.
_RAYS = 512
# Coarse samples below which importance sampling has no bins.
_FEWEST = 4


@dataclass(frozen=True)
class TwoLayers:
    """A decoder laid out for the compiled code. Channels, hidden units and features are filled up with zeros to fours."""

    first: Float[np.ndarray, "hidden channels"]
    """For the sum of three planes' lookups, not their mean."""
    first_bias: Float[np.ndarray, " hidden"]
    density: Float[np.ndarray, " hidden"]
    """To the raw density."""
    density_bias: np.float32
    colour: Float[np.ndarray, "filled hidden"]
    """To colour features before their sigmoid."""
    colour_bias: Float[np.ndarray, " filled"]
    features: int
    """How many there really are."""

    @property
    def layers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.float32, np.ndarray, np.ndarray]:
        """As the compiled code takes them."""
        return self.first, self.first_bias, self.density, self.density_bias, self.colour, self.colour_bias

    @classmethod
    def of(cls, layers: Layers) -> "TwoLayers":
        """Filled up, and for the sum of lookups."""

        def filled(x: Tensor) -> np.ndarray:
            return np.pad(x.detach().float().numpy(), [(0, -size % 4) for size in x.shape])

        return cls(
            first=filled(layers.first / 3),
            first_bias=filled(layers.first_bias),
            density=filled(layers.last[0]),
            density_bias=np.float32(layers.last_bias[0].item()),
            colour=filled(layers.last[1:]),
            colour_bias=filled(layers.last_bias[1:]),
            features=len(layers.last) - 1,
        )


def why_not(options: RenderOptions) -> str | None:
    """Why these options need the reference; None if they do not."""
    if options.samples_fine > 0 and options.samples_coarse < _FEWEST:
        return f"importance sampling needs at least {_FEWEST} coarse samples"
    return None


def are_ordered(rays: Rays, options: RenderOptions) -> bool:
    """Whether each ray is sampled from near to far. Where the box sets the limits and no ray meets it, none is: a picture of
    nothing, which only the reference draws as it always was."""
    if options.near is not None and options.far is not None:
        return options.near <= options.far
    near, far = limits(rays, options)
    return bool((torch.as_tensor(near) <= torch.as_tensor(far)).all())


def texel_planes(batch: int, channels: int, height: int, width: int) -> Float[Tensor, "batch 3 channels height width"]:
    """Unset planes that lie in memory texel by texel, as lookups read them.

    A texel more ends each row: rows that are a power of two apart share the few places a cache has for them.
    """
    storage = torch.empty(batch, 3, height, width + 1, channels)
    return storage.permute(0, 1, 4, 2, 3)[..., :width]


@dataclass(frozen=True)
class Layout:
    """Planes as the compiled code reads them."""

    planes: Float[Tensor, "batch 3 channels height width"]
    """Laid out as `texel_planes` does."""
    texels: list[Float[np.ndarray, " numbers"]]
    """Of each picture: the memory in which its planes lie."""
    size: tuple[int, int, int, np.float32, int, int, int]
    """Height, width, channels, what makes a side of the box one, and from one texel, row and plane to the next."""
    axes: UInt64[np.ndarray, "3 2"]
    """World axes along each plane's width and height."""

    @classmethod
    def of(cls, planes: Float[Tensor, "batch 3 channels height width"], options: RenderOptions) -> "Layout":
        """Planes made by `texel_planes` are read in place, others are copied there first; once, if one serves all pictures."""
        batch, _, channels, height, width = planes.shape
        planes = planes.detach()
        if planes.dtype != torch.float32 or planes.stride(2) != 1:
            own = planes if planes.stride(0) else planes[:1]
            planes = texel_planes(len(own), channels, height, width).copy_(own).expand(batch, -1, -1, -1, -1)
        _, next_plane, _, next_row, next_texel = planes.stride()
        size = (height, width, channels, np.float32(1 / options.box_warp), next_texel, next_row, next_plane)
        return cls(planes, _memory_of(planes), size, np.array(PLANE_AXES[options.plane_axes], np.uintp))

    def like(self) -> tuple[Float[Tensor, "batch 3 channels height width"], list[Float[np.ndarray, " numbers"]]]:
        """Planes of zeros that lie as these do, and their memory."""
        # Given planes may be one that serves all pictures; gradients are each picture's own.
        memory = torch.zeros(len(self.planes), len(self.texels[0]))
        zeros = memory.as_strided(self.planes.shape, (memory.shape[1], *self.planes.stride()[1:]))
        return zeros, list(memory.numpy())


def _memory_of(planes: Tensor) -> list[np.ndarray]:
    _, channels, height, width = planes.shape[1:]
    _, next_plane, _, next_row, next_texel = planes.stride()
    count = 2 * next_plane + (height - 1) * next_row + (width - 1) * next_texel + channels
    return [torch.as_strided(one, (count,), (1,)).numpy() for one in planes]


def render_fused(
    planes: Float[Tensor, "batch 3 channels height width"], decoder: TwoLayers, rays: Rays, options: RenderOptions
) -> Rendering:
    """What `reference.render` gives with ``deterministic=True``, within rounding; no gradients.

    Planes made by `texel_planes` are read in place, others are copied there first. Single precision on the CPU; as many threads
    as torch uses, whose number changes nothing.
    """
    assert why_not(options) is None
    layout, batch = Layout.of(planes, options), len(planes)
    shape = rays.origins.shape[:2]
    depths, quantiles = places_along(rays, options, deterministic=True)
    # Quantiles are the same of all rays.
    origins, directions, given, u = numbers(rays.origins, rays.directions, depths, quantiles[0, :1])
    features = np.empty((*shape, decoder.features), np.float32)
    alpha, depth = np.empty(shape, np.float32), np.empty(shape, np.float32)

    def some(piece: tuple[int, int]) -> None:
        b, start = piece
        part = slice(start, start + _RAYS)
        render_rays(
            layout.texels[b], layout.size, layout.axes, origins[b, part], directions[b, part], given[b, part], u,
            decoder.layers, features[b, part], alpha[b, part], depth[b, part],
        )  # fmt: skip

    side_by_side(some, [(b, start) for b in range(batch) for start in range(0, shape[1], _RAYS)])
    return finished(torch.from_numpy(features), torch.from_numpy(alpha), torch.from_numpy(depth), depths, options)


def finished(
    features: Float[Tensor, "batch rays features"],
    alpha: Float[Tensor, "batch rays"],
    distance: Float[Tensor, "batch rays"],
    depths: Float[Tensor, "batch rays coarse"],
    options: RenderOptions,
) -> Rendering:
    """What `compiled.render_rays` has written, as the reference gives it: depths within those of the coarse samples."""
    nearest, farthest = depths.detach().amin(), depths.detach().amax()
    distance = torch.where(alpha <= 0, farthest, distance).clamp(nearest, farthest)
    return Rendering(finish_features(features, alpha, options.white_back), distance[..., None], alpha[..., None])


def numbers(*tensors: Tensor) -> list[np.ndarray]:
    """As the compiled code takes them: single precision, in order."""
    return [x.detach().contiguous().float().numpy() for x in tensors]


def side_by_side(work: Callable[[T], None], pieces: Sequence[T]) -> None:
    """Work on each piece, in as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(pieces))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, pieces))
    else:
        for piece in pieces:
            work(piece)

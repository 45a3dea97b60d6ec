"""Tri-planes and rays to pictures on a CUDA device: the kernels of `render/kernels.py` as a function with gradients.

The twin of `reference.render` for a decoder of two layers. A kernel finds the weights of coarse samples, the reference's code
chooses depths by them, and the kernel samples, decodes and marches all of them in order of depth. Needs Triton.
"""

import functools
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from talk3d.render.layers import Layers
from talk3d.render.rays import Rays, importance_depths
from talk3d.render.reference import PLANE_AXES, PlaneAxes, Rendering, RenderOptions, places_along
from talk3d.render.volume import finish_features

Precision = Literal["ieee", "tf32"]
"""What the decoder's products of matrices are computed in: single precision, or with factors of ten bits' precision, as tensor
cores take them."""

# Rays of a program: as few as a product of matrices takes, so that a small picture keeps a large card busy.
_RAYS = 16
# Copies of the layers' gradients, so that programs that finish together add to different ones.
_COPIES = 64


def why_not(planes: Float[Tensor, "batch 3 channels height width"], rays: Rays, options: RenderOptions) -> str | None:
    """Why the reference has to draw this; None if the kernels can. What it says of the CPU costs nothing to find out."""
    if not planes.is_cuda:
        return "the planes are not on a CUDA device"
    if not _has_triton():
        return "Triton is not installed"
    return not_covered(planes, rays, options)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def not_covered(planes: Float[Tensor, "batch 3 channels height width"], rays: Rays, options: RenderOptions) -> str | None:
    """What the kernels do not do, whatever the device; None if nothing of that is asked for."""
    if planes.dtype != torch.float32 or rays.origins.dtype != torch.float32:
        return "the kernels compute in single precision"
    if rays.origins.numel() == 0:
        return "there are no rays"
    of_box = options.near is None or options.far is None
    if of_box and torch.is_grad_enabled() and (rays.origins.requires_grad or rays.directions.requires_grad):
        return "where the box limits rays, their gradients also pass through depths"
    return None


def render_gpu(
    planes: Float[Tensor, "batch 3 channels height width"],
    layers: Layers,
    rays: Rays,
    options: RenderOptions,
    *,
    deterministic: bool,
    generator: torch.Generator | None = None,
    jitter: float | Float[Tensor, "batch rays coarse"] | None = None,
    u: float | Float[Tensor, "batch rays fine"] | None = None,
    precision: Precision = "ieee",
) -> Rendering:
    """What `reference.render` gives, within rounding, with gradients to planes, layers and rays.

    Arguments are the reference's, but for the layers and the decoder's precision. Planes are best given texel by texel
    (`channels last`); others are copied. Gradients cannot be differentiated again.
    """
    assert not_covered(planes, rays, options) is None
    places, quantiles = places_along(rays, options, deterministic=deterministic, generator=generator, jitter=jitter, u=u)
    depths, rays = places.detach().contiguous(), Rays(rays.origins.contiguous(), rays.directions.contiguous())
    nearest, farthest = depths.amin(), depths.amax()
    planes = _texel_by_texel(planes)
    scene = _Scene(options.plane_axes, 2 / options.box_warp, precision, _Layout(layers))
    if options.samples_fine > 0:
        with torch.no_grad():
            weights = _weights(scene, planes, rays, depths)
            fine = importance_depths(depths, weights, quantiles)
            depths = torch.sort(torch.cat([depths, fine], dim=-1), dim=-1).values
    features, alpha, moment = _March.apply(
        scene, planes, rays.origins, rays.directions, depths, layers.first, layers.first_bias, layers.last, layers.last_bias
    )
    # `volume.expected_depth`, of sums that are there already.
    empty = alpha <= 0
    depth = torch.where(empty, farthest, moment / torch.where(empty, 1.0, alpha)).clamp(nearest, farthest)
    return Rendering(finish_features(features, alpha, options.white_back), depth[..., None], alpha[..., None])


def _texel_by_texel(planes: Tensor) -> Tensor:
    """The same planes, the channels of a texel side by side in memory, pictures and planes without gaps between them."""
    return planes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def _filled_up(count: int) -> int:
    """The next power of two, at least 16."""
    return max(16, 1 << (count - 1).bit_length())


class _Layout:
    """Layers as the kernels read them, filled up with zeros, and how gradients are laid out that come back."""

    def __init__(self, layers: Layers) -> None:
        first, last, last_bias = layers.first, layers.last, layers.last_bias
        self.channels, self.units, self.features = first.shape[1], first.shape[0], len(last) - 1
        self.c, self.h, self.f = _filled_up(self.channels), _filled_up(self.units), _filled_up(self.features)
        h, f = self.h - self.units, self.f - self.features
        fill = torch.nn.functional.pad
        # Units that only fill up are not zero behind their softplus, but nothing listens to them.
        self.tensors = [
            x.detach().contiguous()
            for x in (
                fill(first, (0, self.c - self.channels, 0, h)), fill(layers.first_bias, (0, h)), fill(last[0], (0, h)),
                last_bias[:1], fill(last[1:], (0, h, 0, f)), fill(last_bias[1:], (0, f)),
            )
        ]  # fmt: skip
        self.sizes = {
            "C": self.channels, "C_FILLED": self.c, "H_FILLED": self.h, "F": self.features, "F_FILLED": self.f,
        }  # fmt: skip

    def empty_gradients(self) -> Tensor:
        """Zeros, one line for each copy."""
        like = self.tensors[0]
        return like.new_zeros(_COPIES, self.h * self.c + self.f * self.h + 2 * self.h + self.f + 1)

    def gradients(self, copies: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of first layer, its bias, last layer and its bias, as they are outside."""
        sizes = [self.h * self.c, self.f * self.h, self.h, self.h, self.f, 1]
        first, colour, first_bias, density, colour_bias, density_bias = copies.sum(0).split(sizes)
        first = first.view(self.h, self.c)[: self.units, : self.channels]
        colour = colour.view(self.f, self.h)[: self.features, : self.units]
        last = torch.cat([density[None, : self.units], colour])
        return first, first_bias[: self.units], last, torch.cat([density_bias, colour_bias[: self.features]])


def _warps(sizes: dict[str, int], flags: dict[str, int]) -> int:
    """Groups of 32 threads for a program. A thread takes four channels of a lookup: of more, some repeat what others do.
    Gradients of layers, which stay in registers, need twice as many."""
    return min(8, max(1, _RAYS * sizes["C_FILLED"] // 128)) * (2 if flags.get("LAYERS") else 1)


def _sides(axes: PlaneAxes) -> dict[str, int]:
    """World axes along the planes' sides as the kernels are told them: digits to the base of four."""
    return {
        name: sum(plane[side] << 2 * number for number, plane in enumerate(PLANE_AXES[axes]))
        for side, name in enumerate(("ACROSS", "DOWN"))
    }


@dataclass(frozen=True)
class _Scene:
    """What the kernels are told of how planes are read and decoded."""

    axes: PlaneAxes
    scale: float
    """From scene units to -1..1 across the planes."""
    precision: Precision
    layout: _Layout

    def launch(self, kernel: Any, planes: Tensor, rays: Rays, depths: Tensor, *tensors: Tensor, **flags: int) -> None:
        """Call a kernel for rays [B, R] and their depths [B, R, N]; ``tensors`` are what it reads and writes besides."""
        batch, count, samples = depths.shape
        next_picture, next_plane, _, next_row, next_texel = planes.stride()
        with torch.cuda.device_of(planes):  # Triton launches on the current device
            kernel[-(-count // _RAYS), batch](
                planes, rays.origins, rays.directions, depths, *self.layout.tensors, *tensors,
                count, samples, *planes.shape[3:], next_picture, next_plane, next_row, next_texel, self.scale,
                **_sides(self.axes), R=_RAYS, PRECISION=self.precision, num_warps=_warps(self.layout.sizes, flags),
                **self.layout.sizes, **flags,
            )  # fmt: skip


def _weights(scene: _Scene, planes: Tensor, rays: Rays, depths: Tensor) -> Tensor:
    """`volume.ray_weights` of the samples at depths [B, R, N]."""
    from talk3d.render.kernels import march_forward

    batch, count, samples = depths.shape
    found = depths.new_empty(batch, count, samples - 1)
    scene.launch(march_forward, planes, rays, depths, found, found, found, found, COLOURS=False)
    return found


class _March(torch.autograd.Function):
    """The fine pass: features in 0..1 [B, R, F], opacity [B, R], and opacity times mean depth [B, R]."""

    @staticmethod
    def forward(
        ctx: Any, scene: _Scene, planes: Tensor, origins: Tensor, directions: Tensor, depths: Tensor, *layers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        from talk3d.render.kernels import march_forward

        features = depths.new_empty(*depths.shape[:2], scene.layout.sizes["F"])
        alpha, moment = depths.new_empty(depths.shape[:2]), depths.new_empty(depths.shape[:2])
        scene.launch(
            march_forward, planes, Rays(origins, directions), depths, features, alpha, moment, alpha, COLOURS=True
        )  # fmt: skip
        ctx.scene = scene
        ctx.save_for_backward(planes, origins, directions, depths, features, alpha, moment)
        return features, alpha, moment

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_features: Tensor, to_alpha: Tensor, to_moment: Tensor) -> tuple[Tensor | None, ...]:
        from talk3d.render.kernels import march_backward

        planes, origins, directions, depths, *seen = ctx.saved_tensors
        _, of_planes, of_origins, of_directions, _, *of_layers = ctx.needs_input_grad
        of_rays, layout = of_origins or of_directions, ctx.scene.layout
        # Of what is not asked for nothing is written, and any tensor may stand there.
        to_planes = _texel_by_texel(torch.zeros_like(planes)) if of_planes else depths
        to_origins, to_directions = (torch.empty_like(origins), torch.empty_like(directions)) if of_rays else (depths, depths)
        to_layers = layout.empty_gradients() if any(of_layers) else depths
        ctx.scene.launch(
            march_backward, planes, Rays(origins, directions), depths,
            *seen, to_features.contiguous(), to_alpha.contiguous(), to_moment.contiguous(),
            to_planes, to_origins, to_directions, to_layers, COPIES=_COPIES,
            PLANES=of_planes, LAYERS=any(of_layers), RAYS=of_rays,
        )  # fmt: skip
        return (
            None,
            to_planes if of_planes else None,
            to_origins if of_rays else None,
            to_directions if of_rays else None,
            None,
            *(layout.gradients(to_layers) if any(of_layers) else (None,) * 4),
        )

"""Tri-planes and rays to pictures with gradients, compiled: the twin of `reference.render` that training on a CPU uses.

The samples are the reference's, random ones as well. Needs numba.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from talk3d.render import fused
from talk3d.render.backward import differentiate_rays
from talk3d.render.compiled import render_rays
from talk3d.render.fused import Layout, TwoLayers, finished, numbers, side_by_side
from talk3d.render.layers import Layers
from talk3d.render.rays import Rays
from talk3d.render.reference import Rendering, RenderOptions, places_along


def why_not(options: RenderOptions, planes: Tensor) -> str | None:
    """Why these options and planes need the reference; None if they do not."""
    if options.near is None or options.far is None:
        return "where the box begins and ends is a part of what rays learn"
    if options.near > options.far:
        return "rays are not sampled from near to far"
    if planes.device.type != "cpu" or planes.dtype != torch.float32:
        return "planes are not single precision on the CPU"
    return fused.why_not(options)


def render_learnt(
    planes: Float[Tensor, "batch 3 channels height width"],
    layers: Layers,
    rays: Rays,
    options: RenderOptions,
    jitter: Float[Tensor, "batch rays coarse"] | None = None,
    u: Float[Tensor, "batch rays fine"] | None = None,
) -> Rendering:
    """What `reference.render` gives for these random numbers, within rounding.

    Args:
        planes: to read; single precision on the CPU.
        layers: the decoder.
        rays: to march.
        options: with both limits given.
        jitter: 0..1, places the coarse samples; None for the middles of their bins.
        u: 0..1, quantiles of the fine ones; None for evenly spaced ones.

    Gradients reach planes, layers and rays. Pictures are shared out among as many threads as torch uses, whose number changes
    nothing.
    """
    assert why_not(options, planes) is None
    depths, quantiles = places_along(rays, options, deterministic=True, jitter=jitter, u=u)
    features, alpha, distance = _Marched.apply(
        planes, rays.origins, rays.directions, *layers, depths, quantiles.sort(-1).values, options
    )  # fmt: skip
    return finished(features, alpha, distance, depths, options)


class _Marched(torch.autograd.Function):
    """Features in 0..1, opacity, mean depth as `compiled.render_rays` writes them."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        planes, origins, directions, first, first_bias, last, last_bias, depths, u, options = inputs
        ctx.save_for_backward(planes, origins, directions, first, first_bias, last, last_bias, depths, u)
        layout, decoder = Layout.of(planes, options), TwoLayers.of(Layers(first, first_bias, last, last_bias))
        ctx.layout = layout
        shape = origins.shape[:2]
        features = np.empty((*shape, decoder.features), np.float32)
        alpha, distance = np.empty(shape, np.float32), np.empty(shape, np.float32)
        begin, towards, given, quantiles = numbers(origins, directions, depths, u)

        def picture(b: int) -> None:
            render_rays(
                layout.texels[b], layout.size, layout.axes, begin[b], towards[b], given[b], quantiles[b], decoder.layers,
                features[b], alpha[b], distance[b],
            )  # fmt: skip

        side_by_side(picture, range(shape[0]))
        return torch.from_numpy(features), torch.from_numpy(alpha), torch.from_numpy(distance)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor | None, ...]:
        planes, origins, directions, first, first_bias, last, last_bias, depths, u = ctx.saved_tensors
        layout, decoder = ctx.layout, TwoLayers.of(Layers(first, first_bias, last, last_bias))
        batch, learns = len(planes), any(ctx.needs_input_grad[3:7])
        begin, towards, given, quantiles = numbers(origins, directions, depths, u)
        wishes = numbers(*wanted)
        turned = (np.ascontiguousarray(decoder.first.T), np.ascontiguousarray(decoder.colour.T))
        to_planes, to_texels = layout.like() if ctx.needs_input_grad[0] else (None, batch * [np.zeros(0, np.float32)])
        to_origins, to_directions = np.zeros(origins.shape, np.float32), np.zeros(origins.shape, np.float32)
        # Of each picture by itself, and added up in their order: the sum must not depend on who was ready first.
        of_layers = [
            np.zeros((batch, *shape) if learns else (batch, *(0 for _ in shape)), np.float32)
            for shape in (
                decoder.first.shape, decoder.first_bias.shape, (1, len(decoder.density)), (1,), decoder.colour.shape,
                decoder.colour_bias.shape,
            )
        ]  # fmt: skip

        def picture(b: int) -> None:
            differentiate_rays(
                layout.texels[b], layout.size, layout.axes, begin[b], towards[b], given[b], quantiles[b], decoder.layers,
                turned, tuple(x[b] for x in wishes), to_texels[b], to_origins[b], to_directions[b],
                tuple(x[b] for x in of_layers),
            )  # fmt: skip

        side_by_side(picture, range(batch))
        to_first = to_first_bias = to_last = to_last_bias = None
        if learns:
            hidden, channels = first.shape
            one, one_bias, density, density_bias, colour, colour_bias = (torch.from_numpy(x.sum(0)) for x in of_layers)
            to_first, to_first_bias = one[:hidden, :channels] / 3, one_bias[:hidden]
            to_last = torch.cat([density, colour])[: len(last), :hidden]
            to_last_bias = torch.cat([density_bias, colour_bias])[: len(last)]
        moved = (torch.from_numpy(to_origins), torch.from_numpy(to_directions))
        return to_planes, *moved, to_first, to_first_bias, to_last, to_last_bias, None, None, None

"""Super-resolution of one person while it learns: the twin of `superres.SuperResolution` for windows, with gradients.

As in `folded.py` the one style of all pictures is part of the weights. Of each layer only what it gives is kept: a convolution
and the leaky ReLU behind it are one operation, whose output says which side of zero its input was on.
Letters: B batch, I and O input and output channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from talk3d.prior.folded import SLOPE, layer_weights, run_layer, skip_weights
from talk3d.prior.superres import SuperResolution
from talk3d.prior.synthesis import SynthesisBlock, upsample2d


def enlarge_learnt(
    module: SuperResolution,
    features: Float[Tensor, "batch features height width"],
    skip: Float[Tensor, "batch image height width"],
    ws: Float[Tensor, "1 layers w"],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch image size size"]:
    """What `SuperResolution.forward` gives for windows of pictures of one person, without noise.

    Args:
        module: whose weights are used as they are now.
        features: of the windows.
        skip: what is added to, likewise.
        ws: the person.
        dtype: what convolutions compute in, and what is kept of them.

    Gradients reach the inputs, the weights and the style.
    """
    x, image = features.to(dtype).contiguous(memory_format=torch.channels_last), skip
    for block in (module.block0, module.block1):
        x, image = _block(block, x, image, ws[:, -1], dtype)
    return image


def _block(block: SynthesisBlock, x: Tensor, image: Tensor, w: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    for layer in (block.conv0, block.conv1):
        x = _Layer.apply(x, *layer_weights(layer, w, dtype), layer.clamp)
    y = F.conv2d(x, skip_weights(block.torgb, w).to(dtype)).float() + block.torgb.bias[:, None, None]
    if block.torgb.clamp is not None:
        y = y.clamp(-block.torgb.clamp, block.torgb.clamp)
    return x, (upsample2d(image, block.resample_filter) if block.up == 2 else image) + y


class _Layer(torch.autograd.Function):
    """`run_layer`, which keeps its input and its output alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, filter: Tensor | None, clamp: float | None) -> Tensor:
        y = run_layer(x, weight, bias, filter, clamp)
        ctx.save_for_backward(x, weight, filter, y)
        ctx.clamp = clamp
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, filter, y = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        aten = torch.ops.aten
        (slope,) = wanted
        if ctx.clamp is not None:
            slope = aten.hardtanh_backward(slope, y, -ctx.clamp, ctx.clamp)
        slope = aten.leaky_relu_backward(slope, y, SLOPE, True)
        of_bias = slope.sum((0, 2, 3)) if to_bias else None
        doubles = filter is not None
        if doubles:
            # The way back through a filter is the filter turned over; as a convolution it is faster than as a transposed one.
            slope = F.conv2d(slope, filter.flip([2, 3]), padding=2, groups=len(filter))
        stride, padding = ([2, 2], [0, 0]) if doubles else ([1, 1], [1, 1])
        of_x, of_weight, _ = aten.convolution_backward(
            slope, x, weight, None, stride, padding, [1, 1], doubles, [0, 0], 1, [to_x, to_weight, False]
        )
        return of_x, of_weight, of_bias, None, None

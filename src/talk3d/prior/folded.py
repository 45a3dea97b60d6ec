"""Super-resolution for one person: styles, gains and filters folded into constant weights once; no gradients.

The twin of `superres.SuperResolution` for style vectors that never change, as an avatar's do not. Pictures lie in memory pixel
by pixel, and are computed in half precision (bfloat16) where that is asked for; the skip image stays in single precision.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from talk3d.prior.superres import SuperResolution
from talk3d.prior.synthesis import SynthesisBlock, SynthesisLayer, ToRGBLayer, upsample2d

SLOPE = 0.2
"""Of the layers' leaky ReLU, left of zero."""

CPU = torch.device("cpu")


def faster_precision(device: torch.device = CPU) -> torch.dtype:
    """bfloat16 where the processor multiplies it by itself (AVX-512 BF16 or AMX; CUDA from Ampere on), else float32: emulated,
    it is slower.

    It is not measured, so that one machine always gives the same pictures.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    able = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return torch.bfloat16 if any(check is not None and check() for check in able) else torch.float32


def layer_weights(layer: SynthesisLayer, w: Float[Tensor, "1 w"], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    """The kernel and the bias that a layer has for one style, and the filter that smooths each channel if it doubles the size;
    for `run_layer`. Leaky ReLU's gain passes through it, so it is in both."""
    weight = layer.weight * layer.affine(w)[0, None, :, None, None]
    weight = weight * torch.rsqrt(weight.square().sum((1, 2, 3), keepdim=True) + 1e-8) * math.sqrt(2)
    filter = None
    if layer.up == 2:
        # Up-sampling is followed by a filter of each channel by itself, whose output gets the bias.
        weight = weight.transpose(0, 1)
        filter = (4 * layer.resample_filter.flip([0, 1])).expand(len(layer.bias), 1, 4, 4).to(dtype).contiguous()
    return weight.to(dtype).contiguous(memory_format=torch.channels_last), (layer.bias * math.sqrt(2)).to(dtype), filter


def run_layer(x: Tensor, weight: Tensor, bias: Tensor, filter: Tensor | None, clamp: float | None) -> Tensor:
    """What `SynthesisLayer` gives, by its weights for one style."""
    if filter is None:
        x = F.conv2d(x, weight, bias, padding=1)
    else:
        x = F.conv_transpose2d(x, weight, stride=2)
        x = F.conv2d(x, filter, bias, padding=1, groups=len(bias))
    x = F.leaky_relu_(x, SLOPE)
    return x if clamp is None else x.clamp_(-clamp, clamp)


def skip_weights(layer: ToRGBLayer, w: Float[Tensor, "1 w"]) -> Float[Tensor, "outputs inputs 1 1"]:
    """The kernel that a layer has for one style."""
    return layer.weight * (layer.affine(w) * layer.weight_gain)[0, None, :, None, None]


class FoldedSuperResolution:
    """`SuperResolution` without noise, for one person.

    Args:
        module: with trained weights, which are copied.
        ws: the person.
        dtype: what convolutions compute in.
    """

    @torch.no_grad()
    def __init__(self, module: SuperResolution, ws: Float[Tensor, "1 layers w"], dtype: torch.dtype) -> None:
        self.module, self.dtype = module, dtype
        self.first = _FoldedBlock(module.block0, ws[:, -1], dtype)
        self.second = _FoldedBlock(module.block1, ws[:, -1], dtype)

    def __call__(
        self, features: Float[Tensor, "batch features height width"], skip: Float[Tensor, "batch image height width"]
    ) -> Float[Tensor, "batch image size size"]:
        """What `SuperResolution.forward` gives."""
        features, skip, border = self.module.framed(features, skip)
        x, image = self.first(features.to(self.dtype, memory_format=torch.channels_last), skip)
        _, image = self.second(x, image)
        border *= image.shape[-1] // features.shape[-1]
        return image[..., border : image.shape[-2] - border, border : image.shape[-1] - border].contiguous()


class _FoldedBlock:
    """`SynthesisBlock` behind the first."""

    def __init__(self, block: SynthesisBlock, w: Float[Tensor, "1 w"], dtype: torch.dtype) -> None:
        self.up, self.filter = block.up, block.resample_filter
        self.conv0 = _FoldedLayer(block.conv0, w, dtype)
        self.conv1 = _FoldedLayer(block.conv1, w, dtype)
        self.torgb = _FoldedSkip(block.torgb, w, dtype)

    def __call__(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv1(self.conv0(x))
        below = upsample2d(image, self.filter) if self.up == 2 else image
        return x, below + self.torgb(x)


class _FoldedLayer:
    """`SynthesisLayer`."""

    def __init__(self, layer: SynthesisLayer, w: Float[Tensor, "1 w"], dtype: torch.dtype) -> None:
        self.weights, self.clamp = layer_weights(layer, w, dtype), layer.clamp

    def __call__(self, x: Tensor) -> Tensor:
        return run_layer(x, *self.weights, self.clamp)


class _FoldedSkip:
    """`ToRGBLayer`; its output is the picture, so in single precision."""

    def __init__(self, layer: ToRGBLayer, w: Float[Tensor, "1 w"], dtype: torch.dtype) -> None:
        self.clamp, self.bias = layer.clamp, layer.bias.float()
        self.weight = skip_weights(layer, w).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight).float() + self.bias[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)

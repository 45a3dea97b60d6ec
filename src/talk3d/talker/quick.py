"""The delta network while it learns: what `DeltaNetwork` computes, with its gradients, in less time.

Convolutions skip what planes tell each other, planes lie in memory pixel by pixel, and dense layers of the three planes are
one product each. Weights stay the network's own.
Letters: B frames, C channels of one plane, O output channels, S side of the planes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..prior.synthesis import downsample2d, upsample2d
from .delta import DeltaNetwork
from .folded import LAST, why_not
from .tokens import Conditions
from .unet import PLANES_MIXED_ALONG, PlaneLinear, SplitConv, TransformerBlock


class QuickDelta:
    """The twin of ``network(network.unet.trunk(planes), conditions) / network.unet.scale``.

    Args:
        network: whose weights are used as they are at each call.
        dtype: what convolutions compute in.
    """

    def __init__(self, network: DeltaNetwork, dtype: torch.dtype = torch.float32) -> None:
        assert why_not(network.config.unet) is None
        self.network, self.dtype = network, dtype

    def __call__(
        self, planes: Float[Tensor, "1 3 channels side side"], conditions: Conditions
    ) -> Float[Tensor, "batch 3 channels side side"]:
        """Delta planes of each frame, in units of the identity planes' deviation."""
        network, unet = self.network, self.network.unet
        skips, bottom, stream = self._trunk(planes)
        tokens = network.encoder(conditions)
        stream = stream.expand(len(tokens), -1, -1, -1)
        for index, block in enumerate(unet.blocks):
            assert isinstance(block, TransformerBlock)
            if index:
                stream = _look_around(block, stream, unet.position)
            stream = _listen(block, stream, tokens)
        side = bottom.shape[-1]
        x = bottom + stream.permute(0, 2, 1, 3).reshape(len(tokens), side, side, -1).permute(0, 3, 1, 2)
        for level, skip in zip((unet.up1, unet.up2, unet.up3), (*reversed(skips), None), strict=True):
            x = upsample2d(self._level(level, x).float().contiguous(memory_format=LAST), unet.filter)
            x = x if skip is None else x + skip
        learnt = self._convolve(x, unet.out.weight, unet.out.bias).unflatten(1, (3, -1)).float()
        amounts = network.modes.amounts(network.encoder.standard(conditions.code), conditions.blink)
        # Planes of all frames are the largest thing there is here: each further pass over them shows.
        spoken = torch.addmm(unet.constant.flatten(1), amounts, network.modes.planes.flatten(1))
        return spoken.view(learnt.shape) + learnt

    def _trunk(self, planes: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """`AttentionUNet.trunk` of planes one after the other: skips, bottom [1, 3 E, S/8, S/8], stream [1, 3, N, E]."""
        unet = self.network.unet
        x = planes.flatten(1, 2).contiguous(memory_format=LAST)
        levels = []
        for level in (unet.down1, unet.down2, unet.down3):
            x = downsample2d(self._level(level, x).float().contiguous(memory_format=LAST), unet.filter)
            levels.append(x)
        first, second, bottom = levels
        stream = _dense(unet.project, unet.norm(bottom).unflatten(1, (3, -1)).flatten(3).mT)
        block = unet.blocks[0]
        assert isinstance(block, TransformerBlock)
        return (first, second), bottom, _look_around(block, stream, unet.position)

    def _level(self, conv: SplitConv, x: Float[Tensor, "batch planes_channels side side"]) -> Tensor:
        """Roll-out and `SplitConv`.

        What a plane is told of another does not change along one of its axes. Nor does a convolution of it but for its first
        and last line, where the kernel reaches beyond the plane: three lines say all.
        """
        axes = PLANES_MIXED_ALONG[self.network.config.unet.rollout]
        weight = conv.conv0.weight.unflatten(0, (3, -1)).unflatten(2, (3, -1))  # [target, O, source, C, 3, 3]
        own = torch.cat([weight[target, :, target] for target in range(3)])
        y = self._convolve(x, own, conv.conv0.bias)
        planes, side = x.unflatten(1, (3, -1)), x.shape[-1]
        for shared in (0, 1):  # along the target's width, and along its height
            told, kernels = [], []
            for target in range(3):
                along = axes[target][shared]
                (source,) = (s for s in range(3) if s != target and along in axes[s])
                told.append(planes[:, source].mean(2 if axes[source][0] == along else 3))
                kernels.append(weight[target, :, source])
            line = torch.cat(told, 1)  # [B, 3 C, S]
            three = line[:, :, None].expand(-1, -1, 3, -1) if shared == 0 else line[..., None].expand(-1, -1, -1, 3)
            first, middle, last = self._convolve(three, torch.cat(kernels), None).split(1, 2 + shared)
            sizes = (-1, -1, side - 2, -1) if shared == 0 else (-1, -1, -1, side - 2)
            y = y + torch.cat([first, middle.expand(sizes), last], 2 + shared)
        y = F.leaky_relu(conv.norm0(y), conv.slope)
        return F.leaky_relu(conv.norm1(self._convolve(y, conv.conv1.weight, conv.conv1.bias)), conv.slope)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Of each plane by itself, [B, 3 C, H, W] to [B, 3 O, H, W], pixel by pixel in memory."""
        x, weight = (t.to(self.dtype).contiguous(memory_format=LAST) for t in (x, weight))
        return F.conv2d(x, weight, None if bias is None else bias.to(self.dtype), padding=1, groups=3)


def _look_around(block: TransformerBlock, x: Float[Tensor, "batch 3 positions channels"], position: Tensor) -> Tensor:
    x = x + position
    attention = block.self_attention
    # Four axes, not five: only then attention is computed in one piece.
    q, k, v = (
        t.unflatten(-1, (attention.heads, -1)).flatten(0, 1).transpose(1, 2)
        for t in _dense(attention.to_qkv, block.norm1(x)).chunk(3, -1)
    )
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2).unflatten(0, (len(x), 3))
    return x + _dense(attention.to_out, y)


def _listen(block: TransformerBlock, x: Float[Tensor, "batch 3 positions channels"], tokens: Tensor) -> Tensor:
    x = x + block.cross_attention(block.norm2(x), tokens)
    value, gate = _dense(block.expand, block.norm3(x)).chunk(2, -1)
    return x + _dense(block.contract, value * F.gelu(gate))


def _dense(layer: PlaneLinear, x: Float[Tensor, "batch 3 positions channels"]) -> Float[Tensor, "batch 3 positions outputs"]:
    """`PlaneLinear`, as one product for each plane: the plain form makes one for each frame, and adds up their gradients."""
    rows = x.transpose(0, 1).flatten(1, 2)  # [3, B N, in]
    y = rows @ layer.weight if layer.bias is None else torch.baddbmm(layer.bias, rows, layer.weight)
    return y.unflatten(1, (len(x), -1)).transpose(0, 1)


def delta_of(
    network: DeltaNetwork, dtype: torch.dtype
) -> Callable[[Tensor, Conditions], Float[Tensor, "batch 3 channels side side"]]:
    """Identity planes and conditions to delta planes in the U-Net's unit, as quickly as the network allows."""
    if why_not(network.config.unet) is None:
        return QuickDelta(network, dtype)

    def plain(planes: Tensor, conditions: Conditions) -> Tensor:
        with torch.autocast(planes.device.type, dtype, enabled=dtype != torch.float32):
            return network(network.unet.trunk(planes), conditions).float() / network.unet.scale

    return plain

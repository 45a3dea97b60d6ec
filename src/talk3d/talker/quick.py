"""The delta network while it learns: what `DeltaNetwork` computes, with its gradients, in less time.

Convolutions skip what planes tell each other, planes lie in memory pixel by pixel, and dense layers of the three planes are
one product each. The path down sees the same planes in every step, and need not learn in each. Weights stay the network's own.
Letters: B frames, C channels of one plane, O output channels, S side of the planes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..prior.synthesis import downsample2d, upsample2d
from .delta import DeltaNetwork
from .folded import LAST, why_not
from .tokens import Conditions
from .unet import PlaneLinear, SplitConv, TransformerBlock, told_by


class QuickDelta:
    """The twin of ``network(network.unet.trunk(planes), conditions) / network.unet.scale``.

    Args:
        network: whose weights are used as they are at each call.
        dtype: what convolutions and dense layers compute in.
    """

    def __init__(self, network: DeltaNetwork, dtype: torch.dtype = torch.float32) -> None:
        assert why_not(network.config.unet) is None
        self.network, self.dtype = network, dtype
        self._kept: list[Tensor] | None = None

    def __call__(
        self, planes: Float[Tensor, "1 3 channels side side"], conditions: Conditions, descends: bool = True
    ) -> Float[Tensor, "batch 3 channels side side"]:
        """Delta planes of each frame, in units of the identity planes' deviation.

        Args:
            planes: of the identity; always the same.
            conditions: of the frames.
            descends: whether gradients reach the path down. Until they do again its weights may not change: what it gave is
                kept.
        """
        network, unet = self.network, self.network.unet
        first, second, bottom, normal = self._descended(planes, descends)
        stream = self._dense(unet.project, normal.unflatten(1, (3, -1)).flatten(3).mT).float()
        tokens = network.encoder(conditions)
        for index, block in enumerate(unet.blocks):
            assert isinstance(block, TransformerBlock)
            stream = self._look_around(block, stream)
            if not index:  # no frame differs from another before it listens
                stream = stream.expand(len(tokens), -1, -1, -1)
            stream = self._listen(block, stream, tokens)
        side = bottom.shape[-1]
        x = bottom + stream.permute(0, 2, 1, 3).reshape(len(tokens), side, side, -1).permute(0, 3, 1, 2)
        for level, skip in zip((unet.up1, unet.up2, unet.up3), (second, first, None), strict=True):
            x = upsample2d(self._level(level, x).float().contiguous(memory_format=LAST), unet.filter)
            x = x if skip is None else x + skip
        learnt = self._convolve(x, unet.out.weight, unet.out.bias).unflatten(1, (3, -1)).float()
        amounts = network.modes.amounts(network.encoder.standard(conditions.code), conditions.blink)
        # Planes of all frames are the largest thing there is here: each further pass over them shows.
        spoken = torch.addmm(unet.constant.flatten(1), amounts, network.modes.planes.flatten(1))
        return spoken.view(learnt.shape) + learnt

    def _descended(self, planes: Tensor, learns: bool) -> list[Tensor]:
        """Planes [1, 3 channels, side, side] after each halving, and the last normalised; made anew if gradients should reach
        their makers."""
        if self._kept is not None and not learns:
            return self._kept
        unet, levels = self.network.unet, []
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            x = planes.flatten(1, 2).contiguous(memory_format=LAST)
            for level in (unet.down1, unet.down2, unet.down3):
                x = downsample2d(self._level(level, x).float().contiguous(memory_format=LAST), unet.filter)
                levels.append(x)
            levels.append(unet.norm(x))
        self._kept = None if learns else levels
        return levels

    def _level(self, conv: SplitConv, x: Float[Tensor, "batch planes_channels side side"]) -> Tensor:
        """Roll-out and `SplitConv`.

        What a plane is told of another does not change along one of its axes. Nor does a convolution of it but for its first
        and last line, where the kernel reaches beyond the plane: three lines say all.
        """
        # All at once: the gradient of a part by itself is as large as the whole, and zero but for the part.
        weight = conv.conv0.weight.unflatten(0, (3, -1)).unflatten(2, (3, -1))  # [target, O, source, C, 3, 3]
        kernels = [of_target.unbind(1) for of_target in weight.unbind(0)]
        planes = x.unflatten(1, (3, -1))
        side = x.shape[-1]  # gradients of sums are a view of one line, those of means are not
        lines = (planes.sum(3) / side).unbind(1), (planes.sum(4) / side).unbind(1)  # along each plane's width, and height
        y = self._convolve(x, torch.cat([kernels[target][target] for target in range(3)]), conv.conv0.bias)
        told = []
        for shared in (0, 1):  # along the target's width, and along its height
            pairs = []
            for target in range(3):
                source, axis = told_by(self.network.config.unet.rollout, target, shared)
                pairs.append((lines[axis][source], kernels[target][source]))
            line, kernel = (torch.cat(parts, place) for parts, place in zip(zip(*pairs, strict=True), (1, 0), strict=True))
            three = line[:, :, None].expand(-1, -1, 3, -1) if shared == 0 else line[..., None].expand(-1, -1, -1, 3)
            told.append(self._convolve(three, kernel, None))
        y = F.leaky_relu_(conv.norm0(_Told.apply(y, *told)), conv.slope)
        return F.leaky_relu_(conv.norm1(self._convolve(y, conv.conv1.weight, conv.conv1.bias)), conv.slope)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Of each plane by itself, [B, 3 C, H, W] to [B, 3 O, H, W], pixel by pixel in memory."""
        x, weight = (t.to(self.dtype).contiguous(memory_format=LAST) for t in (x, weight))
        return F.conv2d(x, weight, None if bias is None else bias.to(self.dtype), padding=1, groups=3)

    def _look_around(self, block: TransformerBlock, x: Float[Tensor, "batch 3 positions channels"]) -> Tensor:
        x = x + self.network.unet.position
        attention = block.self_attention
        # Four axes, not five: only then attention is computed in one piece. In half precision it takes longer.
        q, k, v = (
            t.unflatten(-1, (attention.heads, -1)).flatten(0, 1).transpose(1, 2)
            for t in self._dense(attention.to_qkv, block.norm1(x)).float().chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2).unflatten(0, (len(x), 3))
        return x + self._dense(attention.to_out, y)

    def _listen(self, block: TransformerBlock, x: Float[Tensor, "batch 3 positions channels"], tokens: Tensor) -> Tensor:
        x = x + block.cross_attention(block.norm2(x), tokens)
        value, gate = self._dense(block.expand, block.norm3(x)).chunk(2, -1)
        return x + self._dense(block.contract, value * F.gelu(gate))

    def _dense(self, layer: PlaneLinear, x: Float[Tensor, "batch 3 positions channels"]) -> Tensor:
        """`PlaneLinear`, one product for each plane: the plain form makes one for each frame, and adds up their gradients."""
        rows, weight = x.transpose(0, 1).flatten(1, 2).to(self.dtype), layer.weight.to(self.dtype)  # [3, B N, in]
        y = rows @ weight if layer.bias is None else torch.baddbmm(layer.bias.to(self.dtype), rows, weight)
        return y.unflatten(1, (len(x), -1)).transpose(0, 1)


class _Told(torch.autograd.Function):
    """Adds three rows and three columns to pictures: the first, the one between, as often as there is room, and the last.

    Overwrites the pictures; the sum written as such would make and read whole ones six times.
    """

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        for axis, lines in ((2, rows), (3, columns)):
            for part, line in zip(_ends(pictures, axis), lines.split(1, axis), strict=True):
                part += line
        ctx.mark_dirty(pictures)
        return pictures

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor, ...]:
        (slope,) = wanted
        rows, columns = (torch.cat([part.sum(axis, True) for part in _ends(slope, axis)], axis) for axis in (2, 3))
        return slope, rows, columns


def _ends(pictures: Tensor, axis: int) -> tuple[Tensor, ...]:
    """The first line along an axis, all between, and the last."""
    return pictures.split((1, pictures.shape[axis] - 2, 1), axis)


def delta_of(
    network: DeltaNetwork, dtype: torch.dtype
) -> Callable[[Tensor, Conditions, bool], Float[Tensor, "batch 3 channels side side"]]:
    """`QuickDelta` if the network allows it; else the same call of the plain network, whose path down always learns."""
    if why_not(network.config.unet) is None:
        return QuickDelta(network, dtype)

    def plain(planes: Tensor, conditions: Conditions, descends: bool) -> Tensor:
        with torch.autocast(planes.device.type, dtype, enabled=dtype != torch.float32):
            return network(network.unet.trunk(planes), conditions).float() / network.unet.scale

    return plain

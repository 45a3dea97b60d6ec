"""An avatar's moved planes, fast: what is constant for it is folded once, and convolutions skip what planes tell each other.

The twin of ``planes + DeltaNetwork(trunk, conditions)``, without gradients. Planes lie in memory as the compiled renderer reads
them.
Letters: B frames, C channels of one plane, O output channels, S side of the planes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..prior.synthesis import upsample2d
from .delta import DeltaNetwork
from .tokens import Conditions
from .unet import PlaneLinear, SplitConv, TransformerBlock, Trunk, UNetConfig, told_by

LAST = torch.channels_last


def why_not(config: UNetConfig) -> str | None:
    """Why a U-Net needs the plain path, also while it learns (`quick.py`); None if it does not."""
    if config.convolution != "split" or config.rollout == "off":
        return "its planes are not mixed by roll-out and separate convolutions"
    if config.normalisation != "group" or config.ending != "plain":
        return "its path up is Talk3D's"
    return None


class FoldedDelta:
    """The planes of a speaking head.

    Args:
        network: with trained weights, which are copied.
        planes: the person's.
        trunk: of those planes.
        dtype: what convolutions and dense layers compute in; sums are in single precision.
    """

    @torch.no_grad()
    def __init__(
        self, network: DeltaNetwork, planes: Float[Tensor, "1 3 channels side side"], trunk: Trunk, dtype: torch.dtype
    ) -> None:
        unet = network.unet
        assert why_not(unet.config) is None
        self.network, self.trunk, self.dtype = network, trunk, dtype
        self.shape = planes.shape[1:]
        self.blocks = [_FoldedBlock(block, dtype) for block in unet.blocks]  # type: ignore[arg-type]
        self.levels = [_FoldedLevel(conv, unet.config, dtype) for conv in (unet.up1, unet.up2, unet.up3)]
        self.bottom = trunk.bottom.flatten(1, 2).contiguous(memory_format=LAST)
        self.skips = [skip.flatten(1, 2).contiguous(memory_format=LAST) for skip in reversed(trunk.skips)]
        self.out = (unet.scale * unet.out.weight).to(dtype, memory_format=LAST)
        assert unet.out.bias is not None
        still = planes + unet.scale * (unet.constant + unet.out.bias.unflatten(0, (3, -1))[..., None, None])
        # Modes, and what is always there as one more: one product of matrices makes both.
        self.modes = torch.cat([_by_texels(unet.scale * network.modes.planes), _by_texels(still)])

    @torch.inference_mode()
    def __call__(self, conditions: Conditions) -> Float[Tensor, "batch 3 channels side side"]:
        """What ``planes + network(trunk, conditions)`` gives."""
        network, unet = self.network, self.network.unet
        x = self._bottom(network.encoder(conditions))
        for level, skip in zip(self.levels, [*self.skips, None], strict=True):
            x = upsample2d(level(x.to(self.dtype)).float(), unet.filter)
            x = x if skip is None else x + skip
        learnt = F.conv2d(x.to(self.dtype), self.out, padding=1, groups=3)  # [B, 3 C, S, S], texel by texel
        amounts = network.modes.amounts(network.encoder.standard(conditions.code), conditions.blink)
        moved = _as_planes(F.pad(amounts, (0, 1), value=1.0) @ self.modes, self.shape)
        moved += learnt.unflatten(1, (3, -1))
        return moved

    def _bottom(self, tokens: Tensor) -> Float[Tensor, "batch planes_channels bottom bottom"]:
        """What the path up starts from."""
        side = self.bottom.shape[-1]
        stream = self.trunk.stream[0].expand(len(tokens), -1, -1, -1)
        for index, block in enumerate(self.blocks):
            if index:
                stream = block.look_around(stream, self.network.unet.position[0])
            stream = block.listen(stream, tokens)
        return self.bottom + stream.permute(0, 2, 1, 3).reshape(len(tokens), side, side, -1).permute(0, 3, 1, 2)


def _by_texels(planes: Float[Tensor, "batch 3 channels side side"]) -> Float[Tensor, "batch numbers"]:
    """As `render.fused.texel_planes` lie in memory; nothing in the texel that ends each row."""
    return F.pad(planes.permute(0, 1, 3, 4, 2), (0, 0, 0, 1)).flatten(1)


def _as_planes(numbers: Float[Tensor, "batch numbers"], shape: torch.Size) -> Float[Tensor, "batch 3 channels side side"]:
    three, channels, height, width = shape
    return numbers.unflatten(1, (three, height, width + 1, channels)).permute(0, 1, 4, 2, 3)[..., :width]


class _FoldedLevel:
    """Roll-out and `SplitConv`. What a plane is told of the others does not change along one of its axes, so that a convolution
    of it is one of a line, spread along that axis; only at its two ends a row of the kernel falls off the plane."""

    def __init__(self, conv: SplitConv, config: UNetConfig, dtype: torch.dtype) -> None:
        self.slope = conv.slope
        weight = conv.conv0.weight.unflatten(0, (3, -1)).unflatten(2, (3, -1))  # [target, O, source, C, 3, 3]
        own: list[Tensor] = []
        lines: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.sources: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])  # whose line each target gets
        for target in range(3):
            own.append(weight[target, :, target])
            for shared in (0, 1):  # along the target's width, and along its height
                source, axis = told_by(config.rollout, target, shared)
                kernel = weight[target, :, source]
                # Over the axis it does not change along: all three rows, and those that are missing at the first and the last.
                across = kernel if shared == 0 else kernel.mT
                lines[shared].append(torch.cat([across.sum(2), -across[:, :, 0], -across[:, :, 2]]))
                # The source's mean over its other axis leaves a line along the shared one.
                self.sources[shared].append((source, axis))
        self.own = torch.cat(own).to(dtype, memory_format=LAST)
        self.lines = [torch.cat(line).to(dtype) for line in lines]
        assert conv.conv0.bias is not None
        assert conv.conv1.bias is not None
        self.bias0, self.bias1 = conv.conv0.bias.to(dtype), conv.conv1.bias.to(dtype)
        self.weight1 = conv.conv1.weight.to(dtype, memory_format=LAST)

    def __call__(self, x: Float[Tensor, "batch planes_channels side side"]) -> Tensor:
        y = F.conv2d(x, self.own, self.bias0, padding=1, groups=3)
        texels, sums = x.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1)  # as they lie in memory: [B, S, S, channels of all planes]
        profiles = [
            texels.mean(axis).unflatten(2, (3, -1)) for axis in (1, 2)
        ]  # along the width, along the height: [B, S, 3, C]
        for shared in (0, 1):
            told = torch.cat([profiles[axis][:, :, source] for source, axis in self.sources[shared]], 2)
            lines = F.conv1d(told.mT, self.lines[shared], padding=1, groups=3).unflatten(1, (3, 3, -1))  # target, which, O
            everywhere, first, last = (lines[:, :, which].flatten(1, 2).mT.contiguous() for which in range(3))  # [B, S, 3 O]
            across = sums if shared == 0 else sums.transpose(1, 2)
            across += everywhere[:, None]
            across[:, 0] += first
            across[:, -1] += last
        y = F.leaky_relu_(y, self.slope)
        return F.leaky_relu_(F.conv2d(y, self.weight1, self.bias1, padding=1, groups=3), self.slope)


class _FoldedBlock:
    """`TransformerBlock` with dense layers in the given precision. The stream is [B, 3, N, E], single precision."""

    def __init__(self, block: TransformerBlock, dtype: torch.dtype) -> None:
        self.block, self.heads = block, block.self_attention.heads
        self.to_qkv, self.to_out = (_FoldedLinear(x, dtype) for x in (block.self_attention.to_qkv, block.self_attention.to_out))
        self.expand, self.contract = _FoldedLinear(block.expand, dtype), _FoldedLinear(block.contract, dtype)

    def look_around(self, x: Tensor, position: Tensor) -> Tensor:
        x = x + position
        # Four axes, not five: only then attention is computed in one piece.
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).flatten(0, 1).transpose(1, 2)
            for t in self.to_qkv(self.block.norm1(x)).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2).unflatten(0, (len(x), 3))
        return x + self.to_out(y)

    def listen(self, x: Tensor, tokens: Tensor) -> Tensor:
        x = x + self._told(self.block.norm2(x), tokens)
        value, gate = self.expand(self.block.norm3(x)).chunk(2, -1)
        return x + self.contract(value * F.gelu(gate))

    def _told(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Cross-attention. There are few tokens and many positions, so the dense layers of the positions act on tokens instead:
        queries' weights on keys, and the output's on values."""
        attention = self.block.cross_attention
        if attention.token_norm:
            tokens = F.layer_norm(tokens, tokens.shape[-1:])
        keys, values = (t.unflatten(-1, (self.heads, -1)) for t in attention.to_kv(tokens).chunk(2, -1))  # [B, T, heads, e]
        queries = attention.to_q.weight.unflatten(0, (self.heads, -1))  # [heads, e, E]
        outputs = attention.to_out.weight.unflatten(1, (self.heads, -1))  # [E, heads, e]
        asked = torch.einsum("bthe,hef->bfht", keys, queries).flatten(2) / math.sqrt(keys.shape[-1])  # [B, E, heads T]
        given = torch.einsum("bthe,fhe->bhtf", values, outputs).flatten(1, 2)  # [B, heads T, E]
        shares = torch.bmm(x.flatten(1, 2), asked).unflatten(-1, (self.heads, -1)).softmax(-1).flatten(-2)
        return torch.baddbmm(attention.to_out.bias, shares, given).unflatten(1, (3, -1))


class _FoldedLinear:
    """`PlaneLinear` of [B, 3, N, in], computed and given in its precision."""

    def __init__(self, linear: PlaneLinear, dtype: torch.dtype) -> None:
        self.weight = linear.weight.to(dtype)
        self.bias = None if linear.bias is None else linear.bias.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        planes = x.transpose(0, 1)  # [3, B, N, in]
        rows = planes.flatten(1, 2).to(self.weight.dtype)
        y = torch.bmm(rows, self.weight) if self.bias is None else torch.baddbmm(self.bias, rows, self.weight)
        return y.unflatten(1, planes.shape[1:3]).transpose(0, 1)

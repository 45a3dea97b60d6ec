"""The attention U-Net: identity planes and tokens to a delta tri-plane (method 6).

Its planes never change for one avatar, so everything before the first cross-attention is computed once (`trunk`) and only
the rest per frame (`delta`). Letters: B frames, C channels of one plane, S side of the planes, N = (S / 8)^2 positions at
the bottom, E channels there, D token width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..prior.synthesis import downsample2d, fir_filter, upsample2d

TOKEN_GAIN = 6.0
"""Factor on the initial weights through which tokens enter the stream."""

Planes = Float[Tensor, "batch 3 channels height width"]


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net, per plane."""

    plane_channels: int = 16
    """C."""
    plane_size: int = 128
    """S."""
    down: tuple[int, int, int] = (24, 48, 64)
    """Channels after each halving; the last is E."""
    up: tuple[int, int, int] = (48, 24, 16)
    """Channels after each doubling; the first two must equal `down[1]` and `down[0]`, to which they are added."""
    blocks: int = 2
    """Transformer blocks."""
    heads: int = 4
    token_width: int = 64
    """D."""


@dataclass(frozen=True)
class Trunk:
    """What the identity planes alone determine; all with a batch of one."""

    skips: tuple[Tensor, Tensor]
    """Planes after the first and the second halving."""
    bottom: Tensor
    """[1, 3, E, S/8, S/8]: the transformer's input, kept as its residual."""
    stream: Tensor
    """[1, 3, N, E]: the transformer's stream after its first self-attention."""


def roll_out(planes: Planes) -> Float[Tensor, "batch 3 3*channels height width"]:
    """Let each plane see the other two: their mean along the axis it lacks, spread along the axis they lack.

    For planes with axes (W, H) = (x, y), (x, z), (z, y), i.e. the renderer's "aligned" ones (method 6.1, corrected).
    """
    a, b, c = planes.unbind(1)  # [B, C, H, W]

    def along_columns(profile: Tensor) -> Tensor:  # a function of the output's column, [B, C, W]
        return profile[:, :, None, :].expand_as(a)

    def along_rows(profile: Tensor) -> Tensor:  # a function of the output's row, [B, C, H]
        return profile[:, :, :, None].expand_as(a)

    a_x, a_y = a.mean(2), a.mean(3)
    b_x, b_z = b.mean(2), b.mean(3)
    c_z, c_y = c.mean(2), c.mean(3)
    first = torch.cat([a, along_columns(b_x), along_rows(c_y)], 1)
    second = torch.cat([along_columns(a_x), b, along_rows(c_z)], 1)
    third = torch.cat([along_rows(a_y), along_columns(b_z), c], 1)
    return torch.stack([first, second, third], 1)


class SplitConv(nn.Module):
    """Two 3x3 convolutions with normalisation and leaky ReLU on each plane by itself: no weight is shared between planes.

    The three run as one convolution in three groups.
    """

    def __init__(self, inputs: int, outputs: int, normalise: bool = True) -> None:
        super().__init__()
        groups = 4 if outputs % 4 == 0 else 1
        self.conv0 = nn.Conv2d(3 * inputs, 3 * outputs, 3, padding=1, groups=3)
        self.norm0 = nn.GroupNorm(3 * groups, 3 * outputs) if normalise else nn.Identity()
        self.conv1 = nn.Conv2d(3 * outputs, 3 * outputs, 3, padding=1, groups=3)
        self.norm1 = nn.GroupNorm(3 * groups, 3 * outputs) if normalise else nn.Identity()
        if not normalise:
            for conv in (self.conv0, self.conv1):
                nn.init.kaiming_normal_(conv.weight, a=0.01)

    def forward(self, planes: Planes) -> Float[Tensor, "batch 3 outputs height width"]:
        x = planes.flatten(1, 2)
        x = F.leaky_relu(self.norm0(self.conv0(x)), 0.01)
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.01)
        return x.unflatten(1, (3, -1))


class PlaneLinear(nn.Module):
    """A dense layer of its own for each plane: [B, 3, N, in] to [B, 3, N, out]."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(3, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(3, 1, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class PlaneNorm(nn.Module):
    """Layer normalisation with its own gain and bias for each plane."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3, 1, channels))
        self.bias = nn.Parameter(torch.zeros(3, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:]) * self.gain + self.bias


class PlaneSelfAttention(nn.Module):
    """Attention of each plane's positions to one another."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = PlaneLinear(channels, 3 * channels, bias=False)
        self.to_out = PlaneLinear(channels, channels)

    def forward(self, x: Float[Tensor, "batch 3 positions channels"]) -> Float[Tensor, "batch 3 positions channels"]:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(2, 3) for t in self.to_qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v)  # [B, 3, heads, N, E / heads]
        return self.to_out(y.transpose(2, 3).flatten(-2))


class CrossAttention(nn.Module):
    """Attention of all positions of all planes to the tokens, with one set of weights."""

    def __init__(self, channels: int, token_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(token_width, 2 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        # At first each of the few tokens gets an equal share of the attention and usual weights halve it twice more: one
        # token would move the stream by a twentieth, and training would take minutes to notice the sound at all.
        with torch.no_grad():
            self.to_out.weight.mul_(TOKEN_GAIN)

    def forward(
        self, x: Float[Tensor, "batch 3 positions channels"], tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch 3 positions channels"]:
        q = self.to_q(x.flatten(1, 2)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        tokens = F.layer_norm(tokens, tokens.shape[-1:])
        k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.to_kv(tokens).chunk(2, -1))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)  # [B, 3 N, E]
        return self.to_out(y).unflatten(1, (3, -1))


class TransformerBlock(nn.Module):
    """Self-attention per plane, cross-attention to the tokens, feed-forward per plane; each with a residual."""

    def __init__(self, channels: int, token_width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = PlaneNorm(channels), PlaneNorm(channels), PlaneNorm(channels)
        self.self_attention = PlaneSelfAttention(channels, heads)
        self.cross_attention = CrossAttention(channels, token_width, heads)
        self.expand = PlaneLinear(channels, 8 * channels)
        self.contract = PlaneLinear(4 * channels, channels)

    def look_around(self, x: Tensor, position: Tensor) -> Tensor:
        """The part that no token reaches."""
        x = x + position
        return x + self.self_attention(self.norm1(x))

    def listen(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The part that tokens reach."""
        x = x + self.cross_attention(self.norm2(x), tokens)
        value, gate = self.expand(self.norm3(x)).chunk(2, -1)
        return x + self.contract(value * F.gelu(gate))


class AttentionUNet(nn.Module):
    """Identity planes and tokens to a delta tri-plane that starts at exactly zero."""

    filter: Tensor
    scale: Tensor

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        # Deltas are in units of the identity planes' deviation, which differs between priors by an order of magnitude.
        self.register_buffer("scale", torch.ones(()))
        d1, d2, d3 = config.down
        u1, u2, u3 = config.up
        assert (u1, u2) == (d2, d1), "the up path is added to the down path"
        self.register_buffer("filter", fir_filter())
        self.down1 = SplitConv(3 * config.plane_channels, d1)
        self.down2 = SplitConv(3 * d1, d2)
        self.down3 = SplitConv(3 * d2, d3)
        self.norm = nn.GroupNorm(3 * 4, 3 * d3, eps=1e-5)
        self.project = PlaneLinear(d3, d3)
        self.position = nn.Parameter(_plane_positions(config.plane_size // 8, d3))
        self.blocks = nn.ModuleList(TransformerBlock(d3, config.token_width, config.heads) for _ in range(config.blocks))
        # A token shifts the stream alike everywhere, and normalising over positions would take just that away again.
        self.up1 = SplitConv(3 * d3, u1, normalise=False)
        self.up2 = SplitConv(3 * u1, u2, normalise=False)
        self.up3 = SplitConv(3 * u2, u3, normalise=False)
        # A plain convolution ends it: an activation would make the delta one-sided, a normalisation would undo the zero.
        self.out = nn.Conv2d(3 * u3, 3 * config.plane_channels, 3, padding=1, groups=3)
        # What no token changes: it lets training sharpen the person on all frames, which inversion saw only a few of.
        self.constant = nn.Parameter(torch.zeros(1, 3, config.plane_channels, config.plane_size, config.plane_size))
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(
        self, planes: Float[Tensor, "1 3 channels side side"], tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch 3 channels side side"]:
        return self.delta(self.trunk(planes), tokens)

    def trunk(self, planes: Float[Tensor, "1 3 channels side side"]) -> Trunk:
        """All that does not depend on tokens."""
        first = self._down(self.down1(roll_out(planes)))
        second = self._down(self.down2(roll_out(first)))
        bottom = self._down(self.down3(roll_out(second)))
        normal = self.norm(bottom.flatten(1, 2)).unflatten(1, (3, -1))
        stream = self.project(normal.flatten(3).mT)  # [1, 3, N, E]
        block: TransformerBlock = self.blocks[0]  # type: ignore[assignment]
        return Trunk((first, second), bottom, block.look_around(stream, self.position))

    def delta(self, trunk: Trunk, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch 3 channels side side"]:
        """The delta planes of each frame."""
        stream = trunk.stream.expand(len(tokens), -1, -1, -1)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, TransformerBlock)
            if index:
                stream = block.look_around(stream, self.position)
            stream = block.listen(stream, tokens)
        side = trunk.bottom.shape[-1]
        x = trunk.bottom + stream.mT.unflatten(3, (side, side))
        x = self._up(self.up1(roll_out(x))) + trunk.skips[1]
        x = self._up(self.up2(roll_out(x))) + trunk.skips[0]
        x = self._up(self.up3(roll_out(x)))
        return self.scale * (self.constant + self.out(x.flatten(1, 2)).unflatten(1, (3, -1)))

    def _down(self, planes: Planes) -> Float[Tensor, "batch 3 channels height//2 width//2"]:
        return downsample2d(planes.flatten(1, 2), self.filter).unflatten(1, (3, -1))

    def _up(self, planes: Planes) -> Float[Tensor, "batch 3 channels 2*height 2*width"]:
        return upsample2d(planes.flatten(1, 2), self.filter).unflatten(1, (3, -1))


def _plane_positions(side: int, channels: int) -> Float[Tensor, "1 3 positions channels"]:
    """A sinusoidal code of each position of each plane, from its two world axes; learnt further in training."""
    quarter = channels // 4
    frequency = math.pi * torch.arange(1, quarter + 1) / 2
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    waves = torch.cat([(line[:, None] * frequency).sin(), (line[:, None] * frequency).cos()], 1)  # [side, C / 2]
    column = waves[None].expand(side, -1, -1)
    row = waves[:, None].expand(-1, side, -1)
    code = torch.cat([column, row], -1).reshape(1, 1, side * side, 2 * waves.shape[1])
    code = F.pad(code, (0, channels - code.shape[-1]))
    return 0.5 * code.repeat(1, 3, 1, 1)

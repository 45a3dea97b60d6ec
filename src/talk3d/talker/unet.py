"""The attention U-Net: identity planes and tokens to a delta tri-plane (method 6).

One network, whose config says where ours and Talk3D's differ; `OFFICIAL` is the layout of Talk3D's checkpoints.
Its planes never change for one avatar, so everything before the first cross-attention is computed once (`trunk`) and only
the rest per frame (`delta`). Letters: B frames, C channels of one plane, S side of the planes, N = (S / 8)^2 positions at
the bottom, E channels there, T tokens, D their width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..prior.synthesis import downsample2d, fir_filter, upsample2d

TOKEN_GAIN = 6.0
"""Factor on the initial weights through which tokens enter the stream."""

Planes = Float[Tensor, "batch 3 channels height width"]
RollOut = Literal["aligned", "official", "off"]
Convolution = Literal["split", "joint"]
Normalisation = Literal["group", "batch", "none"]


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net, per plane, and the choices in which ours differs from Talk3D's (`OFFICIAL`, docs/quirks.md)."""

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
    rollout: RollOut = "aligned"
    """What planes see of each other before each level; see `roll_out`."""
    convolution: Convolution = "split"
    """Whether each plane has convolutions of its own, or one runs over all planes' channels at once."""
    normalisation: Literal["group", "batch"] = "group"
    """`group`: over four groups of channels a plane on the path down, nowhere on the path up. `batch`: over the batch, on
    both."""
    slope: float = 0.2
    """Of leaky ReLUs on their negative side. Without a normalisation on the path up its units drift to that side, and at
    Talk3D's slope of 0.01 neither what tokens say nor a gradient gets through them any more."""
    ending: Literal["plain", "block"] = "plain"
    """What makes the delta. `plain`: a convolution behind the path up, and a part that no token changes. `block`: the path up
    itself, whose last convolution starts at zero."""
    position: Literal["plane", "space"] = "plane"
    """What the learnt code of a position starts as: waves along its plane's two axes, or slices of a code of all space."""
    bottom_groups: int = 4
    """Groups of a plane's channels that are normalised before the transformer."""
    token_norm: bool = True
    """Whether each token is brought to the same size before it is attended to."""
    token_gain: float = TOKEN_GAIN


OFFICIAL = UNetConfig(
    plane_channels=32,
    plane_size=256,
    down=(64, 128, 256),
    up=(128, 64, 32),
    rollout="official",
    normalisation="batch",
    slope=0.01,
    ending="block",
    position="space",
    bottom_groups=32,
    token_norm=False,
    token_gain=1.0,
)
"""Talk3D's, at its published size: 17.5 million parameters."""


@dataclass(frozen=True)
class Trunk:
    """What the identity planes alone determine; all with a batch of one."""

    skips: tuple[Tensor, Tensor]
    """Planes after the first and the second halving."""
    bottom: Tensor
    """[1, 3, E, S/8, S/8]: the transformer's input, kept as its residual."""
    stream: Tensor
    """[1, 3, N, E]: the transformer's stream after its first self-attention."""


PLANES_MIXED_ALONG: dict[str, tuple[str, str, str]] = {"aligned": ("xy", "xz", "zy"), "official": ("xy", "yz", "zx")}
"""World axes along the width and the height of each plane. The renderer's are the first; Talk3D mixes planes as if they lay
like the second, so four of its six profiles run along a wrong axis."""


def roll_out(planes: Planes, kind: RollOut = "aligned") -> Float[Tensor, "batch 3 3*channels height width"]:
    """Let each plane see the other two: their mean along the axis it lacks, spread along the axis they lack (method 6.1).

    Slot k of a plane's channels comes from plane k. With `off`, where a plane sees itself only, all slots hold the plane
    itself, so that an ablation leaves the network's size as it is.
    """
    if kind == "off":
        return planes.repeat(1, 1, 3, 1, 1)
    axes = PLANES_MIXED_ALONG[kind]

    def seen(source: int, target: int) -> Tensor:  # [B, C, H, W]
        if source == target:
            return planes[:, source]
        (shared,) = set(axes[source]) & set(axes[target])
        profile = planes[:, source].mean(2 if axes[source][0] == shared else 3)  # along the shared axis, [B, C, S]
        spread = profile[:, :, None, :] if axes[target][0] == shared else profile[:, :, :, None]
        return spread.expand_as(planes[:, target])

    return torch.stack([torch.cat([seen(source, target) for source in range(3)], 1) for target in range(3)], 1)


def told_by(kind: RollOut, target: int, along: int) -> tuple[int, int]:
    """The plane that tells another what changes along its width (0) or height (1), and which of its own axes that is."""
    axes = PLANES_MIXED_ALONG[kind]
    shared = axes[target][along]
    (source,) = (plane for plane in range(3) if plane != target and shared in axes[plane])
    return source, axes[source].index(shared)


def _normalisation(kind: Normalisation, channels: int) -> nn.Module:
    """Over the channels of three planes, none of which is mixed with another's."""
    match kind:
        case "group":
            return nn.GroupNorm(3 * (4 if channels % 12 == 0 else 1), channels)
        case "batch":
            norm = nn.BatchNorm2d(channels)
            norm.num_batches_tracked = torch.zeros(3, dtype=torch.long)  # one count a plane, as Talk3D's files have
            return norm
        case "none":
            return nn.Identity()


class SplitConv(nn.Module):
    """Two 3x3 convolutions with normalisation and leaky ReLU on each plane by itself: no weight is shared between planes.

    The three run as one convolution in three groups; `joint` has one group, and lets planes mix.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        normalisation: Normalisation = "group",
        convolution: Convolution = "split",
        slope: float = UNetConfig.slope,
    ) -> None:
        super().__init__()
        self.slope = slope
        groups = 3 if convolution == "split" else 1
        self.conv0 = nn.Conv2d(3 * inputs, 3 * outputs, 3, padding=1, groups=groups)
        self.norm0 = _normalisation(normalisation, 3 * outputs)
        self.conv1 = nn.Conv2d(3 * outputs, 3 * outputs, 3, padding=1, groups=groups)
        self.norm1 = _normalisation(normalisation, 3 * outputs)
        if normalisation == "none":
            for conv in (self.conv0, self.conv1):
                nn.init.kaiming_normal_(conv.weight, a=slope)

    def forward(self, planes: Planes) -> Float[Tensor, "batch 3 outputs height width"]:
        x = planes.flatten(1, 2)
        x = F.leaky_relu(self.norm0(self.conv0(x)), self.slope)
        x = F.leaky_relu(self.norm1(self.conv1(x)), self.slope)
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

    def __init__(
        self, channels: int, token_width: int, heads: int, token_norm: bool = True, token_gain: float = TOKEN_GAIN
    ) -> None:
        super().__init__()
        self.heads, self.token_norm = heads, token_norm
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(token_width, 2 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        # At first each of the few tokens gets an equal share of the attention and usual weights halve it twice more: one
        # token would move the stream by a twentieth, and training would take minutes to notice the sound at all.
        with torch.no_grad():
            self.to_out.weight.mul_(token_gain)

    def forward(
        self, x: Float[Tensor, "batch 3 positions channels"], tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch 3 positions channels"]:
        q, k, v = self._queries_keys_values(x, tokens)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)  # [B, 3 N, E]
        return self.to_out(y).unflatten(1, (3, -1))

    def probabilities(
        self, x: Float[Tensor, "batch 3 positions channels"], tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch heads 3*positions tokens"]:
        """How each position's attention is shared out among the tokens."""
        q, k, _ = self._queries_keys_values(x, tokens)
        return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)

    def _queries_keys_values(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each [B, heads, 3 N or T, E / heads]."""
        if self.token_norm:
            tokens = F.layer_norm(tokens, tokens.shape[-1:])
        parts = (self.to_q(x.flatten(1, 2)), *self.to_kv(tokens).chunk(2, -1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return q, k, v


class TransformerBlock(nn.Module):
    """Self-attention per plane, cross-attention to the tokens, feed-forward per plane; each with a residual."""

    def __init__(
        self, channels: int, token_width: int, heads: int, token_norm: bool = True, token_gain: float = TOKEN_GAIN
    ) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = PlaneNorm(channels), PlaneNorm(channels), PlaneNorm(channels)
        self.self_attention = PlaneSelfAttention(channels, heads)
        self.cross_attention = CrossAttention(channels, token_width, heads, token_norm, token_gain)
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
    out: nn.Conv2d
    """Only where the ending is `plain`, as is the next."""
    constant: nn.Parameter

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels, size = config.plane_channels, config.plane_size
        # Deltas are in units of the identity planes' deviation, which differs between priors by an order of magnitude.
        self.register_buffer("scale", torch.ones(()))
        d1, d2, d3 = config.down
        u1, u2, u3 = config.up
        assert (u1, u2) == (d2, d1), "the up path is added to the down path"
        self.register_buffer("filter", fir_filter())
        self.down1 = SplitConv(3 * channels, d1, config.normalisation, config.convolution, config.slope)
        self.down2 = SplitConv(3 * d1, d2, config.normalisation, config.convolution, config.slope)
        self.down3 = SplitConv(3 * d2, d3, config.normalisation, config.convolution, config.slope)
        self.norm = nn.GroupNorm(3 * config.bottom_groups, 3 * d3, eps=1e-5)
        self.project = PlaneLinear(d3, d3)
        codes = {"plane": _plane_positions, "space": _space_positions}
        self.position = nn.Parameter(codes[config.position](size // 8, d3))
        self.blocks = nn.ModuleList(
            TransformerBlock(d3, config.token_width, config.heads, config.token_norm, config.token_gain)
            for _ in range(config.blocks)
        )
        # A token shifts the stream alike everywhere, and normalising over positions would take just that away again.
        normalisation: Normalisation = "none" if config.normalisation == "group" else config.normalisation
        self.up1 = SplitConv(3 * d3, u1, normalisation, config.convolution, config.slope)
        self.up2 = SplitConv(3 * u1, u2, normalisation, config.convolution, config.slope)
        self.up3 = SplitConv(3 * u2, u3, normalisation, config.convolution, config.slope)
        if config.ending == "plain":
            # An activation at the end would make the delta one-sided, a normalisation would undo the zero.
            groups = 3 if config.convolution == "split" else 1
            self.out = nn.Conv2d(3 * u3, 3 * channels, 3, padding=1, groups=groups)
            # What no token changes: it lets training sharpen the person on all frames, which inversion saw only a few of.
            self.constant = nn.Parameter(torch.zeros(1, 3, channels, size, size))
        else:
            assert u3 == channels, "the path up ends in the delta"
        last = self.out if config.ending == "plain" else self.up3.conv1
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)

    def forward(
        self, planes: Float[Tensor, "1 3 channels side side"], tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch 3 channels side side"]:
        return self.delta(self.trunk(planes), tokens)

    def trunk(self, planes: Float[Tensor, "1 3 channels side side"]) -> Trunk:
        """All that does not depend on tokens."""
        first = self._down(self.down1(self._roll_out(planes)))
        second = self._down(self.down2(self._roll_out(first)))
        bottom = self._down(self.down3(self._roll_out(second)))
        normal = self.norm(bottom.flatten(1, 2)).unflatten(1, (3, -1))
        stream = self.project(normal.flatten(3).mT)  # [1, 3, N, E]
        block: TransformerBlock = self.blocks[0]  # type: ignore[assignment]
        return Trunk((first, second), bottom, block.look_around(stream, self.position))

    def delta(self, trunk: Trunk, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch 3 channels side side"]:
        """The delta planes of each frame."""
        side = trunk.bottom.shape[-1]
        x = trunk.bottom + self._streams(trunk, tokens)[-1].mT.unflatten(3, (side, side))
        x = self._up(self.up1(self._roll_out(x))) + trunk.skips[1]
        x = self._up(self.up2(self._roll_out(x))) + trunk.skips[0]
        x = self._up(self.up3(self._roll_out(x)))
        if self.config.ending == "plain":
            x = self.constant + self.out(x.flatten(1, 2)).unflatten(1, (3, -1))
        return self.scale * x

    def attention(
        self, trunk: Trunk, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "blocks batch 3 tokens side side"]:
        """Where each block attends to each token: shares of one at every position, averaged over the heads."""
        side = trunk.bottom.shape[-1]
        maps = []
        for block, stream in zip(self.blocks, self._streams(trunk, tokens), strict=False):  # all but what comes out
            assert isinstance(block, TransformerBlock)
            shares = block.cross_attention.probabilities(block.norm2(stream), tokens).mean(1)  # [B, 3 N, T]
            maps.append(shares.mT.unflatten(2, (3, side, side)).transpose(1, 2))
        return torch.stack(maps)

    def _streams(self, trunk: Trunk, tokens: Tensor) -> list[Tensor]:
        """The stream [B, 3, N, E] that each block listens with, and the one that leaves the last."""
        stream = trunk.stream.expand(len(tokens), -1, -1, -1)
        streams = []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, TransformerBlock)
            if index:
                stream = block.look_around(stream, self.position)
            streams.append(stream)
            stream = block.listen(stream, tokens)
        return [*streams, stream]

    def _roll_out(self, planes: Planes) -> Float[Tensor, "batch 3 3*channels height width"]:
        return roll_out(planes, self.config.rollout)

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


def _space_positions(side: int, channels: int) -> Float[Tensor, "1 3 positions channels"]:
    """Three slices through the middle of a sinusoidal code of all space (method 6.3): across z, x and y.

    Rows and columns of a slice are the two axes left, in their order, which fits neither the renderer's planes nor Talk3D's
    own roll-out; but every position gets a code of its own.
    """
    count = math.ceil(channels / 6)
    frequency = 10000 ** (-torch.arange(count) / count)
    angle = torch.arange(side)[:, None] * frequency
    waves = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)  # [side, 2 count], sines and cosines in turn
    x, y, z = torch.meshgrid(*3 * [torch.arange(side)], indexing="ij")
    space = torch.cat([waves[x], waves[y], waves[z]], -1)[..., :channels]  # [x, y, z, E]
    middle = slice(side // 2 - 1, side // 2 + 1)
    slices = [space[:, :, middle].mean(2), space[middle].mean(0), space[:, middle].mean(1)]
    return torch.stack([code.flatten(0, 1) for code in slices])[None]

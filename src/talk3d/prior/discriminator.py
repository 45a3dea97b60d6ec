"""The dual discriminator: is this picture real, does its raw rendering agree with it, and was it taken from this camera?

It sees the finished picture and the raw rendering enlarged to the same size, six channels in all, and is conditioned on the
camera by projection (EG3D, Chan et al. 2022; residual StyleGAN2 discriminator, Karras et al. 2020; method 3.1). Module names
are EG3D's, so official weights load by name. Letters: B batch, S side of the picture, C channels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .synthesis import EqualizedConv2d, EqualizedLinear, MappingNetwork, fir_filter

STANDARD_DEVIATION_GROUP = 4
HALF = math.sqrt(0.5)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a dual discriminator."""

    resolution: int = 512
    """Side of the pictures, a power of two."""
    c_dim: int = 25
    """Width of the camera label; 0 for none."""
    channel_base: int = 32768
    """A block at resolution r has min(channel_base / r, channel_max) channels."""
    channel_max: int = 512
    mapping_layers: int = 8
    clamp: float | None = 256.0
    """Limit of activations; None for no limit."""


class DiscriminatorBlock(nn.Module):
    """One resolution: two convolutions that halve the size, beside a straight path; the first block reads the picture."""

    resample_filter: Tensor

    def __init__(self, inputs: int, width: int, outputs: int, image_channels: int, clamp: float | None) -> None:
        super().__init__()
        self.register_buffer("resample_filter", fir_filter())
        if inputs == 0:
            self.fromrgb = EqualizedConv2d(image_channels, width, 1, activation="lrelu", clamp=clamp)
        self.reads_picture = inputs == 0
        self.conv0 = EqualizedConv2d(width, width, 3, activation="lrelu", clamp=clamp)
        self.conv1 = EqualizedConv2d(width, outputs, 3, activation="lrelu", down=2, clamp=clamp)
        self.skip = EqualizedConv2d(width, outputs, 1, bias=False, down=2)

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs height//2 width//2"]:
        """Features at half the size; both paths together keep the variance."""
        if self.reads_picture:
            x = self.fromrgb(x)
        return self.skip(x, gain=HALF) + self.conv1(self.conv0(x), gain=HALF)


class MinibatchDeviation(nn.Module):
    """One more channel: how much the samples of a group differ, so that a generator of one picture is found out."""

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels+1 height width"]:
        """Append the mean standard deviation over groups of at most four samples."""
        batch, _, height, width = x.shape
        group = max(size for size in range(1, STANDARD_DEVIATION_GROUP + 1) if batch % size == 0)
        grouped = x.reshape(group, batch // group, *x.shape[1:])
        deviation = (grouped.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        return torch.cat([x, deviation.repeat(group)[:, None, None, None].expand(-1, 1, height, width)], 1)


class Epilogue(nn.Module):
    """The last block, at 4 x 4: features to one logit, or to a vector that is compared with the camera's."""

    def __init__(self, width: int, outputs: int, clamp: float | None) -> None:
        super().__init__()
        self.mbstd = MinibatchDeviation()
        self.conv = EqualizedConv2d(width + 1, width, 3, activation="lrelu", clamp=clamp)
        self.fc = EqualizedLinear(width * 16, width, activation="lrelu")
        self.out = EqualizedLinear(width, outputs)

    def forward(self, x: Float[Tensor, "batch width 4 4"]) -> Float[Tensor, "batch outputs"]:
        """The score before projection."""
        return self.out(self.fc(self.conv(self.mbstd(x)).flatten(1)))


class DualDiscriminator(nn.Module):
    """Logit of a picture and its raw rendering being real, seen from the camera of the label."""

    resample_filter: Tensor

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("resample_filter", fir_filter())
        self.resolutions = [2**i for i in range(int(math.log2(config.resolution)), 2, -1)]
        widths = {r: min(config.channel_base // r, config.channel_max) for r in (*self.resolutions, 4)}
        for index, r in enumerate(self.resolutions):
            block = DiscriminatorBlock(widths[r] if index else 0, widths[r], widths[r // 2], 6, config.clamp)
            setattr(self, f"b{r}", block)
        mapped = widths[4] if config.c_dim > 0 else 1
        self.b4 = Epilogue(widths[4], mapped, config.clamp)
        if config.c_dim > 0:
            self.mapping = MappingNetwork(0, config.c_dim, mapped, 1, layers=config.mapping_layers)
            del self.mapping.w_avg  # nothing here averages

    def forward(
        self,
        image: Float[Tensor, "batch 3 size size"],
        raw: Float[Tensor, "batch 3 small small"],
        label: Float[Tensor, "batch 25"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Logits.

        Args:
            image: finished pictures, -1..1.
            raw: raw renderings of any size, -1..1.
            label: camera labels, if the discriminator is conditioned.
        """
        size = self.config.resolution
        assert image.shape[-1] == size, f"expected pictures of {size} pixels, got {image.shape[-1]}"
        large = F.interpolate(raw, (size, size), mode="bilinear", align_corners=False, antialias=True)
        x = torch.cat([image, large], 1)
        for r in self.resolutions:
            x = getattr(self, f"b{r}")(x)
        x = self.b4(x)
        if self.config.c_dim > 0:
            assert label is not None, "this discriminator is conditioned on a camera label"
            camera = self.mapping(x.new_zeros(len(x), 0), label)[:, 0]
            x = (x * camera).sum(1, keepdim=True) / math.sqrt(camera.shape[1])
        return x[:, 0]

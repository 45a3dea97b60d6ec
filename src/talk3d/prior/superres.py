"""Super-resolution: the rendered feature image and its first channels (the skip image) to the final picture.

One class covers EG3D's four modules and our small one; they differ in widths and in whether the first block up-samples.
Letters: B batch, F features, K channels of the skip image (RGB, or RGB and alpha).
"""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from talk3d.errors import ConfigError
from talk3d.prior.synthesis import NoiseMode, SynthesisBlock, fir_filter

BORDER = 3
"""Raw pixels at a window's border that its enlargement is not judged on: convolutions there miss their surroundings."""


@dataclass(frozen=True)
class SuperResolutionConfig:
    """The layout of a super-resolution module."""

    input_resolution: int
    """Side of the feature image the first block expects; others are resized to it (antialiased bilinear)."""
    widths: tuple[int, int]
    """Channels of the two blocks."""
    first_up: bool
    """Whether the first block doubles the size; the second always does."""
    resize_larger: bool = True
    """Whether inputs larger than expected are resized too (EG3D's 4X only enlarges)."""
    antialias: bool = True
    """Whether that resize is antialiased."""
    clamp: float | None = 256.0
    """Limit of activations, a guard for half precision that also acts in single precision; None for no limit."""
    border: int = 0
    """Input pixels by which a whole picture is continued on each side before it is enlarged. A module trained on windows has
    never seen the zeros beyond a picture's edge and draws a line there."""
    spare_filter: bool = False
    """Whether the state dict carries an unused top-level `resample_filter`, as EG3D's 8X, 4X and 2X files do."""

    @property
    def output_resolution(self) -> int:
        """Side of the final picture, pixels."""
        return self.input_resolution * (4 if self.first_up else 2)


EG3D_8XDC = SuperResolutionConfig(128, (256, 128), first_up=True)
EG3D_8X = SuperResolutionConfig(128, (128, 64), first_up=True, spare_filter=True)
EG3D_4X = SuperResolutionConfig(128, (128, 64), first_up=False, resize_larger=False, spare_filter=True)
EG3D_2X = SuperResolutionConfig(64, (128, 64), first_up=False, spare_filter=True)


def eg3d_superresolution(module: str, *, antialias: bool, clamp: float | None) -> SuperResolutionConfig:
    """The layout of one of EG3D's modules by the last part of its name, such as `SuperresolutionHybrid8XDC`."""
    layouts = {"8XDC": EG3D_8XDC, "8X": EG3D_8X, "4X": EG3D_4X, "2X": EG3D_2X}
    kind = module.rpartition(".")[2].removeprefix("SuperresolutionHybrid")
    if kind not in layouts:
        raise ConfigError(
            f"The checkpoint uses the super-resolution module `{module}`; known are {', '.join(layouts)}. "
            "Its layout is needed to load its weights."
        )
    return dataclasses.replace(layouts[kind], antialias=antialias, clamp=clamp)


class SuperResolution(nn.Module):
    """Two synthesis blocks driven by the last style vector."""

    resample_filter: Tensor

    def __init__(
        self,
        config: SuperResolutionConfig,
        *,
        features: int,
        image_channels: int,
        w_dim: int,
        noise_parameters: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        first, second = config.widths
        middle = config.input_resolution * (2 if config.first_up else 1)
        if config.spare_filter:
            self.register_buffer("resample_filter", fir_filter())
        self.block0 = SynthesisBlock(
            features,
            first,
            w_dim,
            middle,
            image_channels,
            up=2 if config.first_up else 1,
            noise_parameters=noise_parameters,
            clamp=config.clamp,
        )
        self.block1 = SynthesisBlock(
            first,
            second,
            w_dim,
            2 * middle,
            image_channels,
            noise_parameters=noise_parameters,
            clamp=config.clamp,
        )

    def forward(
        self,
        features: Float[Tensor, "batch features height width"],
        skip: Float[Tensor, "batch image height width"],
        ws: Float[Tensor, "batch layers w"],
        *,
        noise: NoiseMode = "none",
        generator: torch.Generator | None = None,
        patch: bool = False,
    ) -> Float[Tensor, "batch image size size"]:
        """Enlarge. Both inputs are in [-1, 1]; so is the result, softly (nothing clips it).

        A ``patch`` is a window of a larger picture: it is enlarged as it is, never resized to the expected input. All
        layers are convolutions, so away from its border the result equals that window of the enlarged picture.
        """
        border = 0
        if not patch:
            features, skip, border = self.framed(features, skip)
        styles = ws[:, -1:].expand(-1, 3, -1)
        # Pixel by pixel in memory: a quarter to a half faster on a CPU, at any width.
        features, skip = (x.contiguous(memory_format=torch.channels_last) for x in (features, skip))
        x, image = self.block0(features, skip, styles, noise=noise, generator=generator)
        _, image = self.block1(x, image, styles, noise=noise, generator=generator)
        border *= image.shape[-1] // features.shape[-1]
        return image[..., border : image.shape[-2] - border, border : image.shape[-1] - border].contiguous()

    def framed(
        self, features: Float[Tensor, "batch features height width"], skip: Float[Tensor, "batch image height width"]
    ) -> tuple[Float[Tensor, "batch features h w"], Float[Tensor, "batch image h w"], int]:
        """A whole picture as its blocks take it: resized if need be, and continued on each side by so many pixels."""
        size, expected, border = features.shape[-1], self.config.input_resolution, self.config.border
        if size < expected or (size > expected and self.config.resize_larger):
            features, skip = self._resize(features), self._resize(skip)
        features, skip = (nn.functional.pad(x, (border,) * 4, "replicate") for x in (features, skip))
        return features, skip, border

    def _resize(self, x: Tensor) -> Tensor:
        size = (self.config.input_resolution, self.config.input_resolution)
        return nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=self.config.antialias)

"""Style-based synthesis: latent to mapped latent to tri-planes.

The layout and the names of parameters are StyleGAN2's (skip architecture) as EG3D uses it, so that official weights
load by name. Letters: B batch, I and O input and output channels, L number of style vectors, W their width.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

NoiseMode = Literal["const", "random", "none"]
Activation = Literal["linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish"]

_ROOT2 = math.sqrt(2)
# The gain that keeps the variance of a unit normal input roughly the same, by activation.
_ACTIVATION_GAIN: dict[str, float] = {"relu": _ROOT2, "lrelu": _ROOT2, "swish": _ROOT2}


def bias_act(
    x: Float[Tensor, "batch channels *rest"],
    bias: Float[Tensor, " channels"] | None,
    activation: Activation,
    *,
    gain: float | None = None,
    clamp: float | None = None,
) -> Float[Tensor, "batch channels *rest"]:
    """Add a bias per channel, activate, scale by ``gain`` (None: the activation's own), clamp to +-``clamp``."""
    scale = _ACTIVATION_GAIN.get(activation, 1.0) if gain is None else gain
    # A positive factor passes through a piecewise linear activation, so it can ride along with the bias; and the
    # activation may overwrite its own input. Both save whole passes over memory, which is where a CPU spends its time
    # here.
    early = activation in ("linear", "relu", "lrelu") and scale > 0
    if bias is not None:
        b = bias.reshape(1, -1, *[1] * (x.ndim - 2))
        x = torch.add(b * scale, x, alpha=scale) if early and scale != 1 else x + b
    elif early and scale != 1:
        x = x * scale
    elif activation in ("relu", "lrelu"):
        x = x.clone()
    match activation:
        case "linear":
            pass
        case "relu":
            x = x.relu_()
        case "lrelu":
            x = nn.functional.leaky_relu_(x, 0.2)
        case "tanh":
            x = x.tanh()
        case "sigmoid":
            x = x.sigmoid()
        case "elu":
            x = nn.functional.elu(x)
        case "selu":
            x = nn.functional.selu(x)
        case "softplus":
            x = nn.functional.softplus(x)
        case "swish":
            x = nn.functional.silu(x)
    if scale != 1 and not early:
        x = x * scale
    return x if clamp is None else x.clamp(-clamp, clamp)


# --- Resampling with a small filter ---------------------------------------------------------------------------------


def fir_filter(taps: tuple[float, ...] = (1, 3, 3, 1)) -> Float[Tensor, "height width"]:
    """The separable low-pass filter used for every change of resolution: outer product of the taps, sum 1."""
    line = torch.tensor(taps, dtype=torch.float32)
    square = torch.outer(line, line)
    return square / square.sum()


def upfirdn2d(
    x: Float[Tensor, "batch channels height width"],
    filter: Float[Tensor, "taps_y taps_x"],
    *,
    up: tuple[int, int] = (1, 1),
    down: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    flip: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Insert zeros, pad, filter, keep every n-th sample; factors are (x, y), padding is (left, right, top, bottom).

    The filter is applied as a true convolution, or as a correlation when ``flip`` is set. Negative padding crops.
    """
    batch, channels, height, width = x.shape
    up_x, up_y = up
    down_x, down_y = down
    if up != (1, 1):
        stuffed = x.new_zeros(batch, channels, height, up_y, width, up_x)
        stuffed[:, :, :, 0, :, 0] = x
        x = stuffed.reshape(batch, channels, height * up_y, width * up_x)
    kernel = _per_channel((filter if flip else filter.flip([0, 1])) * gain, x)
    left, right, top, bottom = padding
    symmetric = left == right >= 0 and top == bottom >= 0
    if not symmetric:
        x = nn.functional.pad(x, padding)
    return nn.functional.conv2d(x, kernel, stride=(down_y, down_x), padding=(top, left) if symmetric else 0, groups=channels)


def _per_channel(filter: Tensor, x: Tensor) -> Tensor:
    """The filter repeated for a depthwise convolution of x.

    Depthwise is the form CPUs have good code for: putting the channels into the batch axis instead is up to eighty
    times slower in the backward pass.
    """
    return filter.to(x.dtype).expand(x.shape[1], 1, *filter.shape).contiguous()


def upsample2d(
    x: Float[Tensor, "batch channels height width"], filter: Float[Tensor, "4 4"]
) -> Float[Tensor, "batch channels 2*height 2*width"]:
    """Twice the size: zero-stuffed, padded by 2 before and 1 after, filtered with gain 4."""
    # A strided transposed convolution is the same sum without the stuffed zeros.
    return nn.functional.conv_transpose2d(x, _per_channel(4 * filter, x), stride=2, padding=1, groups=x.shape[1])


def downsample2d(
    x: Float[Tensor, "batch channels height width"], filter: Float[Tensor, "4 4"]
) -> Float[Tensor, "batch channels height//2 width//2"]:
    """Half the size: padded by 1, filtered, every second sample from the first."""
    return upfirdn2d(x, filter, down=(2, 2), padding=(1, 1, 1, 1))


def conv2d_resample(
    x: Float[Tensor, "batch inputs height width"],
    weight: Float[Tensor, "outputs inputs kernel kernel"],
    filter: Float[Tensor, "4 4"],
    *,
    up: int = 1,
    down: int = 1,
) -> Tensor:
    """A 'same' convolution that also doubles (``up=2``) or halves (``down=2``) the size through the filter.

    The up-sampling kernel is a true convolution, all others are correlations: StyleGAN2's stored kernels expect that.
    """
    kernel = weight.shape[-1]
    if up == 2:
        if kernel == 1:
            return upsample2d(nn.functional.conv2d(x, weight), filter)
        y = nn.functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # 2 H + 1
        return upfirdn2d(y, filter, padding=(1, 1, 1, 1), gain=4.0)
    if down == 2:
        if kernel == 1:
            return nn.functional.conv2d(downsample2d(x, filter), weight)
        return nn.functional.conv2d(upfirdn2d(x, filter, padding=(2, 2, 2, 2)), weight, stride=2)
    return nn.functional.conv2d(x, weight, padding=kernel // 2)


def modulated_conv2d(
    x: Float[Tensor, "batch inputs height width"],
    weight: Float[Tensor, "outputs inputs kernel kernel"],
    styles: Float[Tensor, "batch inputs"],
    filter: Float[Tensor, "4 4"],
    *,
    up: int = 1,
    down: int = 1,
    demodulate: bool = True,
) -> Tensor:
    """A convolution whose kernel is scaled per sample: by ``styles`` over inputs, and to unit norm per output."""
    scale: Tensor | None = None
    if demodulate:
        energy = weight.square().sum(dim=(2, 3))  # [O, I]
        scale = torch.rsqrt(styles.square() @ energy.T + 1e-8)  # [B, O]
    if len(x) == 1:
        # For a single sample it is cheaper to scale the kernel than the picture.
        weight = weight * styles[0, None, :, None, None]
        if scale is not None:
            weight = weight * scale[0, :, None, None, None]
        return conv2d_resample(x, weight, filter, up=up, down=down)
    y = conv2d_resample(x * styles[:, :, None, None], weight, filter, up=up, down=down)
    return y if scale is None else y * scale[:, :, None, None]


def _is_channels_last(x: Tensor) -> bool:
    """Whether x lies in memory pixel by pixel; a CPU's convolutions are faster so, and keep the layout they get."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


# --- Layers ---------------------------------------------------------------------------------------------------------


class EqualizedLinear(nn.Module):
    """A dense layer whose stored weight has unit variance (over ``lr_multiplier``) and is scaled when used."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        activation: Activation = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init))

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """``act(W x + b)`` with the equalised learning rate's gains."""
        bias = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        y = nn.functional.linear(x, self.weight * self.weight_gain, bias)
        if self.activation == "linear":
            return y
        return bias_act(y.reshape(-1, y.shape[-1]), None, self.activation).reshape(y.shape)


class EqualizedConv2d(nn.Module):
    """A plain convolution with equalised learning rate, optionally resampling by 2."""

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        bias: bool = True,
        activation: Activation = "linear",
        up: int = 1,
        down: int = 1,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.up, self.down, self.clamp = up, down, clamp
        self.weight_gain = 1 / math.sqrt(inputs * kernel * kernel)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("resample_filter", fir_filter())

    def forward(self, x: Float[Tensor, "batch inputs height width"], gain: float = 1.0) -> Tensor:
        """Convolve, add the bias, activate; ``gain`` scales the activation's own gain and the clamp."""
        y = conv2d_resample(x, self.weight * self.weight_gain, self.resample_filter, up=self.up, down=self.down)
        return bias_act(
            y,
            self.bias,
            self.activation,
            gain=_ACTIVATION_GAIN.get(self.activation, 1.0) * gain,
            clamp=None if self.clamp is None else self.clamp * gain,
        )


def normalize_second_moment(x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
    """Scale each vector so that its mean square is one."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class MappingNetwork(nn.Module):
    """Latent z, and optionally a camera label, to the style vectors w of every layer."""

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        *,
        layers: int = 2,
        features: int | None = None,
        embed_features: int | None = None,
        lr_multiplier: float = 0.01,
        normalize_latent: bool = True,
    ) -> None:
        super().__init__()
        self.c_dim, self.num_ws, self.layers = c_dim, num_ws, layers
        self.normalize_latent = normalize_latent
        embedded = (embed_features or w_dim) if c_dim > 0 else 0
        if c_dim > 0:
            self.embed = EqualizedLinear(c_dim, embedded)
        widths = [z_dim + embedded] + [features or w_dim] * (layers - 1) + [w_dim]
        for index in range(layers):
            layer = EqualizedLinear(widths[index], widths[index + 1], activation="lrelu", lr_multiplier=lr_multiplier)
            setattr(self, f"fc{index}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Float[Tensor, "batch z"],
        c: Float[Tensor, "batch c"] | None = None,
        *,
        truncation: float = 1.0,
        cutoff: int | None = None,
    ) -> Float[Tensor, "batch layers w"]:
        """Map; ``truncation`` below one pulls the first ``cutoff`` copies (None: all) towards the average w."""
        x = normalize_second_moment(z) if self.normalize_latent else z
        if self.c_dim > 0:
            assert c is not None, "this mapping network is conditioned on a camera label"
            x = torch.cat([x, normalize_second_moment(self.embed(c))], dim=1)
        for index in range(self.layers):
            x = getattr(self, f"fc{index}")(x)
        ws = x[:, None].expand(-1, self.num_ws, -1)
        if truncation == 1:
            return ws
        pulled = torch.lerp(self.w_avg, ws, truncation)
        if cutoff is None:
            return pulled
        return torch.cat([pulled[:, :cutoff], ws[:, cutoff:]], dim=1)

    @torch.no_grad()
    def track_average(self, ws: Float[Tensor, "batch layers w"], decay: float = 0.998) -> None:
        """Move the stored average w towards this batch's mean (training only)."""
        self.w_avg.lerp_(ws[:, 0].mean(dim=0).to(self.w_avg), 1 - decay)


class SynthesisLayer(nn.Module):
    """A modulated 3x3 convolution, optional noise, bias and leaky ReLU; with ``up=2`` it doubles the size first."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        *,
        up: int = 1,
        noise_parameters: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.clamp = resolution, up, clamp
        self.noise_parameters = noise_parameters
        self.affine = EqualizedLinear(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.register_buffer("resample_filter", fir_filter())
        if noise_parameters:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self,
        x: Float[Tensor, "batch inputs height width"],
        w: Float[Tensor, "batch w"],
        *,
        noise: NoiseMode = "none",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch outputs size size"]:
        """Noise: the stored pattern ("const"), a fresh one per sample ("random") or nothing ("none")."""
        x = modulated_conv2d(x, self.weight, self.affine(w), self.resample_filter, up=self.up)
        if self.noise_parameters and noise == "const":
            x = x + self.noise_const * self.noise_strength
        elif self.noise_parameters and noise == "random":
            size = (len(x), 1, *x.shape[2:])
            x = x + torch.randn(size, generator=generator, dtype=x.dtype, device=x.device) * self.noise_strength
        return bias_act(x, self.bias, "lrelu", clamp=self.clamp)


class ToRGBLayer(nn.Module):
    """A modulated 1x1 convolution without demodulation: features to the picture (or planes) of the skip path."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.weight_gain = 1 / math.sqrt(inputs)
        self.affine = EqualizedLinear(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, x: Float[Tensor, "batch inputs height width"], w: Float[Tensor, "batch w"]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Project features to the skip image's channels."""
        # A 1x1 convolution is a matrix product, and folding the style into its small kernel costs nothing per pixel.
        weight = self.weight[:, :, 0, 0] * (self.affine(w) * self.weight_gain)[:, None, :]  # [B, O, I]
        size = tuple(x.shape[2:])
        if _is_channels_last(x):
            y = torch.matmul(x.permute(0, 2, 3, 1).flatten(1, 2), weight.mT).unflatten(1, size).permute(0, 3, 1, 2)
        else:
            y = torch.matmul(weight, x.flatten(2)).unflatten(2, size)
        return bias_act(y, self.bias, "linear", clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """One resolution: two modulated convolutions (one in the first block) and a contribution to the skip image."""

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        *,
        up: int = 2,
        noise_parameters: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up = up
        self.first = inputs == 0
        self.num_conv = 1 if self.first else 2
        self.register_buffer("resample_filter", fir_filter())
        if self.first:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(
                inputs, outputs, w_dim, resolution, up=up, noise_parameters=noise_parameters, clamp=clamp
            )
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, noise_parameters=noise_parameters, clamp=clamp)
        self.torgb = ToRGBLayer(outputs, image_channels, w_dim, clamp=clamp)

    def forward(
        self,
        x: Float[Tensor, "batch inputs height width"] | None,
        image: Float[Tensor, "batch image height width"] | None,
        ws: Float[Tensor, "batch used w"],
        *,
        noise: NoiseMode = "none",
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch outputs size size"], Float[Tensor, "batch image size size"]]:
        """``ws`` holds one style per convolution and one for the skip image; returns features and the skip image."""
        if x is None:
            x = self.const.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        else:
            x = self.conv0(x, ws[:, 0], noise=noise, generator=generator)
        x = self.conv1(x, ws[:, self.num_conv - 1], noise=noise, generator=generator)
        y = self.torgb(x, ws[:, self.num_conv])
        if image is None:
            return x, y
        return x, (upsample2d(image, self.resample_filter) if self.up == 2 else image) + y


class SynthesisNetwork(nn.Module):
    """Style vectors to an image of any number of channels (for us: three planes side by side)."""

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        image_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        noise_parameters: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolutions = [2**i for i in range(2, int(math.log2(resolution)) + 1)]
        channels = {r: min(channel_base // r, channel_max) for r in self.resolutions}
        self.num_ws = 2 * len(self.resolutions)
        for r in self.resolutions:
            block = SynthesisBlock(
                channels[r // 2] if r > 4 else 0,
                channels[r],
                w_dim,
                r,
                image_channels,
                noise_parameters=noise_parameters,
                clamp=clamp,
            )
            setattr(self, f"b{r}", block)

    def forward(
        self,
        ws: Float[Tensor, "batch layers w"],
        *,
        noise: NoiseMode = "none",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch image size size"]:
        """Run all blocks. A block's skip image shares its style with the next block's first convolution."""
        assert ws.shape[1] == self.num_ws, f"expected {self.num_ws} style vectors, got {ws.shape[1]}"
        x: Tensor | None = None
        image: Tensor | None = None
        start = 0
        for r in self.resolutions:
            block: SynthesisBlock = getattr(self, f"b{r}")
            used = ws[:, start : start + block.num_conv + 1]
            x, image = block(x, image, used, noise=noise, generator=generator)
            start += block.num_conv
        assert image is not None
        return image

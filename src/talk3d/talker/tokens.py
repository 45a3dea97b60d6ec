"""Conditions to tokens: what the attention U-Net attends to, each a vector of the same width (method 6.4).

Letters: B samples, W windows around a frame, M channels and K columns of a window, D token width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError
from .audio import AnyAudioConfig

NAMES = ("audio", "blink", "null", "rotation", "landmark")
"""Order of the tokens on their axis."""
DROPOUT = 0.2
"""Of the audio encoder."""


@dataclass(frozen=True)
class TokenConfig:
    """Sizes of the token encoders, and which tokens there are."""

    width: int = 64
    """D."""
    windows: int = 8
    """Audio windows attended to, half before and half from the frame on."""
    lip_shapes: int = 8
    """Numbers that describe the lips' shape, which the audio code is asked to predict while it is learnt."""
    tokens: tuple[str, ...] = NAMES
    """Which of `NAMES` are attended to, in their order."""
    null_tokens: int = 1
    """Vectors that the null token consists of."""
    encoder: Literal["own", "official"] = "own"
    """Ours, or Talk3D's."""

    def __post_init__(self) -> None:
        if not self.tokens or self.tokens != tuple(name for name in NAMES if name in self.tokens):
            raise ConfigError(
                f"`tokens` are {', '.join(self.tokens) or 'none'}; choose at least one of {', '.join(NAMES)}, each once and in "
                "this order."
            )
        if self.null_tokens < 1:
            raise ConfigError("`null_tokens` is less than one. To have none, leave `null` out of `tokens`.")

    @property
    def count(self) -> int:
        """Vectors that are attended to."""
        return len(self.tokens) + (self.null_tokens - 1) * ("null" in self.tokens)


class AudioNet(nn.Module):
    """A window of audio features to a code: strided convolutions over time, then two dense layers.

    There is a minute of sound to learn from: every layer drops a part of its input in training.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, audio: AnyAudioConfig, width: int, hidden: int = 48) -> None:
        super().__init__()
        # Silence is far from the mean of speech, and bands differ in level: what matters would be a ripple otherwise.
        self.register_buffer("mean", torch.zeros(audio.channels, 1))
        self.register_buffer("deviation", torch.ones(audio.channels, 1))
        layers: list[nn.Module] = []
        for inputs, kernel in ((audio.channels, 5), (hidden, 5), (hidden, 3)):
            layers += [nn.Dropout(DROPOUT), nn.Conv1d(inputs, hidden, kernel, stride=2, padding=kernel // 2), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Dropout(DROPOUT), nn.Linear(hidden * (audio.columns // 8), width), nn.ReLU(),
            nn.Dropout(DROPOUT), nn.Linear(width, width),
        )  # fmt: skip

    @torch.no_grad()
    def measure(self, windows: Float[Tensor, "frames channels columns"]) -> None:
        """Measure the features of a clip, which are standardised from then on.

        The floor is for phones that the clip hardly has: heard later, they must not drown all others.
        """
        self.mean.copy_(windows.mean((0, 2))[:, None])
        self.deviation.copy_(windows.std((0, 2))[:, None].clamp(min=0.25))

    def forward(self, windows: Float[Tensor, "batch channels columns"]) -> Float[Tensor, "batch width"]:
        return self.dense(self.convolutions((windows - self.mean) / self.deviation).flatten(1))


class AudioAttention(nn.Module):
    """The codes of neighbouring frames to one: a learnt weighting that depends on the codes (AD-NeRF's filter)."""

    def __init__(self, width: int, windows: int) -> None:
        super().__init__()
        channels = (width, 16, 8, 4, 2, 1)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(channels[:-1], channels[1:], strict=True):
            layers += [nn.Conv1d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.02)]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(windows, windows)
        # Start by listening to the frame itself: evenly spread over its neighbours, lips would lag and blur.
        with torch.no_grad():
            self.dense.bias[windows // 2] = 5.0

    def forward(self, codes: Float[Tensor, "batch windows width"]) -> Float[Tensor, "batch width"]:
        weights = self.dense(self.convolutions(codes.mT)[:, 0]).softmax(-1)
        return (weights[..., None] * codes).sum(1)


class SinusoidalMLP(nn.Module):
    """Numbers in about -1..1, their sines and cosines at octaves of a lowest frequency, and three dense layers."""

    def __init__(self, inputs: int, octaves: int, width: int, lowest: float = math.pi / 2) -> None:
        super().__init__()
        self.octaves, self.lowest = octaves, lowest
        self.dense = nn.Sequential(
            nn.Linear(inputs * (1 + 2 * octaves), width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, width),
        )  # fmt: skip
        # Usual first weights and biases let the numbers fade to a ripple on a constant vector, which attention cannot hear.
        for layer in self.dense:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, values: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch width"]:
        return self.dense(self.embed(values))

    def embed(self, values: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch waves"]:
        """The numbers, and for each octave the sines of all and the cosines of all."""
        waves = [values]
        for octave in range(self.octaves):
            angle = values * (self.lowest * 2**octave)
            waves += [angle.sin(), angle.cos()]
        return torch.cat(waves, -1)


@dataclass(frozen=True)
class Conditions:
    """What drives B frames, apart from the camera they are seen with."""

    code: Float[Tensor, "batch width"]
    """What is heard around each frame, from the encoder's `hear`."""
    blink: Float[Tensor, " batch"]
    """0 open .. 1 closed."""
    rotation: Float[Tensor, "batch 2"] | Float[Tensor, "batch 3"]
    """The head's yaw and pitch towards the camera, radians. Talk3D's: pitch, yaw, roll in degrees, of which it makes noise
    (docs/quirks.md)."""
    landmark: Float[Tensor, "batch 4"] | Float[Tensor, "batch 6"]
    """Where the crop lies in the source frame: shift x, y, log scale, roll, standardised over the training frames. Talk3D's:
    x, y of nose tip and outer eye corners in the source frame, -1..1 across its width."""


class TokenEncoder(nn.Module):
    """All conditions to tokens [B, T, D], with a learnt code added that tells them apart."""

    audio_net: AudioNet
    blink: SinusoidalMLP
    rotation: SinusoidalMLP
    landmark: SinusoidalMLP
    null: nn.Parameter
    code_mean: Tensor
    code_scale: Tensor

    def __init__(self, config: TokenConfig, audio: AnyAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_net = AudioNet(audio, config.width)
        self.audio_attention = AudioAttention(config.width, config.windows)
        for name, inputs, octaves in (("blink", 1, 4), ("rotation", 2, 4), ("landmark", 4, 3)):
            if name in config.tokens:
                self.add_module(name, SinusoidalMLP(inputs, octaves, config.width))
        if "null" in config.tokens:
            self.null = nn.Parameter(torch.randn(config.null_tokens, config.width))
        self.kinds = nn.Parameter(0.2 * torch.randn(config.count, config.width))
        self.lips = nn.Linear(config.width, config.lip_shapes)
        self.register_buffer("code_mean", torch.zeros(config.width))
        self.register_buffer("code_scale", torch.ones(config.width))

    def hear(self, audio: Float[Tensor, "batch windows channels columns"]) -> Float[Tensor, "batch width"]:
        """The audio code of each frame from the windows of the frames f - W/2 .. f + W/2 - 1."""
        batch, windows = audio.shape[:2]
        return self.audio_attention(self.audio_net(audio.flatten(0, 1)).unflatten(0, (batch, windows)))

    @torch.no_grad()
    def settle(self, codes: Float[Tensor, "frames width"]) -> None:
        """Measure how codes spread over a clip. What changes from frame to frame is a small part of a code; as a token it
        is given in units of its own deviation, or attention would hardly notice it."""
        self.code_mean.copy_(codes.mean(0))
        self.code_scale.copy_(codes.std(0).clamp(min=1e-3))

    def standard(self, codes: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Audio codes in units of their own spread over the training frames, bounded.

        Another voice can lie far outside of what was heard in training; there the networks only know how to overdo.
        """
        return ((codes - self.code_mean) / self.code_scale).clamp(-2.5, 2.5)

    def tell(self, codes: Float[Tensor, "batch width"], shapes: Float[Tensor, "batch shapes"]) -> Float[Tensor, "batch width"]:
        """Codes moved as little as possible so that they say these lip shapes.

        No sound tells a mouth exactly. A network that only ever hears the sound learns the mean of all mouths that fit it,
        blurred and half open; one that is told the true shape learns to draw it.
        """
        weight, bias = self.lips.weight.detach(), self.lips.bias.detach()
        return codes + (shapes - F.linear(codes, weight, bias)) @ torch.linalg.pinv(weight).mT

    def exaggerate(self, codes: Float[Tensor, "batch width"], amount: float) -> Float[Tensor, "batch width"]:
        """Codes whose way from the mean sound is `amount` times as long: 0 mumbles one sound, 1 changes nothing."""
        return torch.lerp(self.code_mean, codes, amount)

    def forward(self, conditions: Conditions) -> Float[Tensor, "batch tokens width"]:
        """The tokens."""
        return self.vectors(conditions) + self.kinds

    def vectors(self, given: Conditions) -> Float[Tensor, "batch tokens width"]:
        """One vector for each condition, and those that stand for none."""
        batch = len(given.blink)
        made = ((name, self.vector(name, given)) for name in self.config.tokens)
        return torch.cat([x.expand(batch, -1, -1) if name == "null" else x[:, None] for name, x in made], 1)

    def vector(self, name: str, given: Conditions) -> Float[Tensor, "vectors width"]:
        """[B, D] of a condition of this name, [null tokens, D] of none."""
        match name:
            case "audio":
                return self.standard(given.code)
            case "blink":
                return self.blink(given.blink[:, None] * 2 - 1)
            case "rotation":
                return self.rotation(given.rotation * 2)
            case "landmark":
                return self.landmark(given.landmark / 3)
            case _:
                return self.null


class OfficialAudioNet(nn.Module):
    """Talk3D's: a window of 16 columns to a code, by four strided convolutions and two dense layers."""

    def __init__(self, audio: AnyAudioConfig, width: int) -> None:
        super().__init__()
        channels = (audio.channels, 32, 32, width, width)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(channels[:-1], channels[1:], strict=True):
            layers += [nn.Conv1d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(0.02)]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.02), nn.Linear(width, width))

    def forward(self, windows: Float[Tensor, "batch channels 16"]) -> Float[Tensor, "batch width"]:
        return self.dense(self.convolutions(windows).flatten(1))


class OfficialTokenEncoder(TokenEncoder):
    """Talk3D's (method 6.4): it takes numbers as they are, and has no codes of kinds."""

    def __init__(self, config: TokenConfig, audio: AnyAudioConfig) -> None:
        nn.Module.__init__(self)  # none of the other's layers: these are Talk3D's, and its files hold nothing else
        self.config = config
        self.audio_net = OfficialAudioNet(audio, config.width)  # type: ignore[assignment]
        self.audio_attention = AudioAttention(config.width, config.windows)
        self.blink = SinusoidalMLP(1, 16, config.width, lowest=1.0)
        self.rotation = SinusoidalMLP(3, 10, config.width, lowest=1.0)
        self.landmark = SinusoidalMLP(6, 6, config.width, lowest=1.0)
        self.null = nn.Parameter(torch.randn(config.null_tokens, config.width))

    def standard(self, codes: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Audio codes as they are."""
        return codes

    def forward(self, conditions: Conditions) -> Float[Tensor, "batch tokens width"]:
        """The tokens."""
        return self.vectors(conditions)

    def vector(self, name: str, given: Conditions) -> Float[Tensor, "vectors width"]:
        """[B, D] of a condition of this name, [null tokens, D] of none."""
        match name:
            case "audio":
                return given.code
            case "blink":
                return self.blink(given.blink[:, None] * 2)  # OpenFace's strength of action unit 45, cut off at two
            case "rotation":
                return self.rotation(given.rotation)
            case "landmark":
                return self.landmark(given.landmark)
            case _:
                return self.null


def token_encoder(config: TokenConfig, audio: AnyAudioConfig) -> TokenEncoder:
    """The encoder that a config asks for."""
    return TokenEncoder(config, audio) if config.encoder == "own" else OfficialTokenEncoder(config, audio)

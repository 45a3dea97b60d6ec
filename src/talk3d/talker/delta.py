"""From conditions to delta planes: token encoders, attention U-Net and expression modes as one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from .audio import AnyAudioConfig, audio_config
from .modes import ExpressionModes
from .tokens import Conditions, TokenConfig, token_encoder
from .unet import AttentionUNet, Trunk, UNetConfig

BEFORE = {"slope": 0.01}
"""Settings of the U-Net before avatars said them, where the default is another one since."""


@dataclass(frozen=True)
class DeltaConfig:
    """Everything that fixes the shapes of a `DeltaNetwork`."""

    audio: AnyAudioConfig
    tokens: TokenConfig
    unet: UNetConfig
    expressions: tuple[str, ...]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> DeltaConfig:
        """From what `dataclasses.asdict` made, after a passage through JSON, where tuples become lists.

        What an older avatar does not say is what it was trained with: `BEFORE`, else the defaults.
        """

        def settings(part: str) -> dict[str, Any]:
            return {name: tuple(value) if isinstance(value, list) else value for name, value in fields[part].items()}

        tokens, unet = TokenConfig(**settings("tokens")), UNetConfig(**(BEFORE | settings("unet")))
        return cls(audio_config(fields["audio"]), tokens, unet, tuple(fields["expressions"]))


class DeltaNetwork(nn.Module):
    """What is added to a person's identity planes so that they speak."""

    def __init__(self, config: DeltaConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = token_encoder(config.tokens, config.audio)
        self.unet = AttentionUNet(config.unet)
        self.modes = ExpressionModes(
            config.expressions, config.tokens.width, config.unet.plane_channels, config.unet.plane_size
        )

    def forward(
        self, trunk: Trunk, conditions: Conditions, expressed: Conditions | None = None
    ) -> Float[Tensor, "batch 3 channels side side"]:
        """Delta planes.

        Args:
            trunk: of the identity planes, from the U-Net.
            conditions: of B frames.
            expressed: what the expressions follow, if not the same conditions as the tokens.
        """
        expressed = expressed or conditions
        learnt = self.unet.delta(trunk, self.encoder(conditions))
        return learnt + self.unet.scale * self.modes(self.encoder.standard(expressed.code), expressed.blink)

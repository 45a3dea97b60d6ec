"""Whole frames as the talker draws them while it learns: what is validated and what people look at.

Letters: B frames, S side of the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..prior.generator import Generator
from ..prior.subject import Subject
from .clip import ClipConditions, audio_neighbourhood
from .delta import DeltaNetwork


@dataclass(frozen=True)
class Talker:
    """What is trained, and the constants it relies on."""

    network: DeltaNetwork
    generator: Generator
    """Frozen but for its super-resolution."""
    landmark_scale: Float[Tensor, "2 4"]
    """Mean and deviation of the landmark token over the training frames."""

    def trained(self, prefix: str = "") -> dict[str, torch.nn.Module]:
        """The modules whose weights training moves, by name."""
        return {f"{prefix}network": self.network, f"{prefix}superresolution": self.generator.superresolution}


@torch.no_grad()
def draw_frames(
    talker: Talker, subject: Subject, conditions: ClipConditions, index: Int[Tensor, " batch"], turn: float = 0.0
) -> Float[Tensor, "batch 4 size size"]:
    """Frames of the clip: premultiplied colour and alpha * 2 - 1, on the CPU whatever the talker runs on.

    Args:
        talker: draws with its present weights.
        subject: whose identity planes are moved.
        conditions: of the training frames.
        index: which of them.
        turn: how much further to the subject's left the camera stands than it did, radians.
    """
    network, generator = talker.network, talker.generator
    orbit, device = generator.profile.orbit, network.unet.scale.device
    planes, ws = subject.planes.to(device), subject.ws.to(device).expand(len(index), -1, -1)
    heard = audio_neighbourhood(conditions.audio, index, network.config.tokens.windows, conditions.silence).to(device)
    moved = planes + network(network.unet.trunk(planes), conditions.at(index, network.encoder.hear(heard)))
    cameras = orbit.pose(conditions.yaw[index] + turn, conditions.pitch[index]).to(device)
    raw = generator.render(moved, cameras, orbit.intrinsics().to(device).expand(len(index), 3, 3), deterministic=True)
    return generator.superresolve(raw.features, raw.rgb, raw.alpha, ws).cpu()

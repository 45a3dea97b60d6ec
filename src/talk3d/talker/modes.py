"""The prior's own expressions as delta planes: what already knows how a mouth opens need not be learnt from one video.

A prior trained on heads knows directions of its latent that move one muscle each. Applied to a person they are delta planes,
in three dimensions and with an inside of the mouth; sound says how much of each. They are a starting point: training moves
them towards this person's mouth, and the attention U-Net adds what they lack (docs/adr/0004-expression-modes.md).

Letters: B frames, M modes, D width of an audio code, C channels and S side of a plane.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..prior.generator import Generator

EXPRESSIONS = (
    "jawOpen", "mouthPucker", "mouthFunnel", "mouthSmile", "mouthStretch", "mouthUpperUp", "mouthLowerDown",
    "mouthRollUpper", "mouthRollLower", "mouthPress", "mouthShrugLower", "eyeBlink",
)  # fmt: skip
"""What speaking and blinking need, of all that a prior may know."""
LIMIT = 1.5
"""No sound plays an expression beyond so many times its largest weight in the prior's training, or backwards beyond that: one
unlike any heard before must not tear the mouth."""
STEP = 0.25
"""Of a full expression. The delta of a full one is within a fifth of four such steps; training sees to the rest."""


class ExpressionModes(nn.Module):
    """How much of each expression a sound and a blink ask for, and the delta planes of that.

    Args:
        names: expressions; those of the eyes follow the blink, all others the sound.
        code_width: D.
        plane_channels: C.
        plane_size: S.
    """

    of_eyes: Tensor

    def __init__(self, names: tuple[str, ...], code_width: int, plane_channels: int, plane_size: int) -> None:
        super().__init__()
        self.names = names
        of_eyes = torch.tensor([float(name.startswith("eye")) for name in names])
        self.register_buffer("of_eyes", of_eyes, persistent=False)
        self.planes = nn.Parameter(torch.zeros(len(names), 3, plane_channels, plane_size, plane_size))
        self.sound = nn.Parameter(torch.zeros(len(names), code_width))
        self.rest = nn.Parameter(torch.zeros(len(names)))
        # Eyes that are closed in the video are closed wholly; how far a sound opens the mouth is unknown at first.
        self.blink = nn.Parameter(of_eyes.clone())

    @torch.no_grad()
    def start_from(
        self,
        generator: Generator,
        ws: Float[Tensor, "1 layers w"],
        expressions: Mapping[str, Float[Tensor, " z"]],
        unit: Tensor,
    ) -> None:
        """Measure each expression's delta planes on a person.

        Args:
            generator: tuned to the person.
            ws: the person.
            expressions: for each of `names`, the direction of the latent that plays it as strongly as in training.
            unit: what the planes are divided by.
        """
        person = generator.planes(ws)
        label = generator.frontal_label(1)
        neutral = generator.map(torch.zeros(1, generator.profile.z_dim).to(ws), label)
        for planes, name in zip(self.planes, self.names, strict=True):
            moved = generator.map(expressions[name][None], label) - neutral
            planes.copy_((generator.planes(ws + STEP * moved) - person)[0] / (STEP * unit))

    def amounts(self, code: Float[Tensor, "batch width"], blink: Float[Tensor, " batch"]) -> Float[Tensor, "batch modes"]:
        """How much of each expression: within ±LIMIT for the mouth, in proportion to the blink for the eyes."""
        spoken = LIMIT * torch.tanh(F.linear(code, self.sound, self.rest).float() / LIMIT)
        return torch.lerp(spoken, blink[:, None] * self.blink, self.of_eyes)

    def forward(
        self, code: Float[Tensor, "batch width"], blink: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 channels side side"]:
        """Delta planes, in the unit given to `start_from`."""
        return torch.einsum("bm,mpchw->bpchw", self.amounts(code, blink), self.planes)

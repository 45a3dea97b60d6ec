"""One thing that an avatar is told is exchanged, all others stay; and by which way that reaches its pictures.

Where shapes say it: `windows` of sound lie around each frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..talker.drive import Motion
from ..talker.speak import BATCH, Speaker

LOOKED_AT = 24
"""Frames that say by which way an exchange reaches the picture."""


@dataclass(frozen=True)
class Drive:
    """All that drives the frames of a film."""

    heard: Float[Tensor, "frames windows channels columns"]
    """What is heard around each frame."""
    motion: Motion

    def __getitem__(self, index: Tensor) -> Drive:
        return Drive(self.heard[index], self.motion[index])

    def __len__(self) -> int:
        return len(self.motion)

    def told_as(self, other: Drive) -> bool:
        """Whether both tell an avatar the same."""
        mine, others = ((drive.heard, *vars(drive.motion).values()) for drive in (self, other))
        return all(torch.equal(a, b) for a, b in zip(mine, others, strict=True))


@dataclass(frozen=True)
class Exchange:
    """One condition is replaced."""

    title: str
    token: Literal["audio", "blink", "rotation", "landmark"]
    """The token through which the condition is told."""
    of: Callable[[Drive], Drive]


def rolled(values: Tensor) -> Tensor:
    """Each frame gets what belongs to the frame half the film away."""
    return values.roll(len(values) // 2, 0)


def _exchanged(drive: Drive, **conditions: Tensor) -> Drive:
    return replace(drive, motion=replace(drive.motion, **conditions))


EXCHANGES = {
    "sound": Exchange("sound of another stretch", "audio", lambda d: replace(d, heard=rolled(d.heard))),
    "blink": Exchange("blinks of other frames", "blink", lambda d: _exchanged(d, blink=rolled(d.motion.blink))),
    "blink inverted": Exchange("eyes told to do the opposite", "blink", lambda d: _exchanged(d, blink=1 - d.motion.blink)),
    "rotation": Exchange(
        "rotation token of other frames, same camera", "rotation", lambda d: _exchanged(d, rotation=rolled(d.motion.rotation))
    ),
    "landmark": Exchange(
        "landmark token of other frames, same crop", "landmark", lambda d: _exchanged(d, landmark=rolled(d.motion.landmark))
    ),
}


@dataclass(frozen=True)
class Ways:
    """How much an exchange changes the person's pixels, mean levels of 255, if only one part of the avatar is told of it."""

    unet: float
    """The attention U-Net, through its tokens."""
    expressions: float
    """What says how much of each expression of the prior to play."""


@torch.inference_mode()
def ways(
    speaker: Speaker, drive: Drive, exchanges: Mapping[str, Exchange], progress: Callable[[float], None]
) -> dict[str, Ways]:
    """By which way each exchange reaches the picture, on up to `LOOKED_AT` frames, evenly spread.

    An avatar whose U-Net does nothing may speak and blink all the same, by expressions alone; then its tokens and all that is
    said of them are an ornament. Here it shows.
    """
    index = torch.from_numpy(np.unique(np.linspace(0, len(drive) - 1, LOOKED_AT).round()).astype(np.int64))
    told = {name: exchange.of(drive) for name, exchange in exchanges.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in exchanges}
    for some in index.split(BATCH):
        own = drive[some]
        mine = speaker.conditions(own.heard, own.motion)
        picture = speaker.look(speaker.planes + speaker.network(speaker.trunk, mine), own.motion.yaw, own.motion.pitch)
        frames = speaker.finish(picture, own.motion).astype(np.int64)
        # A head without alpha fills its picture.
        person = picture.image[:, 3].numpy() > 0 if speaker.plate is not None else np.ones(frames.shape[:3], bool)
        for name, drives in told.items():
            other = drives[some]
            changed = speaker.conditions(other.heard, other.motion)
            levels = []
            for tokens, expressed in ((changed, mine), (mine, changed)):
                planes = speaker.planes + speaker.network(speaker.trunk, tokens, expressed)
                drawn = speaker.finish(speaker.look(planes, own.motion.yaw, own.motion.pitch), own.motion)
                levels.append(float(np.abs(drawn - frames)[person].mean()))
            found[name] += [(levels[0], levels[1])] * len(some)
        progress(float(some[-1] + 1) / len(drive))
    return {name: Ways(*np.mean(levels, 0).tolist()) for name, levels in found.items()}

"""What moves in a film besides the lips: head, eyes and camera, frame by frame and for any number of frames.

Letters: B frame numbers, T frames of the capture's training part.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ConfigError
from ..video.clock import FPS

ORBIT_SECONDS = 6.0
ORBIT_YAW, ORBIT_PITCH = math.radians(30), math.radians(10)
CLOSING, OPENING = round(0.08 * FPS), round(0.16 * FPS)
"""Frames that a generated blink takes to close and to open the eyes."""


@dataclass(frozen=True)
class Motion:
    """How the head moves, one row a frame: what a talking video needs besides sound."""

    yaw: Float[Tensor, " frames"]
    """Of the source camera, radians."""
    pitch: Float[Tensor, " frames"]
    """Of the source camera, radians."""
    blink: Float[Tensor, " frames"]
    """0..1."""
    crop_from_source: Float[Tensor, "frames 2 3"]
    """Source pixels to crop pixels."""
    rotation: Float[Tensor, "frames angles"]
    """What the rotation token is told; see `Conditions`."""
    landmark: Float[Tensor, "frames places"]
    """What the landmark token is told; see `Conditions`."""

    def __len__(self) -> int:
        return len(self.yaw)

    def __getitem__(self, index: Tensor) -> Motion:
        return Motion(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    def still(self) -> Motion:
        """One frame: the mean pose, eyes open."""
        mean = Motion(*(getattr(self, field.name).mean(0, keepdim=True) for field in dataclasses.fields(self)))
        return dataclasses.replace(mean, blink=torch.zeros(1))

    def calmed(self, rest: Motion, amount: float) -> Motion:
        """`rest` (one frame), and this motion's way from it times `amount`: 0 stands still, 1 moves as it was. Not the eyes."""
        moved = (torch.lerp(getattr(rest, f.name), getattr(self, f.name), amount) for f in dataclasses.fields(self))
        return dataclasses.replace(Motion(*moved), blink=self.blink)

    def ping_pong(self, frames: Tensor) -> Motion:
        """Played to the end, back to the start, and so on: seamless for any number of frames."""
        period = max(1, 2 * len(self) - 2)
        place = frames % period
        return self[torch.where(place < len(self), place, period - place)]


@dataclass(frozen=True)
class Camera:
    """Where to look from. `parse` reads the command line's form."""

    kind: str
    """`source`, `front`, `orbit` or `fixed`."""
    yaw: float = 0.0
    """Of a fixed camera, as is the pitch; radians."""
    pitch: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Camera:
        """`source`, `front`, `orbit`, or `YAW,PITCH` in degrees.

        Raises:
            ConfigError: anything else.
        """
        if text in ("source", "front", "orbit"):
            return cls(text)
        try:
            yaw, pitch = (float(number) for number in text.split(","))
        except ValueError:
            raise ConfigError(
                f"`{text}` is no camera. Use source, front, orbit, or YAW,PITCH in degrees such as 20,-5 "
                "(yaw > 0 looks from the subject's left, pitch > 0 from above)."
            ) from None
        if abs(yaw) > 90 or abs(pitch) > 60:
            raise ConfigError(
                f"A camera at {yaw:g},{pitch:g} degrees is outside what a head prior knows (yaw within ±90, pitch within "
                "±60). Quality falls off beyond about 45 and 20."
            )
        return cls("fixed", math.radians(yaw), math.radians(pitch))

    def at(self, frames: Tensor) -> Float[Tensor, "batch 2"] | None:
        """Yaw and pitch for frame numbers [B], radians; None for the source camera."""
        if self.kind == "source":
            return None
        if self.kind == "orbit":
            phase = 2 * math.pi * frames / (ORBIT_SECONDS * FPS)
            return torch.stack([ORBIT_YAW * phase.sin(), ORBIT_PITCH * (2 * phase).sin()], -1)
        return torch.tensor([self.yaw, self.pitch]).expand(len(frames), 2)


SOURCE = Camera("source")


class Blinks:
    """Generated blinks, without end: one every 2 to 6 seconds, 0.08 s closing, 0.16 s opening (human statistics).

    Args:
        seed: the same blinks for the same seed.
        frames: of the film, where that is known: blinks whose eyes would be shut only after it are left out.
    """

    def __init__(self, seed: int, frames: int | None = None):
        self._rng = np.random.default_rng([seed, 5])
        self._last = math.inf if frames is None else frames
        self._next: float = self._rng.uniform(0.5, 3.0)
        self._near: list[int] = []

    def at(self, frames: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """How far the eyes are closed, 0..1, in frames of ascending numbers; a later call must not ask for earlier ones."""
        numbers = frames.numpy()
        # Eyes are shut on a frame, so that one shows it.
        while (shut := int(self._next * FPS)) - CLOSING <= numbers[-1] and self._next * FPS < self._last:
            self._near.append(shut)
            self._next += self._rng.uniform(2.0, 6.0)
        self._near = [shut for shut in self._near if shut + OPENING >= numbers[0]]
        track = np.zeros(len(numbers))
        for shut in self._near:
            blink = np.where(numbers < shut, 1 - (shut - numbers) / CLOSING, 1 - (numbers - shut) / OPENING)
            track = np.maximum(track, blink.clip(0, 1))
        return torch.from_numpy(track.astype(np.float32))


class Drive:
    """How an avatar's head and eyes move while it speaks.

    Args:
        own: the motion in the avatar's own film, of its training part.
        camera: where to look from; seen as filmed, the head moves as in its own film, back and forth.
        blinks: generated ones.
        closing: how far they close the eyes, 0..1.
        amount: how far the head moves about its mean pose, of what it did.
        given: the motion and blinks of each frame, where they are known.
    """

    def __init__(self, own: Motion, camera: Camera, blinks: Blinks, closing: float, amount: float, given: Motion | None = None):
        self.own, self.camera, self.given = own, camera, given
        self.rest = own.still()
        self._blinks, self._closing, self._amount = blinks, closing, amount

    def at(self, frames: Int[Tensor, " batch"]) -> Motion:
        """Of frames of ascending numbers; a later call must not ask for earlier ones."""
        if self.given is not None:
            moving = self.given[frames]
        else:
            follow = self.camera.kind == "source"
            moving = self.own.ping_pong(frames) if follow else self.rest[torch.zeros(len(frames), dtype=torch.long)]
            moving = dataclasses.replace(moving, blink=self._blinks.at(frames))
        if self._amount != 1:
            moving = moving.calmed(self.rest, self._amount)
        return dataclasses.replace(moving, blink=self._closing * moving.blink)

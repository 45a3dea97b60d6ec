"""What a talker is trained on, and what each step takes of it.

Letters: B frames of a step, F frames of the training part, K numbers of a lip shape, S side of the frames. Frames are counted
from the first one of the training part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..capture.artifact import Capture
from ..capture.frames import PersonFrames, Views, free_frames, spread_frames
from ..errors import ConfigError
from ..judges.sync import lips_in_face
from ..prior.patch import Windows
from ..prior.subject import Subject
from .clip import ClipConditions, audio_neighbourhood, training_conditions
from .config import TrainConfig
from .listen import augment, closed_frames
from .reader import LipSpace
from .sampler import WindowSampler, draw_outlines, lip_outlines
from .validate import held_out, spread_over


def learnable(capture: Capture, config: TrainConfig) -> Int[np.ndarray, " free"]:
    """The frames that may be learnt from: those before the held-out ones in which nothing is before the face."""
    start, _ = capture.train
    return free_frames(capture, start, start + last_learnt(capture, config)) - start


def last_learnt(capture: Capture, config: TrainConfig) -> int:
    """How many of the training frames come before the ones that are held out."""
    count = len(range(*capture.train))
    return count - held_out(count, config.validation)


@dataclass(frozen=True)
class Batch:
    """The frames of a step, and what is heard with them."""

    index: Int[Tensor, " batch"]
    """Which frames."""
    heard_at: Int[Tensor, " batch"]
    """The frames whose sound they are shown with."""
    sound: Float[Tensor, "batch windows channels columns"]
    told: Bool[Tensor, "batch 1"]
    """Whether the true lip shape is told beside it."""
    windows: Windows
    """Where in the frames to look."""
    mouths: Float[Tensor, "batch 2"]
    """Middle of the mouth, x and y, 0..1 of the frame."""


@dataclass(frozen=True)
class Material:
    """What is learnt from."""

    start: int
    """Number of the first training frame in the capture."""
    conditions: ClipConditions
    landmark_scale: Float[Tensor, "2 4"]
    """Mean and deviation of the landmark token."""
    lips: Float[np.ndarray, "frames 80"]
    """The lips as the face sees them, in its sizes."""
    space: LipSpace
    shapes: Float[Tensor, "frames shapes"]
    """The same in few numbers."""
    closed: Bool[Tensor, " frames"]
    """Whether the lips are closed."""
    learnt: Int[np.ndarray, " learnt"]
    """Frames that are learnt from..."""
    validated: Int[np.ndarray, " validated"]
    """...and those of the held-out stretch that are drawn to validate."""
    before_validation: slice
    """Where nothing is held out."""
    frames: PersonFrames
    """Pictures of the learnt and the validated frames."""
    sampler: WindowSampler
    """Of the learnt frames."""
    outlines: Float[np.ndarray, "frames points 2"]
    """Of the lips."""

    @classmethod
    def of(cls, capture: Capture, subject: Subject, folder: Path, config: TrainConfig) -> Material:
        """The training part of a capture.

        Args:
            capture: of which only the training frames are read.
            subject: made from it.
            folder: for decoded frames.
            config: says how many, and how many are held out.

        Raises:
            ConfigError: losses compare neighbours, and there is no room for all frames; or the face is covered in all of them.
        """
        start, stop = capture.train
        border = last_learnt(capture, config)
        free = learnable(capture, config)
        if not len(free):
            raise ConfigError(
                f"Something is before the face in all of the {border} frames that could be learnt from. Record again, and keep "
                "hands, microphones and cups off the face."
            )
        learnt = spread_frames(free, capture.resolution, config.cache_gigabytes)
        validated = spread_over(border, stop - start)
        if config.weights.pairs and len(learnt) < len(free):
            raise ConfigError(
                f"The losses of changes from frame to frame need neighbours, but only {len(learnt)} of {len(free)} frames fit "
                f"into {config.cache_gigabytes:g} GB. Raise cache_gigabytes, or set the weights temporal and smoothness to 0."
            )
        conditions, landmark_scale = training_conditions(capture, subject, config.audio)
        lips = lips_in_face(capture.landmarks[start:stop].astype(np.float64))
        space = LipSpace.of(lips[:border], config.tokens.lip_shapes)
        return cls(
            start=start, conditions=conditions, landmark_scale=landmark_scale, lips=lips, space=space,
            shapes=space.shapes(torch.from_numpy(lips).float()), closed=torch.from_numpy(closed_frames(capture)),
            learnt=learnt, validated=validated, before_validation=slice(0, border),
            frames=PersonFrames.cached(capture, folder, start, stop, start + np.concatenate([learnt, validated])),
            sampler=WindowSampler.of(capture).among(learnt), outlines=lip_outlines(capture)[start:stop],
        )  # fmt: skip

    def batch(self, config: TrainConfig, size: int, mine: slice, rng: np.random.Generator) -> Batch:
        """The frames of a step.

        Everything random is drawn for the whole batch, so that several processes see together what one would see alone.

        Args:
            config: of the training.
            size: of raw pictures.
            mine: this process's share.
            rng: chooses.
        """
        pairs = config.weights.pairs
        chosen, windows = self.sampler.choose(config.frames_per_step, size, rng, pairs)
        heard = self.sampler.strangers(chosen, windows, config.strange_sound, rng, pairs)
        heard_at = torch.from_numpy(self.learnt[heard])
        silent = self.closed[heard_at] & torch.from_numpy(rng.random(len(chosen)) < config.silence)
        nothing = self.conditions.silence
        sound = augment(audio_neighbourhood(self.conditions.audio, heard_at, config.tokens.windows, nothing), config.audio, rng)
        told = torch.from_numpy(rng.random(len(chosen)) < config.told)[:, None]
        return Batch(
            index=torch.from_numpy(self.learnt[chosen[mine]]),
            heard_at=heard_at[mine],
            sound=torch.where(silent[:, None, None, None], nothing, sound)[mine],
            told=told[mine],
            windows=windows[mine],
            mouths=torch.from_numpy(self.sampler.mouths[chosen[mine]]).float(),
        )

    def views(self, index: Int[Tensor, " batch"]) -> Views:
        """Frames as filmed."""
        return self.frames.views(self.start + index.numpy())

    def lip_masks(self, index: Int[Tensor, " batch"], size: int) -> Float[Tensor, "batch 1 size size"]:
        """1 inside the lips' outline of frames."""
        return draw_outlines(self.outlines[index.numpy()], size)

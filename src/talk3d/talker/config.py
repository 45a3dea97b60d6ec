"""Settings of the talker's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from ..errors import ConfigError
from ..prior.folded import faster_precision
from .audio import AudioConfig
from .objective import LossWeights
from .tokens import TokenConfig
from .unet import Convolution, RollOut


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the talker's training."""

    steps: int | None = None
    """Stop after so many steps..."""
    minutes: float | None = 15.0
    """...or after so many minutes of training, whichever comes first. Learning rates follow the clock then, so that another
    run, or one that was interrupted, comes out alike but not bit for bit, as it does with `steps` (on a CPU)."""
    frames_per_step: int = 4
    learning_rate: float = 2e-3
    """Of what encodes tokens, and of what says how much of each expression they play."""
    unet_learning_rate: float = 5e-4
    """Of the U-Net but for its constant part: at four times that rate it learns to say nothing."""
    descend_every: int = 4
    """Steps from one in which the U-Net's path down learns to the next. It sees the same planes in all of them, and to learn in
    each would take a quarter of the time."""
    constant_learning_rate: float = 1e-2
    """Of the part of the delta planes that is the same for all frames."""
    modes_learning_rate: float = 1.5e-3
    """Of the expressions' delta planes, which start close to right."""
    superres_from: float = 0.0
    """Part of the training after which super-resolution is tuned along."""
    superres_learning_rate: float = 2e-3
    camera_learning_rate: float = 3e-4
    """Of the corrections to each frame's yaw and pitch, radians; 0 leaves the cameras as they are."""
    discriminator_learning_rate: float = 2e-3
    read_steps: int = 200
    """Steps in which a reader of drawn lips learns this mouth, if a loss needs one."""
    told: float = 0.7
    """Part of the frames whose true lip shape is told beside their sound; see `TokenEncoder.tell`."""
    listen_steps: int = 400
    """Steps in which the audio encoder learns lip shapes by itself."""
    ema_half_life: float = 50.0
    """Of the averaged weights that are validated, shown and kept, in steps; a twentieth of the steps done while that is less.
    0 for the trained weights themselves."""
    validation: float = 0.08
    """The last eight seconds of the training part are held out, to find the best state by, if that is at most this part of it:
    of a training part of 100 seconds and more. 0 to learn from all frames of any clip, and keep the last state."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of convolutions of the delta planes and of super-resolution. `auto`: the faster one, which never changes on a machine."""
    cache_gigabytes: float = 2.0
    """Disk for decoded frames while training runs; of a film that needs more, evenly spread frames are learnt from."""
    strange_sound: float = 1.0
    """Part of the windows above the mouth that are shown with the sound of another moment, so that eyes do not follow it."""
    silence: float = 0.1
    """Part of the frames with closed lips that are shown with pure silence, so that silence closes the mouth."""
    weights: LossWeights = field(default_factory=LossWeights)
    audio: AudioConfig = field(default_factory=AudioConfig)
    tokens: TokenConfig = field(default_factory=TokenConfig)
    rollout: RollOut = "aligned"
    """What planes see of each other in the U-Net."""
    convolution: Convolution = "split"
    """Whether each plane has convolutions of its own in the U-Net, or one runs over all planes at once."""
    seed: int = 0
    save_seconds: float = 30.0
    """From one saved state to the next: what a killed training has to repeat at most."""
    preview_seconds: float = 60.0
    """From one sheet to the next."""

    def dtype(self, device: torch.device) -> torch.dtype:
        """What convolutions compute in on a device."""
        return faster_precision(device) if self.precision == "auto" else getattr(torch, self.precision)

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.steps, self.minutes) if limit is not None]
        if not limits or min(limits) <= 0:
            raise ConfigError(
                f"A training of {self.steps} steps and {self.minutes} minutes would do nothing or never end. Give a number of "
                "steps or minutes above 0, or both."
            )

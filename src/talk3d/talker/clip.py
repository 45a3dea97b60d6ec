"""What drives the frames of a clip: sound, blinks, the head's pose and its place in the source picture.

Letters: B frames, W windows around a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..capture.artifact import Capture
from ..prior.subject import Subject
from ..video.clock import SAMPLES_PER_FRAME
from .audio import AnyAudioConfig, AudioConfig, Loudness, frame_windows, silent_window
from .tokens import Conditions


@dataclass(frozen=True)
class ClipConditions:
    """Everything that drives the frames of a clip, one row a frame."""

    audio: Float[Tensor, "frames channels columns"]
    """The window of audio features of each."""
    silence: Float[Tensor, "channels columns"]
    """What stands in for windows before the beginning and after the end."""
    blink: Float[Tensor, " frames"]
    """0 open .. 1 closed."""
    yaw: Float[Tensor, " frames"]
    pitch: Float[Tensor, " frames"]
    """Towards the camera, radians, as is yaw."""
    landmark: Float[Tensor, "frames 4"]
    """From `place_token`."""

    def at(self, index: Tensor, code: Float[Tensor, "batch width"]) -> Conditions:
        """The conditions of frames `index` [B], of which `code` is heard; on the code's device."""
        return Conditions(
            code=code,
            blink=self.blink[index].to(code.device),
            rotation=torch.stack([self.yaw[index], self.pitch[index]], -1).to(code.device),
            landmark=self.landmark[index].to(code.device),
        )


class CameraCorrections(nn.Module):
    """What training adds to the yaw and pitch of each frame (the reprojection loss's camera residuals, method 7.3).

    The mean of those that are learnt from is taken off: what all frames share belongs to the person, and poses of other films
    must go on meaning the same.

    Args:
        frames: F, of the training part.
        learnt: which of them are learnt from; the others never get a correction.
    """

    learnt: Tensor

    def __init__(self, frames: int, learnt: Int[np.ndarray, " learnt"]) -> None:
        super().__init__()
        self.angles = nn.Parameter(torch.zeros(frames, 2))
        self.register_buffer("learnt", torch.from_numpy(learnt), persistent=False)

    def forward(self, index: Tensor) -> Float[Tensor, "batch 2"]:
        """Of learnt frames `index` [B], radians."""
        # A gradient through the mean would move all frames at each step, and an optimiser that knows no small steps would
        # move those that it has not seen for long the most.
        return self.angles[index] - self.angles.detach()[self.learnt].mean(0)


def audio_neighbourhood(
    audio: Float[Tensor, "frames channels columns"], index: Tensor, windows: int, silence: Float[Tensor, "channels columns"]
) -> Float[Tensor, "batch windows channels columns"]:
    """The windows f - W/2 .. f + W/2 - 1 of each frame f; outside the clip there is silence, from `silent_window`."""
    around = index[:, None] + torch.arange(windows) - windows // 2
    inside = (around >= 0) & (around < len(audio))
    picked = audio[around.clamp(0, len(audio) - 1)]
    return torch.where(inside[..., None, None], picked, silence)


def crop_numbers(crop_from_source: Float[np.ndarray, "frames 2 3"], resolution: int) -> Float[np.ndarray, "frames 4"]:
    """Where each crop lies in its source frame: centre x, y (in widths of that crop), log scale, roll (radians)."""
    linear, shift = crop_from_source[:, :, :2], crop_from_source[:, :, 2]
    centre = np.linalg.solve(linear, (resolution / 2 - shift)[..., None])[..., 0]
    scale = np.hypot(linear[:, 0, 0], linear[:, 1, 0])
    roll = np.arctan2(linear[:, 1, 0], linear[:, 0, 0])
    widths = centre * scale[:, None] / resolution
    return np.concatenate([widths, np.log(scale)[:, None], roll[:, None]], 1)


def place_token(
    crop_from_source: Float[np.ndarray, "frames 2 3"], resolution: int, scale: Float[Tensor, "2 4"]
) -> Float[Tensor, "frames 4"]:
    """What the landmark token is told: where each crop lies, less the first row of `scale`, in units of its second."""
    numbers = torch.from_numpy(crop_numbers(crop_from_source, resolution)).float()
    return ((numbers - scale[0]) / scale[1]).clamp(-4, 4)


def capture_windows(
    capture: Capture, level_of: tuple[int, int], audio: AnyAudioConfig
) -> Float[Tensor, "frames channels columns"]:
    """The windows of all frames of a capture, as loud as if its frames `level_of` (half-open) were all there is."""
    sound, (start, stop) = capture.audio(), level_of
    gain = Loudness.of([sound[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]]).gain
    return torch.cat(list(frame_windows([sound], gain, audio)))


def training_conditions(capture: Capture, subject: Subject, audio: AudioConfig) -> tuple[ClipConditions, Tensor]:
    """Conditions of the training frames (row 0 is the first of them), and the landmark token's mean and deviation.

    The sound ends where the training part ends, so that no window reaches into the test part.
    """
    start, stop = capture.train
    sound = capture.audio()[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
    windows = torch.cat(list(frame_windows([sound], Loudness.of([sound]).gain, audio)))
    crops = capture.crop_from_source[start:stop]
    numbers = torch.from_numpy(crop_numbers(crops, capture.resolution)).float()
    scale = torch.stack([numbers.mean(0), numbers.std(0).clamp(min=0.01)])
    conditions = ClipConditions(
        audio=windows,
        silence=silent_window(audio),
        blink=torch.from_numpy(capture.blink[start:stop]).float(),
        yaw=subject.yaw[start:stop],
        pitch=subject.pitch[start:stop],
        landmark=place_token(crops, capture.resolution, scale),
    )
    return conditions, scale

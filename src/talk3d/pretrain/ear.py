"""Training of the ear: many voices' speech to the mouth shapes it was made with. Synthetic voices only.

Letters: N clips, B of them per step, T frames, C = 4 T columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ..heads.subject import lip_shapes
from ..judges.ear import BANDS, COLUMNS, LEVEL, VISEMES, Ear, ear_bands
from ..video.clock import FPS
from .judges import CLIP, JudgeConfig, Losses, fit, heard, random_clip
from .speakers import Recording

EAR = JudgeConfig(steps=4000, batch=24)
CLIPS = 4000
"""Clips that are prepared once; what varies in every step costs little."""
WARP, SHIFT = 0.1, 1.0
"""Vocal tracts differ: bands are stretched by up to this part and moved by up to so many."""
TINT = 0.12
"""Rooms and microphones differ: deviation of a band's level (10 dB are a third)."""
LOUDNESS = 0.08


@dataclass(frozen=True)
class Clips:
    """Speech, and the mouth shapes it was made with."""

    bands: Float[Tensor, "clips bands columns"]
    """Of `ear_bands`, half precision."""
    visemes: Float[Tensor, "clips visemes frames"]
    """How much of each shape and of rest, summing to 1; half precision."""

    @classmethod
    def of(cls, recordings: Sequence[Recording], count: int, seed: int, noisy: bool, progress: Callable[[int], None]) -> Clips:
        """Random six seconds of random recordings; `noisy` ones as a listener may hear them."""
        long_enough = [one for one in recordings if one.frames >= CLIP * 1.2]
        bands = torch.zeros(count, BANDS, CLIP * COLUMNS, dtype=torch.float16)
        visemes = torch.zeros(count, len(VISEMES), CLIP, dtype=torch.float16)
        for index in range(count):
            rng = np.random.default_rng([seed, 9, index])
            clip = random_clip(long_enough[rng.integers(len(long_enough))], rng)
            other = long_enough[rng.integers(len(long_enough))].samples
            sound = heard(clip.samples, other, rng) if noisy else clip.samples
            bands[index] = ear_bands(at_level(sound))[:, : CLIP * COLUMNS]
            visemes[index] = torch.from_numpy(shapes_of(clip, CLIP))
            progress(index + 1)
        return cls(bands, visemes)


def at_level(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Speech of the level that a talker brings it to: parts within 20 dB of the loudest tenth count."""
    power = np.square(samples[: len(samples) // 640 * 640].reshape(-1, 640)).mean(1)
    loud = power[power > 0.01 * np.quantile(power, 0.9)]
    return (samples * (LEVEL / math.sqrt(float(loud.mean()) + 1e-12))).astype(np.float32)


def shapes_of(recording: Recording, frames: int) -> Float[np.ndarray, "visemes frames"]:
    """How much of each mouth shape and of rest."""
    rows = lip_shapes(recording.phones, frames, float(FPS), {name: {name: 1.0} for name in VISEMES[:-1]})
    shapes = np.array([[row[name] for name in VISEMES[:-1]] for row in rows], np.float32).T
    return np.concatenate([shapes, 1 - shapes.sum(0, keepdims=True)]).clip(0, 1)


def train_ear(
    recordings: Sequence[Recording],
    run: Path,
    config: JudgeConfig,
    progress: Callable[[int, int, str], None],
    minutes: float = math.inf,
) -> Ear | None:
    """Train the ear, or continue an interrupted run; None while the training is not complete.

    See `judges.fit` for arguments and errors.
    """
    torch.manual_seed(config.seed)
    network = Ear()
    clips = Clips.of(recordings, CLIPS, config.seed, True, lambda done: progress(done, CLIPS, "clips"))
    if not fit(network, ear_losses(clips, config), run, config, progress, minutes):
        return None
    return network.requires_grad_(False)


def ear_losses(clips: Clips, config: JudgeConfig) -> Losses:
    """Cross-entropy of the visemes, by voices and rooms that differ in every step."""

    def losses(network: nn.Module, rng: np.random.Generator) -> dict[str, Tensor]:
        torch.manual_seed(int(rng.integers(2**62)))  # dropout is part of the step
        index = torch.from_numpy(rng.integers(0, len(clips.bands), config.batch))
        _, logits = network(another_voice(clips.bands[index].float(), rng))
        wanted = clips.visemes[index].float()
        return {"visemes": -(wanted * logits.log_softmax(1)).sum(1).mean()}

    return losses


def another_voice(
    bands: Float[Tensor, "batch bands columns"], rng: np.random.Generator
) -> Float[Tensor, "batch bands columns"]:
    """The same words from another vocal tract, microphone and distance."""
    batch, count, _ = bands.shape
    stretch = torch.from_numpy(1 + rng.uniform(-WARP, WARP, (batch, 1))).float()
    move = torch.from_numpy(rng.uniform(-SHIFT, SHIFT, (batch, 1))).float()
    place = (torch.arange(count) * stretch + move).clamp(0, count - 1)
    below = place.floor().long()
    above = (below + 1).clamp(max=count - 1)

    def pick(index: Tensor) -> Tensor:
        return torch.gather(bands, 1, index[..., None].expand_as(bands))

    warped = torch.lerp(pick(below), pick(above), (place - below)[..., None])
    tint = torch.from_numpy(rng.normal(0, TINT, (batch, count, 1)) + rng.normal(0, LOUDNESS, (batch, 1, 1))).float()
    # Silence stays silence: what lies at the floor is not lifted.
    return torch.where(warped > -0.99, warped + tint, warped).clamp(min=-1)


def heard_visemes(network: Ear, clips: Clips) -> dict[str, float]:
    """Correlation of each viseme's curve with the truth over all clips, of those that occur in them."""
    with torch.no_grad():
        seen = network(clips.bands.float())[1].softmax(1)
    true = clips.visemes.float()
    occur = [k for k in range(len(VISEMES)) if true[:, k].max() > 0]
    return {VISEMES[k]: float(np.corrcoef(seen[:, k].flatten(), true[:, k].flatten())[0, 1]) for k in occur}

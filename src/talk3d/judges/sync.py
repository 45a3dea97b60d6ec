"""The lip-sync expert: does this mouth say this sound, and if it does, how late is the sound?

Two small networks turn every video frame's surroundings, lips on one side and sound on the other, into unit vectors that are
close where the two belong together. It is trained on synthetic people who speak with a synthesiser's voices
(`pretrain/judges.py`) and ships with the package. The idea is SyncNet's (Chung and Zisserman, "Out of time", 2016).

Letters: F frames of a film, T frames at 25 per second, W clips, D size of the vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ScoringError
from ..mel import mel_filters
from ..video.clock import AUDIO_RATE, FPS
from .weights import read_weights, save_weights

COLUMNS, HOP, WINDOW, FFT, BANDS = 4, 160, 400, 512, 40
"""Columns of sound per frame, samples between them, samples under each, size of the transform, mel bands."""
REACH = 15
"""Offsets up to so many frames either way are tried."""
FEWEST = 10
"""Frames that every offset must be judged on at least."""
LONGEST = 120
"""Seconds that are compared as one piece."""
WEIGHTS = Path(__file__).parents[1] / "assets" / "judges" / "sync.safetensors"

# Of the 468-point face mesh (capture/track.py says the same): outer lips, inner lips, and what does not move in speech.
LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
)
EYES = (33, 133, 362, 263)
"""Eye corners from the viewer's left to the right."""
NOSE = (168, 6, 197, 195, 5, 4, 1, 2, 98, 327)
LIP_NUMBERS = 2 * len(LIPS)


def lips_in_face(landmarks: Float[np.ndarray, "frames 468 2"]) -> Float[np.ndarray, "frames 80"]:
    """The lips as the face sees them: upright, from its middle, in units of its size; see `in_face`."""
    return in_face(landmarks, EYES, NOSE)[:, list(LIPS)].reshape(len(landmarks), -1)


def in_face(
    points: Float[np.ndarray, "frames points 2"], eyes: tuple[int, ...], nose: tuple[int, ...]
) -> Float[np.ndarray, "frames points 2"]:
    """Points in a frame that eye corners and nose carry along: the eye line is x, their mean the origin, their spread 1.

    All anchors have a say in position and size, so that the tremor of single ones averages out.
    """
    centred = points - points[:, [*eyes, *nose]].mean(1, keepdims=True)
    along = centred[:, list(eyes[2:])].mean(1) - centred[:, list(eyes[:2])].mean(1)  # [F, 2]
    size = np.sqrt((centred[:, [*eyes, *nose]] ** 2).sum(-1).mean(1))
    x = along / (np.linalg.norm(along, axis=1) * size)[:, None]
    turn = np.stack([x, np.stack([-x[:, 1], x[:, 0]], 1)], 1)  # [F, 2, 2]: rows are the axes
    return centred @ turn.transpose(0, 2, 1)


def mouth_features(lips: Float[np.ndarray, "frames 80"]) -> Float[Tensor, "160 frames"]:
    """What the network sees of a mouth: positions and velocities of its points.

    Positions are those of `lips_in_face`, without the clip's median mouth and divided by the clip's own spread: how wide
    someone opens the mouth is a habit. Frames without a face (NaN) are at rest.
    """
    known = np.isfinite(lips).all(1)
    if not known.any():
        return torch.zeros(2 * LIP_NUMBERS, len(lips))
    habit = MouthHabit.of(lips[known])
    away = np.where(known[:, None], (lips - habit.rest) / habit.spread, 0.0)
    return mouth_motion(torch.from_numpy(away)).float()


@dataclass(frozen=True)
class MouthHabit:
    """How someone holds and opens their mouth over a clip, which the expert is not to see."""

    rest: Float[np.ndarray, 80]
    """The median mouth."""
    spread: float
    """Deviation from it."""

    @classmethod
    def of(cls, lips: Float[np.ndarray, "frames 80"]) -> MouthHabit:
        """Of a clip; without NaN."""
        rest = np.median(lips, axis=0)
        # The floor keeps a mouth that never moves from trembling at full size.
        return cls(rest, max(float((lips - rest).std()), 0.01))


def mouth_motion(away: Float[Tensor, "*clips frames 80"]) -> Float[Tensor, "*clips 160 frames"]:
    """Positions, given as deviations from the median mouth in units of their spread, and velocities; differentiable."""
    velocity = torch.gradient(away, dim=-2)[0] if away.shape[-2] > 1 else torch.zeros_like(away)
    return torch.cat([away, 2 * velocity], -1).clamp(-6, 6).mT


def sound_features(samples: Float[np.ndarray, " samples"], frames: int) -> Float[Tensor, "160 frames"]:
    """What the network hears: four columns of 40 log-mel bands per frame, each band at zero mean and unit deviation.

    Column j of frame t is centred on sample 640 t + 80 + 160 j. Missing sound is silence.
    """
    lead = FFT // 2 - HOP // 2
    length = (frames * COLUMNS - 1) * HOP + FFT
    padded = np.pad(samples[: length - lead], (lead, max(0, length - lead - len(samples)))).astype(np.float32)
    window = F.pad(torch.hann_window(WINDOW), ((FFT - WINDOW) // 2,) * 2)
    power = torch.fft.rfft(torch.from_numpy(padded).unfold(0, FFT, HOP) * window).abs().square()
    mel = power @ mel_filters(BANDS, FFT, AUDIO_RATE)  # [4 T, bands]
    # Silence lies 60 dB below the loudest, whatever the gain.
    log = mel.clamp(min=1e-6 * float(mel.max()) + 1e-10).log()
    normal = (log - log.mean(0)) / (log.std(0) + 0.3)
    return normal.reshape(frames, -1).T.contiguous()


@dataclass(frozen=True)
class SyncDims:
    """Sizes of the network; they are stored beside its weights."""

    width: int = 96
    blocks: int = 3
    """Each widens by one frame on both sides what a vector knows of; so does the first layer."""
    size: int = 64
    """D."""


class TimeBlock(nn.Module):
    """A residual convolution over three frames; the ear is made of these too."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        self.out = nn.Conv1d(width, width, 1)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return x + self.drop(self.out(F.gelu(self.mix(normal))))


class _Encoder(nn.Sequential):
    def __init__(self, channels: int, dims: SyncDims):
        super().__init__(
            nn.Conv1d(channels, dims.width, 3, padding=1),
            *(TimeBlock(dims.width) for _ in range(dims.blocks)),
            nn.Conv1d(dims.width, dims.size, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[W, channels, T] to unit vectors [W, T, D]."""
        return F.normalize(super().forward(x).transpose(1, 2), dim=-1)


class SyncExpert(nn.Module):
    """Lips and sound to vectors; each vector knows of nine frames (0.36 s)."""

    def __init__(self, dims: SyncDims | None = None):
        super().__init__()
        self.dims = dims = dims or SyncDims()
        self.lips = _Encoder(2 * LIP_NUMBERS, dims)
        self.sound = _Encoder(COLUMNS * BANDS, dims)

    def forward(
        self, mouth: Float[Tensor, "clips 160 frames"], sound: Float[Tensor, "clips 160 frames"]
    ) -> tuple[Float[Tensor, "clips frames size"], Float[Tensor, "clips frames size"]]:
        """Vectors of `mouth_features` and of `sound_features`."""
        return self.lips(mouth), self.sound(sound)


@dataclass(frozen=True)
class SyncOffset:
    """How a film's sound lies to its lips."""

    offset: float
    """Frames (of 40 ms) by which the sound is late: positive, move the sound forward; negative, it comes too early."""
    confidence: float
    """How much better that offset is than the others: median minus minimum of the curve, as SyncNet's (0..4).

    Over fewer than about 90 frames it is high by chance too, as curves of few frames are rough.
    """
    curve: Float[np.ndarray, 31]
    """Mean squared distance of lips and sound at offsets -15..15, 0..4."""
    frames: int
    """Frames that each point of the curve rests on."""


def sync_offset(
    landmarks: Float[np.ndarray, "frames 468 2"],
    samples: Float[np.ndarray, " samples"],
    fps: float = 25.0,
    network: SyncExpert | None = None,
) -> SyncOffset:
    """Estimate by how many frames the sound of a film is late.

    Args:
        landmarks: tracked by `capture.track`, any unit; NaN where there is no face.
        samples: mono sound at 16 kHz that begins with the first frame.
        fps: of the landmarks; others than 25 are resampled.
        network: another expert than the shipped one.

    Raises:
        ScoringError: fewer than 40 frames, or hardly any with a face.
    """
    total, judged = np.zeros(2 * REACH + 1), 0
    # How someone holds the mouth, and how a microphone sounds, is learnt from minutes; and memory holds no hours of both.
    for part in np.array_split(np.arange(len(landmarks)), max(1, math.ceil(len(landmarks) / (LONGEST * fps)))):
        first, last = (int(part[0]), int(part[-1]) + 1) if len(part) else (0, 0)
        lips = lips_in_face(landmarks[first:last].astype(np.float64))
        if fps != FPS:
            lips = _resampled(lips, fps)
        curve, count = sync_curve(lips, samples[round(first / fps * AUDIO_RATE) :], network)
        if count:
            total, judged = total + count * curve, judged + count
    if judged < FEWEST:
        raise ScoringError(
            f"Lip-sync needs at least {2 * REACH + FEWEST} frames ({(2 * REACH + FEWEST) / FPS:.1f} s) with a face in them; "
            f"of {round(len(landmarks) * FPS / fps)} frames, {judged} can be judged. Use a longer piece."
        )
    return read_curve(total / judged, judged)


@torch.no_grad()
def sync_curve(
    lips: Float[np.ndarray, "frames 80"], samples: Float[np.ndarray, " samples"], network: SyncExpert | None = None
) -> tuple[Float[np.ndarray, 31], int]:
    """Mean squared distance of lips and sound at offsets -15..15, and how many frames each rests on.

    Args:
        lips: of `lips_in_face`; NaN where there is no face.
        samples: mono sound at 16 kHz that begins with the first frame.
        network: another expert than the shipped one.
    """
    network = network or load_sync()
    frames = len(lips)
    # All offsets are compared on the same frames of the film, those that have a partner at every one of them.
    judged = np.flatnonzero(np.isfinite(lips[REACH : frames - REACH]).all(1)) + REACH
    if not len(judged):
        return np.full(2 * REACH + 1, np.nan), 0
    seen, heard = network(mouth_features(lips)[None], sound_features(samples, frames)[None])
    curve = [float((seen[0, judged] - heard[0, judged + d]).square().sum(1).mean()) for d in range(-REACH, REACH + 1)]
    return np.array(curve), len(judged)


def read_curve(curve: Float[np.ndarray, 31], frames: int) -> SyncOffset:
    """What a curve of `sync_curve` says, also a mean of several."""
    return SyncOffset(_lowest(curve), float(np.median(curve) - curve.min()), curve, frames)


def _lowest(curve: np.ndarray) -> float:
    """The minimum's place between -15 and 15, to fractions of a frame by a parabola through its neighbours."""
    best = int(curve.argmin())
    if not 0 < best < len(curve) - 1:
        return float(best - REACH)
    left, middle, right = curve[best - 1 : best + 2]
    return best - REACH + 0.5 * float((left - right) / (left - 2 * middle + right + 1e-12))


def _resampled(lips: np.ndarray, fps: float) -> np.ndarray:
    """To 25 frames per second, linearly; NaN where either neighbour is."""
    count = max(1, round(len(lips) * FPS / fps))
    place = np.clip((np.arange(count) + 0.5) * fps / FPS - 0.5, 0, len(lips) - 1)
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, len(lips) - 1)
    part = (place - before)[:, None]
    return np.where(part > 0, lips[before] * (1 - part) + lips[after] * part, lips[before])


def save_sync(network: SyncExpert, path: Path) -> None:
    """Write an expert in half precision, with its sizes."""
    save_weights(network, network.dims, path)


@lru_cache
def load_sync(path: Path = WEIGHTS) -> SyncExpert:
    """The shipped expert, or another one that `save_sync` wrote; frozen, single precision, read once.

    Raises:
        CheckpointError: the file is missing, damaged, or holds another network.
    """
    return read_weights(path, lambda dims: SyncExpert(SyncDims(**dims)), "lip-sync expert")

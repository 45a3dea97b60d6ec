"""SyncNet, the field's own judge of lip-sync, for users who have its weights.

Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016: five frames of a face and a fifth of a second of sound
become vectors, and their distances over shifts of up to fifteen frames give LSE-D (the least mean distance) and LSE-C (the
median minus the least). Tensor names are those of the public `syncnet_v2.model`.

Letters: B windows, T frames, N samples at 16 kHz.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..video.clock import AUDIO_RATE
from .foreign import load_foreign

FRAMES, SIDE = 5, 224
"""Of a window, and of the pictures in it."""
SHIFT = 15
CEPSTRA, COLUMNS, PER_FRAME = 13, 20, 4
"""Numbers of a column of sound, columns of a window, columns of a frame: a hundred columns a second."""
STEP, LENGTH, FFT, BANDS = 160, 400, 512, 26
EMPHASIS, LIFTER = 0.97, 22


def _layers(given: list[nn.Module], normal: type[nn.Module]) -> nn.Sequential:
    """Convolutions with normalisation and ReLU; other layers as they are."""
    layers: list[nn.Module] = []
    for layer in given:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            layers += [normal(layer.out_channels), nn.ReLU()]
    return nn.Sequential(*layers)


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    """Sound and faces to vectors of 1,024 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = _layers(
            [
                nn.Conv2d(1, 64, 3, padding=1), nn.MaxPool2d(1),
                nn.Conv2d(64, 192, 3, padding=1), nn.MaxPool2d(3, (1, 2)),
                nn.Conv2d(192, 384, 3, padding=1), nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1), nn.MaxPool2d(3, 2), nn.Conv2d(256, 512, (5, 4)),
            ],
            nn.BatchNorm2d,
        )  # fmt: skip
        self.netcnnlip = _layers(
            [
                nn.Conv3d(3, 96, (FRAMES, 7, 7), (1, 2, 2)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
                nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
                nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
                nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
                nn.Conv3d(256, 512, (1, 6, 6)),
            ],
            nn.BatchNorm3d,
        )  # fmt: skip
        self.netfcaud, self.netfclip = _head(), _head()

    def hear(self, sound: Float[Tensor, "windows 1 13 20"]) -> Float[Tensor, "windows 1024"]:
        """Vectors of windows of `cepstra`."""
        return self.netfcaud(self.netcnnaud(sound).flatten(1))

    def see(self, faces: Float[Tensor, "windows 3 5 224 224"]) -> Float[Tensor, "windows 1024"]:
        """Vectors of five faces each, in BGR order, 0..255."""
        return self.netfclip(self.netcnnlip(faces).flatten(1))


def load_syncnet() -> SyncNet:
    """SyncNet, if its weights are in the cache as `models/syncnet_v2.safetensors`; frozen.

    Raises:
        ModelMissingError: they are not; the message says what to fetch.
        CheckpointError: the file holds something else.
    """
    fetch = "fetch `syncnet_v2.model` (github joonson/syncnet_python) and save its tensors"
    return load_foreign(SyncNet(), "syncnet_v2", fetch)


def cepstra(samples: Float[np.ndarray, " samples"]) -> Float[Tensor, "13 columns"]:
    """Mel-frequency cepstra of 16-bit sound, one column each 10 ms, as SyncNet was trained on.

    Davis and Mermelstein, 1980, in the variant of the package python_speech_features with its own settings: pre-emphasis 0.97,
    rectangular windows of 25 ms, 26 triangular bands, lifter 22, the first number replaced by the log of the energy.

    Args:
        samples: in -1..1.
    """
    x = torch.from_numpy(np.rint(samples.astype(np.float64) * 32767))
    x = torch.cat([x[:1], x[1:] - EMPHASIS * x[:-1]])
    count = 1 + max(0, -(-(len(x) - LENGTH) // STEP))
    x = F.pad(x, (0, (count - 1) * STEP + LENGTH - len(x)))
    power = torch.fft.rfft(x.unfold(0, LENGTH, STEP), FFT).abs().square() / FFT  # [columns, bins]
    energy = power.sum(1).clamp_min(torch.finfo(torch.float64).eps)
    bands = (power @ _bands().T).clamp_min(torch.finfo(torch.float64).eps).log()
    index = torch.arange(BANDS, dtype=torch.float64)
    basis = torch.cos(torch.pi / BANDS * torch.outer(torch.arange(CEPSTRA, dtype=torch.float64), index + 0.5))
    basis = basis * torch.where(torch.arange(CEPSTRA) == 0, (1 / BANDS) ** 0.5, (2 / BANDS) ** 0.5)[:, None]
    lift = 1 + LIFTER / 2 * torch.sin(torch.pi * torch.arange(CEPSTRA, dtype=torch.float64) / LIFTER)
    numbers = (bands @ basis.T) * lift
    numbers[:, 0] = energy.log()
    return numbers.T.float()


@lru_cache
def _bands() -> Float[Tensor, "26 257"]:
    """Triangles that rise and fall between bins, evenly spaced in mels from 0 to 8 kHz."""
    mels = torch.linspace(0, 2595 * np.log10(1 + AUDIO_RATE / 2 / 700), BANDS + 2, dtype=torch.float64)
    bins = torch.floor((FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / AUDIO_RATE)
    place = torch.arange(FFT // 2 + 1, dtype=torch.float64)
    low, middle, high = bins[:-2, None], bins[1:-1, None], bins[2:, None]
    rising = torch.where((place >= low) & (place < middle), (place - low) / (middle - low).clamp_min(1), 0)
    falling = torch.where((place >= middle) & (place < high), (high - place) / (high - middle).clamp_min(1), 0)
    return rising + falling


class SyncDistances:
    """Distances of lips and sound at all shifts, gathered as frames come, in constant memory.

    Args:
        sound: cepstra [13, columns] of the whole film, whose first column belongs to its first frame.
        network: SyncNet.
    """

    def __init__(self, sound: Float[Tensor, "13 columns"], network: SyncNet):
        self._network, self._sound = network, sound
        self._faces: list[Tensor] = []
        self._heard: dict[int, Tensor] = {}
        self._first = 0
        self._total = torch.zeros(2 * SHIFT + 1, dtype=torch.float64)
        self._windows = sound.shape[1] // PER_FRAME - COLUMNS // PER_FRAME + 1
        self.count = 0
        """Windows judged."""

    @torch.no_grad()
    def add(self, face: UInt8[np.ndarray, "224 224 3"] | None) -> None:
        """The next frame's face, RGB; None where there is none, and no window that holds it is judged."""
        if face is None:
            self._first += len(self._faces) + 1
            self._faces = []
            return
        self._faces.append(torch.from_numpy(np.ascontiguousarray(face[..., ::-1])).permute(2, 0, 1).float())
        if len(self._faces) < FRAMES:
            return
        frame = self._first
        self._first += 1
        seen = self._network.see(torch.stack(self._faces, 1)[None])
        self._faces.pop(0)
        if frame >= self._windows:
            return
        nothing = torch.zeros_like(seen[0])  # beyond the sound's ends, as the original has it
        heard = [self._hear(k) if 0 <= k < self._windows else nothing for k in range(frame - SHIFT, frame + SHIFT + 1)]
        self._heard.pop(frame - SHIFT, None)
        self._total += F.pairwise_distance(seen, torch.stack(heard)).double()
        self.count += 1

    def _hear(self, frame: int) -> Tensor:
        if frame not in self._heard:
            first = PER_FRAME * frame
            (self._heard[frame],) = self._network.hear(self._sound[None, None, :, first : first + COLUMNS])
        return self._heard[frame]

    @property
    def curve(self) -> Float[Tensor, 31] | None:
        """Mean distance with the sound shifted by -15 to 15 frames; None if nothing was judged."""
        return self._total / self.count if self.count else None

"""The ear: which shapes of the mouth a sound asks for, whoever speaks.

One person's minute of speech teaches little about other voices. So a small network has learnt from many: made-up sentences by
dozens of a synthesiser's voices, of which the mouth shape of every instant is known (`pretrain/ear.py`). It ships with the
package, and a talker learns from its codes what one person's mouth makes of them.

Letters: B clips, T frames at 25 per second, C = 4 T columns of 10 ms, E numbers of a code, V visemes and rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..mel import log_mel
from ..video.clock import AUDIO_RATE
from .sync import TimeBlock
from .weights import read_weights, save_weights

VISEMES = ("PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "I", "O", "U", "rest")
"""Mouth shapes by the head pack's names, and the mouth at rest."""
HOP, SPAN, FFT, BANDS = 160, 400, 512, 40
LOW, HIGH = 60.0, 7600.0
"""Hz."""
COLUMNS = 4
"""Per frame."""
FLOOR = 1e-5
"""Power below which everything is silence, once the sound is as loud as it should be."""
LEVEL = 0.07
"""Root mean square of speech that the network was trained on."""
PIECE = 1600
"""Columns heard at a time."""
CONTEXT = 80
"""Columns heard before and after a piece and thrown away; the network knows of fewer."""
WEIGHTS = Path(__file__).parents[1] / "assets" / "judges" / "ear.safetensors"


@dataclass(frozen=True)
class EarDims:
    """Sizes of the network; they are stored beside its weights."""

    hidden: int = 96
    """Channels at 100 columns a second."""
    width: int = 128
    """Channels at 25 frames a second."""
    blocks: int = 4
    """Each widens by one frame on both sides what a code knows of."""
    size: int = 48
    """E."""

    @property
    def outputs(self) -> int:
        """Numbers per frame that a listener gets: the code and the visemes."""
        return self.size + len(VISEMES)


class Ear(nn.Module):
    """Log-mel columns to codes, and to visemes, which the codes were learnt for."""

    def __init__(self, dims: EarDims | None = None):
        super().__init__()
        self.dims = dims = dims or EarDims()
        self.columns = nn.Conv1d(BANDS, dims.hidden, 5, padding=2)
        self.frames = nn.Conv1d(dims.hidden, dims.width, 2 * COLUMNS, stride=COLUMNS, padding=COLUMNS // 2)
        self.blocks = nn.Sequential(*(TimeBlock(dims.width) for _ in range(dims.blocks)))
        self.code = nn.Conv1d(dims.width, dims.size, 1)
        self.visemes = nn.Conv1d(dims.size, len(VISEMES), 1)

    def forward(
        self, bands: Float[Tensor, "clips bands columns"]
    ) -> tuple[Float[Tensor, "clips size frames"], Float[Tensor, "clips visemes frames"]]:
        """Codes in -1..1, and logits of the visemes, of `ear_bands`."""
        x = self.blocks(self.frames(F.gelu(self.columns(bands))))
        code = torch.tanh(self.code(x))
        return code, self.visemes(code)


def ear_bands(samples: Float[np.ndarray, " samples"]) -> Float[Tensor, "bands columns"]:
    """Log-mel bands of sound whose speech has the level `LEVEL`; silence is -1, loud speech about 1.

    Column j is centred on sample 80 + 160 j of the sound; there is one for each begun 10 ms.
    """
    lead = FFT // 2 - HOP // 2
    count = -(-len(samples) // HOP)
    padded = np.pad(samples, (lead, (count - 1) * HOP + FFT - lead - len(samples))).astype(np.float32)
    return log_mel(torch.from_numpy(padded), BANDS, FFT, SPAN, HOP, AUDIO_RATE, LOW, HIGH, FLOOR).T.contiguous()


@torch.no_grad()
def ear_columns(
    chunks: Iterable[np.ndarray], gain: float, first: int, network: Ear | None = None
) -> Iterator[Float[Tensor, "columns outputs"]]:
    """Codes and visemes (-1 not heard .. 1 heard) over time, `PIECE` columns of 10 ms at a time and in constant memory.

    It never ends: silence follows the sound. Pieces lie at fixed places of the recording, however it is cut into chunks. The
    four columns of a frame are alike.

    Args:
        chunks: sound in order, float32 in -1..1, any lengths, mono at 16 kHz.
        gain: factor that brings the sound's speech to `LEVEL`.
        first: sample on which the first column is centred; a whole number of columns from the middle of a frame's first one.
        network: another ear than the shipped one.
    """
    network = network or load_ear()
    skip, rest = divmod(HOP // 2 - first, HOP)
    assert rest == 0, "columns lie at fixed places of a frame"
    # The sound is entered at the beginning of a frame, so many columns before the first one that is asked for.
    early = -skip % COLUMNS
    buffer = np.zeros((CONTEXT + early + skip) * HOP, np.float32)
    source = chain(chunks, repeat(np.zeros(PIECE * HOP, np.float32)))
    length = (PIECE + 2 * CONTEXT) * HOP
    while True:
        while len(buffer) < length:
            buffer = np.concatenate([buffer, next(source).astype(np.float32) * gain])
        code, visemes = network(ear_bands(buffer[:length])[None])
        heard = torch.cat([code[0], 2 * visemes[0].softmax(0) - 1]).T.repeat_interleave(COLUMNS, 0)
        yield heard[CONTEXT + early : CONTEXT + early + PIECE]
        buffer = buffer[PIECE * HOP :]


def save_ear(network: Ear, path: Path) -> None:
    """Write an ear in half precision, with its sizes."""
    save_weights(network, network.dims, path)


@lru_cache
def load_ear(path: Path = WEIGHTS) -> Ear:
    """The shipped ear, or another one that `save_ear` wrote; frozen, single precision, read once.

    Raises:
        CheckpointError: the file is missing, damaged, or holds another network.
    """
    return read_weights(path, lambda dims: Ear(EarDims(**dims)), "ear")

"""Sound to phones: which of the sounds of speech is being made, whoever makes it; ten milliseconds at a time.

The decoder is `talk3d.phone_decoder`'s. The sound is mono at 16 kHz.
Letters: C columns of 10 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, repeat

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..phone_decoder import HOP, PHONES, SPAN, segments

PIECE = 1600
"""Columns decoded at a time."""
CONTEXT = 400
"""Columns decoded before and after a piece and thrown away. An utterance that begins in a word is misheard there, and the
decoder removes an utterance's mean spectrum: 24 s have a steadier mean than ten (docs/notebook.md)."""
QUIET = 1e-4
"""Peak below which nothing is said: three steps of a 16-bit sample."""


def phone_columns(chunks: Iterable[np.ndarray], gain: float, first: int) -> Iterator[Float[Tensor, "columns phones"]]:
    """Phones over time, -1 where one is not heard and 1 where it is, `PIECE` columns at a time and in constant memory.

    It never ends: silence follows the sound. Pieces lie at fixed places of the recording, however it is cut into chunks.

    Args:
        chunks: sound in order, float32 in -1..1, any lengths.
        gain: factor on the sound.
        first: sample on which the first column is centred, at most `SPAN / 2` + `CONTEXT * HOP`.
    """
    # A piece begins where the decoder's frames are centred on columns, so there is no rounding.
    lead = CONTEXT * HOP + SPAN // 2 - first
    length = (PIECE + 2 * CONTEXT - 1) * HOP + SPAN
    buffer = np.zeros(lead, np.float32)
    source = chain(chunks, repeat(np.zeros(PIECE * HOP, np.float32)))
    while True:
        while len(buffer) < length:
            buffer = np.concatenate([buffer, next(source).astype(np.float32) * gain])
        yield smooth(_decode(buffer[:length]))[CONTEXT:-CONTEXT] * 2 - 1
        buffer = buffer[PIECE * HOP :]


def _decode(sound: np.ndarray) -> Float[Tensor, "columns phones"]:
    """One-hot phones of the decoder's frames; zeros where none is heard."""
    loud = torch.from_numpy(np.abs(sound)).unfold(0, SPAN, HOP).amax(1) >= QUIET  # [C]
    heard = torch.zeros(len(loud), len(PHONES))
    if loud.any():
        for name, start, end in segments((sound.clip(-1, 1) * 32767).astype(np.int16)):
            if name in PHONES:
                heard[start:end, PHONES.index(name)] = 1
    # In digital silence beside speech, the decoder can hear one phone for seconds.
    return heard * loud[:, None]


def smooth(heard: Float[Tensor, "columns phones"]) -> Float[Tensor, "columns phones"]:
    """Soft edges: the decoder is not sure of them to the column."""
    kernel = torch.from_numpy(np.hanning(7)).float()
    around = F.pad(heard, (0, 0, 3, 3)).unfold(0, 7, 1)  # [C, phones, 7]
    return (around @ (kernel / kernel.sum())).clamp(max=1)

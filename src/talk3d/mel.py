"""Mel filters: sound's frequencies as ears space them."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


@lru_cache
def mel_filters(bands: int, fft: int, rate: int, low: float = 60.0, high: float = 7600.0) -> Float[Tensor, "frequencies bands"]:
    """Triangular filters, evenly spaced in mel (O'Shaughnessy: 2595 log10(1 + f / 700)), each of unit sum.

    Args:
        bands: how many.
        fft: samples of the transform, which gives fft / 2 + 1 frequencies.
        rate: samples per second.
        low: where the first filter begins, Hz.
        high: where the last one ends, Hz.
    """

    def mel(frequency: float) -> float:
        return 2595 * math.log10(1 + frequency / 700)

    edges = torch.linspace(mel(low), mel(high), bands + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    bins = torch.linspace(0, rate / 2, fft // 2 + 1)[:, None]
    rising = (bins - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    falling = (hertz[2:] - bins) / (hertz[2:] - hertz[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    return filters / filters.sum(0).clamp(min=1e-6)

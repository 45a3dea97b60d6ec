"""Sound as ears space its frequencies: mel filters, and the log-mel bands that talker and judges listen to."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
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


def log_mel(
    samples: Float[Tensor, " samples"],
    bands: int,
    fft: int,
    window: int,
    hop: int,
    rate: int,
    low: float,
    high: float,
    floor: float,
) -> Float[Tensor, "columns bands"]:
    """Log power in mel bands: -1 at the floor and below, 1 six decades above it, where loud speech is.

    Args:
        samples: sound; columns begin `hop` apart, the last one where a whole transform is left.
        bands: how many.
        fft: samples of the transform.
        window: samples under the Hann window in its middle.
        hop: samples from column to column.
        rate: samples per second.
        low: where the first band begins, Hz.
        high: where the last one ends, Hz.
        floor: power below which everything is silence.
    """
    hann = F.pad(torch.hann_window(window), ((fft - window) // 2,) * 2)
    power = torch.fft.rfft(samples.unfold(0, fft, hop) * hann).abs().square() / (window / 2)
    log = torch.log10((power @ mel_filters(bands, fft, rate, low, high)).clamp(min=floor))
    return (log - math.log10(floor)) * (2 / 6) - 1

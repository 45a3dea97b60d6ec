"""What drawing a frame has to cost: operations and bytes of each stage, and what this machine can do of either.

Letters: C channels of one plane, H hidden units, F colour features.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..prior.generator import Profile


@dataclass(frozen=True)
class Ceilings:
    """What this machine does at best per second of processor time, measured for a second or so."""

    single: float
    """Operations a second in single precision: a large product of matrices. A multiplication with an addition is two."""
    half: float
    """The same in bfloat16."""
    bytes: float
    """Bytes a second, read and written, of a copy larger than any cache."""

    def floor(self, work: Work, dtype: torch.dtype) -> float:
        """Seconds that this much work takes at least, if its precision is this."""
        return max(work.operations / (self.half if dtype == torch.bfloat16 else self.single), work.bytes / self.bytes)


@dataclass(frozen=True)
class Work:
    """What a stage does for one frame, in its plain form."""

    operations: float
    """Of multiplications and additions, with weights and between texels; other functions are not counted."""
    bytes: float
    """Weights, input and output, each once and in single precision. What lies between may stay in a cache."""


def measure_ceilings(repeats: int = 9) -> Ceilings:
    """Best of some; processor time, as all that is compared with them."""

    def best(run: Callable[[], object]) -> float:
        run()
        seconds = []
        for _ in range(repeats):
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
        return min(seconds)

    size = 2048
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b, out = (
            torch.ones(size, size, dtype=dtype),
            torch.ones(size, size, dtype=dtype),
            torch.empty(size, size, dtype=dtype),
        )
        rates.append(2 * size**3 / best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)))
    source, target = torch.zeros(2**27, dtype=torch.uint8), torch.zeros(2**27, dtype=torch.uint8)
    return Ceilings(rates[0], rates[1], 2 * source.numel() / best(lambda: target.copy_(source)))


def rendering_work(profile: Profile) -> Work:
    """Of looking up, decoding and compositing all samples of a frame."""
    options = profile.render
    rays = profile.neural_resolution**2
    points = rays * (options.samples_coarse + options.samples_fine)
    channels, hidden, outputs = profile.plane_channels, profile.decoder_hidden, 1 + profile.decoder_features
    lookups = 2 * 3 * 4 * channels
    decoder = 2 * (channels * hidden + hidden * outputs)
    blend = 2 * profile.decoder_features
    texels = 3 * channels * profile.plane_resolution**2
    return Work(float(points * (lookups + decoder + blend)), 4.0 * (texels + rays * (profile.decoder_features + 2)))


def module_work(run: Callable[[], Tensor], weights: int, inputs: int, frames: int) -> Work:
    """Of anything made of convolutions and products of matrices, counted while it runs.

    Args:
        run: draws `frames` frames.
        weights: numbers read for all of them together.
        inputs: numbers read for all of them.
        frames: how many there are.
    """
    with FlopCounterMode(display=False) as counter:
        out = run()
    return Work(counter.get_total_flops() / frames, 4.0 * (weights + inputs + out.numel()) / frames)

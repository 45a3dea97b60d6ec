"""Learning to hear: before anything is drawn, the audio encoder learns which lip shape each sound makes (seconds)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..capture.artifact import Capture
from .audio import AudioConfig, silent_window
from .clip import audio_neighbourhood
from .tokens import TokenEncoder


def learn_to_listen(
    encoder: TokenEncoder,
    audio: Float[Tensor, "frames channels columns"],
    shapes: Float[Tensor, "frames shapes"],
    closed_shape: Float[Tensor, " shapes"],
    config: AudioConfig,
    steps: int,
    seed: int,
    progress: Callable[[float, str], None],
    told: bool = False,
) -> None:
    """Teach the audio encoder to predict lip shapes.

    Args:
        encoder: its audio part is changed.
        audio: windows of the frames to learn from.
        shapes: their lip shapes, from `reader.LipSpace`.
        closed_shape: the shape of closed lips, which silence should give.
        config: of the windows.
        steps: to take.
        seed: of the frames chosen and of what varies.
        progress: called with (0, a line of numbers).
        told: whether true shapes will be told, which spread further than those that are heard.
    """
    encoder.audio_net.measure(audio)
    encoder.train()
    optimizer = torch.optim.AdamW(listening_parameters(encoder), lr=2e-3, weight_decay=1e-2)
    windows = encoder.config.windows
    nothing = silent_window(config)
    silence = nothing.expand(2, windows, -1, -1)
    for step in range(steps):
        rng = np.random.default_rng([seed, 4, step])
        optimizer.param_groups[0]["lr"] = 2e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        index = torch.from_numpy(rng.integers(0, len(audio), 48))
        around = audio_neighbourhood(audio, index, windows, nothing)
        heard = torch.cat([augment(around, config, rng), silence])
        wanted = torch.cat([shapes[index], closed_shape.expand(2, -1)])
        loss = F.mse_loss(encoder.lips(encoder.hear(heard)), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 25 == 0:
            progress(0.0, f"listening {step + 1}/{steps} error {float(loss.detach()):.3f}")
    # From here on its codes are looked at by another network, which should not have to see through the noise of dropout.
    encoder.eval()
    with torch.no_grad():
        pieces = torch.arange(len(audio)).split(128)
        codes = torch.cat([encoder.hear(audio_neighbourhood(audio, piece, windows, nothing)) for piece in pieces])
        encoder.settle(encoder.tell(codes, shapes) if told else codes)


def listening_parameters(encoder: TokenEncoder) -> list[nn.Parameter]:
    """The part of the encoder that hears."""
    modules = (encoder.audio_net, encoder.audio_attention, encoder.lips)
    return [parameter for module in modules for parameter in module.parameters()]


def augment(
    heard: Float[Tensor, "batch windows channels columns"], audio: AudioConfig, rng: np.random.Generator
) -> Float[Tensor, "batch windows channels columns"]:
    """Another level (0.9 dB) and a little noise: what must not change the lips."""
    gain = torch.zeros(len(heard), 1, heard.shape[2], 1)
    gain[:, :, : audio.bands] = torch.from_numpy(rng.normal(0, 0.03, (len(heard), 1, 1, 1))).float()
    return heard + gain + torch.from_numpy(rng.standard_normal(heard.shape, dtype=np.float32)) * 0.02


def closed_frames(capture: Capture) -> np.ndarray:
    """Which training frames have their lips as closed as the tightest tenth of them."""
    gap = capture.lip_gap[slice(*capture.train)]
    return gap <= np.quantile(gap, 0.1)

"""When somebody speaks: silero's voice activity detector, given as a probability for each video frame.

Its package runs a TorchScript file, which holds a pickle, and none are read here. Beside it lies a safetensors file with
weights of the same network from another training, which the package describes for tinygrad. So the network is written out
below, and the package itself is never imported: it would set torch to one thread for the whole process.

Source: Silero Team, "Silero VAD", https://github.com/snakers4/silero-vad (MIT), version 6, 16 kHz.

Letters: N samples at 16 kHz, C chunks of 512 samples, F frames of 640 samples.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ModelMissingError
from ..video.clock import SAMPLES_PER_FRAME

CHUNK, CONTEXT, FFT, HOP = 512, 64, 256, 128
"""Samples that each answer is about, samples before them that it also sees, size and step of the transform."""
BLOCK = 2048
"""Chunks that are judged at once, about a minute, so that memory does not grow with the sound."""
WEIGHTS = Path("data") / "silero_vad_16k.safetensors"


class VoiceNetwork(nn.Module):
    """Spectra of a chunk, four convolutions over them, and a memory that runs along the sound; names are the file's."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, FFT + 2, FFT, stride=HOP, bias=False)
        self.conv1 = nn.Conv1d(FFT // 2 + 1, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(
        self, windows: Float[Tensor, "chunks 576"], state: tuple[Tensor, Tensor] | None
    ) -> tuple[Float[Tensor, " chunks"], tuple[Tensor, Tensor]]:
        """Consecutive chunks, each after its context, to probabilities, and the memory with which the next ones go on."""
        x = F.pad(windows[:, None], (0, CONTEXT), mode="reflect")
        real, imaginary = self.stft_conv(x).chunk(2, dim=1)  # [C, 129, 4] each
        x = torch.sqrt(real**2 + imaginary**2)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(layer(x))
        memory = []
        for column in x[:, None, :, 0]:  # [1, 128]: a chunk's four spectra have become one
            state = self.lstm_cell(column, state)
            memory.append(state[0])
        assert state is not None, "there is at least one chunk"
        return torch.sigmoid(self.final_conv(F.relu(torch.cat(memory))[:, :, None])).flatten(), state


@torch.no_grad()
def voice(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " frames"]:
    """How probable it is, 0..1, that somebody speaks in each whole frame (of 1/25 s) of a sound.

    Args:
        samples: mono, 16 kHz, -1..1.

    Raises:
        ModelMissingError: the package silero-vad is not installed as it should be.
    """
    frames = len(samples) // SAMPLES_PER_FRAME
    if frames == 0:
        return np.zeros(0)
    probabilities = _chunk_probabilities(samples)
    # Chunks last 32 ms and frames 40, so a frame's middle lies between those of two chunks.
    middles = (np.arange(frames) + 0.5) * SAMPLES_PER_FRAME
    return np.interp(middles, (np.arange(len(probabilities)) + 0.5) * CHUNK, probabilities)


def _chunk_probabilities(samples: np.ndarray) -> np.ndarray:
    """[C] in float64; the last chunk is filled up with silence."""
    network = load_voice()
    count = -(-len(samples) // CHUNK)
    padded = torch.from_numpy(np.pad(samples.astype(np.float32, copy=False), (CONTEXT, count * CHUNK - len(samples))))
    windows = padded.unfold(0, CONTEXT + CHUNK, CHUNK)  # [C, 576]
    state, parts = None, []
    for block in windows.split(BLOCK):
        part, state = network(block, state)
        parts.append(part)
    return torch.cat(parts).double().numpy()


@lru_cache
def load_voice() -> VoiceNetwork:
    """The network with the weights of the installed package, frozen, read once.

    Raises:
        ModelMissingError: they are not there, or are another version's.
    """
    import safetensors
    import safetensors.torch

    found = importlib.util.find_spec("silero_vad")
    folders = found.submodule_search_locations if found else None
    # First weights are drawn at random, and a caller's random numbers must not depend on who has read the file before.
    with torch.random.fork_rng(devices=[]):
        network = VoiceNetwork()
    try:
        if not folders:
            raise FileNotFoundError("the package is not installed")
        network.load_state_dict(safetensors.torch.load_file(Path(folders[0]) / WEIGHTS))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise ModelMissingError(
            f"The voice detector cannot be read ({error}). It comes with the package silero-vad; "
            "install the version that was tested: pip install --no-deps silero-vad==6.2.3"
        ) from error
    return network.eval().requires_grad_(False)

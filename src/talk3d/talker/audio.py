"""Sound to features: one window of log-mel bands, phones and mouth shapes per video frame, in constant memory.

Sound is mono at 16 kHz, video runs at 25 frames/s, so a frame lasts 640 samples. Letters: T video frames, M mel bands,
P phones, E numbers of the ear, K columns of a window (10 ms each).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import tee
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..capture.ahead import alone
from ..errors import ConfigError
from ..judges.ear import LEVEL, ear_columns, load_ear
from ..mel import log_mel
from ..phone_decoder import HOP, PHONES
from ..video.clock import AUDIO_RATE, FPS, SAMPLES_PER_FRAME
from .logits import LogitsConfig, hub_recogniser, logit_windows
from .phones import phone_columns

BLOCK = 50
"""Frames analysed at a time."""
SPEECH_RMS = LEVEL
"""Level to which the speaking parts of a recording are brought before analysis."""
NOTHING = 1e-8
"""Power, -80 dBFS, below which nothing was said."""


@dataclass(frozen=True)
class AudioConfig:
    """The feature extractor. It is stored in the avatar: weights trained with one do not work with another."""

    bands: int = 40
    """Mel bands, M."""
    columns: int = 32
    """Columns of a window, K; 10 ms each, centred on the video frame."""
    hop: int = 160
    """Samples between columns."""
    window: int = 400
    """Samples under the Hann window."""
    fft: int = 512
    low: float = 60.0
    """Lowest frequency, Hz."""
    high: float = 7600.0
    """Highest frequency, Hz."""
    floor: float = 1e-5
    """Power below which everything is silence, after loudness normalisation."""
    phones: bool = True
    """Add CMU pocketsphinx all-phone evidence: what is said, whoever says it."""
    ear: bool = True
    """Add what the shipped ear hears: the mouth's shape, whoever speaks."""
    extractor: Literal["mel"] = "mel"
    """Tells these features from a recogniser's (`LogitsConfig`) in an avatar's manifest."""

    def __post_init__(self) -> None:
        if self.columns % 8 or SAMPLES_PER_FRAME % self.hop:
            raise ConfigError(
                f"`columns` is {self.columns} and `hop` is {self.hop}: the encoder needs a multiple of 8 columns, and a video "
                f"frame ({SAMPLES_PER_FRAME} samples) a whole number of hops."
            )
        if (self.phones or self.ear) and self.hop != HOP:
            raise ConfigError(
                f"Phones and the ear's shapes come every {HOP} samples, but `hop` is {self.hop}. Set it to {HOP}, or `phones` "
                "and `ear` to False."
            )

    @property
    def channels(self) -> int:
        """Channels of a window: M, with phones P, with the ear E."""
        return self.bands + (len(PHONES) if self.phones else 0) + (load_ear().dims.outputs if self.ear else 0)

    @property
    def first_column(self) -> int:
        """Sample on which the first column of the first frame's window is centred; it lies before the recording.

        Column k of frame t is centred on sample 640 t + 320 + hop (k - (K - 1) / 2).
        """
        return SAMPLES_PER_FRAME // 2 - self.hop * (self.columns - 1) // 2


AnyAudioConfig = AudioConfig | LogitsConfig


def audio_config(fields: Mapping[str, Any]) -> AnyAudioConfig:
    """The features that an avatar's manifest names.

    Raises:
        ConfigError: this version does not know them.
    """
    if fields.get("extractor", "mel") == "mel":
        # Avatars from before there was an ear do not name it.
        return AudioConfig(**{"ear": False, **fields})
    return LogitsConfig(**fields)


class Loudness:
    """Finds the gain that brings the speaking parts of a recording to `SPEECH_RMS`; feed it all sound once.

    A part is speech if it lies within 20 dB of the loudest tenth. Silence asks for no gain.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._levels: list[np.ndarray] = []
        self._rest = np.zeros(0, np.float32)

    @classmethod
    def of(cls, chunks: Iterable[np.ndarray]) -> Loudness:
        """Of a whole recording given in chunks."""
        loudness = cls()
        for chunk in chunks:
            loudness.add(chunk)
        return loudness

    def add(self, samples: np.ndarray) -> None:
        self.samples += len(samples)
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        power = np.square(samples[:whole].reshape(-1, SAMPLES_PER_FRAME), dtype=np.float64).mean(1)
        self._levels.append(power.astype(np.float32))
        self._rest = samples[whole:]

    @property
    def gain(self) -> float:
        speech = _speech(np.concatenate(self._levels) if self._levels else np.zeros(0, np.float32))
        return _gain(float(speech.mean())) if len(speech) else 1.0


class RunningLoudness:
    """The gain for sound as it comes, of which nobody knows how loud it will be: that of `Loudness` over the last speech.

    It begins as if a second of speech at `SPEECH_RMS` had been heard, so its first gain is one. Pauses are not entered, or
    rooms would become as loud as voices; only what is quieter for minutes, as after a change of microphones, is.
    """

    MEMORY = 10 * FPS
    """Frames of speech that are remembered."""
    BELIEF = FPS
    """Frames that the level assumed at the beginning weighs as much as, until the memory is full."""
    PATIENCE = 180 * FPS
    """Frames of pause in which the limit of what is speech falls by 20 dB."""

    def __init__(self) -> None:
        self.gain = 1.0
        self._levels: deque[float] = deque(maxlen=self.MEMORY)
        self._pause = 0

    def add(self, samples: np.ndarray) -> float:
        """The gain after about a frame of sound more."""
        power = float(np.square(samples, dtype=np.float64).mean())
        known = float(np.quantile(self._levels, 0.9)) if self._levels else 0.1 * SPEECH_RMS**2
        if power < NOTHING or power < 0.01 * known * 0.01 ** (self._pause / self.PATIENCE):
            self._pause += 1
            return self.gain
        if power >= 0.01 * known:
            self._pause = 0
        self._levels.append(power)
        speech = _speech(np.array(self._levels, np.float32))
        belief = self.BELIEF if len(self._levels) < self.MEMORY else 0
        self.gain = _gain((belief * SPEECH_RMS**2 + float(speech.sum())) / (belief + len(speech)))
        return self.gain


def _speech(power: np.ndarray) -> np.ndarray:
    """Of the power of parts of a sound, those that are speech."""
    loud = float(np.quantile(power, 0.9)) if len(power) else 0.0
    return power[power > 0.01 * loud] if loud >= NOTHING else power[:0]


def _gain(power: float) -> float:
    return float(np.clip(SPEECH_RMS / math.sqrt(power), 0.02, 50.0))


def frame_windows(
    chunks: Iterable[np.ndarray], gain: float, config: AnyAudioConfig
) -> Iterator[Float[Tensor, "frames channels columns"]]:
    """Windows of consecutive video frames, in blocks: log-mel bands, phones and mouth shapes; or a recogniser's logits.

    There is one window for each begun video frame of sound; what lies before the beginning and after the end is silence. The
    windows do not depend on how the sound is cut into chunks.

    Args:
        chunks: sound in order, float32 in -1..1, any lengths.
        gain: factor on the sound, from `Loudness`. A recogniser sees to that itself.
        config: the feature extractor.

    Raises:
        ModelMissingError: the recogniser is not installed.
    """
    if isinstance(config, LogitsConfig):
        yield from logit_windows(chunks, config, hub_recogniser(config))
        return
    # Phones and shapes are heard some seconds ahead of the bands; only the chunks in between are kept.
    hearers = [hear for hear, asked in ((phone_columns, config.phones), (ear_columns, config.ear)) if asked]
    for_bands, *others = tee(chunks, 1 + len(hearers))
    streams = [hear(source, gain, config.first_column) for hear, source in zip(hearers, others, strict=True)]
    known = [next(stream) for stream in streams]  # [columns, channels] each
    step = SAMPLES_PER_FRAME // config.hop
    for bands in _log_mel_blocks(for_bands, gain, config):
        needed = (len(bands) - 1) * step + config.columns
        parts = [bands]
        for index, stream in enumerate(streams):
            while len(known[index]) < needed:
                known[index] = torch.cat([known[index], next(stream)])
            parts.append(known[index][:needed].unfold(0, config.columns, step))  # [T, channels, K]
            known[index] = known[index][len(bands) * step :]
        yield torch.cat(parts, 1)


@lru_cache
def silent_window(config: AnyAudioConfig) -> Float[Tensor, "channels columns"]:
    """The window of a frame around which there is no sound: digital silence, as all features hear it; do not change it.

    A recogniser's is zeros, as Talk3D pads what it hears.
    """
    if isinstance(config, LogitsConfig):
        return torch.zeros(config.channels, config.columns)
    with alone():  # it is part of a film's first and last frames, which do not depend on the number of threads
        windows = torch.cat(list(frame_windows([np.zeros(2 * AUDIO_RATE, np.float32)], 1.0, config)))
    return windows[len(windows) // 2].clone()


def _log_mel_blocks(
    chunks: Iterable[np.ndarray], gain: float, config: AudioConfig
) -> Iterator[Float[Tensor, "frames bands columns"]]:
    lead = config.fft // 2 - config.first_column
    buffer = np.zeros(max(0, lead), np.float32)
    received = 0
    start = 0
    source = iter(chunks)
    ended = False

    def needed(frames: int) -> int:
        return (frames - 1) * SAMPLES_PER_FRAME + (config.columns - 1) * config.hop + config.fft

    while True:
        while not ended and len(buffer) < needed(BLOCK):
            chunk = next(source, None)
            if chunk is None:
                ended = True
            else:
                buffer = np.concatenate([buffer, chunk.astype(np.float32) * gain])
                received += len(chunk)
        frames = BLOCK
        if ended:
            frames = min(BLOCK, -(-received // SAMPLES_PER_FRAME) - start)
            if frames <= 0:
                return
            buffer = np.pad(buffer, (0, max(0, needed(frames) - len(buffer))))
        yield _log_mel_windows(torch.from_numpy(buffer[: needed(frames)]), frames, config)
        buffer = buffer[frames * SAMPLES_PER_FRAME :]
        start += frames


def _log_mel_windows(samples: Tensor, frames: int, config: AudioConfig) -> Float[Tensor, "frames bands columns"]:
    bands = log_mel(
        samples, config.bands, config.fft, config.window, config.hop, AUDIO_RATE, config.low, config.high, config.floor
    )  # fmt: skip
    windows = bands.unfold(0, config.columns, SAMPLES_PER_FRAME // config.hop)
    return windows[:frames].contiguous()

"""Speaking live: sound in chunks as it comes, a frame as soon as the sound around it is there.

Letters: S side of the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import UInt8

from ..errors import ConfigError, MediaError
from ..video.clock import AUDIO_RATE, SAMPLES_PER_FRAME
from .drive import Blinks, Drive
from .live import LiveConfig, LiveFeatures
from .logits import LogitsConfig
from .speak import SpeakConfig, Speaker, marked

LOUDEST = 16.0
"""Samples beyond are no sound in -1..1, however hot."""


class Stream:
    """A talking head that listens. Give it sound with `push`, and say with `finish` that there will be no more.

    Frame t shows what is said in samples 640 t to 640 (t + 1), whatever the chunks; it comes `look_ahead` samples later.

    Args:
        speaker: the avatar.
        config: all but what `talk3d speak` needs for a Capture.
        live: how it listens.

    Raises:
        ConfigError: the avatar was imported and hears through a recogniser that needs whole recordings, or its lips are to
            move more or less.
    """

    def __init__(self, speaker: Speaker, config: SpeakConfig | None = None, live: LiveConfig | None = None):
        config, live = config or SpeakConfig(), live or LiveConfig()
        if isinstance(speaker.audio, LogitsConfig):
            raise ConfigError(
                "This avatar hears through a speech recogniser that needs the whole recording, so it cannot speak live. Give "
                "the recording to `talk3d speak`, or use an avatar that `talk3d train` made."
            )
        speaker.require_scalable(config.lips)
        self._speaker, self._config = speaker, config
        self._drive = Drive(speaker.motion, config.camera, Blinks(config.seed), config.blinks, config.motion)
        self._features = LiveFeatures(speaker.audio, speaker.network.config.tokens.windows, live)
        full = self._features.look_ahead
        self._look_ahead = full if live.look_ahead is None else min(full, round(live.look_ahead * AUDIO_RATE))
        self._waiting = np.zeros(0, np.float32)
        self._received = self._heard = self._drawn = 0
        self._ended = False

    @property
    def look_ahead(self) -> int:
        """Samples after its end that a frame waits for."""
        return self._look_ahead

    @property
    def latency(self) -> float:
        """Seconds from a frame's first sample to the sample that completes it: its own length and `look_ahead`."""
        return (SAMPLES_PER_FRAME + self._look_ahead) / AUDIO_RATE

    def push(self, chunk: np.ndarray) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        """The frames that a chunk completes, drawn as they are asked for.

        Args:
            chunk: the next samples, any number of them; float32 in -1..1, mono at 16 kHz.

        Raises:
            MediaError: it is not that. The stream goes on as if it had not been given.
        """
        if self._ended:
            raise MediaError("This stream was finished; make another `Stream` for more sound.")
        _require_sound(chunk)
        self._received += len(chunk)
        self._waiting = np.concatenate([self._waiting, chunk])
        return self._ready()

    def finish(self) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        """The frames of all sound that was begun and not shown yet; silence follows it."""
        self._ended = True
        return self._ready()

    def _ready(self) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        frames = -(-self._received // SAMPLES_PER_FRAME) if self._ended else None
        while frames is None or self._drawn < frames:
            due = (self._drawn + 1) * SAMPLES_PER_FRAME + self._look_ahead
            # Features are the same for any chunks because they hear the same pieces: all end where a frame is due.
            size = (due - self._heard - 1) % SAMPLES_PER_FRAME + 1
            if frames is not None and len(self._waiting) < size:
                self._waiting = np.pad(self._waiting, (0, size - len(self._waiting)))
            if len(self._waiting) < size:
                return
            piece, self._waiting = self._waiting[:size], self._waiting[size:]
            self._features.hear(piece)
            self._heard += size
            if self._heard == due:
                number, self._drawn = self._drawn, self._drawn + 1
                yield self._draw(number, frames)

    def _draw(self, number: int, frames: int | None) -> UInt8[np.ndarray, "side side 3"]:
        index = torch.tensor([number])
        motion, camera = self._drive.at(index), self._config.camera.at(index)
        (picture,) = self._speaker.draw(self._features.around(number, frames)[None], motion, camera, self._config.lips)
        return marked(picture) if self._config.mark else picture


def _require_sound(chunk: np.ndarray) -> None:
    if not isinstance(chunk, np.ndarray) or chunk.dtype != np.float32 or chunk.ndim != 1:
        shape = f"{chunk.dtype} {list(chunk.shape)}" if isinstance(chunk, np.ndarray) else type(chunk).__name__
        raise MediaError(
            f"A chunk of sound is {shape}; a stream hears float32 [samples] in -1..1, mono at {AUDIO_RATE} Hz. Take the mean "
            "of channels, and divide 16-bit samples by 32768."
        )
    peak = float(np.abs(chunk).max(initial=0.0))
    if not peak <= LOUDEST:
        raise MediaError(
            f"A chunk of sound reaches {peak:g}, but samples lie in -1..1. Divide 16-bit samples by 32768; if numbers are "
            "infinite or none, look for the fault before the stream."
        )

"""Live sound to features: what `audio.frame_windows` hears in a file, heard while the sound comes.

Everything is a line of columns, 10 ms each, which grows at its end: column c is centred on sample `first_column` + `hop` c, and
frame t's window is made of the columns from 4 t on. What is asked for and not there yet is filled in.
Letters: C columns, W windows around a frame, M channels and K columns of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import ConfigError
from ..judges import ear
from ..mel import log_mel
from ..phone_decoder import HOP, PHONES, SPAN, Listener
from ..video.clock import AUDIO_RATE, SAMPLES_PER_FRAME
from .audio import AudioConfig, RunningLoudness, silent_window
from .phones import QUIET, smooth

Fill = Literal["repeat", "silence"]

SETTLE = 12
"""Columns after which the decoder has mostly made up its mind about a phone."""
LEARN = 5
"""Pieces of sound after which the phone decoder's mean spectrum is renewed, unless there was a pause."""
PAUSE = 30
"""Columns without a phone that are a pause; an utterance also begins so many columns before it is heard."""
UTTERANCE, LONGEST = 1000, 2000
"""Columns after which an utterance ends at the next pause, and after which it ends in a word."""


@dataclass(frozen=True)
class LiveConfig:
    """How a stream listens."""

    look_ahead: float | None = 0.32
    """Seconds of sound after a frame's end that it waits for; None waits for all that it can hear of, 0.49 s for most avatars.
    What lies beyond 0.32 s changes no lips, 0.17 s keep most, and without any they are worse (docs/notebook.md)."""
    fill: Fill = "repeat"
    """What stands for sound that is not there yet when `look_ahead` is short: its last 10 ms again, or silence."""
    gain: float | None = None
    """Factor on the sound; None finds it while listening. `audio.Loudness` has a recording's."""

    def __post_init__(self) -> None:
        if self.look_ahead is not None and self.look_ahead < 0:
            raise ConfigError(
                f"look_ahead is {self.look_ahead:g} s, but no frame comes before its own sound. Set it to 0 or more, or None."
            )
        if self.gain is not None and self.gain <= 0:
            raise ConfigError(f"gain is {self.gain:g}; it is a factor above 0, or None to find it while listening.")


class Line:
    """The last columns of something that is heard over time; before the beginning there is silence.

    Args:
        silence: a column of it.
        keep: columns that are kept.
    """

    def __init__(self, silence: Float[Tensor, " channels"], keep: int):
        self.silence = silence
        self.known = 0
        """Columns heard so far."""
        self._kept = silence.expand(keep, -1)

    def put(self, start: int, columns: Float[Tensor, "columns channels"]) -> None:
        """Columns from `start` on, in place of those that were heard there."""
        keep = len(self._kept)
        older = self._kept[: max(0, keep - (self.known - start))]
        self._kept = torch.cat([older, columns])[-keep:]
        self.known = start + len(columns)

    def take(self, start: int, stop: int, fill: Fill) -> Float[Tensor, "columns channels"]:
        """Columns [start, stop); those that are not known yet are the last one known, or silence."""
        begin = self.known - len(self._kept)
        assert start >= begin, "columns that are still needed must be kept"
        there = self._kept[start - begin : max(0, stop - begin)]
        missing = stop - start - len(there)
        if not missing:
            return there
        last = self._kept[-1] if fill == "repeat" else self.silence
        return torch.cat([there, last.expand(missing, -1)])


class LiveBands:
    """Log-mel columns of sound as it comes; each is known once the sound under its window is.

    Args:
        config: the bands.
        keep: columns that are kept.
    """

    def __init__(self, config: AudioConfig, keep: int):
        self._config = config
        self._sound = np.zeros(config.fft // 2 - config.first_column, np.float32)
        self.line = Line(torch.full((config.bands,), -1.0), keep)

    def hear(self, sound: np.ndarray) -> None:
        config = self._config
        # The transform reaches further than the window, where it sees nothing.
        margin = (config.fft - config.window) // 2
        self._sound = np.concatenate([self._sound, sound])
        count = (len(self._sound) + margin - config.fft) // config.hop + 1
        if count > 0:
            padded = np.pad(self._sound, (0, margin))[: (count - 1) * config.hop + config.fft]
            columns = log_mel(
                torch.from_numpy(padded), config.bands, config.fft, config.window, config.hop, AUDIO_RATE,
                config.low, config.high, config.floor,
            )  # fmt: skip
            self.line.put(self.line.known, columns)
            self._sound = self._sound[count * config.hop :]


class LiveEar:
    """The ear's columns. Its convolutions look ahead; they run on what is known, and on what fills the rest.

    Args:
        config: of the features that the ear is a part of.
        keep: columns that are kept.
    """

    def __init__(self, config: AudioConfig, keep: int):
        self._network = ear.load_ear()
        self.reach = self._network.dims.blocks + 1
        """Frames on both sides that its code of a frame knows of."""
        bands = AudioConfig(
            ear.BANDS, config.columns, ear.HOP, ear.SPAN, ear.FFT, ear.LOW, ear.HIGH, ear.FLOOR, phones=False, ear=False
        )
        self.bands = LiveBands(bands, keep + (2 * self.reach + 2) * ear.COLUMNS)
        # Columns of the line before the first one of the first video frame, where the ear's own frames begin.
        self._skip = (ear.HOP // 2 - config.first_column) // ear.HOP

    def needed(self, stop: int) -> int:
        """Columns of bands that decide all columns up to `stop`."""
        return self._frames(0, stop)[1] * ear.COLUMNS + self._skip

    def take(self, start: int, stop: int, fill: Fill) -> Float[Tensor, "columns outputs"]:
        """Columns [start, stop)."""
        first, last = self._frames(start, stop)
        begin = first * ear.COLUMNS + self._skip
        bands = self.bands.line.take(begin, last * ear.COLUMNS + self._skip, fill)
        code, visemes = self._network(bands.T[None])
        heard = torch.cat([code[0], 2 * visemes[0].softmax(0) - 1]).T.repeat_interleave(ear.COLUMNS, 0)
        return heard[start - begin : stop - begin]

    def _frames(self, start: int, stop: int) -> tuple[int, int]:
        """The ear's frames that columns [start, stop) depend on, half-open."""
        inner = (start - self._skip) // ear.COLUMNS, (stop - 1 - self._skip) // ear.COLUMNS + 1
        return inner[0] - self.reach, inner[1] + self.reach


class LivePhones:
    """Phones, as the decoder understands the sound up to now; with more sound it changes its mind about the last ones.

    Args:
        config: of the features that phones are a part of.
        keep: columns that are kept.
    """

    def __init__(self, config: AudioConfig, keep: int):
        self._listener = Listener()
        self._keep = keep + PAUSE
        self.line = Line(torch.zeros(len(PHONES)), self._keep)
        # Sound from the beginning of a column on: the decoder's frames are centred on columns.
        self._sound = np.zeros(0, np.float32)
        self._from = self._utterance = self._pieces = 0
        self.hear(np.zeros(SPAN // 2 - config.first_column, np.float32))

    def hear(self, sound: np.ndarray) -> None:
        self._sound = np.concatenate([self._sound, sound])
        self._listener.hear(_int16(sound))
        self._pieces += 1
        self._read()
        paused = not self.line.take(self.line.known - PAUSE, self.line.known, "silence").any()
        if self._pieces % LEARN == 0:
            loud = self._loud(self.line.known - PAUSE, self.line.known).all()
            if paused or not loud:
                self._listener.ignore()
            else:
                self._listener.learn()
        length = self.line.known - self._utterance
        if length >= LONGEST or (length >= UTTERANCE and paused):
            self._cut()
        surplus = self.line.known - self._keep - self._from
        if surplus > 0:
            self._sound, self._from = self._sound[surplus * HOP :], self._from + surplus

    def take(self, start: int, stop: int, fill: Fill) -> Float[Tensor, "columns phones"]:
        """Columns [start, stop): -1 where a phone is not heard, 1 where it is."""
        return smooth(self.line.take(start - 3, stop + 3, fill))[3:-3] * 2 - 1

    def _read(self) -> None:
        """What the decoder thinks by now."""
        start = max(self._utterance, self._from)
        count = self._utterance + self._listener.frames - start
        if count <= 0:
            return
        heard = torch.zeros(count, len(PHONES))
        for name, begin, end in self._listener.segments():
            if name in PHONES:
                heard[max(0, self._utterance + begin - start) : max(0, self._utterance + end - start), PHONES.index(name)] = 1
        self.line.put(start, heard * self._loud(start, start + count)[:, None])

    def _loud(self, start: int, stop: int) -> Bool[Tensor, " columns"]:
        """In which of the columns [start, stop) there is any sound at all."""
        begin = max(0, start - self._from)
        sound = self._sound[begin * HOP : (stop - self._from - 1) * HOP + SPAN]
        return torch.from_numpy(np.abs(sound)).unfold(0, SPAN, HOP).amax(1) >= QUIET

    def _cut(self) -> None:
        """Begin another utterance a little before the last column that is known."""
        self._listener.cut()
        self._utterance = self.line.known - PAUSE
        self._listener.hear(_int16(self._sound[(self._utterance - self._from) * HOP :]))


def _int16(sound: np.ndarray) -> np.ndarray:
    return (sound.clip(-1, 1) * 32767).astype(np.int16)


class LiveFeatures:
    """The network's input from sound as it comes, in constant memory.

    Args:
        config: the feature extractor of the avatar.
        around: windows around a frame, W.
        live: how it listens.
    """

    def __init__(self, config: AudioConfig, around: int, live: LiveConfig):
        self._config, self._gain, self._fill = config, live.gain, live.fill
        self._before, self._after = around // 2, around - around // 2 - 1
        self._step = SAMPLES_PER_FRAME // config.hop
        self._loudness = RunningLoudness()
        self._last_gain = 1.0
        # A window's columns, and those that come in while it waits for the ear.
        keep = 2 * ((around - 1) * self._step + config.columns)
        self._bands = LiveBands(config, keep)
        self._phones = LivePhones(config, keep) if config.phones else None
        self._ear = LiveEar(config, keep) if config.ear else None

    @property
    def look_ahead(self) -> int:
        """Samples after the end of a frame that all its features know of."""
        config = self._config
        stop = self._after * self._step + config.columns
        ends = [config.first_column + (stop - 1) * config.hop + config.window // 2]
        if self._phones:
            ends.append(config.first_column + (stop - 1 + SETTLE) * HOP)
        if self._ear:
            ends.append(config.first_column + (self._ear.needed(stop) - 1) * HOP + ear.SPAN // 2)
        return max(0, max(ends) - SAMPLES_PER_FRAME)

    def hear(self, sound: np.ndarray) -> None:
        """A frame's length of sound or less, float32 in -1..1, which follows what came before."""
        gain = self._loudness.add(sound) if self._gain is None else self._gain
        # A step in the gain would be a click.
        ramp = np.linspace(gain if self._gain is not None else self._last_gain, gain, len(sound), dtype=np.float32)
        self._last_gain = gain
        for listener in (self._bands, self._phones, self._ear and self._ear.bands):
            if listener:
                listener.hear(sound * ramp)

    @torch.inference_mode()
    def around(self, frame: int, frames: int | None = None) -> Float[Tensor, "windows channels columns"]:
        """The windows around a frame, as they are heard by now.

        Args:
            frame: its number; numbers ascend from call to call.
            frames: of the sound, if it has ended; beyond is silence.
        """
        start = (frame - self._before) * self._step
        stop = (frame + self._after) * self._step + self._config.columns
        parts = [self._bands.line.take(start, stop, self._fill)]
        parts += [heard.take(start, stop, self._fill) for heard in (self._phones, self._ear) if heard]
        windows = torch.cat(parts, 1).unfold(0, self._config.columns, self._step).clone()  # [W, M, K]
        number = torch.arange(frame - self._before, frame + self._after + 1)
        windows[(number < 0) | (number >= (number[-1] + 1 if frames is None else frames))] = silent_window(self._config)
        return windows

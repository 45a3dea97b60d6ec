"""What a speech recogniser makes of sound, as audio features: one window of its logits per video frame (method 4.3).

Any recogniser of the Hugging Face hub will do that hears 16 kHz and takes a step every 20 ms, such as wav2vec2. Only avatars
that ask for one need it. Letters: T video frames, M logits of a step, K steps of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ConfigError, ModelMissingError
from ..video.clock import AUDIO_RATE

STEP = 320
"""Samples between two steps; a video frame lasts two."""
CONTEXT, PIECE = 10, 50
"""Steps that are heard on either side of a piece, and steps of a piece: recognisers want a second or more at a time."""

Recogniser = Callable[[Float[np.ndarray, " samples"]], Float[Tensor, "steps channels"]]
"""Sound at 16 kHz to logits."""


@dataclass(frozen=True)
class LogitsConfig:
    """A recogniser. It is stored in the avatar: weights trained with one do not work with another."""

    extractor: str
    """`hf:` and the model's name on the hub, or its folder."""
    channels: int = 44
    """Logits of a step, M; the default is that of Talk3D's recogniser."""
    columns: int = 16
    """Steps of a window, K; half of them before the video frame."""

    def __post_init__(self) -> None:
        if not self.extractor.startswith("hf:") or self.columns % 8:
            raise ConfigError(
                f"Audio features `{self.extractor}` in windows of {self.columns}: no such features are known. Use `hf:MODEL`, "
                "and a multiple of 8 columns."
            )


def logit_windows(
    chunks: Iterable[np.ndarray], config: LogitsConfig, recognise: Recogniser
) -> Iterator[Float[Tensor, "frames channels columns"]]:
    """Windows of consecutive video frames: that of frame f holds the steps 2 f - K / 2 .. 2 f + K / 2 - 1.

    There is one window for each begun video frame of sound, and zeros where it has no step. The windows do not depend on how
    the sound is cut into chunks.

    Args:
        chunks: sound in order, float32 in -1..1, any lengths.
        config: the recogniser's sizes.
        recognise: the recogniser.
    """
    frames = 0
    waiting = torch.zeros(config.columns // 2, config.channels)
    for steps, ended in _pieces(chunks, config, recognise):
        waiting = torch.cat([waiting, steps])
        if ended is not None:
            waiting = torch.cat([waiting, torch.zeros(config.columns, config.channels)])
        count = max(0, (len(waiting) - config.columns) // 2 + 1)
        if ended is not None:
            count = ended - frames
        if count:
            yield waiting.unfold(0, config.columns, 2)[:count].contiguous()
            waiting = waiting[2 * count :]
            frames += count


def _pieces(
    chunks: Iterable[np.ndarray], config: LogitsConfig, recognise: Recogniser
) -> Iterator[tuple[Float[Tensor, "steps channels"], int | None]]:
    """Steps in order, and with the last of them how many video frames the sound has."""
    whole = (CONTEXT + PIECE + CONTEXT) * STEP
    sound = np.zeros(CONTEXT * STEP, np.float32)
    received = done = 0
    source = iter(chunks)
    ended = False
    while not ended:
        while len(sound) < whole and not ended:
            chunk = next(source, None)
            ended = chunk is None
            if chunk is not None:
                sound = np.concatenate([sound, chunk.astype(np.float32)])
                received += len(chunk)
        while len(sound) >= whole or (ended and done * STEP < received):
            piece = sound[:whole]
            logits = recognise(np.pad(piece, (0, whole - len(piece))))
            if logits.shape[1] != config.channels or len(logits) < CONTEXT + PIECE:
                raise ConfigError(
                    f"`{config.extractor}` makes {logits.shape[1]} logits, {len(logits)} times in {whole / AUDIO_RATE:g} s, "
                    f"but the avatar was trained with {config.channels}, every 20 ms. Use the recogniser that it was trained "
                    "with."
                )
            count = min(PIECE, -(-received // STEP) - done) if ended else PIECE
            sound, done = sound[PIECE * STEP :], done + count
            yield logits[CONTEXT : CONTEXT + count], None
    yield torch.zeros(0, config.channels), -(-received // (2 * STEP))


@cache
def hub_recogniser(config: LogitsConfig) -> Recogniser:
    """The recogniser of a config, from its folder or the hub's cache on this machine.

    Raises:
        ModelMissingError: `transformers` is not installed, or the model is not here.
    """
    try:
        import transformers
    except ImportError as error:
        raise ModelMissingError(
            f"This avatar hears through `{config.extractor}`, and `transformers`, which runs that, is not installed. "
            "Install it: pip install transformers."
        ) from error
    name = config.extractor.removeprefix("hf:")
    try:
        # Nothing is fetched while an avatar speaks. And older weights on the hub are pickles, which could run anything.
        prepare = transformers.AutoFeatureExtractor.from_pretrained(name, local_files_only=True)
        model = transformers.AutoModelForCTC.from_pretrained(name, local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise ModelMissingError(
            f"The recogniser `{name}`, through which this avatar hears, is not on this machine: {error} Fetch it once, "
            f"with its weights as safetensors: huggingface-cli download {name}. Or name the folder where it is."
        ) from error

    @torch.inference_mode()
    def recognise(sound: np.ndarray) -> Tensor:
        values = prepare(sound, sampling_rate=AUDIO_RATE, return_tensors="pt").input_values
        return model(values).logits[0].float()

    return recognise

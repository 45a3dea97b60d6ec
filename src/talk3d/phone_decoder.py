"""Which phones a sound holds, and when: the pretrained decoder that comes with CMU pocketsphinx.

It decodes the sound against a model of which phones follow which, without words. It was trained on American English and hears
other languages with its ears. The sound is mono at 16 kHz.
"""

import ctypes
import json
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int16

PHONES: tuple[str, ...] = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""The phones of the American English model, in ARPAbet. Silence and noises are no phone."""
HOP = 160
"""Samples between columns, and between the decoder's frames."""
SPAN = 410
"""Samples under a frame of the decoder."""
TYPICAL_MEAN = (50.0, 5.0, 3.0, 3.0, -9.0, -5.0, -14.0, 0.0, 0.0, -3.0, -3.0, -3.0, 2.0)
"""The mean cepstrum that a `Listener` begins with: rounded, of voices at a root mean square of 0.07."""
BELIEF = 50
"""Frames that it weighs as much as."""
MEMORY = 2000
"""Frames that all that was heard weighs as much as, at most."""
GIVEN = 500
"""Frames that the decoder takes a mean for that it is given (CMN_WIN in sphinxbase)."""


def segments(sound: Int16[np.ndarray, " samples"]) -> list[tuple[str, int, int]]:
    """What is heard in a sound and in which frames [start, end); frame i covers samples `HOP` i to `HOP` i + `SPAN`.

    Other threads run meanwhile, where the decoder's library lets us (see `_Library`); those that call this wait for each other.
    """
    with _one_at_a_time:
        decoder = _decoder()
        # Without this, what was decoded before changes the result.
        decoder.reinit_feat()
        decoder.start_utt()
        try:
            decoder.process_raw(sound.tobytes(), full_utt=True)
        finally:  # a decoder left within an utterance would refuse the next one
            decoder.end_utt()
        return [(segment.word, segment.start_frame, segment.end_frame + 1) for segment in decoder.seg() or ()]


_one_at_a_time = threading.Lock()
"""Holds whoever uses `_decoder`."""


@lru_cache
def _decoder() -> Any:
    """The decoder, made once: that takes as long as decoding a second of sound."""
    try:
        return _UnlockedDecoder()
    except (AttributeError, OSError):  # a platform that shows a module's functions to Python only
        return _new_decoder()


class _Segment(NamedTuple):
    """As pocketsphinx's."""

    word: str
    start_frame: int
    end_frame: int


class _UnlockedDecoder:
    """What `segments` needs of `pocketsphinx.Decoder`, by the C functions that it is made of.

    The class holds Python's lock while it decodes: most of a second for 24 s of sound, in which nothing else is done. ctypes
    lets go of it.

    Raises:
        AttributeError: the module does not show its functions.
        OSError: it is no library that can be opened.
    """

    def __init__(self) -> None:
        from pocketsphinx import _pocketsphinx

        self._library = library = ctypes.CDLL(_pocketsphinx.__file__)
        pointer, number = ctypes.c_void_p, ctypes.c_int
        for name, result, arguments in (
            ("ps_config_parse_json", pointer, [pointer, ctypes.c_char_p]),
            ("ps_init", pointer, [pointer]),
            ("ps_reinit_feat", number, [pointer, pointer]),
            ("ps_start_utt", number, [pointer]),
            ("ps_process_raw", number, [pointer, ctypes.c_char_p, ctypes.c_size_t, number, number]),
            ("ps_end_utt", number, [pointer]),
            ("ps_seg_iter", pointer, [pointer]),
            ("ps_seg_word", ctypes.c_char_p, [pointer]),
            ("ps_seg_frames", None, [pointer, ctypes.POINTER(number), ctypes.POINTER(number)]),
            ("ps_seg_next", pointer, [pointer]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        config = library.ps_config_parse_json(None, json.dumps(_settings()).encode())
        self._decoder = library.ps_init(config)
        assert self._decoder, "the class was made of the same settings"

    def reinit_feat(self) -> None:
        self._succeed(self._library.ps_reinit_feat(self._decoder, None))

    def start_utt(self) -> None:
        self._succeed(self._library.ps_start_utt(self._decoder))

    def process_raw(self, sound: bytes, full_utt: bool) -> None:
        self._succeed(self._library.ps_process_raw(self._decoder, sound, len(sound) // 2, False, full_utt))

    def end_utt(self) -> None:
        self._succeed(self._library.ps_end_utt(self._decoder))

    def seg(self) -> Iterator[_Segment]:
        start, end = ctypes.c_int(), ctypes.c_int()
        segment = self._library.ps_seg_iter(self._decoder)
        while segment:
            self._library.ps_seg_frames(segment, start, end)
            yield _Segment(self._library.ps_seg_word(segment).decode(), start.value, end.value)
            segment = self._library.ps_seg_next(segment)

    def _succeed(self, code: int) -> None:
        if code < 0:
            raise RuntimeError("The phone decoder failed.")


def _new_decoder() -> Any:
    import pocketsphinx

    # Words are not looked for, so neither their model nor their dictionary is read.
    return pocketsphinx.Decoder(lm=None, dict=None, **_settings())


def _settings() -> dict[str, str | float]:
    import pocketsphinx

    model, phones = (pocketsphinx.get_model_path(f"en-us/{name}") for name in ("en-us", "en-us-phone.lm.bin"))
    return {"hmm": model, "allphone": phones, "lw": 2.0, "beam": 1e-20, "pbeam": 1e-20, "loglevel": "FATAL"}


class Listener:
    """The decoder on sound as it comes: what has been heard so far, which later sound may still change.

    An utterance is what the decoder keeps in mind, so it is cut now and then. From all sound it subtracts a mean spectrum; its
    own running mean is slow to find that of a voice, so the mean is kept here.
    """

    def __init__(self) -> None:
        self._decoder = _new_decoder()
        self._mean = np.array(TYPICAL_MEAN)
        self._weight = BELIEF
        self._counted = 0
        self._decoder.start_utt()
        self._set_mean()

    def hear(self, sound: Int16[np.ndarray, " samples"]) -> None:
        """Any number of samples, which follow those before."""
        self._decoder.process_raw(sound.tobytes(), full_utt=False)

    def learn(self) -> None:
        """Believe in what was heard since the last call of this or of `ignore`; there must be no digital silence in it."""
        frames = self._decoder.n_frames() - self._counted
        if frames <= 0:
            return
        mixed = np.array([float(number) for number in self._decoder.get_cmn(True).split(",")])
        # The decoder's answer is the mean of the frames and of the mean that it was given.
        heard = mixed + (mixed - self._mean) * GIVEN / frames
        self._weight = min(self._weight + frames, MEMORY)
        self._mean += (heard - self._mean) * frames / self._weight
        self._set_mean()

    def ignore(self) -> None:
        """Do not believe in what was heard since the last call of this or of `learn`, as of pauses."""
        self._set_mean()

    def cut(self) -> None:
        """Forget all but the mean spectrum. What is heard next begins a new utterance, at frame 0."""
        self._decoder.end_utt()
        self._decoder.start_utt()
        self._set_mean()

    @property
    def frames(self) -> int:
        """Frames of this utterance of which the decoder has an opinion."""
        return max(0, self._decoder.n_frames() - 1)  # it has none of its last frame

    def segments(self) -> list[tuple[str, int, int]]:
        """As the function, of this utterance."""
        return [(segment.word, segment.start_frame, segment.end_frame + 1) for segment in self._decoder.seg() or ()]

    def _set_mean(self) -> None:
        self._decoder.set_cmn(",".join(f"{number:.4f}" for number in self._mean))
        self._counted = self._decoder.n_frames()

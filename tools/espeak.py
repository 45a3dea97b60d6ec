"""espeak-ng's voices, called as a library for its phoneme timings (Debian: `apt-get install libespeak-ng1`)."""

import ctypes

import numpy as np
import soxr

RATE = 16000
MNEMONICS, IPA = 1, 3
"""How phonemes are named: espeak-ng's own names, or the International Phonetic Alphabet."""
SPEED, PITCH, RANGE = 1, 3, 4
"""Numbers of the parameters."""


class _Identifier(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text", ctypes.c_int), ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int), ("user", ctypes.c_void_p), ("id", _Identifier),
    ]  # fmt: skip


class Synthesiser:
    """The library, started once per process; `names` is MNEMONICS or IPA."""

    def __init__(self, names: int = MNEMONICS):
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._rate = self._library.espeak_Initialize(1, 0, None, names)  # 1: the sound is retrieved, not played

    def __call__(
        self, text: str, voice: str, speed: int = 150, pitch: int = 50, pitch_range: int = 50
    ) -> tuple[np.ndarray, list[tuple[float, str]]]:
        """Speech at 16 kHz, and when (seconds) each phoneme begins; a pause has an empty name. `voice` as in `en-us+m3`."""
        chunks, events = [], []

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        def receive(samples, count, event):
            if samples and count:
                chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
            index = 0
            while event[index].type:
                if event[index].type == 7:
                    events.append((event[index].milliseconds / 1000, event[index].id.string.decode(errors="ignore")))
                index += 1
            return 0

        library = self._library
        library.espeak_SetSynthCallback(receive)
        if library.espeak_SetVoiceByName(voice.encode()):
            raise SystemExit(f"espeak-ng has no voice `{voice}`.")
        for number, value in ((SPEED, speed), (PITCH, pitch), (RANGE, pitch_range)):
            library.espeak_SetParameter(number, value, 0)
        data = text.encode()
        library.espeak_Synth(data, len(data) + 1, 0, 0, 0, 1, None, None)
        library.espeak_Synchronize()
        return soxr.resample(np.concatenate(chunks).astype(np.float32) / 32768, self._rate, RATE), events

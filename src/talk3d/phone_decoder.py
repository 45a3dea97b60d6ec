"""Which phones a sound holds, and when: the pretrained decoder that comes with CMU pocketsphinx.

It decodes the sound against a model of which phones follow which, without words. It was trained on American English and hears
other languages with its ears. The sound is mono at 16 kHz.
"""

from functools import lru_cache
from typing import Any

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


def segments(sound: Int16[np.ndarray, " samples"]) -> list[tuple[str, int, int]]:
    """What is heard in a sound and in which frames [start, end); frame i covers samples `HOP` i to `HOP` i + `SPAN`."""
    decoder = _decoder()
    # Without this, what was decoded before changes the result.
    decoder.reinit_feat()
    decoder.start_utt()
    try:
        decoder.process_raw(sound.tobytes(), full_utt=True)
    finally:  # a decoder left within an utterance would refuse the next one
        decoder.end_utt()
    return [(segment.word, segment.start_frame, segment.end_frame + 1) for segment in decoder.seg() or ()]


@lru_cache
def _decoder() -> Any:
    """The decoder, made once: that takes as long as decoding a second of sound. It serves one thread."""
    import pocketsphinx

    phones = pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin")
    # Words are not looked for, so neither their model nor their dictionary is read.
    return pocketsphinx.Decoder(lm=None, dict=None, allphone=phones, lw=2.0, beam=1e-20, pbeam=1e-20, loglevel="FATAL")

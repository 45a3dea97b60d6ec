"""Pauses and closures in sound: counted where they were planted."""

from pathlib import Path

import numpy as np
import soundfile

import talk3d
from talk3d.evaluate.film import Sound
from talk3d.evaluate.speech import SETTLE, listen, pauses
from talk3d.phone_decoder import HOP, segments
from talk3d.video.clock import SAMPLES_PER_FRAME

VOICE = Path(talk3d.__file__).parent / "assets" / "drive.flac"


def test_pauses_are_quiet_stretches_without_their_ends() -> None:
    level = np.full(100, 0.1)
    level[20:40] = 0.001
    level[50:54] = 0.0  # too short
    level[60:80] = 0.02  # soft speech
    expected = np.zeros(100, bool)
    expected[20 + SETTLE : 40 - SETTLE] = True
    assert np.array_equal(pauses(level), expected)
    assert np.array_equal(pauses(10 * level), expected)
    assert len(pauses(level[:0])) == 0


def test_planted_silence_is_found(tmp_path: Path) -> None:
    voice, rate = soundfile.read(VOICE, dtype="float32")
    assert rate == 16000
    voice = voice[8000:-8000]  # without the half seconds of silence around it
    soundfile.write(tmp_path / "a.wav", np.concatenate([voice, np.zeros(20 * SAMPLES_PER_FRAME, np.float32), voice]), 16000)
    sound = Sound(tmp_path / "a.wav", tmp_path / "scratch")
    speech = listen(sound, 0, sound.frames)
    alone = pauses(
        np.sqrt((voice[: len(voice) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME) ** 2).mean(1))
    )
    first = -(-len(voice) // SAMPLES_PER_FRAME)
    assert speech.silent[first + SETTLE + 1 : first + 20 - SETTLE - 1].all()
    assert speech.pauses >= 1 + 2 * int((np.diff(alone.astype(int)) == 1).sum())


def test_closures_are_the_phones_of_the_decoder_on_the_clock_of_frames(tmp_path: Path) -> None:
    """A range in the middle has those of the whole that lie in it: what was heard before does not matter much."""
    voice, _ = soundfile.read(VOICE, dtype="float32")
    sound = Sound(VOICE, tmp_path / "scratch")
    whole = listen(sound, 0, sound.frames)
    # The decoder is given a hundred frames of silence before and after.
    padded = np.pad(voice, (100 * SAMPLES_PER_FRAME, 100 * SAMPLES_PER_FRAME + sound.frames * SAMPLES_PER_FRAME - len(voice)))
    heard = [
        ((a + b) / 2 * HOP / SAMPLES_PER_FRAME - 100, name)
        for name, a, b in segments((padded * 32767).astype(np.int16))
        if name in "PBM"
    ]
    assert len(heard) == len(whole.closures) >= 3
    for (middle, _), (start, stop) in zip(heard, whole.closures, strict=True):
        assert start <= middle < stop
        assert 3 <= stop - start < 15
    part = listen(sound, 50, 150)
    inside = whole.closures[(whole.closures[:, 0] >= 52) & (whole.closures[:, 1] <= 148)] - 50
    assert len(inside) >= 1
    common = [pair for pair in inside.tolist() if any(abs(pair[0] - a) <= 1 for a, _ in part.closures.tolist())]
    assert len(common) >= len(inside) - 1

"""What a sound is like, on sounds made to be so."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from talk3d.capture import listening
from talk3d.capture.listening import SPEAKS, bandwidth, levels, lip_motion, listen, pauses, strange_voices
from talk3d.capture.voice import voice

ASSETS = Path(listening.__file__).parents[1] / "assets"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Nine seconds of a synthesiser's speech between pauses of digital silence, twice."""
    once = soundfile.read(ASSETS / "drive.flac", dtype="float32")[0]
    pause = np.zeros(32000, np.float32)
    both = np.concatenate([pause, once, pause, once, pause])
    return both[: len(both) // 640 * 640]


@pytest.mark.parametrize("level", [0.0, -12.0, -60.0])
def test_levels_of_a_square_wave(level: float) -> None:
    square = (10 ** (level / 20) * np.sign(np.sin(2 * np.pi * 100.3 * np.arange(16000) / 16000 + 0.1))).astype(np.float32)
    assert levels(square) == pytest.approx(np.full(25, level), abs=0.01)
    assert len(levels(np.zeros(639, np.float32))) == 0


@pytest.mark.parametrize("ratio", [5.0, 14.0, 16.0, 30.0])
def test_planted_noise_is_told(speech: np.ndarray, ratio: float) -> None:
    """White noise so far below the speech, whose level is that of the frames in which the synthesiser makes a sound."""
    sounds = levels(speech) > -60
    power = (10 ** (levels(speech)[sounds] / 10)).mean()
    noise = np.random.default_rng(0).normal(0, np.sqrt(power / 10 ** (ratio / 10)), len(speech))
    noisy = (speech + noise).astype(np.float32)
    found = listen(noisy, voice(noisy))
    assert found.signal_to_noise == pytest.approx(ratio, abs=1.5)
    assert found.noise_level == pytest.approx(10 * np.log10(power) - ratio, abs=0.5)


def test_clean_speech_and_no_speech(speech: np.ndarray) -> None:
    found = listen(speech, voice(speech))
    assert found.signal_to_noise > 50
    assert found.voiced_seconds == pytest.approx((levels(speech) > -60).sum() / 25, rel=0.15)
    assert found.seconds == len(speech) / 16000
    silent = listen(np.zeros(64000, np.float32), np.zeros(100))
    assert (silent.loudness, silent.speech_level, silent.signal_to_noise, silent.bandwidth) == (None, None, None, None)
    assert listen(speech[64000:96000], np.ones(50)).noise_level is None  # no pause to hear noise in
    assert listen(np.zeros(6400, np.float32), np.ones(10)).bandwidth is None


@pytest.mark.parametrize(("rate", "edge"), [(6000, 3000), (8000, 4000), (12000, 6000), (16000, 8000)])
def test_the_bandwidth_of_narrow_sound(speech: np.ndarray, rate: int, edge: float) -> None:
    """The same speech after a device of fewer samples a second."""
    narrow = soxr.resample(soxr.resample(speech, 16000, rate), rate, 16000)[: len(speech)] if rate < 16000 else speech
    narrow = np.pad(narrow, (0, len(speech) - len(narrow)))
    assert bandwidth(narrow, voice(narrow) > SPEAKS) == pytest.approx(edge, abs=260)


def test_pauses_keep_their_distance() -> None:
    voiced = np.zeros(100)
    voiced[40:60] = 0.9
    found = np.flatnonzero(~pauses(voiced))
    assert (found[0], found[-1]) == (38, 61)
    assert not pauses(np.full(20, 0.3)).any()


def test_how_much_lips_move() -> None:
    time = np.arange(200) / 25
    gap = np.where(time < 4, 0.05 + 0.02 * np.sin(2 * np.pi * 3 * time), 0.05)
    motion = lip_motion(gap, np.full(200, 0.4))
    assert motion[30:70] == pytest.approx(np.full(40, 0.02 / np.sqrt(2)), rel=0.05)
    assert motion[120:].max() < 1e-12
    assert lip_motion(np.full(200, 0.1), gap)[50] == pytest.approx(motion[50] / 2, rel=1e-6)


@pytest.mark.parametrize(("rest", "found"), [(0.0, 0), (1.5, 0), (2.5, 1), (8.0, 1)])
def test_a_second_voice_needs_two_seconds_of_still_lips(rest: float, found: int) -> None:
    rng = np.random.default_rng(0)
    time = np.arange(1000) / 25
    still = (time >= 10) & (time < 10 + rest)
    gap = np.where(still, 0.02, 0.06 + 0.04 * np.sin(2 * np.pi * 2 * time)) + rng.normal(0, 0.001, 1000)
    motion = lip_motion(gap, np.full(1000, 0.4))
    stretches = strange_voices(np.full(1000, 0.9), motion, [slice(0, 1000)])
    assert len(stretches) == found
    for each in stretches:
        assert (each.start / 25, each.stop / 25) == pytest.approx((10, 10 + rest), abs=0.25)
    assert not strange_voices(np.zeros(1000), motion, [slice(0, 1000)])


def test_lips_at_rest_over_a_seam_are_two_short_rests() -> None:
    time = np.arange(1000) / 25
    gap = np.where((time >= 10) & (time < 12.2), 0.02, 0.06 + 0.04 * np.sin(2 * np.pi * 2 * time))
    motion = lip_motion(gap, np.full(1000, 0.4))
    voiced = np.full(1000, 0.9)
    assert len(strange_voices(voiced, motion, [slice(0, 1000)])) == 1
    assert strange_voices(voiced, motion, [slice(0, 278), slice(278, 1000)]) == []

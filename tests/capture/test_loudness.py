"""Loudness against the recommendation's own numbers and laws."""

import numpy as np
import pytest

from talk3d.capture.loudness import HIGH_PASS, SHELF, integrated_loudness, k_weighted


def sine(level: float, seconds: float, rate: int = 48000, hertz: float = 997.0) -> np.ndarray:
    """Of a peak `level` in dB of full scale."""
    return (10 ** (level / 20) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float64)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("level", [0.0, -20.0, -50.0])
def test_a_sine_reads_as_the_recommendation_says(rate: int, level: float) -> None:
    """0 dBFS at 997 Hz in one channel reads -3.01 LKFS, and less in step with its level."""
    assert integrated_loudness(sine(level, 5, rate), rate) == pytest.approx(-3.01 + level, abs=0.03)


def test_the_filters_against_a_plain_recursion() -> None:
    """The difference equations, sample by sample."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, 6000)
    expected = sound
    for (b0, b1, b2), (_, a1, a2) in (SHELF, HIGH_PASS):
        out = np.zeros(len(sound))
        for n in range(len(sound)):
            past = [(expected[n - k], out[n - k]) if n >= k else (0.0, 0.0) for k in (1, 2)]
            out[n] = b0 * expected[n] + b1 * past[0][0] + b2 * past[1][0] - a1 * past[0][1] - a2 * past[1][1]
        expected = out
    np.testing.assert_allclose(k_weighted(sound), expected, atol=1e-9)


def test_the_filters_lift_treble_and_drop_bass() -> None:
    """The shelf ends 4 dB up; the high pass takes 25 Hz away."""
    high, low = (20 * np.log10(k_weighted(sine(0, 2, hertz=hz))[20000:].std() / 0.5**0.5) for hz in (10000.0, 25.0))
    assert high == pytest.approx(4.0, abs=0.1)
    assert low < -9


def test_silence_between_words_does_not_count() -> None:
    """Gates: silence never counts, nor what lies 10 dB below the rest; what lies 6 dB below does."""
    loud = sine(-20, 10)
    alone = integrated_loudness(loud, 48000)
    assert integrated_loudness(np.concatenate([loud, np.zeros(10 * 48000)]), 48000) == pytest.approx(alone, abs=0.15)
    assert integrated_loudness(np.concatenate([loud, sine(-40, 10)]), 48000) == pytest.approx(alone, abs=0.15)
    mixed = 10 * np.log10((10**-2 + 10**-2.6) / 2) + 20
    assert integrated_loudness(np.concatenate([loud, sine(-26, 10)]), 48000) == pytest.approx(alone + mixed, abs=0.1)


def test_stretches_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 0.1, 16000 * 20) * np.repeat(rng.uniform(0.1, 1, 20), 16000)
    whole = integrated_loudness(sound)
    monkeypatch.setattr("talk3d.capture.loudness.STRETCH", 7)
    assert integrated_loudness(sound) == pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize("sound", [np.zeros(0), np.zeros(100), np.zeros(48000), sine(-80, 3)])
def test_nothing_to_hear_has_no_loudness(sound: np.ndarray) -> None:
    assert integrated_loudness(sound, 48000) is None

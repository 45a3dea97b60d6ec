"""Sound to log-mel windows: exact in time, the same however the sound arrives, silence is a value of its own."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from talk3d.mel import mel_filters
from talk3d.phone_decoder import HOP
from talk3d.talker.audio import (
    BLOCK,
    SPEECH_RMS,
    AudioConfig,
    Loudness,
    frame_windows,
)
from talk3d.talker.phones import CONTEXT, PIECE
from talk3d.video.clock import AUDIO_RATE, SAMPLES_PER_FRAME

CONFIG = AudioConfig(phones=False, ear=False)  # these are in test_phones.py
MIDDLE = SAMPLES_PER_FRAME // 2


def windows(sound: np.ndarray, gain: float = 1.0, config: AudioConfig = CONFIG) -> torch.Tensor:
    return torch.cat(list(frame_windows([sound], gain, config)))


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that swells like syllables, with pauses."""
    rng = np.random.default_rng(seed)
    count = int(seconds * AUDIO_RATE)
    time = np.arange(count) / AUDIO_RATE
    envelope = np.clip(np.sin(2 * np.pi * 3 * time), 0, 1) * (np.sin(2 * np.pi * 0.4 * time) > -0.5)
    return (rng.standard_normal(count) * envelope * 0.1).astype(np.float32)


def cut(sound: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    chunks, start = [], 0
    for size in sizes:
        chunks.append(sound[start : start + size])
        start += size
    return [*chunks, sound[start:]]


@pytest.mark.parametrize("size", [1000, 640, 641, 16000, 160000])
def test_windows_do_not_depend_on_the_chunks(size: int) -> None:
    sound = speech(5.3)  # more than two blocks, not a whole number of frames
    whole = windows(sound)
    assert len(whole) > 2 * BLOCK
    chunks = [sound[i : i + size] for i in range(0, len(sound), size)]
    assert torch.equal(torch.cat(list(frame_windows(chunks, 1.0, CONFIG))), whole)


def test_windows_do_not_depend_on_odd_chunks() -> None:
    sound = speech(3.0)
    chunks = cut(sound, [0, 1, 7, 0, 639, 20000, 3])
    assert torch.equal(torch.cat(list(frame_windows(chunks, 1.0, CONFIG))), windows(sound))


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (639, 1), (640, 1), (641, 2), (32000, 50), (32001, 51)])
def test_there_is_one_window_for_each_begun_frame(samples: int, frames: int) -> None:
    blocks = list(frame_windows([np.zeros(samples, np.float32)], 1.0, CONFIG))
    assert sum(map(len, blocks)) == frames
    assert all(block.shape[1:] == (CONFIG.channels, CONFIG.columns) for block in blocks)
    assert all(len(block) <= BLOCK for block in blocks)


@pytest.mark.parametrize(("config", "ahead"), [(CONFIG, 0), (AudioConfig(), (PIECE + CONTEXT) * HOP)])
def test_nothing_is_read_ahead_of_need(config: AudioConfig, ahead: int) -> None:
    """Constant memory: little more is taken in than comes out, and with phones the piece that is decoded and its context."""
    taken = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(2000):
            taken += SAMPLES_PER_FRAME
            yield np.zeros(SAMPLES_PER_FRAME, np.float32)

    stream = frame_windows(source(), 1.0, config)
    given = 0
    for _ in range(20):
        given += len(next(stream)) * SAMPLES_PER_FRAME
        assert taken <= given + ahead + 6 * SAMPLES_PER_FRAME
    assert given == 20 * BLOCK * SAMPLES_PER_FRAME


def test_silence_is_minus_one_exactly() -> None:
    for gain in (1.0, 50.0):
        assert torch.equal(windows(np.zeros(10000, np.float32), gain), torch.full((16, 40, 32), -1.0))


def test_speech_fills_the_range() -> None:
    """Noise at the level of speech lies in the middle; a voice, whose power is in few bands, rises well above."""
    noise = speech(4.0)
    values = windows(noise, Loudness.of([noise]).gain)
    assert values.min() == -1
    assert -0.3 < values.quantile(0.95) < 0.3
    voice = sum(np.sin(2 * np.pi * 140 * k * np.arange(2 * AUDIO_RATE) / AUDIO_RATE) / k for k in range(1, 30)).astype(
        np.float32
    )
    assert 0.3 < windows(voice, Loudness.of([voice]).gain).max() < 1.2


@pytest.mark.parametrize("frame", [0, 3, BLOCK - 1, BLOCK, 2 * BLOCK + 5])
def test_a_click_in_the_middle_of_a_frame_is_in_the_middle_of_its_window(frame: int) -> None:
    sound = np.zeros(120 * SAMPLES_PER_FRAME, np.float32)
    sound[frame * SAMPLES_PER_FRAME + MIDDLE] = 1.0
    found = windows(sound)
    loud = found.mean(1)  # [T, K]
    profile = loud[frame]
    torch.testing.assert_close(profile, profile.flip(0))
    # Columns 15 and 16 lie 80 samples before and after; a Hann window of 400 samples reaches 200.
    assert (profile > -1).nonzero().flatten().tolist() == [15, 16]
    # The neighbours hear it four columns later and earlier.
    for other, columns in ((frame - 1, [19, 20]), (frame + 1, [11, 12])):
        if other >= 0:
            assert (loud[other] > -1).nonzero().flatten().tolist() == columns


def test_windows_move_with_the_sound() -> None:
    sound = speech(3.0)
    later = np.concatenate([np.zeros(7 * SAMPLES_PER_FRAME, np.float32), sound])
    # Equal but for where blocks begin, which changes nothing but the order of sums.
    torch.testing.assert_close(windows(later)[7:], windows(sound), atol=1e-5, rtol=0)


def test_what_lies_outside_the_recording_is_silence() -> None:
    sound = speech(2.0) + 0.05 * np.random.default_rng(1).standard_normal(2 * AUDIO_RATE).astype(np.float32)
    found = windows(sound)
    assert (found[0, :, :12] == -1).all()
    assert (found[0, :, 20:] > -1).any()
    assert (found[-1, :, -12:] == -1).all()


def test_gain_is_the_factor_on_the_sound() -> None:
    sound = speech(1.0)
    torch.testing.assert_close(windows(sound, 3.0), windows(3.0 * sound), atol=1e-5, rtol=0)
    # Ten times louder is 20 dB: two thirds of a unit on this scale, where nothing falls below the floor.
    quiet, loud = windows(sound, 1.0), windows(sound, 10.0)
    heard = quiet > -0.9
    torch.testing.assert_close(loud[heard] - quiet[heard], torch.full((int(heard.sum()),), 2 / 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("level", [0.03, 0.1, 1.0, 3.0])
def test_level_of_a_recording_does_not_matter(level: float) -> None:
    sound = speech(6.0)
    reference = Loudness.of([sound]).gain
    gain = Loudness.of([level * sound]).gain
    assert gain == pytest.approx(reference / level, rel=1e-4)
    torch.testing.assert_close(windows(level * sound, gain), windows(sound, reference), atol=1e-3, rtol=0)


def test_speaking_parts_come_to_the_stated_level_whatever_the_pauses() -> None:
    spoken = speech(4.0) + np.sin(np.arange(4 * AUDIO_RATE) * 0.3).astype(np.float32) * 0.05
    # A room is never quite silent.
    pause = 1e-3 * np.random.default_rng(2).standard_normal(6 * AUDIO_RATE).astype(np.float32)
    gains = [Loudness.of([part]).gain for part in (spoken, np.concatenate([spoken, pause]))]
    assert gains[1] == pytest.approx(gains[0], rel=0.02)
    tone = np.sin(np.arange(AUDIO_RATE) * 0.3).astype(np.float32) * 0.2
    assert Loudness.of([tone]).gain * 0.2 / math.sqrt(2) == pytest.approx(SPEECH_RMS, rel=0.01)


def test_loudness_does_not_depend_on_the_chunks() -> None:
    sound = speech(3.0)
    chunked = Loudness.of(cut(sound, [1, 0, 5000, 639]))
    assert chunked.gain == Loudness.of([sound]).gain
    assert chunked.samples == len(sound)


@pytest.mark.parametrize("sound", [np.zeros(0, np.float32), np.zeros(100, np.float32), np.zeros(AUDIO_RATE, np.float32)])
def test_silence_asks_for_no_gain(sound: np.ndarray) -> None:
    assert Loudness.of([sound]).gain == 1.0


def test_whispers_are_not_raised_without_limit() -> None:
    assert Loudness.of([5e-3 * speech(2.0)]).gain == 50.0


@pytest.mark.parametrize("hertz", [300, 1000, 4000])
def test_a_tone_sounds_in_its_band(hertz: int) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(AUDIO_RATE) / AUDIO_RATE).astype(np.float32) * 0.1
    band = int(windows(tone)[12].mean(1).argmax())
    filters = mel_filters(CONFIG.bands, CONFIG.fft, AUDIO_RATE, CONFIG.low, CONFIG.high)
    centre = float((filters[:, band] * torch.linspace(0, AUDIO_RATE / 2, 257)).sum())
    assert centre == pytest.approx(hertz, rel=0.12)


def test_other_sizes_are_centred_too() -> None:
    config = AudioConfig(columns=24, bands=12, phones=False, ear=False)
    sound = np.zeros(20 * SAMPLES_PER_FRAME, np.float32)
    sound[9 * SAMPLES_PER_FRAME + MIDDLE] = 1.0
    profile = windows(sound, config=config)[9].mean(0)
    assert profile.shape == (24,)
    torch.testing.assert_close(profile, profile.flip(0))
    assert int(profile.argmax()) in (11, 12)

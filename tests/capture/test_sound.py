"""A capture's sound: cut to its takes, and moved into step with the lips."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from talk3d.capture.drift import MINUTE
from talk3d.capture.sound import SAMPLES_PER_FRAME, hear, measure_lateness, parse_sync, write_in_step, write_sound
from talk3d.errors import ConfigError


@pytest.fixture
def ramp(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Ten frames of sound in which every sample has a value of its own."""
    samples = (np.arange(10 * SAMPLES_PER_FRAME) + 1).astype(np.float32) / 32768
    soundfile.write(tmp_path / "in.wav", samples, 16000, subtype="PCM_16")
    return tmp_path / "in.wav", samples


@pytest.mark.parametrize("late", [0.0, 2.5, -1.25, 8.0, -20.0])
def test_late_sound_is_fetched_from_later(ramp: tuple[Path, np.ndarray], tmp_path: Path, late: float) -> None:
    """Each frame gets the samples that lie so much later, silence where there are none, and the length never changes."""
    source, samples = ramp
    takes = [[0, 3], [5, 10]]
    write_sound(tmp_path / "out.flac", source, takes, late)
    shift = round(late * SAMPLES_PER_FRAME)
    wanted = np.concatenate([np.arange(a * SAMPLES_PER_FRAME, b * SAMPLES_PER_FRAME) for a, b in takes]) + shift
    inside = (wanted >= 0) & (wanted < len(samples))
    expected = np.where(inside, samples[wanted.clip(0, len(samples) - 1)], 0)
    heard = soundfile.read(tmp_path / "out.flac", dtype="float32")[0]
    np.testing.assert_allclose(heard, expected, atol=2e-5)


@pytest.mark.parametrize(("text", "frames"), [("auto", None), ("keep", 0.0), ("2.5", 2.5), ("-3", -3.0)])
def test_the_command_lines_form(text: str, frames: float | None) -> None:
    assert parse_sync(text) == frames


@pytest.mark.parametrize("text", ["late", "nan", "51", ""])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="auto"):
        parse_sync(text)


@pytest.mark.parametrize("planted", [-4, 0, 5])
def test_planted_lateness_is_found_and_taken_back(shared: Path, tracked_subject: np.ndarray, planted: int) -> None:
    """Tracked lips of a synthetic subject beside its sound, which is exactly in step until it is moved."""
    frames = len(tracked_subject)
    sound = soundfile.read(shared / "data" / "synthetic" / "A" / "self.flac", dtype="float32")[0][: frames * SAMPLES_PER_FRAME]
    late = np.roll(sound, planted * SAMPLES_PER_FRAME)
    found = measure_lateness(tracked_subject, late, None)
    assert found.frames == pytest.approx(planted, abs=0.5)
    assert found.moved == (found.frames if planted else 0)
    assert measure_lateness(tracked_subject, late, 1.5).moved == 1.5


def test_what_cannot_be_told_is_left_alone(tracked_subject: np.ndarray) -> None:
    """Noise beside moving lips, and clips too short to judge."""
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(len(tracked_subject) * SAMPLES_PER_FRAME) * 0.1).astype(np.float32)
    assert measure_lateness(tracked_subject, noise, None).moved == 0
    brief = measure_lateness(tracked_subject[:30], noise[: 30 * SAMPLES_PER_FRAME], None)
    assert (brief.frames, brief.moved) == (None, 0)


# ------------------------------------------------------------------------------------------------------------- drift


@pytest.fixture(scope="module")
def half_a_minute(subject: Path) -> tuple[np.ndarray, np.ndarray]:
    """Tracked lips of the synthetic subject [900, 468, 2], and the sound that is exactly in step with them."""
    from talk3d.capture.track import track
    from talk3d.video.read import read_frames

    landmarks = track(read_frames(subject / "A.mp4", stop=900)).landmarks
    return landmarks, soundfile.read(subject / "self.flac", dtype="float32")[0][: 900 * SAMPLES_PER_FRAME]


@pytest.mark.parametrize(("planted", "mended"), [(0.0, False), (0.0003, False), (0.004, True), (-0.004, True)])
def test_a_clock_that_runs_wrong_is_put_right(
    half_a_minute: tuple[np.ndarray, np.ndarray], tmp_path: Path, planted: float, mended: bool
) -> None:
    """Sound stretched by a known factor, and two frames late at its start: afterwards it is the sound as it was."""
    landmarks, sound = half_a_minute
    slow = soxr.resample(sound, 16000, 16000 * (1 + planted)) if planted else sound
    soundfile.write(tmp_path / "in.wav", np.concatenate([np.zeros(2 * SAMPLES_PER_FRAME, np.float32), slow]), 16000)
    numbers, parts = np.arange(900), [slice(0, 900)]
    lateness, drift = write_in_step(tmp_path / "out.flac", tmp_path / "in.wav", [[0, 900]], landmarks, numbers, parts, None)
    assert drift.per_minute == pytest.approx(planted * MINUTE, abs=5 * max(drift.error, 0.1))
    assert drift.start == pytest.approx(2.0, abs=0.4)
    assert bool(drift.moved) == mended
    assert lateness.moved == pytest.approx(2.0 + (0.0 if mended else planted * 450), abs=0.5)
    heard = soundfile.read(tmp_path / "out.flac", dtype="float32")[0]
    assert len(heard) == len(sound)
    for second in (2, 16, 30):  # as far from the start as from the end, they lie at most a frame off
        near = slice(second * 16000, (second + 2) * 16000)
        at = [np.dot(heard[near], np.roll(sound, by)[near]) for by in range(-800, 801, 16)]
        assert abs(int(np.argmax(at)) - 50) * 16 <= 0.5 * SAMPLES_PER_FRAME + 900 * abs(planted) * (not mended) * 640


def test_who_says_how_late_it_is_gets_no_stretching(half_a_minute: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    landmarks, sound = half_a_minute
    soundfile.write(tmp_path / "in.wav", soxr.resample(sound, 16000, 16064), 16000)
    numbers, parts = np.arange(900), [slice(0, 900)]
    lateness, drift = write_in_step(tmp_path / "out.flac", tmp_path / "in.wav", [[0, 900]], landmarks, numbers, parts, 0.0)
    assert drift.certain(900)
    assert (lateness.moved, drift.moved) == (0, 0)


def test_sound_is_stretched_about_the_films_first_frame(tmp_path: Path) -> None:
    """A tone at a known place of a slow recording comes where it belongs."""
    place, drift, late = 7 * 16000, 0.01, 5.0
    there = round(place * (1 + drift) + late * SAMPLES_PER_FRAME)
    slow = np.zeros(12 * 16000, np.float32)
    slow[there : there + 400] = np.sin(np.arange(400) * np.pi / 20) * np.hanning(400)
    soundfile.write(tmp_path / "in.wav", slow, 16000)
    write_sound(tmp_path / "out.flac", tmp_path / "in.wav", [[0, 100], [150, 250]], late, drift)
    heard = soundfile.read(tmp_path / "out.flac", dtype="float32")[0]
    centre = np.average(np.arange(len(heard)), weights=heard**2)
    assert centre == pytest.approx(place - 50 * SAMPLES_PER_FRAME + 200, abs=4)


# ---------------------------------------------------------------------------------------------------------- clipping


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize(("gain", "clipped"), [(0.9, 0.0), (1.3, 1.0)])
def test_peaks_that_are_cut_off_are_counted(tmp_path: Path, rate: int, gain: float, clipped: float) -> None:
    """A hum of 100 Hz for half of ten seconds, below full scale and driven above it; every frame holds four of its periods."""
    time = np.arange(10 * rate) / rate
    hum = np.clip(gain * np.sin(2 * np.pi * 100 * time), -1, 1) * (time < 5)
    soundfile.write(tmp_path / "hum.wav", hum, rate, subtype="PCM_16")
    heard = hear(tmp_path / "hum.wav", 10.0)
    assert heard.clipped == pytest.approx(clipped / 2, abs=0.005)
    assert heard.seconds == pytest.approx(10.0, abs=1e-3)
    assert (heard.rate, heard.channels) == (rate, 1)


def test_a_single_sample_at_full_scale_is_no_clipping(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 160_000)
    noise[::1600] = 1.0
    soundfile.write(tmp_path / "clicks.wav", noise, 16000, subtype="PCM_16")
    heard = hear(tmp_path / "clicks.wav", 10.0)
    assert heard.clipped == 0
    assert heard.peak > 0.99

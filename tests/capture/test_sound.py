"""A capture's sound: cut to its takes, and moved into step with the lips."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from talk3d.capture.sound import SAMPLES_PER_FRAME, measure_lateness, parse_sync, write_sound
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

"""Reading, checked with films whose frames spell out their own time."""

import weakref
from pathlib import Path

import numpy as np
import pytest

from talk3d.errors import MediaError, NoAudioError
from talk3d.video.clock import frames_in
from talk3d.video.look import probe, require_video
from talk3d.video.read import read_audio, read_audio_chunks, read_frames
from talk3d.video.write import VideoWriter
from tests.video.films import click_times, clicks, make_film, number_in, set_rotation


@pytest.mark.parametrize("rate", [25, 30, 50, 60, 12.5])
def test_any_frame_rate_keeps_its_timing(tmp_path: Path, rate: float) -> None:
    stamps = [round(1000 * k / rate) for k in range(int(2 * rate))]
    film = make_film(tmp_path / "film.mp4", stamps, rate=rate)
    times = [number_in(frame) for frame in read_frames(film)]
    assert len(times) == frames_in(2.0) == 50
    error = np.array(times) - 40 * np.arange(50)
    assert np.abs(error).max() <= 500 / rate + 1
    assert abs(error.mean()) < 10 or rate < 25


def test_variable_frame_rate_is_resampled_by_time_stamps(tmp_path: Path) -> None:
    stamps = np.cumsum(np.random.default_rng(0).integers(15, 60, 80)).tolist()
    film = make_film(tmp_path / "film.mp4", [stamp - stamps[0] for stamp in stamps])
    expected = np.array(stamps) - stamps[0]
    times = [number_in(frame) for frame in read_frames(film)]
    for index, shown in enumerate(times[:-2]):
        assert abs(shown - 40 * index) == np.abs(expected - 40 * index).min()


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_late_first_frame_is_time_zero_for_frames_and_sound(tmp_path: Path, suffix: str) -> None:
    sound = clicks(16000, 3.0, [0.6, 1.4])[None]
    film = make_film(tmp_path / f"film{suffix}", [40 * k for k in range(50)], offset=200, sound=sound)
    assert [number_in(frame) for frame in read_frames(film)] == [40 * k for k in range(50)]
    assert click_times(read_audio(film), 16000, 2) == pytest.approx([0.4, 1.2], abs=0.002)


def test_seeking_gives_the_same_frames_as_reading_through(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", [20 * k for k in range(100)])
    through = [number_in(frame) for frame in read_frames(film)]
    for start, stop in [(0, 5), (1, 3), (17, 31), (40, None), (49, 50), (60, None)]:
        assert [number_in(frame) for frame in read_frames(film, start=start, stop=stop)] == through[start:stop]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_flag_is_honoured(tmp_path: Path, degrees: int) -> None:
    plain = tmp_path / "plain.mp4"
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:20, :30] = (250, 10, 10)
    upright[40:, 60:] = (10, 10, 250)
    stored = np.rot90(upright, -degrees // 90)
    with VideoWriter(plain, (stored.shape[1], stored.shape[0])) as writer:
        for _ in range(3):
            writer.write(stored)
    turned = set_rotation(plain, tmp_path / "turned.mp4", degrees)
    info = require_video(turned)
    assert (info.rotation, info.width, info.height) == (degrees, 96, 64)
    frame = next(read_frames(turned))
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).mean() < 4
    # The canary: without the flag the picture is another one.
    assert next(read_frames(plain)).shape != upright.shape or (
        np.abs(next(read_frames(plain)).astype(int) - upright).mean() > 20
    )


def test_stereo_48_khz_becomes_16_khz_mono(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(96000) / 48000)
    sound = np.stack([0.4 * tone, 0.2 * tone]).astype(np.float32)
    film = make_film(tmp_path / "film.mp4", [40 * k for k in range(50)], sound=sound, sound_rate=48000)
    info = probe(film).audio
    assert (info.rate, info.channels) == (48000, 2)
    heard = read_audio(film)[:32000]
    wanted = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / 16000)
    middle = slice(4000, 28000)
    assert np.abs(heard[middle] - wanted[middle]).max() < 0.03
    assert np.array_equal(np.concatenate(list(read_audio_chunks(film))), read_audio(film))


def test_film_without_sound(tmp_path: Path) -> None:
    silent = make_film(tmp_path / "silent.mp4", [0, 40, 80])
    assert probe(silent).audio is None
    with pytest.raises(NoAudioError, match="no sound track"):
        read_audio(silent)


def test_sound_without_picture(tmp_path: Path) -> None:
    import soundfile

    path = tmp_path / "speech.wav"
    soundfile.write(path, clicks(16000, 0.1, [0.05]), 16000)
    assert probe(path).video is None
    assert click_times(read_audio(path), 16000, 1) == [0.05]
    assert len(read_audio(path)) == 1600
    with pytest.raises(MediaError, match="no picture"):
        require_video(path)
    with pytest.raises(MediaError, match="no picture"):
        list(read_frames(path))


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """Only one frame is alive at a time, however long the film."""
    film = make_film(tmp_path / "film.mp4", [40 * k for k in range(200)])
    alive: list[weakref.ref] = []
    most = 0
    for frame in read_frames(film):
        alive.append(weakref.ref(frame))
        most = max(most, sum(reference() is not None for reference in alive))
    assert len(alive) == 200
    assert most <= 2

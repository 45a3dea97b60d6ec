"""Writing, checked by reading back."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from talk3d.errors import ConfigError, OutputExistsError
from talk3d.video.look import probe, require_video
from talk3d.video.read import read_audio, read_frames
from talk3d.video.write import GrayWriter, VideoWriter, join_films
from tests.video.films import click_times, clicks, coded_frame, number_in


def test_colours_survive_a_round_trip(tmp_path: Path) -> None:
    patches = np.kron(np.random.default_rng(1).integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    for full_colour, limit in ((False, 3.0), (True, 2.0)):
        path = tmp_path / f"{full_colour}.mp4"
        with VideoWriter(path, (64, 64), crf=4, full_colour=full_colour) as writer:
            writer.write(patches)
        assert np.abs(next(read_frames(path)).astype(int) - patches)[8::16, 8::16].mean() < limit


def test_sound_and_picture_stay_together(tmp_path: Path) -> None:
    """Whatever the order and sizes of the pieces, a click lands on its frame, and sound ends with the picture."""
    moments = [0.2, 1.0, 1.92]
    samples = clicks(16000, 3.0, moments)
    for name, order in (("sound first", "sf"), ("frames first", "fs"), ("mixed", "m")):
        path = tmp_path / f"{name}.mp4"
        with VideoWriter(path, (96, 96), audio_rate=16000) as writer:
            if order == "sf":
                writer.write_audio(samples)
            for k in range(50):
                writer.write(coded_frame(k))
                if order == "m":
                    writer.write_audio(samples[k * 900 : (k + 1) * 900])
            if order == "fs":
                writer.write_audio(samples)
        assert [number_in(frame) for frame in read_frames(path)] == list(range(50))
        heard = read_audio(path)
        assert click_times(heard, 16000, 3) == pytest.approx(moments, abs=0.001)
        assert abs(probe(path).audio.duration - 2.0) < 0.07
        assert np.abs(heard[32000 + 200 :]).max(initial=0) < 0.05


def test_short_sound_is_filled_with_silence(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with VideoWriter(path, (96, 96), audio_rate=16000) as writer:
        for k in range(25):
            writer.write(coded_frame(k))
        writer.write_audio(clicks(16000, 0.1, [0.05]))
    assert len(read_audio(path)) >= 16000
    assert click_times(read_audio(path), 16000, 1) == pytest.approx([0.05], abs=0.001)


def test_sound_of_fewer_bits_is_smaller_and_as_punctual(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = clicks(16000, 4.0, [1.0, 3.0]) + 0.05 * rng.standard_normal(64000).astype(np.float32)
    sizes = []
    for bits in (None, 24_000):
        path = tmp_path / f"{bits}.mp4"
        with VideoWriter(path, (96, 96), audio_rate=16000, audio_bit_rate=bits) as writer:
            writer.write_audio(noise)
            for k in range(100):
                writer.write(coded_frame(k))
        sizes.append(path.stat().st_size)
        heard = read_audio(path)[:64000]
        assert abs(int(np.argmax(np.abs(heard[:32000]))) - 16000) < 20
    assert sizes[0] - sizes[1] > 4 * (60_000 - 30_000) / 8


def test_gray_pictures_are_exact(tmp_path: Path) -> None:
    pictures = np.random.default_rng(2).integers(0, 256, (7, 33, 48), dtype=np.uint8)
    path = tmp_path / "mask.mkv"
    with GrayWriter(path, (48, 33)) as writer:
        for picture in pictures:
            writer.write(picture)
    assert np.array_equal(np.stack(list(read_frames(path, gray=True))), pictures)
    assert np.array_equal(np.stack(list(read_frames(path, gray=True, start=3, stop=5))), pictures[3:5])


@pytest.mark.parametrize("lengths", [[60], [30, 30], [7, 1, 33, 19]])
def test_films_are_joined_without_a_seam(lengths: list[int], tmp_path: Path) -> None:
    """Every frame of every part is there, bit by bit, at its time; and a seek finds it."""
    first, parts, plain = 0, [], []
    for number, length in enumerate(lengths):
        parts.append(tmp_path / f"{number}.mp4")
        plain.append(tmp_path / f"{number}.mkv")
        with VideoWriter(parts[-1], (96, 96), causal=True, gop=10) as writer, GrayWriter(plain[-1], (96, 96)) as masks:
            for k in range(first, first + length):
                writer.write(coded_frame(k))
                masks.write(coded_frame(k)[..., 0])
        first += length
    join_films(parts, tmp_path / "whole.mp4")
    join_films(plain, tmp_path / "whole.mkv")
    frames, masks = list(read_frames(tmp_path / "whole.mp4")), list(read_frames(tmp_path / "whole.mkv", gray=True))
    assert [number_in(frame) for frame in frames] == list(range(60))
    assert np.array_equal(np.stack(frames), np.concatenate([np.stack(list(read_frames(part))) for part in parts]))
    assert np.array_equal(np.stack(masks), np.stack([coded_frame(k)[..., 0] for k in range(60)]))
    assert require_video(tmp_path / "whole.mp4").duration == pytest.approx(60 / 25, abs=0.001)
    for start in (0, 8, 41, 59):
        assert number_in(next(read_frames(tmp_path / "whole.mp4", start=start))) == start
        found = next(read_frames(tmp_path / "whole.mkv", start=start, gray=True))
        assert np.array_equal(found, coded_frame(start)[..., 0])
    with pytest.raises(OutputExistsError):
        join_films(parts, tmp_path / "whole.mp4")


def test_existing_output_is_kept_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_text("precious")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        VideoWriter(path, (32, 32))
    assert path.read_text() == "precious"
    with VideoWriter(path, (32, 32), overwrite=True) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    assert require_video(path).width == 32


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    for exception in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(exception), VideoWriter(tmp_path / "film.mp4", (32, 32)) as writer:  # noqa: PT012
            writer.write(np.zeros((32, 32, 3), np.uint8))
            raise exception
        assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_film_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    program = (
        "import sys, time, numpy as np\n"
        "from talk3d.video.write import VideoWriter\n"
        "writer = VideoWriter(sys.argv[1], (32, 32)).__enter__()\n"
        "for _ in range(50): writer.write(np.zeros((32, 32, 3), np.uint8))\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "film.mp4"
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "ready"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with VideoWriter(path, (32, 32)) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize(("name", "size"), [("film.mp4", (33, 32)), ("film.avi", (32, 32)), ("film.mp4", (0, 0))])
def test_impossible_outputs_are_refused(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError):
        VideoWriter(tmp_path / name, size)

"""Media in and out, checked with films whose frames spell out their own time."""

import os
import signal
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from talk3d.errors import ConfigError, MediaError, NoAudioError, OutputExistsError
from talk3d.video import (
    GrayWriter,
    VideoWriter,
    check_complete,
    frames_in,
    probe,
    read_audio,
    read_audio_chunks,
    read_frames,
    require_video,
)

BITS = 12


def coded_frame(number: int, size: int = 96) -> np.ndarray:
    """A picture whose top row of blocks is `number` in binary; the rest is a gradient."""
    picture = np.zeros((size, size, 3), np.uint8)
    picture[..., 1] = np.linspace(0, 200, size)[None]
    block = size // BITS
    for bit in range(BITS):
        picture[:block, bit * block : (bit + 1) * block] = 255 * (number >> bit & 1)
    return picture


def number_in(picture: np.ndarray) -> int:
    block = picture.shape[1] // BITS
    row = picture[block // 2, block // 2 :: block].astype(int).mean(axis=-1)
    return sum(int(value > 127) << bit for bit, value in enumerate(row[:BITS]))


def make_film(
    path: Path,
    milliseconds: list[int],
    *,
    rate: float = 25,
    offset: int = 0,
    sound: np.ndarray | None = None,
    sound_rate: int = 16000,
) -> Path:
    """A film whose frames carry their own time in milliseconds (modulo 4096), at any spacing, starting at `offset`.

    `sound` is float32 [channels, N]; its first sample is at file time zero.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(rate), options={"crf": "20", "g": "12"})
        video.width = video.height = 96
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = None
        if sound is not None:
            layout = "mono" if len(sound) == 1 else "stereo"
            audio = container.add_stream("aac", rate=sound_rate, layout=layout)
            audio.bit_rate = 192_000 if sound_rate > 16000 else 64_000
        for stamp in milliseconds:
            frame = av.VideoFrame.from_ndarray(coded_frame(stamp % 4096), format="rgb24")
            frame.pts, frame.time_base = stamp + offset, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sound_rate, 0, Fraction(1, sound_rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def clicks(rate: int, seconds: float, times: list[float]) -> np.ndarray:
    samples = np.zeros(round(rate * seconds), np.float32)
    for moment in times:
        samples[round(moment * rate)] = 0.9
    return samples


def click_times(samples: np.ndarray, rate: int, count: int) -> list[float]:
    found, samples = [], np.abs(samples)
    for _ in range(count):
        peak = int(samples.argmax())
        found.append(peak / rate)
        samples = samples.copy()
        samples[max(0, peak - rate // 20) : peak + rate // 20] = 0
    return sorted(found)


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


def set_rotation(source: Path, target: Path, degrees: int) -> Path:
    """Patch the display matrix of the video track header; there is no writer for it in PyAV."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 36  # version+flags, then the fields before the matrix
    cosine, sine = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[degrees]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join((value & 0xFFFFFFFF).to_bytes(4, "big") for value in matrix)
    target.write_bytes(data)
    return target


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


def test_metadata_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    metadata = {"talk3d": {"avatar": "ab" * 32, "frames": [3, 9], "note": "naïve “quotes”"}}
    with VideoWriter(path, (32, 32), metadata=metadata) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    assert probe(path).metadata == metadata


def test_gray_pictures_are_exact(tmp_path: Path) -> None:
    pictures = np.random.default_rng(2).integers(0, 256, (7, 33, 48), dtype=np.uint8)
    path = tmp_path / "mask.mkv"
    with GrayWriter(path, (48, 33)) as writer:
        for picture in pictures:
            writer.write(picture)
    assert np.array_equal(np.stack(list(read_frames(path, gray=True))), pictures)
    assert np.array_equal(np.stack(list(read_frames(path, gray=True, start=3, stop=5))), pictures[3:5])


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "good.mp4"
    noise = np.random.default_rng(3)
    with VideoWriter(path, (96, 96), audio_rate=16000) as writer:
        for _ in range(100):
            writer.write(noise.integers(0, 256, (96, 96, 3), dtype=np.uint8))
        writer.write_audio(noise.normal(0, 0.1, 64000).astype(np.float32))
    return path


def test_whole_files_are_complete(film: Path, shared: Path) -> None:
    check_complete(film)
    check_complete(shared / "data/synthetic/A/A.mp4")


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_cut_off_files_are_found_before_decoding(film: Path, tmp_path: Path, part: float) -> None:
    cut = tmp_path / "cut.mp4"
    data = film.read_bytes()
    cut.write_bytes(data[: int(part * len(data))])
    with pytest.raises(MediaError, match=r"cut off"):
        check_complete(cut)


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "folder", "text.txt", "noise.mp4", "headless.mp4"])
def test_what_is_no_media_file_says_so(film: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "empty.mp4":
        path.touch()
    elif name == "folder":
        path.mkdir()
    elif name == "text.txt":
        path.write_text("just words\n" * 100)
    elif name == "noise.mp4":
        path.write_bytes(np.random.default_rng(4).bytes(5000))
    elif name == "headless.mp4":
        path.write_bytes(film.read_bytes()[-4000:])
    for read in (probe, require_video, check_complete, lambda p: list(read_frames(p)), read_audio):
        with pytest.raises(MediaError, match=name.split(".")[0]):
            read(path)


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
        "from talk3d.video import VideoWriter\n"
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

"""Folders of pictures as films: their order, rate and size, and what is said of those that are none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talk3d.errors import ConfigError, MediaError, NoAudioError
from talk3d.video.look import check_complete, count_frames, probe, require_video
from talk3d.video.read import read_audio, read_frames
from talk3d.video.source import Pictures, film_or_pictures
from tests.video.films import coded_frame, make_film, number_in


def write_pictures(folder: Path, names: list[str], step: int = 40, size: tuple[int, int] = (96, 80)) -> Path:
    """Pictures that spell out their time in milliseconds, in the order of `names`."""
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(coded_frame(step * index, *size)).save(folder / name)
    return folder


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "JPEG"])
def test_a_folder_is_read_like_a_film(tmp_path: Path, suffix: str) -> None:
    """In the order in which people count, not in that of the alphabet."""
    folder = write_pictures(tmp_path / "take", [f"frame {k}.{suffix}" for k in range(1, 13)])
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_text("not one either")
    info = require_video(folder)
    assert (info.width, info.height, info.fps, info.duration) == (96, 80, 25, pytest.approx(0.48))
    assert info.notes == ()
    check_complete(folder)
    assert count_frames(folder) == 12
    frames = list(read_frames(folder))
    assert frames[0].shape == (80, 96, 3)
    assert [number_in(frame) for frame in frames] == [40 * k for k in range(12)]
    assert [number_in(frame) for frame in read_frames(folder, start=7, stop=9)] == [280, 320]
    assert list(read_frames(folder, start=40)) == []
    assert next(read_frames(folder, gray=True)).shape == (80, 96)
    assert probe(folder).audio is None


@pytest.mark.parametrize("rate", [5, 12.5, 30, 60])
def test_pictures_of_another_rate_keep_their_timing(tmp_path: Path, rate: float) -> None:
    step = 1000 / rate
    folder = write_pictures(tmp_path / "take", [f"{k:04}.png" for k in range(20)], step=1)
    pictures = Pictures(folder, rate)
    assert require_video(pictures).fps == rate
    shown = [number_in(frame) for frame in read_frames(pictures)]
    assert len(shown) == count_frames(pictures) == pytest.approx(20 * step / 40, abs=1)
    begun = [(k, number) for k, number in enumerate(shown) if 40 * k <= 19 * step]  # then the last picture stands
    assert all(abs(number * step - 40 * k) <= step / 2 + 1e-6 for k, number in begun)
    assert set(shown[len(begun) :]) <= {19}
    assert number_in(next(read_frames(pictures, start=5))) == shown[5]


def test_names_are_ordered_as_people_count(tmp_path: Path) -> None:
    names = ["a2.png", "A10.png", "b1.png", "b1c.png", "b2.png", "b02c.png", "b2c10.png"]
    folder = write_pictures(tmp_path / "take", names)
    assert [number_in(frame) for frame in read_frames(folder)] == [40 * k for k in range(len(names))]


def test_holes_are_noted(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "take", [f"{k}.png" for k in (1, 2, 5, 6, 9)])
    (note,) = require_video(folder).notes
    assert "4 missing" in note
    assert "between 2 and 5" in note
    assert [number_in(frame) for frame in read_frames(folder)] == [0, 40, 80, 120, 160]


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "I;16", "LA"])
def test_pictures_that_are_not_plain_rgb(tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "take"
    folder.mkdir()
    picture = Image.fromarray(coded_frame(1234))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    picture.save(folder / "1.png")
    (frame,) = read_frames(folder)
    assert frame.shape == (96, 96, 3)
    assert number_in(frame) == 1234


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    """By the orientation that cameras store, here: turned by 90 degrees."""
    folder = tmp_path / "take"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(coded_frame(77, 96, 80)))).save(folder / "1.jpg", exif=exif, quality=95)
    info = require_video(folder)
    assert (info.width, info.height) == (96, 80)
    assert number_in(next(read_frames(folder))) == 77


def test_pictures_of_another_size_are_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "take", [f"{k}.png" for k in range(8)])
    write_pictures(folder, ["5.png", "6.png"], size=(80, 96))
    for read in (check_complete, lambda path: list(read_frames(path))):
        with pytest.raises(MediaError, match=r"take/5\.png` is 80x96, but the pictures before it are 96x80"):
            read(folder)
    assert len(list(read_frames(folder, stop=4))) == 4


def test_broken_pictures_are_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "take", [f"{k}.png" for k in range(4)])
    data = (folder / "2.png").read_bytes()
    for content in (b"", b"words", data[: len(data) // 3]):
        (folder / "2.png").write_bytes(content)
        for read in (check_complete, lambda path: list(read_frames(path))):
            with pytest.raises(MediaError, match=r"take/2\.png"):
                read(folder)


def test_a_picture_cannot_name_other_files(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "take", ["1.png", "2.png"])
    film = make_film(tmp_path / "film.mp4", [0, 40])
    for content in (f"#EXTM3U\n#EXTINF:1,\n{film}\n".encode(), film.read_bytes()):
        (folder / "2.png").write_bytes(content)
        with pytest.raises(MediaError, match=r"2\.png"):
            list(read_frames(folder))


def test_folders_without_pictures_or_sound_say_so(tmp_path: Path) -> None:
    folder = tmp_path / "take"
    folder.mkdir()
    (folder / "words.txt").write_text("words")
    for read in (probe, require_video, count_frames, check_complete, lambda path: list(read_frames(path))):
        with pytest.raises(MediaError, match="take` is a folder without PNG, JPEG or WEBP pictures"):
            read(folder)
    write_pictures(folder, ["1.png"])
    with pytest.raises(NoAudioError, match=r"folder of pictures.*--audio"):
        read_audio(folder)


def test_rates_are_for_folders(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", [0, 40])
    folder = write_pictures(tmp_path / "take", ["1.png"])
    assert film_or_pictures(film, None) == film
    assert film_or_pictures(folder, None) == folder
    assert film_or_pictures(folder, 30) == Pictures(folder, 30)
    with pytest.raises(ConfigError, match=r"film\.mp4` is no folder of pictures.*Leave out `--fps`"):
        film_or_pictures(film, 30)
    for rate in (0, -5, 1e9, float("nan")):
        with pytest.raises(ConfigError, match="pictures a second"):
            Pictures(folder, rate)

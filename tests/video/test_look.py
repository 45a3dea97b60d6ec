"""What is known of a file before it is read, and what is said of files that cannot be."""

from pathlib import Path

import numpy as np
import pytest

from talk3d.errors import MediaError
from talk3d.video.look import check_complete, probe, require_video
from talk3d.video.read import read_audio, read_frames
from talk3d.video.write import VideoWriter


def test_metadata_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    metadata = {"talk3d": {"avatar": "ab" * 32, "frames": [3, 9], "note": "naïve “quotes”"}}
    with VideoWriter(path, (32, 32), metadata=metadata) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    assert probe(path).metadata == metadata


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

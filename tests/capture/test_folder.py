"""`prepare` of a folder of pictures and a sound file: the same capture as of the film that they are."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from talk3d.camera import Orbit
from talk3d.capture.build import Capture, prepare
from talk3d.errors import MediaError, NoAudioError
from talk3d.video.source import Pictures

FRAMES = 60


@pytest.fixture(scope="module")
def run(canonical: np.ndarray) -> Callable[..., Capture]:
    def run(video: Path | Pictures, output: Path, **options: object) -> Capture:
        return prepare(
            video, output, canonical=canonical, orbit=Orbit(), resolution=64, prior_hash="ab" * 32, consent="synthetic",
            sync=0.0, **options,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, film_frames: np.ndarray, film_sound: np.ndarray) -> tuple[Path, Path]:
    """Numbered pictures, without the number 17, and their sound."""
    home = tmp_path_factory.mktemp("recording")
    (home / "take").mkdir()
    for k, frame in enumerate(film_frames[:FRAMES]):
        cv2.imwrite(str(home / "take" / f"{k + (k >= 17)}.png"), frame[..., ::-1])
    soundfile.write(home / "sound.wav", film_sound, 16000)
    return home / "take", home / "sound.wav"


def test_a_folder_and_sound_make_a_capture(recording: tuple[Path, Path], run: Callable[..., Capture], tmp_path: Path) -> None:
    pictures, sound = recording
    capture = run(pictures, tmp_path / "capture", audio=sound)
    assert capture.count == FRAMES
    assert capture.config["source"] == {"name": "take", "width": 256, "height": 256, "fps": 25}
    assert "1 missing, the first between 16 and 18" in capture.report["warnings"][0]
    # Taken at 29 a second, they last two seconds and a bit.
    quicker = run(Pictures(pictures, 29), tmp_path / "quicker", audio=sound)
    assert quicker.count == round(FRAMES / 29 * 25)
    assert quicker.config["source"]["fps"] == 29


def test_a_folder_needs_sound_and_pictures_of_one_size(
    recording: tuple[Path, Path], run: Callable[..., Capture], tmp_path: Path
) -> None:
    pictures, sound = recording
    with pytest.raises(NoAudioError, match="take` has no sound"):
        run(pictures, tmp_path / "capture")
    other = tmp_path / "other"
    other.mkdir()
    for path in pictures.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    cv2.imwrite(str(other / "40.png"), np.zeros((256, 250, 3), np.uint8))
    with pytest.raises(MediaError, match=r"40\.png` is 250x256"):
        run(other, tmp_path / "capture", audio=sound)
    assert not (tmp_path / "capture").exists()

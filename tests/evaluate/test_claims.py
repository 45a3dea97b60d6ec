"""What a film's metadata may say: every combination is either a range to compare or a refusal that says why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talk3d.capture.artifact import Capture
from talk3d.errors import ScoringError
from talk3d.evaluate.claims import Claims, read_claims
from talk3d.video.write import VideoWriter

TRAINED, OTHER = "ab" * 32, "cd" * 32


def film(folder: Path, **said: object) -> Path:
    path = folder / "film.mp4"
    with VideoWriter(path, (16, 16), metadata={"talk3d": said} if said else None, overwrite=True) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    return path


class Known(Capture):
    """A capture of 400 training and 40 test frames that needs no files."""

    def __init__(self, digest: str):
        super().__init__(
            Path("capture"), {"hash": digest, "config": {"frames": 440, "split": {"train": [0, 400], "test": [400, 440]}}}
        )


def claims(folder: Path, digest: str = TRAINED, asked: tuple[int, int] | None = None, **said: Any) -> Claims:
    return read_claims(film(folder, **said), Path("capture"), Known(digest), asked)


def test_our_test_frames_are_known_to_be_unseen(tmp_path: Path) -> None:
    found = claims(tmp_path, capture=TRAINED, frames=[400, 440], split="test", protocol="paper")
    assert found == Claims("paper", (400, 440), True)


def test_another_film_of_the_person_is_unseen_from_its_first_frame(tmp_path: Path) -> None:
    said = {"capture": TRAINED, "shows": OTHER, "split": "test", "protocol": "audio-only"}
    assert claims(tmp_path, OTHER, **said) == Claims("audio-only", None, True)
    whole = film(tmp_path, **said, frames=[0, 440])
    assert read_claims(whole, Path("c"), Known(OTHER), None) == Claims("audio-only", (0, 440), True)
    with pytest.raises(ScoringError, match="belongs to capture cdcdcdcd"):
        read_claims(whole, Path("c"), Known(TRAINED), None)


def test_showing_the_film_it_learnt_from_admits_no_training_frame(tmp_path: Path) -> None:
    path = film(tmp_path, capture=TRAINED, shows=TRAINED, frames=[0, 440], split="test")
    with pytest.raises(ScoringError, match="overlap the training frames"):
        read_claims(path, Path("c"), Known(TRAINED), None)


def test_what_says_nothing_is_unknown(tmp_path: Path) -> None:
    assert claims(tmp_path) == Claims("unknown", None, False)
    assert read_claims(film(tmp_path), tmp_path / "truth.mp4", None, None) == Claims("unknown", None, False)
    # The numbers that a film was given may be another film's than the plain video's: who knows better is believed.
    numbered = film(tmp_path, capture=TRAINED, frames=[400, 440], split="test")
    assert read_claims(numbered, tmp_path / "truth.mp4", None, (5, 45)) == Claims("unknown", None, False)
    with pytest.raises(ScoringError, match="overlap"):
        claims(tmp_path, asked=(390, 420))
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, (16, 16), metadata={"talk3d": [1, 2]}) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    assert read_claims(path, Path("c"), Known(TRAINED), None).protocol == "unknown"

"""What a pass keeps on disk, and what it gives back."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from talk3d.capture.stretches import identity_of, keeping, stretches_folder
from talk3d.errors import NoFaceError
from talk3d.video.source import Pictures


def test_arrays_come_back_in_their_order(tmp_path: Path) -> None:
    with keeping(tmp_path / "capture", {"film": 1}) as kept:
        assert (kept.count("pass"), kept.complete("pass"), kept.rows("pass", "a")) == (0, False, 0)
        kept.keep("pass", {"a": np.arange(6.0).reshape(3, 2), "b": np.zeros((0, 4), np.uint8)}, last=False)
        assert (kept.count("pass"), kept.complete("pass"), kept.rows("pass", "a")) == (1, False, 3)
        kept.keep("pass", {"a": np.arange(6.0, 10).reshape(2, 2), "b": np.ones((1, 4), np.uint8)}, last=True)
        assert (kept.count("pass"), kept.complete("pass"), kept.rows("pass", "a")) == (2, True, 5)
        assert np.array_equal(kept.joined("pass", "a"), np.arange(10.0).reshape(5, 2))
        assert np.array_equal(kept.joined("pass", "b"), np.ones((1, 4), np.uint8))
        assert np.array_equal(kept.newest("pass", "a"), [[6, 7], [8, 9]])
        assert kept.count("other") == 0
    assert not any(tmp_path.iterdir())


def interrupted(output: Path, about: object, error: type[BaseException] = KeyboardInterrupt) -> None:
    def work() -> None:
        with keeping(output, {"film": about}) as kept:
            kept.keep("pass", {"a": np.zeros(3)}, last=False)
            raise error

    with pytest.raises(error):
        work()


@pytest.mark.parametrize(
    ("error", "about", "count"), [(KeyboardInterrupt, 1, 1), (OSError, 1, 1), (NoFaceError, 1, 0), (KeyboardInterrupt, 2, 0)]
)
def test_what_an_interruption_leaves_is_for_the_same_film_alone(
    error: type[BaseException], about: int, count: int, tmp_path: Path
) -> None:
    interrupted(tmp_path / "capture", 1, error)
    with keeping(tmp_path / "capture", {"film": about}) as kept:
        assert kept.count("pass") == count


def test_a_half_written_stretch_does_not_count(tmp_path: Path) -> None:
    interrupted(tmp_path / "capture", 1)
    folder = stretches_folder(tmp_path / "capture")
    (folder / ".pass-0001.safetensors.1.partial").write_bytes(b"half")
    (folder / "pass-0001.mp4").write_bytes(b"half")
    with keeping(tmp_path / "capture", {"film": 1}) as kept:
        assert kept.count("pass") == 1


def test_who_works_on_it_is_known_by_a_number_that_may_be_gone(tmp_path: Path) -> None:
    interrupted(tmp_path / "capture", 1)
    owner = stretches_folder(tmp_path / "capture") / "owner.json"
    assert json.loads(owner.read_text())["process"] == os.getpid()
    owner.write_text("{ not json")
    with keeping(tmp_path / "capture", {"film": 1}) as kept:
        assert kept.count("pass") == 0


def test_a_changed_film_is_another_one(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"abc")
    before = identity_of(film)
    assert identity_of(film) == before
    os.utime(film, ns=(1, 1))
    assert identity_of(film) != before
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/1.png").write_bytes(b"abc")
    slides = identity_of(Pictures(tmp_path / "slides"))
    (tmp_path / "slides/2.png").write_bytes(b"abc")
    assert identity_of(Pictures(tmp_path / "slides")) != slides

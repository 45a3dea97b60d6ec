"""Films cut to what all of them show, and curves of squashed ones."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from talk3d.errors import ScoringError
from talk3d.evaluate.align import Place
from talk3d.evaluate.claims import Claims
from talk3d.evaluate.film import Film, Sound
from talk3d.evaluate.follow import Landmarks, Motion, expression, head_pose
from talk3d.evaluate.placing import Followed, Placed, base_of, common_frames, common_window, notes_on, share_warning

NOTHING = np.array([[1.0, 0, 0], [0, 1, 0]])


def film(name: str, count: int = 50, size: tuple[int, int] = (64, 48)) -> Film:
    return Film(name, size, count, lambda a, b: (np.full((*size[::-1], 3), k, np.uint8) for k in range(a, b)), None)


def followed(path: Path, points: np.ndarray, size: tuple[int, int] = (64, 48)) -> Followed:
    path.touch()
    landmarks = Landmarks(path)
    landmarks.append(points.astype(np.float32))
    count = len(points)
    motion = Motion(np.ones(count), np.ones(count), head_pose(points), expression(points))
    return Followed(film("a", count, size), landmarks, motion, None, 0)


def test_all_are_cut_to_the_part_that_all_show() -> None:
    whole = np.ones((40, 60), bool)
    assert common_window([whole, whole]) == (0, 0, 60, 40)
    left, low = whole.copy(), whole.copy()
    left[:, :7] = False
    low[35:] = False
    assert common_window([whole, left, low]) == (7, 0, 60, 35)
    y, x = np.mgrid[:200, :200] - 100
    turned = (abs(x * np.cos(0.1) - y * np.sin(0.1)) < 90) & (abs(x * np.sin(0.1) + y * np.cos(0.1)) < 90)
    x0, y0, x1, y1 = common_window([turned])
    assert turned[y0:y1, x0:x1].all()
    assert (x1 - x0) * (y1 - y0) > 0.6 * turned.sum()
    nothing = ~(left | True)
    with pytest.raises(ScoringError, match="hardly any common part"):
        common_window([whole, nothing])


def test_a_squashed_film_is_measured_where_it_was_laid(tmp_path: Path) -> None:
    """Or its mouth would seem to open further than it does."""
    points = np.random.default_rng(0).uniform(10, 40, (30, 468, 2))
    true = followed(tmp_path / "a", points, (64, 48))
    squashed = followed(tmp_path / "b", points * [0.5, 1.0], (32, 48))
    entry = Placed(squashed, Place(0, "", np.array([[2.0, 0, 0], [0, 1, 0]]), True), None, None).entry(true, 5, 25)
    assert np.allclose(entry.motion.face, true.motion.face[5:25], atol=1e-4)
    assert not np.allclose(squashed.motion.face[5:25], true.motion.face[5:25], atol=1e-2)
    assert entry.film.at(0).shape == (48, 64, 3)
    assert np.allclose(entry.landmarks(0, 1), points[5:6], atol=1e-3)


def test_enlarging_does_not_repeat_pixels() -> None:
    ramp = np.repeat(np.repeat(np.arange(0, 160, 20, np.uint8)[None, :, None], 8, 0), 3, 2)
    small = Film("ramp", (8, 8), 1, lambda a, b: iter([ramp][a:b]), None)
    large = small.placed(None, (16, 16)).at(0)[8, :, 0].astype(int)
    assert (np.diff(large)[2:-2] > 0).all()


def test_a_range_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ScoringError, match=r"500..599 do not exist in `truth`, which has 50"):
        base_of((500, 600), None, film("truth"), [Claims("unknown", None, False)])


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (
            {"a": (0, 226), "test": (100, 145), "b": (0, 226)},
            "the 45 frames that all of them show; without test it would be 226.",
        ),
        (
            {"a": (0, 226), "one": (100, 145), "two": (50, 120)},
            "the 20 frames that all of them show; without one it would be 70.",
        ),
        ({"a": (0, 226), "one": (100, 145), "two": (90, 140)}, "the 40 frames that all of them show; without one and two it"),
        ({"a": (0, 226), "b": (4, 226)}, None),
        ({"a": (0, 45)}, None),
    ],
)
def test_a_film_that_shortens_the_comparison_is_named(tmp_path: Path, shown: dict[str, tuple[int, int]], said) -> None:
    """Whether its place was found, or its metadata told it before anything was followed."""
    points = np.random.default_rng(0).uniform(10, 40, (226, 468, 2))
    true, whole = followed(tmp_path / "truth", points), film("truth", 226)
    for claimed in (False, True):
        claims = {name: Claims("paper", span if claimed else None, True) for name, span in shown.items()}
        base = base_of(None, None, whole, list(claims.values()))
        placed = {
            name: Placed(
                followed(tmp_path / f"{name}{claimed}", points[a:b]), Place(a - base[0], "", NOTHING, True), None, None
            )
            for name, (a, b) in shown.items()
        }
        part = dataclasses.replace(true, film=true.film.part(*base))
        span = common_frames(placed, part, base)
        warnings = share_warning(placed, claims, base, span, partial(base_of, None, None, whole))
        assert len(warnings) == (said is not None)
        assert said is None or said in warnings[0]


@pytest.mark.parametrize(("by_motion", "said"), [(None, None), (3, None), (1, "2 frames later"), (7, "4 frames earlier")])
def test_pictures_that_disagree_with_their_sound_are_said_so(tmp_path: Path, by_motion: int | None, said: str | None) -> None:
    """Its sound says that the first frame shows frame 3. If it shows frame 1 instead, it lags behind."""
    points = np.random.default_rng(0).uniform(10, 40, (30, 468, 2))
    one, true = followed(tmp_path / "a", points), followed(tmp_path / "b", points)
    placed = Placed(one, Place(3, "its sound", NOTHING, True), 3.0, by_motion)
    notes = " ".join(notes_on({"a": placed}, {"a": Claims("unknown", None, False)}, true, None, (0, 30)))
    assert ("its head moves" in notes) == (said is not None)
    assert said is None or said in notes


@pytest.mark.parametrize(
    ("seconds", "claimed", "said"),
    [
        (5.0, (0, 30), "not the truth's"),
        (3.0, None, "3.0 s of sound are too few"),
        (1.8, None, "1.8 s of sound are too few"),
        (1.8, (0, 30), None),
    ],
)
def test_too_little_sound_to_tell_is_not_called_another_sound(tmp_path: Path, seconds: float, claimed, said) -> None:
    """A test part may last less than two seconds; nothing was heard that speaks against it then."""
    points = np.random.default_rng(0).uniform(10, 40, (30, 468, 2))
    films = []
    for seed, name in enumerate("ab"):
        noise = np.random.default_rng(seed).standard_normal(round(16000 * (seconds, 10.0)[seed])) * 0.1
        soundfile.write(tmp_path / f"{name}.wav", noise, 16000)
        sound = Sound(tmp_path / f"{name}.wav", tmp_path / f"{name}.sound")
        films.append(dataclasses.replace(followed(tmp_path / name, points), sound=sound))
    placed = Placed(films[0], Place(0, "", NOTHING, True), None, None)
    notes = " ".join(notes_on({"a": placed}, {"a": Claims("paper", claimed, True)}, films[1], None, (0, 30)))
    assert ("sound" in notes.replace("neither its sound", "")) == (said is not None)
    assert said is None or said in notes

"""What is before a face, on drawn faces that nod, turn, speak and blink; every cover's size is known."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch

import talk3d
from talk3d.camera import Orbit
from talk3d.capture import covers
from talk3d.capture.artifact import Capture
from talk3d.capture.covers import OCCLUDED, facing, find_covers, look_of
from talk3d.capture.frames import free_frames
from talk3d.capture.mask import hull_mask
from talk3d.capture.seen import seen_checks
from talk3d.capture.track import INNER_LIPS, LEFT_BROW, LEFT_EYE, OUTER_LIPS, RIGHT_BROW, RIGHT_EYE

SIDE, FRAMES, TRAIN = 128, 120, 100
SKIN = np.array((205.0, 155, 130))


@dataclass(frozen=True)
class Film:
    pictures: list[np.ndarray]
    track: dict[str, np.ndarray]
    covered: np.ndarray
    """True part of the landmarks' hull."""


@pytest.fixture(scope="module")
def canonical() -> np.ndarray:
    path = Path(talk3d.__file__).parent / "assets/prior/canonical.safetensors"
    return safetensors.torch.load_file(path)["landmarks"].double().numpy()


Shoot = Callable[..., Film]


@pytest.fixture(scope="module")
def shoot(canonical: np.ndarray) -> Shoot:
    def shoot(cover: str | None = None, when: range = range(40, 50), size: float = 0.2, turn: float = 0.3) -> Film:
        """Draw a face in motion; `cover` is before its lower half while `when`."""
        rng, time = np.random.default_rng(0), np.arange(FRAMES)
        yaw, pitch = turn * np.sin(time / 9) ** 3, 0.15 * np.sin(time / 6)
        gap, blink = 0.05 * (1 + np.sin(time / 1.7)), (time % 31 < 3).astype(float)
        points = Orbit().project(torch.from_numpy(canonical), torch.from_numpy(yaw), torch.from_numpy(pitch)).numpy()
        points[:, [14, 17, 84, 178, 87, 317, 402], 1] += 0.4 * gap[:, None]
        pictures, covered = [], np.zeros(FRAMES)
        x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
        for index, marks in enumerate(points * SIDE):
            picture = np.full((SIDE, SIDE, 3), (90.0, 110, 120))
            face = hull_mask(marks, (SIDE, SIDE))
            light = 1 - 0.3 * np.clip((x - marks[1, 0]) / 60, -1, 1) - 0.2 * yaw[index]
            picture[face] = (SKIN * light[..., None])[face]
            lids = (0, 0, 0) if blink[index] == 0 else SKIN * 0.8
            for outline, colour in (
                (LEFT_BROW, (70, 45, 30)), (RIGHT_BROW, (70, 45, 30)), (LEFT_EYE, lids), (RIGHT_EYE, lids),
                (OUTER_LIPS, (165, 75, 75)), (INNER_LIPS, (60, 20, 20)), ((98, 97, 2, 326, 327), SKIN * 0.55),
            ):  # fmt: skip
                picture[hull_mask(marks[list(outline)], (SIDE, SIDE))] = colour
            picture = cv2.GaussianBlur(picture, (3, 3), 0)
            if cover is not None and index in when:
                middle, radius = marks[[1, 13]].mean(axis=0), np.sqrt(size * face.sum() / np.pi)
                there = np.hypot(x - middle[0], y - middle[1]) < radius
                shade = 1 - 0.2 * (y - middle[1])[..., None] / radius
                picture[there] = ({"microphone": 30, "cup": (225, 225, 220), "hand": SKIN * 0.93}[cover] * shade)[there]
                covered[index] = (there & face).sum() / face.sum()
            pictures.append(np.clip(picture + 4 * rng.standard_normal(picture.shape), 0, 255).astype(np.uint8))
        track = {
            "landmarks": points, "yaw": yaw, "pitch": pitch, "lip_gap": gap, "blink": blink,
            "lip_width": np.full(FRAMES, 0.4), "brow_height": np.full(FRAMES, 0.2),
        }  # fmt: skip
        return Film(pictures, track, covered)

    return shoot


Find = Callable[[Film], np.ndarray]


@pytest.fixture
def find(canonical: np.ndarray) -> Find:
    def find(film: Film) -> np.ndarray:
        marks = np.stack([look_of(*shown) for shown in zip(film.pictures, film.track["landmarks"], strict=True)])
        parts = [slice(0, TRAIN), slice(TRAIN, FRAMES)]
        pieces = np.split(marks, [7, 80])
        return find_covers(lambda: iter(pieces), film.track, canonical, Orbit(), slice(0, TRAIN), parts)

    return find


def test_a_free_face_that_turns_speaks_and_blinks_is_free(shoot: Shoot, find: Find) -> None:
    assert find(shoot()).max() < OCCLUDED


def test_cheeks_that_turn_away_are_no_covers(shoot: Shoot, find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty degrees to either side, now and then: a cheek behind the nose shows what is beside the head."""
    film = shoot(turn=0.9)
    seen = find(film).max()
    assert seen < OCCLUDED / 3
    monkeypatch.setattr(covers, "FACING", -1.0)
    assert find(film).max() > max(0.05, 2 * seen)


@pytest.mark.parametrize("cover", ["microphone", "cup", "hand"])
@pytest.mark.parametrize("when", [range(40, 52), range(104, 116)], ids=["training", "testing"])
def test_covers_are_noticed(cover: str, when: range, shoot: Shoot, find: Find) -> None:
    """Of a tenth of the face, unless they have its colour."""
    size = 0.25 if cover == "hand" else 0.11
    film = shoot(cover, when, size)
    assert 0.8 * size < film.covered.max() < 1.2 * size
    seen = find(film)
    assert (seen[film.covered > 0] >= OCCLUDED).mean() > 0.9
    assert (seen[film.covered == 0] >= OCCLUDED).mean() < 0.03  # the median may take a frame at either end


def test_more_cover_counts_more(shoot: Shoot, find: Find) -> None:
    sizes = (0.1, 0.2, 0.4)
    found = [find(shoot("cup", size=size))[44:48].mean() for size in sizes]
    assert found[0] < found[1] < found[2]
    for size, seen in zip(sizes, found, strict=True):
        assert 0.7 * size < seen < 3.5 * size


def test_what_is_there_for_a_moment_only_is_no_cover(shoot: Shoot, find: Find) -> None:
    assert find(shoot("cup", range(44, 46))).max() < OCCLUDED


def test_light_that_changes_all_over_the_face_is_no_cover(shoot: Shoot, find: Find) -> None:
    film = shoot()
    for index in range(60, 80):
        film.pictures[index] = (film.pictures[index] * 0.75).astype(np.uint8)
    assert find(film).max() < OCCLUDED


def test_test_frames_say_nothing_about_training_frames(shoot: Shoot, find: Find) -> None:
    plain, strange = shoot("cup"), shoot("cup")
    strange.pictures[TRAIN:] = [picture[::-1].copy() for picture in strange.pictures[TRAIN:]]
    mine, other = find(plain), find(strange)
    assert np.array_equal(mine[:TRAIN], other[:TRAIN])
    assert other[TRAIN:].mean() > mine[TRAIN:].mean() + 0.1


def test_a_look_is_that_of_the_place(shoot: Shoot) -> None:
    flat = np.full((SIDE, SIDE, 3), (200, 100, 50), np.uint8)
    film = shoot()
    looks = look_of(flat, film.track["landmarks"][0])
    light = 0.3 * 200 + 0.6 * 100 + 0.1 * 50 + 12
    assert looks == pytest.approx(
        np.tile([np.log(light), 212 / light - 1, 62 / light - 1, 0], (468, 1)), abs=4e-3
    )  # half precision


def test_skin_that_looks_away_is_told_by_its_normal(canonical: np.ndarray) -> None:
    """A nose tip always looks at us; the two sides of a face do so in turns, and as each other's mirror."""
    yaw = np.array([0.0, 0.9, -0.9])
    squarely = facing(canonical, Orbit(), yaw, np.zeros(3))
    assert squarely[0, 151] > 0.8
    right, left = squarely[:, 454], squarely[:, 234]
    assert min(right[1], right[2]) < 0.15 < max(right[1], right[2]) - 0.3
    assert right[[1, 2]] == pytest.approx(left[[2, 1]], abs=0.1)


def test_frames_to_learn_from_are_free_ones() -> None:
    capture = Capture(Path("nowhere"), {"members": {}, "config": {"frames": 10}})
    vars(capture)["track"] = {}
    assert free_frames(capture, 2, 8).tolist() == [2, 3, 4, 5, 6, 7]
    vars(capture)["track"] = {"occluded": np.array([0, 0, 0.5, 0.01, 0, 0.2, OCCLUDED, 0, 0, 0])}
    assert free_frames(capture, 2, 8).tolist() == [3, 4, 7]


def test_the_report_shows_covered_moments(make_recording: Callable) -> None:
    occluded = np.zeros(1750)
    occluded[300:380], occluded[900:930] = 0.3, 0.5
    (check,) = (each for each in seen_checks(make_recording(occluded=occluded)) if each.name == "Face in full view")
    assert check.verdict == "warn"
    assert check.value == pytest.approx(110 / 1750, abs=1e-3)
    assert 900 <= check.moments[0] < 930
    assert any(300 <= moment < 380 for moment in check.moments)
    (check,) = (each for each in seen_checks(make_recording()) if each.name == "Face in full view")
    assert check.verdict == "pass"

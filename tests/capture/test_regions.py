"""Skin, hair, clothes and neck of drawn people, whose every pixel is known."""

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
from talk3d.capture.artifact import Capture
from talk3d.capture.mask import PersonSegmenter, above_jaw, hull_mask
from talk3d.capture.palette import CLOTHES, HAIR, SKIN, Palette, learn, learn_from
from talk3d.capture.regions import Regions, region_masks
from talk3d.capture.track import FACE_OVAL, LEFT_EYE, OUTER_LIPS, RIGHT_EYE, FaceTracker
from talk3d.video.write import GrayWriter, VideoWriter

SIDE = 128
BROWN, BLACK, ORANGE, TAN = (92, 60, 40), (34, 32, 36), (210, 110, 40), (214, 164, 140)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """Landmarks of a face that looks straight ahead, 0..1 of the crop [468, 2]."""
    canonical = safetensors.torch.load_file(Path(talk3d.__file__).parent / "assets/prior/canonical.safetensors")["landmarks"]
    return Orbit().project(canonical.double(), *torch.zeros(2, 1).double())[0].numpy()


@dataclass(frozen=True)
class Drawn:
    """Pictures of one person, who sways a little, with what is where."""

    pictures: list[np.ndarray]
    persons: list[np.ndarray]
    landmarks: np.ndarray
    parts: list[np.ndarray]
    """0 background, 1 skin, 2 hair, 3 clothes."""

    def palette(self) -> Palette:
        found = learn(self.pictures, self.persons, self.landmarks)
        assert found is not None
        return found

    def overlap(self, index: int, regions: Regions) -> dict[str, float]:
        """Intersection over union of hair, clothes and neck."""
        below = ~above_jaw(self.landmarks[index] * SIDE, (SIDE, SIDE))
        part = self.parts[index]
        pairs = {
            "hair": (regions.hair, part == 2),
            "clothes": (regions.torso, part == 3),
            "neck": (regions.neck, (part == 1) & below),
        }
        return {name: (a & b).sum() / (a | b).sum() for name, (a, b) in pairs.items() if b.any()}


Draw = Callable[..., Drawn]


@pytest.fixture(scope="module")
def draw(face: np.ndarray) -> Draw:
    def draw(hair: tuple | None, clothes: tuple | None, long: bool, frames: int = 12) -> Drawn:
        rng = np.random.default_rng(3)
        drawn = Drawn([], [], np.stack([face + 0.012 * rng.standard_normal(2) for _ in range(frames)]), [])
        for marks in drawn.landmarks:
            points = marks * SIDE
            oval = points[list(FACE_OVAL)]
            (left, top), (right, chin) = oval.min(0), oval.max(0)
            middle, width, height = (left + right) / 2, right - left, chin - top
            part = np.zeros((SIDE, SIDE), np.uint8)
            scalp = (round(middle), round(top + 0.35 * height)), (round(0.58 * width), round(0.52 * height))
            cv2.ellipse(part, *scalp, 0, 0, 360, 1 if hair is None else 2, -1)
            neck = round(middle - 0.28 * width), round(middle + 0.28 * width)
            cv2.rectangle(part, (neck[0], round(chin - 0.1 * height)), (neck[1], SIDE), 1, -1)
            collar, shoulder = round(chin + 0.1 * height), round(chin + 0.16 * height)
            shoulders = [(neck[0], collar), (0, shoulder), (0, SIDE), (SIDE, SIDE), (SIDE, shoulder), (neck[1], collar)]
            outline = np.array([*shoulders, (round(middle), collar + 6)])
            cv2.fillPoly(part, [outline], 1 if clothes is None else 3)
            if long:
                for edge in (left - 0.02 * width, right + 0.02 * width):
                    reach = round(0.08 * width)
                    cv2.rectangle(part, (round(edge) - reach, round(scalp[0][1])), (round(edge) + reach, SIDE), 2, -1)
            part[hull_mask(points, part.shape)] = 1
            colours = np.array([(120, 140, 150), TAN, hair or TAN, clothes or TAN], np.float64)[part]
            rows = np.arange(SIDE)[:, None]
            colours[(part == 1) & (rows > chin - 0.08 * height) & (rows < shoulder)] *= 0.7  # the chin's shadow
            for region in (OUTER_LIPS, LEFT_EYE, RIGHT_EYE):
                colours[hull_mask(points[list(region)], part.shape)] = (150, 60, 60) if region is OUTER_LIPS else (60, 40, 30)
            noise = 5 * rng.standard_normal(colours.shape)
            drawn.pictures.append(np.clip(cv2.GaussianBlur(colours, (3, 3), 0) + noise, 0, 255).astype(np.uint8))
            drawn.persons.append((part > 0).astype(np.uint8) * 255)
            drawn.parts.append(part)
        return drawn

    return draw


@pytest.mark.parametrize(
    ("hair", "clothes", "long"),
    [(BROWN, ORANGE, True), (BLACK, ORANGE, False), (BLACK, BLACK, False), (None, ORANGE, False), (BROWN, None, True)],
    ids=["long hair", "short hair", "a suit like the hair", "bald", "bare shoulders"],
)
def test_parts_are_found_by_their_own_colours(hair: tuple | None, clothes: tuple | None, long: bool, draw: Draw) -> None:
    drawn = draw(hair, clothes, long)
    palette = drawn.palette()
    for index in (0, 5):
        marks = drawn.landmarks[index] * SIDE
        regions = region_masks(marks, drawn.persons[index], drawn.pictures[index], palette)
        for name, overlap in drawn.overlap(index, regions).items():
            assert overlap > 0.85, name
        if hair is None:
            assert regions.hair.mean() < 0.005
        if clothes is None:
            assert regions.torso.mean() < 0.005


def test_the_palette_finds_what_proportions_cannot(draw: Draw) -> None:
    """Long hair before a blouse, of which proportions make one torso."""
    drawn = draw(BROWN, ORANGE, True)
    guess = drawn.overlap(0, region_masks(drawn.landmarks[0] * SIDE, drawn.persons[0]))
    assert guess["clothes"] < 0.75
    assert guess["hair"] < 0.75


def test_a_fringe_is_hair_and_not_face(draw: Draw) -> None:
    drawn = draw(BROWN, ORANGE, False)
    picture, marks = drawn.pictures[2].copy(), drawn.landmarks[2] * SIDE
    top, (left, right) = marks[10], marks[[109, 338]]
    corner, other = (int(left[0]), int(top[1]) - 3), (int(right[0]), int(top[1]) + 8)
    cv2.rectangle(picture, corner, other, BROWN, -1)
    regions = region_masks(marks, drawn.persons[2], picture, drawn.palette())
    fringe = np.zeros((SIDE, SIDE), bool)
    fringe[corner[1] + 5 : other[1] - 2, corner[0] + 2 : other[0] - 2] = True
    assert regions.hair[fringe].mean() > 0.9
    assert not regions.face[regions.hair].any()


def test_regions_share_the_picture_among_them(draw: Draw) -> None:
    drawn = draw(BROWN, ORANGE, True)
    for chosen in ((None, None), (drawn.pictures[0], drawn.palette())):
        regions = region_masks(drawn.landmarks[0] * SIDE, drawn.persons[0], *chosen)
        parts = np.stack([regions.head, regions.neck, regions.torso, regions.background])
        assert (parts.sum(axis=0) == 1).all()
        for inner, outer in (("face", "head"), ("hair", "head"), ("inner_mouth", "mouth"), ("mouth", "face"), ("eyes", "face")):
            assert not (getattr(regions, inner) & ~getattr(regions, outer)).sum() > 12, inner


def test_noise_does_not_make_edges_dance(draw: Draw) -> None:
    """The same scene with other noise: hardly a pixel changes its part, and fewer than if each colour spoke for itself."""
    drawn = draw(BROWN, ORANGE, True)
    palette, marks = drawn.palette(), drawn.landmarks[0] * SIDE
    rng = np.random.default_rng(0)
    changed, alone = [], []
    for _ in range(4):
        pair = [np.clip(drawn.pictures[0] + 6 * rng.standard_normal((SIDE, SIDE, 3)), 0, 255).astype(np.uint8) for _ in "ab"]
        first, second = (region_masks(marks, drawn.persons[0], picture, palette) for picture in pair)
        changed.append(((first.hair ^ second.hair) | (first.torso ^ second.torso)).mean())
        one, two = (palette.votes(picture).argmax(axis=0) for picture in pair)
        alone.append((one != two)[drawn.persons[0] > 0].sum() / SIDE**2)
    assert np.mean(changed) < 0.004
    assert np.mean(changed) < 0.7 * np.mean(alone)


def test_votes_are_probabilities_and_survive_being_stored(draw: Draw) -> None:
    drawn = draw(BROWN, ORANGE, True)
    palette = drawn.palette()
    votes = palette.votes(drawn.pictures[0])
    assert votes.sum(axis=0) == pytest.approx(1, abs=1e-5)
    for part, where in ((SKIN, 1), (HAIR, 2), (CLOTHES, 3)):
        assert votes[part][drawn.parts[0] == where].mean() > 0.8
    again = Palette.of(palette.tensors())
    assert np.array_equal(again.votes(drawn.pictures[0]), votes)


def test_only_the_frames_it_is_given_say_anything(draw: Draw, tmp_path: Path) -> None:
    drawn, other = draw(BROWN, ORANGE, True), draw(BLACK, ORANGE, False)
    found = []
    for name, last in (("one", drawn), ("two", other)):
        folder = tmp_path / name
        folder.mkdir()
        with (
            VideoWriter(folder / "frames.mp4", (SIDE, SIDE), causal=True, crf=4) as pictures,
            GrayWriter(folder / "person.mkv", (SIDE, SIDE)) as persons,
        ):
            for film in (drawn, last):
                for picture, person in zip(film.pictures, film.persons, strict=True):
                    pictures.write(picture)
                    persons.write(person)
        found.append(learn_from(folder, drawn.landmarks))
    assert found[0] is not None
    assert found[1] is not None
    assert np.array_equal(found[0].colours, found[1].colours)
    assert np.array_equal(found[0].places, found[1].places)


def test_nothing_is_learnt_without_a_face(draw: Draw) -> None:
    drawn = draw(BROWN, ORANGE, True)
    nobody = [np.zeros_like(person) for person in drawn.persons]
    assert learn(drawn.pictures, nobody, drawn.landmarks) is None


def test_a_capture_of_an_older_version_falls_back_to_proportions(draw: Draw) -> None:
    drawn = draw(BROWN, ORANGE, True)
    older = Capture(Path("nowhere"), {"members": {}, "config": {"resolution": SIDE}})
    vars(older)["track"] = {"landmarks": drawn.landmarks}
    assert older.palette is None
    regions = older.region_masks(0, drawn.pictures[0], drawn.persons[0])
    assert np.array_equal(regions.torso, region_masks(drawn.landmarks[0] * SIDE, drawn.persons[0]).torso)


def test_regions_of_a_face(film_frames: np.ndarray) -> None:
    frame = film_frames[0]
    face = FaceTracker()(frame)
    assert face is not None
    regions = region_masks(face.landmarks, PersonSegmenter()(frame))
    for points, region in ((OUTER_LIPS, regions.mouth), (LEFT_EYE, regions.eyes), (FACE_OVAL, regions.head)):
        x, y = face.landmarks[list(points)].mean(axis=0).astype(int)
        assert region[y, x]
    assert regions.face[regions.mouth].mean() > 0.95
    assert not regions.torso[regions.face].any()
    assert (regions.torso | regions.neck)[-5:].sum() > 500
    assert regions.background[:30, :30].all()

"""Films with several people in them, put together from the bench pack's synthetic ones."""

from pathlib import Path

import numpy as np
import pytest

import talk3d
from talk3d.capture.people import choose_person, find_people, portraits
from talk3d.capture.takes import Scenes, find_takes
from talk3d.capture.track import FaceTracker, embed, track
from talk3d.errors import ConfigError
from talk3d.video.read import read_frames

PACK = Path(talk3d.__file__).parent / "assets" / "truth"


def film(name: str, start: int, stop: int) -> np.ndarray:
    """Frames [F, 256, 256, 3] of a person's test film."""
    return np.stack(list(read_frames(PACK / name / "test.mp4", start=start, stop=stop)))


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.concatenate([left, right], axis=2)


def smaller(frames: np.ndarray) -> np.ndarray:
    """At half the size, in the middle of the frame."""
    result = np.full_like(frames, 96)
    result[:, 64:192, 64:192] = frames[:, ::2, ::2]
    return result


def looks(frames: np.ndarray) -> np.ndarray:
    tracker = FaceTracker()
    return np.stack([embed(frame, tracker(frame).landmarks) for frame in frames[::8]])


@pytest.fixture(scope="module")
def ben(models: None) -> np.ndarray:
    return film("ben", 20, 80)


@pytest.fixture(scope="module")
def mira(models: None) -> np.ndarray:
    return film("mira", 20, 80)


def test_two_people_are_two_and_the_speaker_comes_first(ben: np.ndarray, mira: np.ndarray) -> None:
    silent = np.repeat(mira[:1], len(mira), axis=0)
    people = find_people(beside(silent, ben)[::6])
    assert [len(person.heights) for person in people] == [10, 10]
    assert people[0].middle[0] > 0.5 > people[1].middle[0]
    assert portraits(people, 1).shape == (128, 256, 3)
    louder = find_people(beside(mira, np.repeat(ben[:1], len(ben), axis=0))[::6])
    assert louder[0].middle[0] < 0.5


def test_one_person_is_one(ben: np.ndarray) -> None:
    people = find_people(ben[::6])
    assert len(people) == 1
    assert choose_person(people, None) == choose_person(people, 1) == 0
    with pytest.raises(ConfigError, match="no face 2: one face was found"):
        choose_person(people, 2)


def test_the_person_asked_for_is_followed_however_large_another_one_is(ben: np.ndarray, mira: np.ndarray) -> None:
    frames = beside(mira, smaller(ben))
    who = looks(ben)
    middles = track(frames[:30], who).landmarks[..., 0].mean(axis=1)
    assert (middles > 256).all()
    assert (track(frames[:3]).landmarks[..., 0].mean(axis=1) < 256).all()  # nobody said whom: the largest


def test_another_person_after_a_cut_is_not_followed(ben: np.ndarray, mira: np.ndarray) -> None:
    frames = np.concatenate([ben, mira, ben])
    who = looks(ben)
    tracked = track(frames, who)
    assert np.array_equal(tracked.found, np.repeat([True, False, True], 60))
    thumbnails = np.zeros((len(frames), 32, 32), np.uint8)  # a film that does not give the cuts away
    scenes = Scenes(thumbnails, np.zeros(0, np.int64), who[:0], who)
    assert all(stop <= 60 or start >= 120 for start, stop in find_takes(tracked, scenes))


def test_another_person_who_shows_only_briefly_is_not_taken_either(ben: np.ndarray, mira: np.ndarray) -> None:
    """Between two moments of making sure: the jumps themselves are reason enough."""
    frames = np.concatenate([ben[:35], mira[:9], ben[35:], mira[:5]])
    tracked = track(frames, looks(ben))
    assert np.array_equal(tracked.found, np.repeat([True, False, True, False], [35, 9, 25, 5]))


def test_a_lost_face_is_found_again_where_it_reappears_and_not_where_another_one_is(ben: np.ndarray, mira: np.ndarray) -> None:
    nobody = np.full_like(ben[:10], 96)
    frames = np.concatenate([beside(ben[:20], mira[:20]), beside(nobody, mira[20:30]), beside(mira[30:40], ben[30:40])])
    tracked = track(frames, looks(ben))
    middles = tracked.landmarks[..., 0].mean(axis=1)
    assert (middles[:20] < 256).all()
    assert not tracked.found[20:30].any()
    assert (middles[30:] > 256).all()

"""A synthetic speaker: lips follow phones, films follow scripts, and the truth that comes with them is the truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from talk3d.camera import Orbit
from talk3d.heads.model import IDENTITY_MODES, HeadPack, HeadParameters
from talk3d.heads.raster import LABELS
from talk3d.heads.subject import SPREAD, Frame, Phone, Script, lip_shapes, perform, write_script

FPS = 25.0
VISEMES = {
    "rest": {"jawOpen": 0.0},
    "aa": {"jawOpen": 0.7, "mouthStretch": 0.1},
    "U": {"jawOpen": 0.1, "mouthPucker": 0.8},
    "PP": {"mouthPress": 0.5, "jawOpen": 0.0},
}


def curve(phones: list[Phone], frames: int, name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in lip_shapes(phones, frames, FPS, VISEMES)])


def test_silence_is_at_rest() -> None:
    for row in lip_shapes([], 5, FPS, VISEMES):
        assert row == dict.fromkeys(("jawOpen", "mouthPress", "mouthPucker", "mouthStretch"), 0.0)
    # Also between words, beyond the reach of coarticulation.
    jaw = curve([Phone(0.2, 0.4, "aa"), Phone(1.2, 1.4, "aa")], 50, "jawOpen")
    time = (np.arange(50) + 0.5) / FPS
    quiet = (time > 0.4 + SPREAD) & (time < 1.2 - SPREAD)
    assert quiet.sum() > 10
    assert jaw[quiet].max() == 0


def test_a_phone_is_reached_at_its_middle_and_nowhere_overshot() -> None:
    jaw = curve([Phone(0.4, 0.6, "aa")], 25, "jawOpen")
    assert jaw.argmax() == 12  # at 0.5 s
    assert jaw.max() == pytest.approx(0.7, rel=0.01)
    assert (np.diff(jaw[:13]) >= 0).all()
    assert (np.diff(jaw[12:]) <= 0).all()


def test_neighbours_blend() -> None:
    phones = [Phone(0.2, 0.4, "aa"), Phone(0.4, 0.6, "U")]
    jaw, pucker = curve(phones, 20, "jawOpen"), curve(phones, 20, "mouthPucker")
    between = 9  # frame 9 shows 0.38 s, 10 shows 0.42 s
    assert 0.2 < jaw[between] < 0.7
    assert 0.1 < pucker[between] < 0.8
    # Weights are shares: nothing grows beyond the larger of both.
    assert pucker.max() <= 0.8
    order = lip_shapes(phones[::-1], 20, FPS, VISEMES)
    for one, other in zip(order, lip_shapes(phones, 20, FPS, VISEMES), strict=True):
        assert one == pytest.approx(other)


def test_closures_are_reached_between_open_vowels() -> None:
    phones = [Phone(0.1, 0.32, "aa"), Phone(0.32, 0.36, "PP"), Phone(0.36, 0.6, "aa")]
    press, jaw = curve(phones, 20, "mouthPress"), curve(phones, 20, "jawOpen")
    assert press[8] > 0.95 * 0.5  # frame 8 shows 0.34 s, the middle
    assert jaw[8] < 0.05 * 0.7
    # Canary: were it an ordinary phone, the vowels would keep the mouth open.
    plain = [replace(p, viseme="U") if p.viseme == "PP" else p for p in phones]
    assert curve(plain, 20, "mouthPucker")[8] < 0.95 * 0.8


def test_the_packs_visemes_are_its_shapes(pack: HeadPack) -> None:
    shapes = pack.visemes["viseme_to_expression"]
    assert {"PP", "FF", "aa", "U"} <= shapes.keys()
    for shape in shapes.values():
        assert np.isfinite(pack.displacement(shape)).all()


def script(pack: HeadPack, seed: int, frames: int = 1500) -> Script:
    return write_script([Phone(1.0, 1.3, "aa")], frames, FPS, pack, seed)


def test_scripts_depend_on_the_seed_and_nothing_else(pack: HeadPack) -> None:
    one, same, other = script(pack, 1), script(pack, 1), script(pack, 2)
    np.testing.assert_array_equal(one.yaw, same.yaw)
    assert one.expression == same.expression
    assert not np.allclose(one.yaw, other.yaw)


def test_scripts_move_like_people(pack: HeadPack) -> None:
    played = script(pack, 3)
    frames = len(played.expression)
    assert [len(a) for a in (played.gaze, played.yaw, played.pitch, played.shift)] == [frames] * 4
    blink = np.array([row["eyeBlink"] for row in played.expression])
    assert blink.min() == 0
    assert blink.max() == 1
    closings = np.sum((blink[1:] > 0.5) & (blink[:-1] <= 0.5))
    assert 60 / 6 <= closings <= 60 / 2  # in a minute
    assert (blink > 0).mean() < 0.15
    assert math.degrees(played.yaw.std()) == pytest.approx(7, rel=0.05)
    assert math.degrees(played.pitch.std()) == pytest.approx(3, rel=0.05)
    # Slow: no jumps from frame to frame.
    assert np.abs(np.diff(played.yaw)).max() < 0.5 * played.yaw.std()
    for row in played.expression:
        assert all(0 <= weight <= 1.01 for weight in row.values())


SIZE = 64
PERSON = HeadParameters(identity=np.zeros(IDENTITY_MODES, np.float32), hair=None)


def film(pack: HeadPack, rows: list[dict[str, float]], **changes: NDArray[np.float64]) -> list[Frame]:
    frames = len(rows)
    still = Script(rows, np.zeros((frames, 2)), np.zeros(frames), np.zeros(frames), np.zeros((frames, 2)), FPS)
    background = np.full((SIZE, SIZE, 3), (10, 200, 30), np.uint8)
    return list(perform(PERSON, replace(still, **changes), pack, Orbit(), background))


def test_films_come_with_the_lips_true_gap(pack: HeadPack) -> None:
    frames = film(pack, [{}, {"jawOpen": 0.3}, {"jawOpen": 0.6}, {"mouthPucker": 0.8}])
    gaps, widths = [frame.lip_gap for frame in frames], [frame.lip_width for frame in frames]
    assert gaps[0] < gaps[1] < gaps[2]
    assert gaps[2] - gaps[0] == pytest.approx(2 * (gaps[1] - gaps[0]), rel=0.1)  # the jaw's shape is linear
    assert widths[3] < widths[0]
    # And it shows: the open mouth is dark inside.
    mouth = LABELS.index("mouth")
    counts = [(frame.picture.labels == mouth).sum() for frame in frames]
    assert counts[0] < counts[1] < counts[2]


def test_the_background_shows_where_the_head_is_not(pack: HeadPack) -> None:
    frame = film(pack, [{}])[0]
    nothing = frame.picture.alpha == 0
    assert nothing.any()
    assert (frame.rgb[nothing] == (10, 200, 30)).all()
    opaque = frame.picture.alpha == 255
    np.testing.assert_array_equal(frame.rgb[opaque], frame.picture.rgb[opaque])


def test_scripted_poses_and_shifts_are_obeyed(pack: HeadPack) -> None:
    yaw, pitch = np.array([0.0, 0.3, 0.0, 0.0]), np.array([0.0, 0.0, 0.2, 0.0])
    shift = np.zeros((4, 2))
    shift[3] = (0.25, -0.125)
    frames = film(pack, [{}] * 4, yaw=yaw, pitch=pitch, shift=shift)
    for frame, y, p in zip(frames, yaw, pitch, strict=True):
        place = frame.cam2world[:3, 3]
        assert math.atan2(place[0], place[2]) == pytest.approx(y, abs=1e-5)
        assert math.asin(place[1] / 2.7) == pytest.approx(p, abs=1e-5)
    still, moved = frames[0].picture.alpha, frames[3].picture.alpha
    np.testing.assert_array_equal(moved[: -SIZE // 8, SIZE // 4 :], still[SIZE // 8 :, : -SIZE // 4])


def test_gaze_moves_the_irises(pack: HeadPack) -> None:
    gaze = np.array([[0.0, 0.0], [0.35, 0.0]])
    ahead, aside = film(pack, [{}] * 2, gaze=gaze)
    eyes = ahead.picture.labels == LABELS.index("eye")
    assert eyes.any()
    assert np.abs(ahead.rgb[eyes].astype(int) - aside.rgb[eyes]).max() > 30

"""Portraits of synthetic people: everything in a picture but the person is drawn anew, and its truth is true."""

from pathlib import Path

import numpy as np
import pytest

from talk3d.heads.model import HELD_OUT, HeadPack, HeadParameters
from talk3d.judges.headnet import READINGS
from talk3d.pretrain import portraits
from talk3d.pretrain.portraits import Portraits, load_portraits, readings_of, render_portraits

PERSONS, FACES, VIEWS = 6, 2, 1
PICTURES = FACES * VIEWS


@pytest.fixture(scope="module", autouse=True)
def few() -> object:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in (("PERSONS", PERSONS), ("FACES", FACES), ("VIEWS", VIEWS)):
            monkeypatch.setattr(portraits, name, value)
        yield


@pytest.fixture(scope="module")
def shard(pack: HeadPack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_portraits(tmp_path_factory.mktemp("portraits"), 3, pack)


@pytest.fixture(scope="module")
def data(shard: Path) -> Portraits:
    return load_portraits([shard])


def test_a_shard_holds_every_person_in_several_pictures(data: Portraits) -> None:
    assert len(data) == PERSONS * PICTURES
    assert data.images.shape == (len(data), 4, 128, 128)
    assert data.landmarks.shape == (len(data), 68, 2)
    assert data.readings.shape == (len(data), len(READINGS))
    assert (np.bincount(data.person - data.person.min()) == PICTURES).all()
    # Who has other expressions, light and views, is still of one colour and sex.
    assert np.ptp(data.readings.reshape(PERSONS, PICTURES, -1), axis=1).min(0).max() > 0
    assert np.ptp(data.tone.reshape(PERSONS, PICTURES, 3), axis=1).max() < 1e-6
    assert not np.array_equal(data.images[0], data.images[1])


def test_twins_differ_in_shape_alone(data: Portraits) -> None:
    twins = data.twins != data.person
    assert twins.any()
    assert not twins.all()
    for index in np.flatnonzero(twins):
        other = np.flatnonzero(data.person == data.twins[index])[0]
        np.testing.assert_array_equal(data.tone[index], data.tone[other])


def test_landmarks_lie_on_the_head(data: Portraits) -> None:
    inside = []
    for image, points in zip(data.images, data.landmarks, strict=True):
        x, y = (points[17:] * 128).astype(int).T  # brows, nose, eyes, mouth
        inside.append((image[3, y, x] > 128).mean())
    assert np.mean(inside) > 0.97


def test_a_shard_is_a_function_of_its_number(pack: HeadPack, shard: Path, tmp_path: Path) -> None:
    again = load_portraits([render_portraits(tmp_path, 3, pack)])
    np.testing.assert_array_equal(again.images, load_portraits([shard]).images)
    before = (shard / "images.npy").stat().st_mtime_ns
    assert render_portraits(shard.parent, 3, pack) == shard
    assert (shard / "images.npy").stat().st_mtime_ns == before


def test_unseen_heads_wear_what_training_never_wears(pack: HeadPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worn = []
    build = HeadPack.build
    monkeypatch.setattr(HeadPack, "build", lambda self, parameters: worn.append(parameters) or build(self, parameters))
    render_portraits(tmp_path, 0, pack, held_out_textures=True)
    assert worn
    assert all({p.skin, p.second_skin, p.hair, p.eye, p.brow} - {None} <= HELD_OUT for p in worn)
    worn.clear()
    render_portraits(tmp_path, 0, pack)
    assert worn
    assert all({p.skin, p.second_skin, p.hair, p.eye, p.brow}.isdisjoint(HELD_OUT) for p in worn)


def test_readings_add_both_sides_and_one() -> None:
    head = HeadParameters(np.zeros(57, np.float32), {"eyeBlink": 0.5, "eyeBlink_L": 0.25, "jawOpen": 0.4}, gaze=(0.1, -0.05))
    values = dict(zip(READINGS, readings_of(head).tolist(), strict=True))
    assert values["eyeBlink_L"] == pytest.approx(0.75)
    assert values["eyeBlink_R"] == pytest.approx(0.5)
    assert values["jawOpen"] == pytest.approx(0.4)
    assert values["gaze_yaw"] == pytest.approx(0.1)
    assert values["gaze_pitch"] == pytest.approx(-0.05)
    assert sum(values.values()) == pytest.approx(1.7)

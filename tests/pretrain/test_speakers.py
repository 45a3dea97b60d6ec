"""Speaking landmarks: the short cut through 68 points agrees with the whole head, and lips move when sounds do."""

from pathlib import Path

import numpy as np
import pytest

from talk3d.camera import Orbit
from talk3d.heads.model import HeadPack
from talk3d.heads.raster import landmarks68, project
from talk3d.heads.subject import Phone, write_script
from talk3d.judges.sync import LIPS, in_face
from talk3d.pretrain.speakers import (
    EYES,
    NOSE,
    Recording,
    Rig,
    TrackerModel,
    load_recordings,
    random_person,
    save_recordings,
    shifted,
    speaking_lips,
    wander,
)
from talk3d.video.clock import AUDIO_RATE, FPS

PHONES = [Phone(0.5 * k + 0.4, 0.5 * k + 0.6, "aa" if k % 2 else "PP") for k in range(10)]
RECORDING = Recording(np.random.default_rng(0).standard_normal(6 * AUDIO_RATE).astype(np.float32) * 0.1, PHONES)
SIMPLE = TrackerModel(
    gain=np.tile(np.eye(40, dtype=np.float32), (1, 2)),  # 20 points, each reported twice
    mouth=np.zeros((1, 80), np.float32),
    noise=np.zeros((1, 57, 80), np.float32),
    explained=1.0,
)


@pytest.fixture(scope="module")
def rig(pack: HeadPack) -> Rig:
    return Rig(pack)


def test_the_rigs_points_are_the_heads(rig: Rig, pack: HeadPack) -> None:
    import dataclasses

    import torch

    rng = np.random.default_rng(1)
    person = random_person(rng, pack)
    script = write_script(PHONES, 40, float(FPS), pack, seed=3)
    for row in script.expression:  # what moves no lips is left out of the rig
        row["browOuterUp"] = 0.0
    script = dataclasses.replace(script, gaze=script.gaze * 0)
    fast = rig.points(person.identity, script)
    orbit = Orbit()
    poses = orbit.pose(torch.from_numpy(script.yaw).float(), torch.from_numpy(script.pitch).float()).numpy()
    for index in (0, 17, 39):
        head = pack.build(dataclasses.replace(person, expression=script.expression[index], gaze=(0.0, 0.0)))
        slow = project(landmarks68(head, pack), poses[index], orbit.intrinsics().numpy())[None].astype(np.float64)
        np.testing.assert_allclose(fast[index], in_face(slow, EYES, NOSE)[0], atol=1e-3)


def test_recordings_come_back(tmp_path: Path) -> None:
    save_recordings(tmp_path / "a.npz", [RECORDING, Recording(np.zeros(AUDIO_RATE, np.float32), PHONES[:1])], ["PP", "aa"])
    first, second = load_recordings(tmp_path / "a.npz")
    np.testing.assert_allclose(first.samples, RECORDING.samples, atol=1e-4)
    assert [phone.viseme for phone in first.phones] == [phone.viseme for phone in PHONES]
    assert first.frames == 150
    assert second.phones[0].start == pytest.approx(0.4)


def test_the_tracker_model_comes_back(tmp_path: Path) -> None:
    SIMPLE.save(tmp_path / "tracker.safetensors")
    again = TrackerModel.load(tmp_path / "tracker.safetensors")
    np.testing.assert_array_equal(again.gain, SIMPLE.gain)
    assert again.explained == 1.0


def test_mouths_open_when_open_sounds_are_made(rig: Rig) -> None:
    openings = []
    for seed in range(6):
        lips = speaking_lips(RECORDING, rig, SIMPLE, np.random.default_rng(seed)).reshape(150, 40, 2)
        openings.append(lips[:, 18, 1] - lips[:, 14, 1])  # points 66 and 62, the inner lips' middles
    opening = np.mean(openings, 0)
    middles = {v: [round((p.start + p.stop) / 2 * FPS) for p in PHONES if p.viseme == v] for v in ("aa", "PP")}
    assert opening[middles["aa"]].min() > opening[middles["PP"]].max()
    assert np.std(openings, axis=0).mean() > 0  # nobody speaks like another


def test_the_same_numbers_make_the_same_speaker(rig: Rig) -> None:
    one, other = (speaking_lips(RECORDING, rig, SIMPLE, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (150, 2 * len(LIPS))


def test_phones_move_in_time() -> None:
    moved = shifted(PHONES, -1.0)
    assert [phone.start for phone in moved] == pytest.approx([p.start - 1 for p in PHONES if p.stop > 0.8])


def test_wandering_is_slow_and_of_unit_size() -> None:
    track = wander(500, 0.4, np.random.default_rng(0))
    assert track.std() == pytest.approx(1)
    assert np.abs(np.diff(track)).max() < 0.5

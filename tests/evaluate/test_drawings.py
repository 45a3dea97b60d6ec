"""What people look at: the yaw that frames are sorted by, and curves that say where nothing is known."""

import csv
from pathlib import Path

import numpy as np
import pytest

from talk3d import frozen
from talk3d.evaluate.drawings import ANGLE, charts, write_curves, yaw_of
from talk3d.evaluate.film import Film, open_video
from talk3d.evaluate.follow import Landmarks, Motion, follow
from talk3d.evaluate.scores import Curves, Entry


def entry(motion: Motion, path: Path) -> Entry:
    count = len(motion.gap)
    return Entry(Film("truth", (8, 8), count, lambda a, b: iter(()), None), Landmarks(path), motion, None)


def looking(yaw: np.ndarray) -> Motion:
    pose = np.zeros((len(yaw), 6))
    pose[:, 4] = yaw
    return Motion(np.linspace(0, 1, len(yaw)), np.ones(len(yaw)), pose, np.ones((len(yaw), 7)))


def test_curves_over_angle_are_means_of_their_frames(tmp_path: Path) -> None:
    nose = np.r_[np.full(20, -0.1), np.full(30, 0.0), np.full(3, 0.2)]
    truth = entry(looking(nose), tmp_path)
    quality = np.r_[np.full(20, 20.0), np.full(30, 30.0), np.full(3, 10.0)]
    curves = Curves(quality, quality / 10, np.linspace(0, 1, 53), quality)
    drawn = {chart.title: chart for chart in charts(truth, {"a": curves})}
    (over_yaw,) = (chart for title, chart in drawn.items() if title.startswith("PSNR of the face, dB, over"))
    yaw = yaw_of(truth.motion.pose)
    places = np.floor((yaw - over_yaw.low) / ANGLE).astype(int)
    assert over_yaw.curves["a"][places[0]] == 20
    assert over_yaw.curves["a"][places[25]] == 30
    assert np.isnan(over_yaw.curves["a"][places[-1]])  # three frames are no mean
    assert over_yaw.high - over_yaw.low == ANGLE * len(over_yaw.curves["a"])
    unseen = entry(looking(np.full(53, np.nan)), tmp_path)
    assert len(charts(unseen, {"a": curves})) == len(drawn) - 2


def test_the_estimated_yaw_is_about_the_true_one(shared: Path, tmp_path: Path) -> None:
    if not all(status.installed for status in frozen.list_models()):
        pytest.skip(f"the face models are not installed; `{frozen.INSTALL_COMMAND}` puts them in the cache")
    film = open_video(shared / "data/synthetic/A/A.mp4", "A").part(0, 250)
    _, _, motion = follow(film, tmp_path / "l", lambda part: None)
    # The camera's orbit is the opposite of the head's rotation.
    true = -np.degrees(np.load(shared / "data/synthetic/A/self.truth.npz")["yaw"][:250])
    found = yaw_of(motion.pose)
    assert np.corrcoef(found, true)[0, 1] > 0.97
    assert abs(np.polyfit(true, found, 1)[0]) == pytest.approx(1, abs=0.15)
    assert np.abs(found - true).mean() < 4


def test_a_line_a_frame_and_nothing_where_nothing_is_known(tmp_path: Path) -> None:
    truth = entry(looking(np.zeros(3)), tmp_path)
    curve = np.array([1.0, np.nan, 3.0])
    write_curves(tmp_path / "c.csv", 7, truth, {"a": Curves(curve, curve, curve, curve)})
    with (tmp_path / "c.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["frame"] for line in lines] == ["7", "8", "9"]
    assert [line["a: face psnr"] for line in lines] == ["1", "", "3"]
    assert [line["lip opening of the truth"] for line in lines] == ["0", "0.5", "1"]

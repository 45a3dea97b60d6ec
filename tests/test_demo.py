"""The demo runs through every room on the shipped clip, and continues where it was interrupted."""

import dataclasses
import shutil

import cv2
import numpy as np
import pytest
import soundfile
import torch

from talk3d import demo
from talk3d.artifacts import Avatar
from talk3d.bench import views
from talk3d.personalize.cameras import CameraConfig
from talk3d.personalize.invert import InvertConfig
from talk3d.personalize.subject import PersonalizeConfig
from talk3d.personalize.tune import TuneConfig
from talk3d.prior.generator import Generator, load_prior, save_prior
from talk3d.talker.config import TrainConfig
from talk3d.video.look import probe
from talk3d.video.read import read_frames
from tests.conftest import TINY

STEPS = {"invert": InvertConfig(steps=2), "tune": TuneConfig(steps=2), "cameras": CameraConfig(steps=1)}
SHORT = PersonalizeConfig(**STEPS)
TRAIN = TrainConfig(steps=2, minutes=None, frames_per_step=4, listen_steps=2)


def test_the_whole_demo(tmp_path, monkeypatch):
    """With a tiny prior of random weights, so no likeness: every file is there, and a second call repeats nothing."""
    assets, output = tmp_path / "assets", tmp_path / "demo"
    shipped = load_prior(demo.ASSETS / "prior")
    assets.mkdir()
    expressions = {name: torch.randn(TINY.z_dim) for name in shipped.expressions}
    save_prior(assets / "prior", Generator(TINY), shipped.canonical_landmarks, expressions=expressions)
    shutil.copy(demo.ASSETS / "demo.mp4", assets / "demo.mp4")
    sound, rate = soundfile.read(demo.ASSETS / "drive.flac")
    soundfile.write(assets / "drive.flac", sound[:rate], rate)
    monkeypatch.setattr(demo, "ASSETS", assets)
    monkeypatch.setattr(demo, "PersonalizeConfig", lambda: SHORT)
    monkeypatch.setattr(demo, "TrainConfig", lambda minutes: dataclasses.replace(TRAIN, minutes=minutes))
    monkeypatch.setattr(views, "YAWS", (-15, 0, 15))
    monkeypatch.setattr(views, "PITCHES", (-10, 0, 10))
    stages: list[str] = []

    def report(stage: str, part: float = 0.0) -> None:
        if not stages or stages[-1] != stage:
            stages.append(stage)

    def interrupt(stage: str, part: float = 0.0) -> None:
        if stage == "training" and part > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(output, 1.0, interrupt)
    scores = demo.run_demo(output, 1.0, report)
    assert "training" in stages
    assert "inverting" not in stages
    assert "cone" in Avatar.open(output / "paul.talk3d").notes["views"]
    spoken = {f"speaking-{camera}.mp4" for camera in ("source", "front", "orbit")}
    assert {"views", "demo.mp4", "contact-sheet.png", "report", *spoken} <= {p.name for p in output.iterdir()}
    for film in (*spoken, "demo.mp4", "test.mp4"):
        said = probe(output / film).metadata
        assert "AI-generated" in said["notice"], film
        assert said["consent"] == "synthetic", film
    size = TINY.image_resolution
    film = list(read_frames(output / "demo.mp4"))
    assert len(film) == 25
    assert film[0].shape == (size, 3 * size, 3)
    assert probe(output / "demo.mp4").audio is not None
    # The source view and the front view of a moving head are not the same picture.
    pictures = np.stack(film).astype(float)
    assert np.abs(pictures[:, :, :size] - pictures[:, :, size : 2 * size]).mean() > 1
    assert scores.frames[1] > scores.frames[0]

    stages.clear()
    before = (output / "paul.talk3d").stat().st_mtime_ns
    demo.run_demo(output, 1.0, report)
    assert (output / "paul.talk3d").stat().st_mtime_ns == before
    assert "training" not in stages


def test_the_assets_are_whole():
    for name in ("prior", "demo.mp4", "drive.flac"):
        assert (demo.ASSETS / name).exists(), name
    assert load_prior(demo.ASSETS / "prior").expressions


@pytest.mark.parametrize("count", [8, 9, 50])
def test_contact_sheets_of_short_films(tmp_path, count):
    from talk3d.video.write import VideoWriter

    with VideoWriter(tmp_path / "film.mp4", (48, 16)) as writer:
        for index in range(count):
            writer.write(np.full((16, 48, 3), index, np.uint8))
    demo._contact_sheet(tmp_path / "film.mp4", tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (4 * 16, 2 * 48, 3)
    assert abs(int(sheet[0, 0].mean()) - 0) < 4
    assert abs(int(sheet[-1, -1].mean()) - (count - 1)) < 4

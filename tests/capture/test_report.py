"""The report of real films: a good one passes, and what is planted into it is found where it was planted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from talk3d.capture import report as room
from talk3d.capture.artifact import Capture
from talk3d.capture.voice import load_voice, voice
from talk3d.errors import ModelMissingError

ASSETS = Path(room.__file__).parents[1] / "assets"


def checks_of(capture: Capture) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in capture.report["checks"]}


@pytest.fixture(scope="module")
def spoilt(film_frames: np.ndarray, film_sound: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A listening face beside another one's voice for four seconds in the middle of a film, and its sound."""
    from talk3d.video.write import VideoWriter

    other = soundfile.read(ASSETS / "drive.flac", dtype="float32")[0]
    start = int(np.flatnonzero(voice(other) > 0.9)[0]) * 640
    sound = np.concatenate([film_sound, other[start : start + 100 * 640], film_sound])
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("spoilt")
    with VideoWriter(folder / "spoilt.mp4", (256, 256), crf=12, preset="veryfast") as writer:
        for frame in film_frames:
            writer.write(frame)
        still = film_frames[-1].astype(np.float32)
        for _ in range(100):  # as a camera sees it, no two frames are the same
            writer.write(np.clip(still + rng.normal(0, 2, still.shape), 0, 255).astype(np.uint8))
        for frame in film_frames[::-1]:
            writer.write(frame)
    telephone = soxr.resample(soxr.resample(sound, 16000, 8000), 8000, 16000)
    soundfile.write(folder / "telephone.wav", telephone, 16000, subtype="PCM_16")
    soundfile.write(folder / "driven.wav", np.clip(6 * sound, -1, 1), 16000, subtype="PCM_16")
    return folder


@pytest.mark.parametrize(
    ("sound", "name", "other"), [("telephone", "Bandwidth", "Clipping"), ("driven", "Clipping", "Bandwidth")]
)
def test_planted_defects_are_found_where_they_are(
    run: Callable[..., Capture], spoilt: Path, tmp_path: Path, sound: str, name: str, other: str
) -> None:
    capture = run(spoilt / "spoilt.mp4", tmp_path / "capture", audio=spoilt / f"{sound}.wav")
    checks = checks_of(capture)
    assert checks[name]["verdict"] != "pass"
    for good in (
        other,
        "Face size",
        "Sharpness",
        "Background",
        "Frames left out",
        "Overexposed face",
        "Tracking",
        "Whole sound",
    ):
        assert checks[good]["verdict"] == "pass", good
    assert checks["One speaker"]["verdict"] == "fail"
    assert checks["One speaker"]["value"] == pytest.approx(4.0, abs=1.2)
    assert 88 <= checks["One speaker"]["moments"][0] < 188
    assert capture.report["verdict"].startswith("Record again: ")
    assert capture.report["verdict"] in capture.path("report.html").read_text()


def test_a_missing_voice_detector_is_named_before_any_long_work(
    run: Callable[..., Capture], film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_work(stage: str, part: float) -> None:
        raise AssertionError(f"work began ({stage}) although its end cannot be reached")

    load_voice.cache_clear()
    monkeypatch.setattr("talk3d.capture.voice.WEIGHTS", Path("data") / "nothing.safetensors")
    with pytest.raises(ModelMissingError, match="silero-vad"):
        run(film, tmp_path / "capture", progress=refuse_work)


def test_what_is_said_of_a_good_film(run: Callable[..., Capture], film: Path, tmp_path: Path) -> None:
    """The same film without anything planted; three and a half seconds are too few, and that is all."""
    capture = run(film, tmp_path / "capture")
    assert [name for name, check in checks_of(capture).items() if check["verdict"] != "pass"] == ["Usable length"]
    assert json.loads(capture.path("report.json").read_text()) == capture.report

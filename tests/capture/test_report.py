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
from talk3d.capture.voice import voice

ASSETS = Path(room.__file__).parents[1] / "assets"


def checks_of(capture: Capture) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in capture.report["checks"]}


@pytest.fixture(scope="module")
def spoilt(film_frames: np.ndarray, film_sound: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A listening face beside another one's voice, in the middle of a film. The sound is a telephone's, and driven too far."""
    from talk3d.video import VideoWriter

    other = soundfile.read(ASSETS / "drive.flac", dtype="float32")[0]
    start = int(np.flatnonzero(voice(other) > 0.9)[0]) * 640
    sound = np.concatenate([film_sound, other[start : start + 100 * 640], film_sound])
    narrow = soxr.resample(soxr.resample(sound, 16000, 8000), 8000, 16000)
    loud = np.clip(narrow * 6, -1, 1).astype(np.float32)
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
    soundfile.write(folder / "spoilt.wav", loud, 16000, subtype="PCM_16")
    return folder / "spoilt.mp4"


def test_planted_defects_are_found_where_they_are(run: Callable[..., Capture], spoilt: Path, tmp_path: Path) -> None:
    capture = run(spoilt, tmp_path / "capture", audio=spoilt.with_suffix(".wav"))
    checks = checks_of(capture)
    assert checks["Bandwidth"]["value"] == pytest.approx(4000, abs=250)
    assert checks["Bandwidth"]["verdict"] == "warn"
    assert checks["Clipping"]["verdict"] != "pass"
    assert checks["One speaker"]["verdict"] in ("warn", "fail")
    assert checks["One speaker"]["value"] == pytest.approx(4.0, abs=1.2)
    assert 88 <= checks["One speaker"]["moments"][0] < 188
    for name in (
        "Face size",
        "Sharpness",
        "Background",
        "Frames left out",
        "Overexposed face",
        "Blinks",
        "Tracking",
        "Whole sound",
    ):
        assert checks[name]["verdict"] == "pass", name
    page = capture.path("report.html").read_text()
    assert capture.report["verdict"] in page
    assert capture.report["verdict"].startswith("Record again: ")


def test_what_is_said_of_a_good_film(run: Callable[..., Capture], film: Path, tmp_path: Path) -> None:
    """The same film without anything planted; three and a half seconds are too few, and that is all."""
    capture = run(film, tmp_path / "capture")
    assert [name for name, check in checks_of(capture).items() if check["verdict"] != "pass"] == ["Usable length"]
    assert json.loads(capture.path("report.json").read_text()) == capture.report

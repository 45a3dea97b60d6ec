"""Planted shifts on films of real people: found from lips, from sound and by the lip-sync expert, to the frame."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from talk3d import frozen
from talk3d.evaluate.align import by_sound, loudness
from talk3d.evaluate.film import Sound, open_video
from talk3d.evaluate.follow import Landmarks, Motion, follow, lips_of
from talk3d.evaluate.lips import best_lag
from talk3d.judges.sync import read_curve, sync_curve
from talk3d.video.clock import SAMPLES_PER_FRAME
from talk3d.video.read import read_frames
from talk3d.video.write import VideoWriter

FRAMES = 190
"""The shortest clip has some more."""
SHIFTS = range(-5, 6)
CLIPS = ("congress_256_60s", "congress_512_45s", "french_512_50s", "obama_450_20s", "wda_aoc_512_8s")

Clip = tuple[Motion, Landmarks, Motion, Sound]


@pytest.fixture(scope="module", params=CLIPS)
def clip(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Curves of a clip and of a small, badly compressed copy, as another system's film might be; and its sound."""
    if not all(status.installed for status in frozen.list_models()):
        pytest.skip(f"the face models are not installed; `{frozen.INSTALL_COMMAND}` puts them in the cache")
    folder = tmp_path_factory.mktemp(request.param)
    path, copy = shared / "data/real" / f"{request.param}.mp4", folder / "copy.mp4"
    with VideoWriter(copy, (200, 200), crf=30, preset="veryfast") as writer:
        for frame in read_frames(path, stop=FRAMES):
            side = min(frame.shape[:2])
            writer.write(cv2.resize(frame[:side, :side], (200, 200), interpolation=cv2.INTER_AREA))
    _, landmarks, true = follow(open_video(path, "truth").part(0, FRAMES), folder / "a", lambda part: None)
    _, _, mine = follow(open_video(copy, "copy"), folder / "b", lambda part: None)
    return true, landmarks, mine, Sound(path, folder / "sound")


def test_planted_shifts_of_the_picture_are_found_in_the_lips(clip: Clip) -> None:
    true, _, mine, _ = clip
    found = {}
    for shift in SHIFTS:
        # Late by `shift`: what the truth shows now, the copy shows then.
        shown = np.clip(np.arange(FRAMES) - shift, 0, FRAMES - 1)
        found[shift] = best_lag(mine.gap[shown], true.gap).frames
    assert found == {shift: shift for shift in SHIFTS}


def test_planted_shifts_of_the_sound_move_the_experts_answer_by_as_much(clip: Clip) -> None:
    """Where the clip's own sound lies is not known, so the differences count. Eight seconds are few for the expert: half a
    frame is what it may be off."""
    _, landmarks, _, sound = clip
    lips = lips_of(landmarks, 0, FRAMES)
    offsets = {shift: read_curve(*sync_curve(lips, sound(-shift, FRAMES - shift))).offset for shift in SHIFTS}
    for shift in SHIFTS:
        assert offsets[shift] - offsets[0] == pytest.approx(shift, abs=0.5), offsets


def test_films_cut_elsewhere_are_found_from_their_sound(clip: Clip, tmp_path: Path) -> None:
    import soundfile

    *_, sound = clip
    whole = loudness(sound)
    rng = np.random.default_rng(0)
    for number, shift in enumerate(SHIFTS):
        samples = sound(20 + shift, FRAMES - 10)
        # Another codec's loss, and the part of a frame that containers are off by.
        heard = 0.5 * samples[100:] + rng.normal(0, 1e-3, len(samples) - 100).astype(np.float32)
        path = tmp_path / f"{number}.flac"
        soundfile.write(path, heard, 16000)
        found = by_sound(loudness(Sound(path, tmp_path / f"{number}.scratch")), whole)
        assert found is not None
        assert found * 25 == pytest.approx(20 + shift + 100 / SAMPLES_PER_FRAME, abs=0.3)

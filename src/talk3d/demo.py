"""`talk3d demo`: the whole path on the shipped clip of a synthetic person, ending in pictures people can look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .bench import chain
from .bench.chain import Progress
from .bench.views import bench_views
from .evaluate.report import Report as Scores
from .evaluate.report import evaluate
from .personalize.subject import PersonalizeConfig
from .prior.generator import load_prior
from .talker.config import TrainConfig
from .talker.drive import Camera
from .talker.speak import SpeakConfig, Speaker, speak
from .video.clock import AUDIO_RATE
from .video.provenance import provenance
from .video.read import read_audio, read_frames
from .video.write import VideoWriter

ASSETS = Path(__file__).parent / "assets"
CAMERAS = ("source", "front", "orbit")
SHEET_FRAMES = 8


def run_demo(output: Path, minutes: float, report: Progress) -> Scores:
    """Build an avatar from the shipped clip, let it speak new words, and score it on unseen frames of the clip.

    Stages whose result is already there are not repeated, so an interrupted demo continues.

    Args:
        output: folder for everything.
        minutes: training time of the talker.
        report: called with (stage, part done 0..1).

    Returns:
        The scores; the same are in `output/report`.
    """
    capture_at, subject_at, avatar_at = output / "capture", output / "subject", output / "paul.talk3d"
    drive = ASSETS / "drive.flac"
    prior = load_prior(ASSETS / "prior")
    capture = chain.prepare(ASSETS / "demo.mp4", capture_at, prior, report)
    chain.make_subject(capture, subject_at, prior, PersonalizeConfig(), report)
    chain.make_avatar(capture, subject_at, avatar_at, TrainConfig(minutes=minutes), report)
    if not (output / "views").exists():
        bench_views(avatar_at, output / "views", None, prior, False, lambda part, _: report("measuring views", part))

    speaker = Speaker(avatar_at)
    videos = [output / f"speaking-{camera}.mp4" for camera in CAMERAS]
    for camera, video in zip(CAMERAS, videos, strict=True):
        settings_of_view = SpeakConfig(camera=Camera.parse(camera))
        say = f"speaking ({camera})"
        speak(speaker, drive, video, settings_of_view, True, lambda done, total, say=say: report(say, done / total))
    seen = provenance(speaker.artifact.consent, {"avatar": speaker.artifact.hash, "cameras": CAMERAS})
    _side_by_side(videos, output / "demo.mp4", drive, seen)
    _contact_sheet(output / "demo.mp4", output / "contact-sheet.png")

    test = output / "test.mp4"
    unmarked = SpeakConfig(mark=False)
    speak(speaker, drive, test, unmarked, True, lambda done, total: report("re-enacting", done / total), capture)
    return evaluate(test, capture_at, output / "report", progress=report, overwrite=True)


def _side_by_side(videos: list[Path], output: Path, sound: Path, metadata: Mapping[str, Any]) -> None:
    """All views in one film, with sound."""
    rows: Iterator[tuple[np.ndarray, ...]] = zip(*(read_frames(video) for video in videos), strict=True)
    first = next(iter(read_frames(videos[0], stop=1)))
    height, width = first.shape[:2]
    size = (width * len(videos), height)
    with VideoWriter(output, size, audio_rate=AUDIO_RATE, metadata=metadata, overwrite=True) as writer:
        writer.write_audio(read_audio(sound))
        for row in rows:
            writer.write(np.concatenate(row, 1))


def _contact_sheet(video: Path, output: Path) -> None:
    """Frames spread over a film, in a grid."""
    count = sum(1 for _ in read_frames(video))
    wanted = set(np.linspace(0, count - 1, SHEET_FRAMES).astype(int).tolist())
    frames = [frame for index, frame in enumerate(read_frames(video)) if index in wanted]
    rows = [np.concatenate(frames[i : i + 2], 1) for i in range(0, SHEET_FRAMES, 2)]
    cv2.imwrite(str(output), np.concatenate(rows, 0)[..., ::-1])

"""The first two passes over a film: following the face, then the skin. Each goes on where an interrupted run stopped.

Letters: F frames, S sampled ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from ..video.read import read_frames
from ..video.source import Pictures
from . import stretches
from .steady import Follower
from .stretches import Stretches
from .takes import Scenes, frames_of
from .track import Face, FaceTracker, Track, stack

FACE, SKIN = "face", "skin"
"""The passes' names."""

Progress = Callable[[str, float], None]


def follow_face(
    video: Path | Pictures,
    person: Float[np.ndarray, "looks embedding"],
    expected: int,
    kept: Stretches,
    say: Progress,
) -> tuple[Track, Scenes]:
    """The first pass: one person's face in all frames, and what tells one scene and one person from another.

    Args:
        video: the film.
        person: whom to follow, see `FaceTracker`.
        expected: how many frames there are, more or less.
        kept: what an interrupted run has left of this pass.
        say: told how far it is.
    """
    tracker = FaceTracker(person)
    if kept.count(FACE):
        tracker.go_on({name: kept.newest(FACE, name) for name in tracker.memory()})
    faces: list[Face | None] = []
    thumbnails: list[np.ndarray] = []

    def keep(last: bool) -> None:
        scenes = {
            "thumbnails": np.array(thumbnails, np.uint8).reshape(-1, 32, 32),
            "looked": np.array([frame for frame, _ in tracker.looks], np.int64),
            "looks": np.array([look for _, look in tracker.looks], np.float64).reshape(-1, person.shape[1]),
        }
        kept.keep(FACE, vars(stack(faces)) | scenes | tracker.memory(), last)
        for done in (faces, thumbnails, tracker.looks):
            done.clear()

    if not kept.complete(FACE):
        start = kept.rows(FACE, "confidence")
        for number, frame in enumerate(read_frames(video, start=start), start):
            faces.append(tracker(frame))
            thumbnails.append(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA))
            say("tracking", min(1.0, (number + 1) / expected))
            if len(faces) == stretches.STRETCH:
                keep(last=False)
        keep(last=True)
    tracked = Track(*(kept.joined(FACE, name) for name in ("landmarks", "lids", "irises", "confidence")))
    seen, looked, looks = (kept.joined(FACE, name) for name in ("thumbnails", "looked", "looks"))
    return tracked, Scenes(seen, looked, looks, person)


def follow_skin(
    video: Path | Pictures,
    frame_numbers: Int[np.ndarray, " usable"],
    follower: Follower,
    sampled: Collection[int],
    kept: Stretches,
    say: Progress,
) -> UInt8[np.ndarray, "samples height width 3"]:
    """The second pass: shows the follower all usable frames, and returns samples of them.

    Args:
        video: the film.
        frame_numbers: which frames of it are usable.
        follower: of the firm points of the skin.
        sampled: which of the usable frames to return.
        kept: what an interrupted run has left of this pass.
        say: told how far it is.
    """
    start, frames = 0, len(frame_numbers)
    if kept.count(SKIN):
        found = {name: kept.joined(SKIN, name) for name in follower.found(0, 0)}
        follower.go_on(found)
        start = len(found["key"])
    samples: list[np.ndarray] = []
    for index, frame in enumerate(frames_of(video, frame_numbers[start:]), start):
        follower(index, frame)
        if index in sampled:
            samples.append(frame)
        say("steadying", (index + 1) / frames)
        done = index + 1 - start
        if done == stretches.STRETCH or index + 1 == frames:
            chosen = np.array(samples, np.uint8).reshape(-1, *frame.shape)
            kept.keep(SKIN, follower.found(start, index + 1) | {"samples": chosen}, index + 1 == frames)
            samples.clear()
            start = index + 1
    return kept.joined(SKIN, "samples")

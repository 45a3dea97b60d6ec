"""Which frames of a film can be used, and what each of them is for.

Letters: F frames of the film, and usable ones once they were selected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..camera import Orbit
from ..video.clock import FPS
from ..video.read import read_frames
from ..video.source import Pictures
from .pose import Poses, solve_clip
from .track import FACE_OVAL, Track

TEST_PART = 11
"""The last 1/11 of the frames is for testing, as in the published protocol."""

MIN_TAKE = 2 * FPS
"""Shorter stretches are not worth a seam."""
MAX_GAP = 5
"""The face may be lost for this many frames; the track is bridged."""
ANOTHER = 0.05
"""A stretch whose face is so much less like the person than that of the best stretch shows somebody else. Of eight films, seen
with a dozen looks at one of them, that one has 0.98 to 1, the others 0.93 at most."""


def split_of(frames: int) -> dict[str, list[int]]:
    """The train/test split of `frames` usable frames, as half-open ranges."""
    border = frames * (TEST_PART - 1) // TEST_PART
    return {"train": [0, border], "test": [border, frames]}


@dataclass(frozen=True)
class Scenes:
    """What tells one scene of a film from another, and one person."""

    thumbnails: UInt8[np.ndarray, "frames 32 32"]
    """All frames, grey."""
    looked: Int[np.ndarray, " looks"]
    """In which frames the face that was followed was looked at."""
    looks: Float[np.ndarray, "looks embedding"]
    """What it looked like; see `track.embed`."""
    person: Float[np.ndarray, "known embedding"]
    """What the person to follow looks like."""

    def likeness(self, start: int, stop: int) -> float:
        """How much the face in these frames is that person's: the median look's cosine to the most similar known one."""
        inside = self.looks[(self.looked >= start) & (self.looked < stop)]
        return float(np.median((inside @ self.person.T).max(axis=1))) if len(inside) else 1.0


def find_takes(tracked: Track, scenes: Scenes) -> list[list[int]]:
    """Stretches of one scene with one person's face, as half-open ranges of frame numbers, in order of time.

    A cut in the film, a jump of the face, or a face lost for longer than `MAX_GAP` frames ends a stretch. The longest one that
    shows the person is taken, and of the others those long enough that show the same person in the same scene at the same size.
    """
    found = tracked.found
    frames = len(found)
    if not found.any():
        return []
    change = np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(scenes.thumbnails)])
    nose = tracked.landmarks[:, 1]
    size = np.linalg.norm(tracked.landmarks[:, FACE_OVAL[0]] - tracked.landmarks[:, FACE_OVAL[18]], axis=-1)
    with np.errstate(invalid="ignore"):
        jump = np.nan_to_num(np.linalg.norm(np.diff(nose, axis=0), axis=-1) / size[1:])
    cuts = _stands_out(change, 12.0) | _stands_out(jump, 0.25)  # levels of 255; face heights
    edges = [0, *(np.flatnonzero(cuts) + 1), frames]
    stretches: list[list[int]] = []
    for start, stop in pairwise(edges):
        seen = np.flatnonzero(found[start:stop]) + start
        if len(seen):
            for run in np.split(seen, np.flatnonzero(np.diff(seen) > MAX_GAP + 1) + 1):
                stretches.append([int(run[0]), int(run[-1]) + 1])
    stretches = [stretch for stretch in stretches if stretch[1] - stretch[0] >= MIN_TAKE]
    if not stretches:
        return []
    likeness = [scenes.likeness(*stretch) for stretch in stretches]
    stretches = [stretch for stretch, like in zip(stretches, likeness, strict=True) if like >= max(likeness) - ANOTHER]
    longest = max(stretches, key=lambda stretch: stretch[1] - stretch[0])

    def look(stretch: list[int]) -> tuple[np.ndarray, float]:
        rows = slice(*stretch)
        return np.median(scenes.thumbnails[rows], axis=0), float(np.nanmedian(size[rows]))

    scene, scale = look(longest)
    return [
        stretch
        for stretch in stretches
        if np.abs(look(stretch)[0] - scene).mean() < 12 and 2 / 3 < look(stretch)[1] / scale < 3 / 2
    ]


def _stands_out(change: np.ndarray, least: float) -> np.ndarray:
    """Where `change` exceeds `least` and four times what is usual around there."""
    usual = np.array([np.median(change[max(0, i - 12) : i + 13]) for i in range(len(change))])
    return (change > least) & (change > 4 * usual)


def frames_of(video: Path | Pictures, numbers: Int[np.ndarray, " usable"]) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The frames of a film with these numbers, which rise."""
    wanted = iter(numbers.tolist())
    number = next(wanted, None)
    if number is None:
        return
    for count, frame in enumerate(read_frames(video, start=number, stop=int(numbers[-1]) + 1), number):
        if count == number:
            yield frame
            number = next(wanted, None)


def select(tracked: Track, index: np.ndarray) -> Track:
    """Some frames of a track, as a copy."""
    return Track(tracked.landmarks[index], tracked.lids[index], tracked.irises[index], tracked.confidence[index])


def parts_of(takes: Sequence[Sequence[int]], split: dict[str, list[int]]) -> list[slice]:
    """Runs of usable frames that follow each other in time and lie on one side of the split."""
    ends = np.cumsum([stop - start for start, stop in takes])
    edges = sorted({0, split["train"][1], *ends.tolist()})
    return [slice(a, b) for a, b in pairwise(edges)]


def solve_parts(observed: Track, parts: Sequence[slice], canonical: Float[np.ndarray, "468 3"], orbit: Orbit) -> Poses:
    """Rough poses of usable frames, each part by itself; see `solve_clip`."""
    return Poses.joined([solve_clip(observed.landmarks[p], canonical, orbit, observed.confidence[p]) for p in parts])


def bridge(observed: Track, parts: list[slice]) -> Track:
    """Fill frames without a face from their neighbours in the same part, or, in an all-lost part, from the clip.

    They are filled in place: of a long film the landmarks are most of what memory holds.
    """
    for values in (observed.landmarks, observed.lids, observed.irises):
        flat = values.reshape(len(values), -1)
        for part in parts:
            known = np.flatnonzero(observed.found[part])
            rows = flat[part]
            if len(known) == 0:
                rows[:] = flat[np.flatnonzero(observed.found)[0]]
            elif len(known) < len(rows):
                for column in range(flat.shape[1]):
                    rows[:, column] = np.interp(np.arange(len(rows)), known, rows[known, column])
    return observed

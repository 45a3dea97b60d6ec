"""A face followed through a whole film: landmarks wait on disk, and the curves that are read off them are kept.

A frame costs a hundred bytes of memory and four kilobytes of disk, so that a film may last hours.

Letters: F frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..capture.detect import apply
from ..capture.track import LANDMARKS, LEFT_BROW, RIGHT_BROW, FaceTracker, eye_opening, lip_opening
from ..judges.sync import EYES, NOSE, in_face, lips_in_face
from .film import Film

RIGID = (*EYES, *NOSE)
"""Points that move with the head and little with the face."""
NOSE_TIP = 4
CHIN, UNDER_NOSE, UPPER_LIP, LOWER_LIP = 152, 2, 0, 17
MOUTH_CORNERS, INNER_BROWS = (61, 291), (55, 285)
BATCH = 64


@dataclass(frozen=True)
class Motion:
    """How a face moves: curves over F frames, NaN where it was not seen."""

    gap: Float[np.ndarray, " frames"]
    """Opening of the inner lips, in distances between the outer eye corners."""
    eyes: Float[np.ndarray, " frames"]
    """Opening of the eyes, in eye widths."""
    pose: Float[np.ndarray, "frames 6"]
    """Of the head: across and down in pixels, log of its size in pixels, roll in radians, and how far the nose's tip lies
    across and below the eyes in eye distances, which grow with yaw and pitch."""
    face: Float[np.ndarray, "frames 7"]
    """Measurements of the expression, see `expression`."""

    def part(self, start: int, stop: int) -> Motion:
        """A half-open range of frames."""
        return Motion(*(curve[start:stop] for curve in vars(self).values()))

    @property
    def seen(self) -> np.ndarray:
        """[F], whether there is a face."""
        return np.isfinite(self.gap)


class Landmarks:
    """Landmarks of a film, pixels, on disk: float32, NaN where there is no face."""

    def __init__(self, path: Path):
        self._path = path
        self._move: np.ndarray | None = None
        self._first = 0

    def append(self, landmarks: Float[np.ndarray, "frames 468 2"]) -> None:
        """The next frames'."""
        with self._path.open("ab") as file:
            file.write(landmarks.astype("<f4").tobytes())

    def __call__(self, start: int, stop: int) -> Float[np.ndarray, "frames 468 2"]:
        """Those of a half-open range of frames."""
        numbers = 2 * LANDMARKS
        first = self._first + start
        points = np.fromfile(self._path, "<f4", (stop - start) * numbers, offset=4 * numbers * first).reshape(-1, LANDMARKS, 2)
        if self._move is None:
            return points
        return apply(self._move, points.reshape(-1, 2).astype(np.float64)).reshape(points.shape).astype(np.float32)

    def part(self, first: int) -> Landmarks:
        """The same from frame `first` on, counted from 0 again."""
        other = Landmarks(self._path)
        other._move, other._first = self._move, self._first + first
        return other

    def placed(self, matrix: Float[np.ndarray, "2 3"]) -> Landmarks:
        """The same through an affine map of pixels."""
        other = self.part(0)
        other._move = matrix
        return other


def follow(film: Film, scratch: Path, progress: Callable[[float], None]) -> tuple[int, Landmarks, Motion]:
    """Track the face of every frame.

    Args:
        film: as it is, its count not yet sure.
        scratch: file for the landmarks; must not exist.
        progress: called with the part that is done, 0..1.

    Returns:
        How many frames there really are, their landmarks, and their curves.
    """
    tracker = FaceTracker()
    landmarks = Landmarks(scratch)
    scratch.touch()
    pieces: list[Motion] = []
    points: list[np.ndarray] = []
    lids: list[np.ndarray] = []

    def flush() -> None:
        if points:
            block = np.array(points, np.float32)
            landmarks.append(block)
            pieces.append(_motion(block.astype(np.float64), np.array(lids, np.float64)))
            points.clear()
            lids.clear()

    count = 0
    for frame in film.frames(0, film.count):
        face = tracker(frame)
        points.append(face.landmarks if face else np.full((LANDMARKS, 2), np.nan))
        lids.append(face.lids if face else np.full((2, 16, 2), np.nan))
        count += 1
        if len(points) == BATCH:
            flush()
            progress(min(1.0, count / max(1, film.count)))
    flush()
    return count, landmarks, Motion(*(np.concatenate([getattr(p, name) for p in pieces]) for name in Motion.__annotations__))


def measure_again(motion: Motion, landmarks: Landmarks) -> Motion:
    """Curves of the same frames from landmarks that were moved; the eyes' stay, as they count in their own widths."""
    pieces = []
    for start in range(0, len(motion.gap), BATCH):
        block = landmarks(start, min(start + BATCH, len(motion.gap))).astype(np.float64)
        pieces.append((lip_opening(block), head_pose(block), expression(block)))
    gap, pose, face = (np.concatenate(curves) for curves in zip(*pieces, strict=True))
    return Motion(gap, motion.eyes, pose, face)


def _motion(landmarks: Float[np.ndarray, "frames 468 2"], lids: Float[np.ndarray, "frames 2 16 2"]) -> Motion:
    return Motion(lip_opening(landmarks), eye_opening(lids), head_pose(landmarks), expression(landmarks))


def head_pose(landmarks: Float[np.ndarray, "frames 468 2"]) -> Float[np.ndarray, "frames 6"]:
    """Where the head is and where it looks, see `Motion.pose`."""
    outer = landmarks[:, [EYES[0], EYES[3]]]
    along = outer[:, 1] - outer[:, 0]
    width = np.linalg.norm(along, axis=-1)
    middle, nose = outer.mean(axis=1), landmarks[:, NOSE_TIP] - outer.mean(axis=1)
    x = along / width[:, None]
    across, below = (nose * x).sum(-1), nose[:, 1] * x[:, 0] - nose[:, 0] * x[:, 1]
    rigid = landmarks[:, list(RIGID)]
    size = np.linalg.norm(rigid - rigid.mean(1, keepdims=True), axis=-1).mean(1)
    return np.column_stack([middle, np.log(size), np.arctan2(x[:, 1], x[:, 0]), across / width, below / width])


def expression(landmarks: Float[np.ndarray, "frames 468 2"]) -> Float[np.ndarray, "frames 7"]:
    """Seven measurements of a face in units of its size: brows (left, right, between), mouth (width, how high its corners are,
    height of the lips), and the chin. Eyelids are not among them, as the mesh hardly follows them."""
    p = in_face(landmarks, EYES, NOSE)

    def high(points: tuple[int, ...]) -> np.ndarray:
        return -p[:, list(points), 1].mean(axis=1)

    def apart(one: int, other: int) -> np.ndarray:
        return np.linalg.norm(p[:, one] - p[:, other], axis=-1)

    middle = high((UPPER_LIP, LOWER_LIP))
    return np.column_stack(
        [
            high(LEFT_BROW) - high(EYES[:2]),
            high(RIGHT_BROW) - high(EYES[2:]),
            apart(*INNER_BROWS),
            apart(*MOUTH_CORNERS),
            high(MOUTH_CORNERS) - middle,
            apart(UPPER_LIP, LOWER_LIP),
            apart(UNDER_NOSE, CHIN),
        ]
    )


def lips_of(landmarks: Landmarks, start: int, stop: int) -> Float[np.ndarray, "frames 80"]:
    """Lips as the face sees them (`judges.sync.lips_in_face`) in a half-open range of frames."""
    return lips_in_face(landmarks(start, stop).astype(np.float64))

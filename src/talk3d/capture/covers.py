"""What is before the face: a hand, a microphone, a cup.

Landmarks are where the tracker believes parts of the face to be, whether or not they are seen. So each has a usual look in one
film: its light and colour, and how much brighter it is than what is around it. Pose, lips, lids and brows change that look a
little, which is learnt as a plane through training frames, by steps that give way to what is rarely there. A place of the face
counts as covered if landmarks around it look strange together.

Landmarks that are turned away from the camera say nothing. Hands have the colour of skin: of them, what is seen is mostly that
lids, brows, nostrils and lips are missing, so that a hand on a cheek may go unnoticed.

Letters: F frames, L = 468 landmarks, Q = 4 qualities of a landmark's look, K numbers that a face moves by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8

from ..camera import Orbit
from .mask import hull_mask

OCCLUDED = 0.1
"""Part of the face from which on a frame counts as occluded; clean films stay below."""
SIDE = 64
"""Of the pictures that landmarks are looked at in, pixels."""
SURROUNDINGS = 2.5
"""Of those pictures' pixels: deviation of the neighbourhood that a landmark is compared with."""
MOST = 400
"""Training frames that the usual look is learnt from, evenly spread."""
FACING = 0.55
"""Cosine between the skin's normal and the view from which on a landmark is looked at."""
SELDOM = 0.05
"""Landmarks that face the camera in fewer of the frames are left out."""
SPREAD = (0.07, 0.025, 0.025, 0.03)
"""What each quality may differ by in any film: brightness and detail are logarithms, colours parts of the brightness."""
CAP = 36.0
"""Squared deviation of a quality beyond which it is no stranger."""
NEAR = 0.05
"""Of a crop's width: deviation of the neighbourhood in which landmarks must look strange together."""
STRANGE = 8.0
"""Mean squared deviations, of all qualities together, from which on they do."""
STEPS = 6
"""Of the robust fit."""
STEADY = 5
"""Frames of the median that removes what is there for a moment only, such as a lid in mid-blink."""
CHUNK = 64
MOVES = ("yaw", "pitch", "lip_gap", "lip_width", "blink", "brow_height")


def find_covers(
    pieces: Callable[[], Iterator[Float16[np.ndarray, "some 468 qualities"]]],
    track: Mapping[str, np.ndarray],
    canonical: Float[np.ndarray, "468 3"],
    orbit: Orbit,
    train: slice,
    parts: Sequence[slice],
) -> Float[np.ndarray, " frames"]:
    """How much of the face is covered in each frame, 0..1 of what faces the camera. It tends to say too much.

    Args:
        pieces: gives `look_of` all frames in order, some at a time; asked twice.
        track: the curves of the frames.
        canonical: the prior's landmarks, scene units.
        orbit: the prior's camera.
        train: the frames that say what is usual.
        parts: runs of frames that follow each other in time and lie on one side of the split.
    """
    movement = movements(track)

    def seen(some: slice | np.ndarray) -> np.ndarray:
        return facing(canonical, orbit, track["yaw"][some], track["pitch"][some])

    chosen = np.unique(np.linspace(train.start, train.stop - 1, MOST).astype(int))
    looks = np.concatenate(
        [piece[chosen[(chosen >= start) & (chosen < start + len(piece))] - start] for start, piece in _placed(pieces())]
    )
    usual = Usual.learn(looks.astype(np.float64), seen(chosen), movement[chosen], canonical, orbit)
    covered = np.zeros(len(movement))
    for start, piece in _placed(pieces()):
        for begin in range(0, len(piece), CHUNK):
            some = slice(start + begin, start + min(begin + CHUNK, len(piece)))
            covered[some] = usual.covered(piece[begin : begin + CHUNK].astype(np.float64), seen(some), movement[some])
    for part in parts:
        padded = np.pad(covered[part], STEADY // 2, mode="edge")
        covered[part] = np.median(np.lib.stride_tricks.sliding_window_view(padded, STEADY), axis=-1)
    return covered


def _placed(pieces: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Each piece, and which frame it begins with."""
    start = 0
    for piece in pieces:
        yield start, piece
        start += len(piece)


def look_of(
    picture: UInt8[np.ndarray, "side side 3"], landmarks: Float[np.ndarray, "468 2"]
) -> Float16[np.ndarray, "468 qualities"]:
    """How each landmark looks: log brightness, redness, blueness, and log brightness against its surroundings.

    In half precision, which is far finer than what any film repeats: of a long one they are as many numbers as its landmarks.

    Args:
        picture: RGB.
        landmarks: positions in the picture, 0..1.
    """
    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    light = small @ np.array([0.3, 0.6, 0.1], np.float32) + 12  # dark pixels are mostly noise, and their logarithm too
    log = np.log(light)
    qualities = np.stack(
        [
            log,
            (small[..., 0] + 12 - light) / light,
            (small[..., 2] + 12 - light) / light,
            log - cv2.GaussianBlur(log, (0, 0), SURROUNDINGS),
        ],
        axis=-1,
    )
    at = (landmarks * SIDE - 0.5).astype(np.float32)  # from centres at .5 to OpenCV's centres at integers
    return cv2.remap(qualities, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0].astype(
        np.float16
    )


def movements(track: Mapping[str, np.ndarray]) -> Float[np.ndarray, "frames numbers"]:
    """What a landmark's look may depend on: a constant, pose, lips, lids and brows, and products of the angles."""
    yaw, pitch = track["yaw"], track["pitch"]
    return np.stack([np.ones(len(yaw)), *(track[name] for name in MOVES), yaw**2, yaw * pitch, pitch**2], axis=-1)


def facing(
    canonical: Float[np.ndarray, "468 3"], orbit: Orbit, yaw: Float[np.ndarray, " frames"], pitch: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 468"]:
    """How squarely each landmark's skin looks at the camera: the cosine between normal and view, 0 where it looks away."""
    camera = orbit.pose(torch.from_numpy(yaw).double(), torch.from_numpy(pitch).double())[:, :3, 3].numpy()
    ahead = orbit.pose(*torch.zeros(2, 1).double())[0, :3, 3].numpy()
    nearest = np.argsort(((canonical[:, None] - canonical[None]) ** 2).sum(axis=-1), axis=1)[:, :10]
    around = canonical[nearest] - canonical[nearest].mean(axis=1, keepdims=True)
    normal = np.linalg.svd(around)[2][:, 2]
    # The face is a bowl: from a point as deep behind its middle as it is high, everything on it looks outwards.
    behind = canonical.mean(axis=0) - 0.5 * np.ptp(canonical[:, 1]) * ahead / np.linalg.norm(ahead)
    normal *= np.sign((normal * (canonical - behind)).sum(axis=-1, keepdims=True))
    view = camera[:, None] - canonical[None]
    return np.clip((view * normal).sum(axis=-1) / np.linalg.norm(view, axis=-1), 0, 1)


@dataclass(frozen=True)
class Usual:
    """How a face usually looks in one film."""

    plane: Float[np.ndarray, "numbers looks"]
    """What each of K numbers adds to each of L * Q looks."""
    spread: Float[np.ndarray, "468 qualities"]
    """How far looks are from the plane."""
    middle: Float[np.ndarray, " numbers"]
    scale: Float[np.ndarray, " numbers"]
    """Mean and deviation of the numbers."""
    known: Float[np.ndarray, "numbers numbers"]
    """How far from what was learnt a movement is: the inverse of the numbers' mean products."""
    weight: Float[np.ndarray, " 468"]
    """Each landmark's part of the face's area; 0 for those that were hardly seen."""
    near: Float[np.ndarray, "468 468"]
    """How much each landmark counts in each one's neighbourhood."""

    @classmethod
    def learn(
        cls,
        looks: Float[np.ndarray, "frames 468 qualities"],
        seen: Float[np.ndarray, "frames 468"],
        movement: Float[np.ndarray, "frames numbers"],
        canonical: Float[np.ndarray, "468 3"],
        orbit: Orbit,
    ) -> Usual:
        """From frames of which most are free, given `facing` and `movements` of them."""
        middle, scale = movement.mean(axis=0), movement.std(axis=0) + 1e-6
        middle[0], scale[0] = 0, 1
        moved = (movement - middle) / scale
        visible = seen > FACING
        looks = _even_light(looks, visible).reshape(len(looks), -1)
        shown = np.repeat(visible, looks.shape[1] // visible.shape[1], axis=1)
        hold = 1e-3 * len(looks) * np.eye(moved.shape[1])
        # From medians on: a plane through all frames would lean towards a cover that goes with a movement.
        off = np.abs(looks - _median(looks, shown))
        for _ in range(STEPS):
            spread = 1.4826 * _median(off, shown) + 1e-3
            trust = shown / (1 + (off / (2.5 * spread)) ** 2) ** 2
            normal = np.einsum("fi,fk,fj->kij", moved, trust, moved, optimize=True) + hold
            moment = np.einsum("fi,fk->ki", moved, trust * looks)
            plane = np.linalg.solve(normal, moment[..., None])[..., 0].T
            off = np.abs(looks - moved @ plane)
        front = orbit.project(torch.from_numpy(canonical).double(), *torch.zeros(2, 1).double())[0].numpy()
        apart = ((front[:, None] - front[None]) ** 2).sum(axis=-1)
        weight = _areas(front) * (visible.mean(axis=0) >= SELDOM)
        known = np.linalg.inv(moved.T @ moved / len(moved) + 1e-3 * np.eye(moved.shape[1]))
        spread = np.hypot(spread.reshape(visible.shape[1], -1), SPREAD)
        return cls(plane, spread, middle, scale, known, weight, np.exp(-apart / (2 * NEAR**2)) * weight)

    def covered(
        self,
        looks: Float[np.ndarray, "frames 468 qualities"],
        seen: Float[np.ndarray, "frames 468"],
        movement: Float[np.ndarray, "frames numbers"],
    ) -> Float[np.ndarray, " frames"]:
        """Part of the face that is covered, of what faces the camera."""
        moved = (movement - self.middle) / self.scale
        # Where the face never was like this in the frames learnt from, the plane is a guess, and more is forgiven.
        far = np.einsum("fi,ij,fj->f", moved, self.known, moved) / moved.shape[1]
        forgiven = np.sqrt(np.maximum(far, 1))[:, None, None]
        visible = (seen > FACING) & (self.weight > 0)
        off = _even_light(looks, visible) - (moved @ self.plane).reshape(looks.shape)
        strange = np.minimum((off / (self.spread * forgiven)) ** 2, CAP).sum(axis=-1) * visible
        together = (strange @ self.near.T) / np.maximum(visible @ self.near.T, 1e-9)
        area = seen * visible * self.weight
        return (area * (together > STRANGE)).sum(axis=-1) / np.maximum(area.sum(axis=-1), 1e-9)


def _even_light(looks: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Looks without what makes all of the face brighter or darker."""
    light = [np.median(look[seen, 0]) if seen.any() else 0.0 for look, seen in zip(looks, visible, strict=True)]
    evened = looks.astype(np.float64)
    evened[..., 0] -= np.array(light)[:, None]
    return evened


def _median(values: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Of the rows that are shown in each column; 0 where none is."""
    ordered = np.sort(np.where(shown, values, np.inf), axis=0)
    middle = np.maximum(shown.sum(axis=0) - 1, 0) // 2
    return np.where(shown.any(axis=0), np.take_along_axis(ordered, middle[None], axis=0)[0], 0.0)


def _areas(front: np.ndarray) -> np.ndarray:
    """Part of the face's area that is nearest to each landmark, seen from the front (0..1 of the crop)."""
    size = 128
    rows, columns = np.nonzero(hull_mask(front * size, (size, size)))
    pixels = np.stack([columns, rows], axis=-1) / size + 0.5 / size
    nearest = np.argmin(((pixels[:, None] - front[None]) ** 2).sum(axis=-1), axis=-1)
    return np.bincount(nearest, minlength=len(front)) / len(pixels)

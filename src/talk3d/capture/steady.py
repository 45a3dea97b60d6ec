"""Steadier poses: skin that lies firmly on the skull is followed by optical flow, not by what a network thinks of each frame.

Tracked landmarks tremble, and they nod a little whenever the mouth opens: poses solved from them are a degree or two off.
Texture is not. Frames of the training part become key pictures, one for each direction of view. From the key pictures most
like it, optical flow says where points of nose, cheekbones and temples are in each frame; and where those points lie in depth
is solved together with the poses of the whole film (bundle adjustment), held near the prior's landmarks. Because many views of
one skull must agree, this also mends the tracker's habit of flattening turned faces.

Test frames are followed from key pictures of the training part, and say nothing about the points.

Source of the flow: Bouguet, "Pyramidal Implementation of the Lucas Kanade Feature Tracker", 2000, in OpenCV's implementation.

Letters: F usable frames, K key pictures a frame is followed from, V key pictures in all, R firm points of each, P points of a
frame, S side of the pictures in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..camera import Orbit
from .detect import apply, invert, warp
from .pose import (
    CHUNK,
    Poses,
    apply_similarity,
    fit_similarity,
    fit_views,
    matrix_of,
    project,
    rigid_weights,
    robust_weights,
    root_mean_square,
    smooth,
)
from .track import UNDER_NOSE

SIDE = 192
"""Of the aligned pictures that flow is found in, pixels."""
WINDOW = 11
"""Side of the patch that is followed around each point, pixels of those pictures."""
ENOUGH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
"""Steps of the flow, and pixels of a step below which it ends."""
APART = math.radians(8)
"""Between views of key pictures: flow finds its way over so little turning."""
FROM = 2
"""Key pictures that each frame is followed from, which ties their points together."""
FIRM = 0.95
"""Weight among the rigid landmarks from which on a point counts as firm."""
EVERY = 3
"""Of the firm landmarks, one in so many is followed."""
SLIP = 0.004
"""Of a crop's width: residuals beyond this count linearly."""
DEPTH = 0.002
"""How firmly points are held near the prior's, relative to what is seen of them."""
ANCHORS = slice(None, None, 6)
"""Of the tracked landmarks, those that count beside the points: they only say which way a head looks on the whole..."""
ANCHOR = 0.012
"""...at this weight."""
ROUNDS, STEPS = 8, 4
"""Of solving points and poses in turns, and of the poses each time."""
MOST = 400
"""Frames that say where the points are, evenly spread over the training part."""
PERIOD = 6.0
"""Frames, for `pose.smooth`: less noise needs less smoothing."""


def firm_points(canonical: Float[np.ndarray, "468 3"]) -> Int[np.ndarray, " firm"]:
    """Some of the landmarks that neither jaw, lips, lids nor brows move."""
    return np.flatnonzero((rigid_weights(canonical) >= FIRM) & (canonical[:, 1] > canonical[UNDER_NOSE, 1]))[::EVERY]


@dataclass
class Follower:
    """Shown frame after frame, it finds where the firm points are in each of them."""

    rough: Poses
    """Of all F frames."""
    landmarks: Float[np.ndarray, "frames 468 2"]
    """Source pixels."""
    usable: Bool[np.ndarray, " frames"]
    """Where the face was really tracked."""
    learnt: Bool[np.ndarray, " frames"]
    """Which frames may become key pictures."""
    points: Int[np.ndarray, " firm"]
    """As `firm_points` gives them."""
    seen: Float[np.ndarray, "frames from firm 2"] = field(init=False)
    """Where the points are, source pixels."""
    key: Int[np.ndarray, "frames from"] = field(init=False)
    """The key picture that each row of them belongs to; -1 for none."""

    def __post_init__(self) -> None:
        frames = len(self.landmarks)
        self.seen = np.zeros((frames, FROM, len(self.points), 2), np.float32)
        self.key = np.full((frames, FROM), -1)
        self._crops = self.rough.crop_from_source(SIDE)
        self._views = np.stack([self.rough.yaw, self.rough.pitch], axis=-1)
        self._keys: list[tuple[int, np.ndarray, np.ndarray]] = []  # frame, picture, points in it

    def __call__(self, index: int, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Show it frame `index`; frames come in order."""
        if not self.usable[index]:
            return
        crop = self._crops[index]
        picture = cv2.cvtColor(warp(frame, crop, (SIDE, SIDE), replicate=True), cv2.COLOR_RGB2GRAY)
        apart = [float(np.linalg.norm(self._views[index] - self._views[key])) for key, _, _ in self._keys]
        if self.learnt[index] and min(apart, default=math.inf) > APART:
            here = apply(crop, self.landmarks[index, self.points].astype(np.float64))
            self._keys.append((index, picture, here))
            apart.append(0.0)
        for row, number in enumerate(np.argsort(apart)[:FROM]):
            key, other, there = self._keys[number]
            here = there if key == index else there + self._moved(other, picture, there)
            self.seen[index, row] = apply(invert(crop), here)
            self.key[index, row] = number

    @property
    def views(self) -> int:
        """V."""
        return len(self._keys)

    def found(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """All that frames `start` to `stop` have shown; `go_on` takes it back."""
        keys = [key for key in self._keys if start <= key[0] < stop]
        side, firm = (SIDE, SIDE), len(self.points)
        return {
            "seen": self.seen[start:stop],
            "key": self.key[start:stop],
            "key_frames": np.array([frame for frame, _, _ in keys], np.int64),
            "key_pictures": np.array([picture for _, picture, _ in keys], np.uint8).reshape(-1, *side),
            "key_points": np.array([points for _, _, points in keys], np.float64).reshape(-1, firm, 2),
        }

    def go_on(self, found: Mapping[str, np.ndarray]) -> None:
        """Follow on behind the frames that have shown this, all from the first on."""
        self.seen[: len(found["seen"])], self.key[: len(found["key"])] = found["seen"], found["key"]
        self._keys = [
            (int(frame), picture, points)
            for frame, picture, points in zip(found["key_frames"], found["key_pictures"], found["key_points"], strict=True)
        ]

    def _moved(self, picture: np.ndarray, to: np.ndarray, points: np.ndarray) -> np.ndarray:
        """How far `points` of a picture have moved in another one."""
        at = (points - 0.5).astype(np.float32)[:, None]  # from centres at .5 to OpenCV's centres at integers
        found, _, _ = cv2.calcOpticalFlowPyrLK(
            picture,
            to,
            at,
            at.copy(),
            winSize=(WINDOW, WINDOW),
            maxLevel=3,
            criteria=ENOUGH,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        return (found - at)[:, 0].astype(np.float64)


def refine(
    follower: Follower,
    canonical: Float[np.ndarray, "468 3"],
    orbit: Orbit,
    parts: list[slice],
) -> Poses:
    """Poses of all frames, from what the follower saw of them.

    Args:
        follower: has been shown all frames.
        canonical: the prior's landmarks, scene units.
        orbit: the prior's camera.
        parts: runs of frames that follow each other in time and lie on one side of the split; each is smoothed by itself.
    """
    found = follower.key >= 0
    if follower.views == 0:
        return follower.rough
    learnt = np.flatnonzero(follower.learnt & found[:, 0])
    learnt = learnt[np.unique(np.linspace(0, len(learnt) - 1, min(MOST, len(learnt))).astype(int))]
    start = canonical[follower.points].astype(np.float64)
    cloud = np.repeat(start[None], follower.views, axis=0)  # [V, R, 3]
    trust = np.ones(len(start))
    poses = follower.rough[learnt]
    for _ in range(ROUNDS):
        cloud, trust = _place(cloud, start, follower.seen[learnt], follower.key[learnt], poses, orbit)
        poses = _pose(cloud, trust, follower, learnt, poses, canonical, orbit)
    everywhere = np.arange(len(found))
    rough = _pose(cloud, trust, follower, everywhere, follower.rough, canonical, orbit)
    smoothed = [_smoothed(rough, cloud, trust, follower, part, canonical, orbit) for part in parts]
    return Poses.joined(smoothed)


def _place(
    cloud: np.ndarray, start: np.ndarray, seen: np.ndarray, key: np.ndarray, poses: Poses, orbit: Orbit
) -> tuple[np.ndarray, np.ndarray]:
    """Where the points [V, R, 3] of each key picture are in space, given the poses; and how firm each of the R proved to be."""
    normal, moment = np.zeros((*cloud.shape, 3)), np.zeros(cloud.shape)
    slips = np.zeros((2, cloud.shape[1]))
    for begin in range(0, len(seen), CHUNK):
        part = slice(begin, begin + CHUNK)
        known = key[part] >= 0
        linear = np.linalg.inv(poses.source_from_crop[part, :, :2])
        there = seen[part] - poses.source_from_crop[part, None, None, :, 2]
        there = there @ linear[:, None].swapaxes(-1, -2)  # 0..1 of the crop
        shape, slope = project(cloud[key[part]], poses.yaw[part], poses.pitch[part], orbit)
        residual = there - shape
        length = np.linalg.norm(residual, axis=-1)
        weight = known[..., None] / np.maximum(length / SLIP, 1)
        np.add.at(normal, key[part], np.einsum("fkr,fkrai,fkraj->fkrij", weight, slope, slope))
        np.add.at(moment, key[part], np.einsum("fkr,fkrai,fkra->fkri", weight, slope, residual))
        slips += (known[..., None] * np.stack([length**2, np.ones_like(length)])).sum((1, 2))
    hold = DEPTH * np.trace(normal, axis1=-2, axis2=-1)[..., None] / 3 + 1e-3
    normal += hold[..., None] * np.eye(3)
    moved = cloud + np.linalg.solve(normal, (moment + hold * (start - cloud))[..., None])[..., 0]
    slip = np.sqrt(slips[0] / np.maximum(slips[1], 1))
    return moved, 1 / (1 + (slip / np.median(slip)) ** 2) ** 2


def _witnesses(
    cloud: np.ndarray, trust: np.ndarray, follower: Follower, index: np.ndarray, canonical: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of some frames: points in space [F, P, 3], where they were seen [F, P, 2], and their weights [F, P]."""
    frames, key = len(index), follower.key[index]
    anchors, tracked = canonical[ANCHORS], follower.landmarks[index][:, ANCHORS]
    points = np.concatenate([cloud[key].reshape(frames, -1, 3), np.broadcast_to(anchors, (frames, *anchors.shape))], axis=1)
    seen = np.concatenate([follower.seen[index].reshape(frames, -1, 2), tracked], axis=1).astype(np.float64)
    followed = ((key >= 0)[..., None] * trust).reshape(frames, -1)
    weights = np.broadcast_to(ANCHOR * rigid_weights(canonical)[ANCHORS], (frames, len(anchors)))
    return points, seen, np.concatenate([followed, weights], axis=1)


def _pose(
    cloud: np.ndarray,
    trust: np.ndarray,
    follower: Follower,
    index: np.ndarray,
    poses: Poses,
    canonical: np.ndarray,
    orbit: Orbit,
) -> Poses:
    """Poses of the frames `index`, by robust Gauss-Newton steps from `poses`, given the points."""
    solved = []
    for begin in range(0, len(index), CHUNK):
        part = slice(begin, begin + CHUNK)
        witnesses = _witnesses(cloud, trust, follower, index[part], canonical)
        solved.append(_solve(*witnesses, poses[part], orbit))
    return Poses.joined(solved)


def _solve(points: np.ndarray, seen: np.ndarray, weights: np.ndarray, poses: Poses, orbit: Orbit) -> Poses:
    matrix = poses.source_from_crop
    similarity = np.stack([matrix[:, 0, 0], matrix[:, 1, 0], matrix[:, 0, 2], matrix[:, 1, 2]], axis=-1)
    yaw, pitch, similarity = fit_views(points, seen, weights, poses.yaw, poses.pitch, similarity, orbit, SLIP, STEPS, 0.0)
    residual = seen - apply_similarity(matrix_of(similarity), project(points, yaw, pitch, orbit)[0])
    # What everything else knows as a frame's residual is that of its landmarks.
    tracked = slice(-len(range(468)[ANCHORS]), None)
    return Poses(yaw, pitch, matrix_of(similarity), root_mean_square(residual[:, tracked], similarity, weights[0, tracked]))


def _smoothed(
    poses: Poses, cloud: np.ndarray, trust: np.ndarray, follower: Follower, part: slice, canonical: np.ndarray, orbit: Orbit
) -> Poses:
    """A part's poses with smooth angles, and smooth similarities that were fitted again to those."""
    index = np.arange(part.start, part.stop)
    poses = poses[part]
    belief = np.where(follower.usable[part], 1.0, 1e-3) / (1 + (poses.residual / (2 * np.median(poses.residual) + 1e-9)) ** 4)
    angles = smooth(np.stack([poses.yaw, poses.pitch], axis=-1), belief, PERIOD)
    yaw, pitch = np.ascontiguousarray(angles[:, 0]), np.ascontiguousarray(angles[:, 1])
    fitted = []
    for begin in range(0, len(index), CHUNK):
        some = slice(begin, begin + CHUNK)
        points, seen, weights = _witnesses(cloud, trust, follower, index[some], canonical)
        shape = project(points, yaw[some], pitch[some], orbit)[0]
        matrix = poses.source_from_crop[some]
        believed = weights * robust_weights(seen - apply_similarity(matrix, shape), matrix[:, :, 0], SLIP)
        fitted.append(fit_similarity(shape, seen, believed))
    return Poses(yaw, pitch, matrix_of(smooth(np.concatenate(fitted), belief, PERIOD)), poses.residual)

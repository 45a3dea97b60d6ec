"""Head poses: the camera angles and the crop that make tracked landmarks look like a prior's.

A prior sees heads through an `Orbit` camera. For each frame we look for that camera's yaw and pitch, and for a
similarity (scale, roll, shift) from its picture to the source picture, such that the projected canonical landmarks fall
on the tracked ones. The similarity's inverse cuts the aligned crop; nothing is rounded to whole pixels.

Angles are radians; yaw > 0 is a camera at the subject's left (the viewer's right), pitch > 0 a camera above. Source
positions are pixels with the first one's centre at (0.5, 0.5); crop positions are 0..1 across the crop.

Letters: F frames, L = 468 landmarks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from ..camera import Orbit
from .track import LEFT_BROW, LEFT_EYE, OUTER_EYE_CORNERS, RIGHT_BROW, RIGHT_EYE, UNDER_NOSE, brow_height

HUBER = 0.006
"""Residuals beyond this, in crop widths, count linearly: about what a well-tracked rigid landmark is off by."""

ITERATIONS = 12
HOLD = 4e-6
"""See `fit_views`."""
CHUNK = 64
"""Frames solved at once: enough to be fast, few enough to stay in the cache."""

PERIOD = 8.0
"""Frames; heads of people who talk hardly nod faster than three times per second."""


@dataclass(frozen=True)
class Poses:
    """The solution for F frames; see the module's top for frames and units."""

    yaw: Float[np.ndarray, " frames"]
    pitch: Float[np.ndarray, " frames"]
    source_from_crop: Float[np.ndarray, "frames 2 3"]
    """Similarity from crop positions (0..1) to source pixels."""
    residual: Float[np.ndarray, " frames"]
    """Weighted root mean square distance of landmarks, in crop widths."""

    def __getitem__(self, chosen: np.ndarray | slice) -> Poses:
        return Poses(self.yaw[chosen], self.pitch[chosen], self.source_from_crop[chosen], self.residual[chosen])

    @classmethod
    def joined(cls, parts: Iterable[Poses]) -> Poses:
        """Poses of frames that follow each other."""
        columns = zip(*((part.yaw, part.pitch, part.source_from_crop, part.residual) for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def crop_from_source(self, resolution: int) -> Float[np.ndarray, "frames 2 3"]:
        """Affine maps from source pixels to pixels of a crop of `resolution`."""
        linear = np.linalg.inv(self.source_from_crop[..., :2])
        return resolution * np.concatenate([linear, -linear @ self.source_from_crop[..., 2:]], axis=-1)


def rigid_weights(canonical: Float[np.ndarray, "468 3"]) -> Float[np.ndarray, 468]:
    """How far each landmark moves with the skull: jaw, lips and lids little, nose and cheekbones fully."""
    weights = np.ones(len(canonical))
    weights[list(LEFT_BROW + RIGHT_BROW)] = 0.3
    weights[list(LEFT_EYE + RIGHT_EYE)] = 0.3
    # Everything below the nose moves with jaw or lips, yet without it pitch is hardly determined.
    weights[canonical[:, 1] < canonical[UNDER_NOSE, 1]] = 0.15
    # Along the outline the tracker reports where the cheek turns out of sight, which is no fixed point of the skin.
    weights[canonical[:, 2] < np.quantile(canonical[:, 2], 0.15)] *= 0.5
    return weights


def solve_poses(
    landmarks: Float[np.ndarray, "frames 468 2"],
    canonical: Float[np.ndarray, "468 3"],
    orbit: Orbit,
    weights: Float[np.ndarray, 468] | None = None,
) -> Poses:
    """Robust Gauss-Newton fit of each frame on its own.

    Args:
        landmarks: tracked positions in source pixels.
        canonical: the same landmarks on the prior's average face, scene units.
        orbit: the prior's camera.
        weights: trust in each landmark; `rigid_weights` by default.
    """
    weights = rigid_weights(canonical) if weights is None else weights
    points = np.asarray(canonical, np.float64)
    if len(landmarks) == 0:
        return Poses(np.zeros(0), np.zeros(0), np.zeros((0, 2, 3)), np.zeros(0))
    return Poses.joined([_solve(landmarks[i : i + CHUNK], points, orbit, weights) for i in range(0, len(landmarks), CHUNK)])


def _solve(landmarks: np.ndarray, points: np.ndarray, orbit: Orbit, weights: np.ndarray) -> Poses:
    """`solve_poses` on a few frames, from a view of the front."""
    seen, front = landmarks.astype(np.float64), np.zeros(len(landmarks))
    points, weights = np.broadcast_to(points, (len(seen), *points.shape)), np.broadcast_to(weights, seen.shape[:2])
    similarity = fit_similarity(project(points, front, front, orbit)[0], seen, weights)
    yaw, pitch, similarity = fit_views(points, seen, weights, front, front, similarity, orbit, HUBER, ITERATIONS, HOLD)
    residual = seen - apply_similarity(matrix_of(similarity), project(points, yaw, pitch, orbit)[0])
    return Poses(yaw, pitch, matrix_of(similarity), root_mean_square(residual, similarity, weights[0]))


def fit_views(
    points: Float[np.ndarray, "frames points 3"],
    seen: Float[np.ndarray, "frames points 2"],
    weights: Float[np.ndarray, "frames points"],
    yaw: Float[np.ndarray, " frames"],
    pitch: Float[np.ndarray, " frames"],
    similarity: Float[np.ndarray, "frames 4"],
    orbit: Orbit,
    limit: float,
    steps: int,
    hold: float,
) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, " frames"], Float[np.ndarray, "frames 4"]]:
    """Robust Gauss-Newton steps of all frames side by side: yaw, pitch and similarity.

    Args:
        points: in space, scene units.
        seen: where they are in the source, pixels.
        weights: trust in each of them.
        yaw: to start from, as are the next two; radians.
        pitch: radians.
        similarity: from crop positions to source pixels, as `fit_similarity` gives it.
        orbit: the prior's camera.
        limit: residuals beyond this, in crop widths, count linearly.
        steps: at most.
        hold: of angles, per unit of weight; it keeps a hopeless frame from turning its back.
    """
    jacobian = np.zeros((*seen.shape, 6))  # by yaw, pitch, and the four numbers of the similarity
    jacobian[..., 0, 4] = jacobian[..., 1, 5] = 1
    for _ in range(steps):
        shape, by_yaw, by_pitch = _turned(points, yaw, pitch, orbit)
        linear = matrix_of(similarity)[..., :2].swapaxes(-1, -2)
        jacobian[..., 0], jacobian[..., 1] = by_yaw @ linear, by_pitch @ linear
        jacobian[..., 2] = shape
        jacobian[..., 0, 3], jacobian[..., 1, 3] = -shape[..., 1], shape[..., 0]
        residual = seen - apply_similarity(matrix_of(similarity), shape)
        trust = np.repeat(weights * robust_weights(residual, similarity, limit), 2, axis=1)
        flat = jacobian.reshape(len(seen), -1, 6)
        weighted = (flat * trust[..., None]).swapaxes(1, 2)
        normal = weighted @ flat
        normal[:, [0, 1], [0, 1]] += (hold * weights.sum(axis=1) * (similarity[:, :2] ** 2).sum(axis=1))[:, None]
        step = np.linalg.solve(normal, weighted @ residual.reshape(len(seen), -1, 1))[..., 0]
        turn = np.clip(step[:, :2], -0.3, 0.3)
        yaw, pitch, similarity = yaw + turn[:, 0], pitch + turn[:, 1], similarity + step[:, 2:]
        if np.abs(turn).max() < 1e-5:
            break
    return yaw, pitch, similarity


def project(
    points: Float[np.ndarray, "frames *points 3"],
    yaw: Float[np.ndarray, " frames"],
    pitch: Float[np.ndarray, " frames"],
    orbit: Orbit,
) -> tuple[Float[np.ndarray, "frames *points 2"], Float[np.ndarray, "frames *points 2 3"]]:
    """Where each frame's own points appear, 0..1 of its crop, and how that moves with them."""
    camera = orbit.pose(torch.from_numpy(yaw), torch.from_numpy(pitch)).numpy()
    axes = camera[:, :3, :3].swapaxes(1, 2)
    local = (points.reshape(len(points), -1, 3) - camera[:, None, :3, 3]) @ camera[:, :3, :3]
    depth = local[..., 2:]
    across = local[..., :2] / depth
    slope = (orbit.focal / depth)[..., None] * (axes[:, None, :2] - across[..., None] * axes[:, None, 2:])
    shape = points.shape[:-1]
    return (0.5 + orbit.focal * across).reshape(*shape, 2), slope.reshape(*shape, 2, 3)


def _turned(points: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, orbit: Orbit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where points [F, P, 3] appear [F, P, 2], and the derivatives of that by yaw and by pitch."""
    step = 1e-5  # central differences of a camera's few numbers are exact to ten digits in float64
    yaws, pitches = (
        np.concatenate([yaw, yaw + step, yaw - step, yaw, yaw]),
        np.concatenate([pitch, pitch, pitch, pitch + step, pitch - step]),
    )
    camera, left, right, up, down = np.split(orbit.pose(torch.from_numpy(yaws), torch.from_numpy(pitches)).numpy()[:, :3], 5)
    away = points - camera[:, None, :, 3]
    local = away @ camera[..., :3]
    across, focal = local[..., :2] / local[..., 2:], orbit.focal / local[..., 2:]

    def by(change: np.ndarray) -> np.ndarray:
        moved = away @ change[..., :3] - change[:, None, :, 3] @ camera[..., :3]
        return focal * (moved[..., :2] - across * moved[..., 2:])

    return 0.5 + orbit.focal * across, by((left - right) / (2 * step)), by((up - down) / (2 * step))


def solve_clip(
    landmarks: Float[np.ndarray, "frames 468 2"],
    canonical: Float[np.ndarray, "468 3"],
    orbit: Orbit,
    confidence: Float[np.ndarray, " frames"] | None = None,
    period: float = PERIOD,
) -> Poses:
    """Poses of consecutive frames, refined with the knowledge that heads move smoothly.

    Angles are smoothed first; the similarity is fitted again to the smooth angles, and then smoothed too. Smoothing
    shifts nothing in time. Arguments as `solve_poses` and `smooth`; `confidence` (0..1) says how much each
    frame counts.
    """
    rough = solve_poses(landmarks, canonical, orbit)
    weights = rigid_weights(canonical)
    # A frame whose landmarks fit no head, as in a blurred turn, counts less.
    trust = 1 / (1 + (rough.residual / (2 * np.median(rough.residual) + 1e-9)) ** 4)
    if confidence is not None:
        trust = trust * np.maximum(confidence, 1e-3)
    angles = smooth(np.stack([rough.yaw, rough.pitch], axis=-1), trust, period)
    yaw, pitch = np.ascontiguousarray(angles[:, 0]), np.ascontiguousarray(angles[:, 1])
    chunks = [slice(i, i + CHUNK) for i in range(0, len(landmarks), CHUNK)]

    def look(part: slice) -> np.ndarray:
        return _seen(canonical, yaw[part], pitch[part], orbit)

    fitted = []
    for part in chunks:
        shape, matrix = look(part), rough.source_from_crop[part]
        believed = weights * robust_weights(landmarks[part] - apply_similarity(matrix, shape), matrix[:, :, 0])
        fitted.append(fit_similarity(shape, landmarks[part], believed))
    similarity = smooth(np.concatenate(fitted), trust, period)
    matrix = matrix_of(similarity)
    residual = [
        root_mean_square(landmarks[part] - apply_similarity(matrix[part], look(part)), similarity[part], weights)
        for part in chunks
    ]
    return Poses(yaw, pitch, matrix, np.concatenate(residual))


def smooth(
    values: Float[np.ndarray, "frames channels"], weights: Float[np.ndarray, " frames"], period: float = PERIOD
) -> Float[np.ndarray, "frames channels"]:
    """The smoothest curves near `values`: minimises sum w (x - v)^2 + k sum (second difference of x)^2.

    Straight motion passes unchanged, nothing is delayed, and frames of weight 0 are bridged.

    Args:
        values: curves over time.
        weights: how much each frame counts, at least two of them above 0.
        period: where weights are 1, an oscillation of this many frames is halved, faster ones vanish.

    Source: Eilers, "A perfect smoother", 2003 (after Whittaker, 1923).
    """
    frames = len(values)
    if frames < 3:
        return values
    stiffness = (2 * np.sin(np.pi / period)) ** -4
    # The matrix diag(w) + k D'D has two side bands; factor it as L diag(d) L' with two side bands in L.
    main = np.full(frames, 6.0)
    main[[0, -1]], main[[1, -2]] = 1.0, 5.0
    first = np.full(frames - 1, -4.0)
    first[[0, -1]] = -2.0
    if frames == 3:
        main[1] = 4.0
    main = weights + stiffness * main
    first = stiffness * first
    d, one, two = np.zeros(frames), np.zeros(frames), np.zeros(frames)
    x = np.zeros_like(values)
    for i in range(frames):
        below1, below2 = (d[i - 1] if i > 0 else 0.0), (d[i - 2] if i > 1 else 0.0)
        two[i] = stiffness / below2 if i > 1 else 0.0
        one[i] = (first[i - 1] - two[i] * below2 * one[i - 1]) / below1 if i > 0 else 0.0
        d[i] = main[i] - one[i] ** 2 * below1 - two[i] ** 2 * below2
        x[i] = weights[i] * values[i] - one[i] * (x[i - 1] if i > 0 else 0) - two[i] * (x[i - 2] if i > 1 else 0)
    x /= d[:, None]
    for i in range(frames - 2, -1, -1):
        x[i] -= one[i + 1] * x[i + 1] + (two[i + 2] * x[i + 2] if i + 2 < frames else 0)
    return x


def fit_similarity(shape: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Closed-form weighted least squares (a, b, tx, ty) [F, 4]: x' = a x - b y + tx, y' = b x + a y + ty."""
    weights = np.broadcast_to(weights, shape.shape[:2])
    total = weights.sum(axis=1, keepdims=True)
    z, w = shape[..., 0] + 1j * shape[..., 1], target[..., 0] + 1j * target[..., 1]
    z_mean, w_mean = (weights * z).sum(1, keepdims=True) / total, (weights * w).sum(1, keepdims=True) / total
    z0, w0 = z - z_mean, w - w_mean
    turn = (weights * w0 * z0.conj()).sum(1) / (weights * np.abs(z0) ** 2).sum(1)
    shift = w_mean[:, 0] - turn * z_mean[:, 0]
    return np.stack([turn.real, turn.imag, shift.real, shift.imag], axis=-1)


def apply_similarity(matrix: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return shape @ matrix[..., :2].swapaxes(-1, -2) + matrix[:, None, :, 2]


def robust_weights(residual: np.ndarray, similarity: np.ndarray, limit: float = HUBER) -> np.ndarray:
    """Weights [F, L] in 0..1 of a robust fit; the first two columns of `similarity` give a crop width's length."""
    width = np.hypot(similarity[:, 0], similarity[:, 1])[:, None]
    return limit / np.maximum(np.linalg.norm(residual, axis=-1) / width, limit)


def root_mean_square(residual: np.ndarray, similarity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    squared = (residual**2).sum(axis=-1) / (similarity[:, :2] ** 2).sum(axis=-1)[:, None]
    return np.sqrt(squared @ weights / weights.sum())


def matrix_of(similarity: np.ndarray) -> np.ndarray:
    """[F, 2, 3] from (a, b, tx, ty)."""
    a, b, tx, ty = np.moveaxis(similarity, -1, 0)
    return np.stack([np.stack([a, -b, tx], -1), np.stack([b, a, ty], -1)], axis=-2)


def _seen(canonical: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, orbit: Orbit) -> np.ndarray:
    """Where the prior's landmarks [468, 3] appear in each frame, 0..1 of its crop, [F, 468, 2]."""
    points = torch.from_numpy(np.asarray(canonical, np.float64))
    return orbit.project(points, torch.from_numpy(yaw), torch.from_numpy(pitch)).numpy()


def upright_brows(
    height: Float[np.ndarray, " frames"], poses: Poses, canonical: Float[np.ndarray, "468 3"], orbit: Orbit
) -> Float[np.ndarray, " frames"]:
    """Brow heights as they would be if the head looked straight ahead.

    Brows stand further out than the eyes, so a nod moves them against each other by more than brows are ever raised. What it
    does to the brows of the prior's own face is taken off.

    Args:
        height: as seen, in distances between the outer eye corners of a head that looks straight ahead.
        poses: of these frames.
        canonical: the prior's landmarks, scene units.
        orbit: the prior's camera.
    """
    ahead = _seen(canonical, np.zeros(1), np.zeros(1), orbit)
    length = float(np.linalg.norm(np.subtract(*ahead[0, list(OUTER_EYE_CORNERS)])))
    chunks = [slice(i, i + CHUNK) for i in range(0, len(height), CHUNK)]
    resting = np.concatenate([brow_height(_seen(canonical, poses.yaw[part], poses.pitch[part], orbit)) for part in chunks])
    return height + (brow_height(ahead) - resting) / length

"""All scores of one film against the true one, frame by frame, holding a few frames at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float

from ..capture.mask import hull_mask
from ..capture.track import OUTER_LIPS, FaceTracker, Track, eye_opening, interocular, lip_gap
from ..errors import ScoringError
from ..judges.sync import SyncOffset, sync_offset
from .image import absolute_error, decibels, inner, masked_mean, ms_ssim, squared_error, ssim_map
from .lips import FACE, MOUTH, Lag, Score, best_lag, correlation, distances, landmark_distance
from .person import Flicker, likeness

BATCH = 8
Frames = Callable[[], Iterator[np.ndarray]]
"""Opens a stream of uint8 RGB [H, W, 3] frames from its start."""


@dataclass(frozen=True)
class Scores:
    """All scores of one film. Image scores pool the squared error over all frames, as the published protocol does."""

    psnr: Score
    """Decibels, whole picture."""
    psnr_face: Score
    """Within the hull of the true frame's landmarks."""
    psnr_mouth: Score
    """Within the hull of the true frame's lips, half as large again."""
    mae: Score
    """Mean absolute error, levels of 255, whole picture."""
    mae_face: Score
    mae_mouth: Score
    ssim: Score
    ssim_face: Score
    ssim_mouth: Score
    ms_ssim: Score
    """Whole picture; only for pictures of more than 160 pixels."""
    headnet_distance: Score
    """Perceptual distance of the heads by HeadNet, a network of this project: 0 for equal pictures."""
    headnet_identity: Score
    """Cosine of HeadNet's embeddings of the two persons, 1 for the same picture. It knows looks, hardly shape."""
    mouth_distance: Score
    """Centred landmark distance of the lips, pixels of the true film."""
    mouth_distance_percent: Score
    """The same in percent of the distance between the outer eye corners."""
    face_distance: Score
    """Centred landmark distance of all 468 points, pixels."""
    mouth_opening: Score
    """Correlation of the lip gap over time, in eye-corner distances, at no lag."""
    mouth_lag: Lag
    """Where that correlation is highest; positive means that the result is late."""
    eye_opening: Score
    """Correlation of the eyes' opening over time."""
    sync_offset: Score
    """Frames by which our lip-sync expert finds the sound late."""
    sync_confidence: Score
    """How sure it is, 0..4; below 90 frames it is high by chance too."""
    sharpness: Score
    """Fine detail of the face relative to the true film: 1 is as sharp, less is blurred."""
    flicker: Score
    """Restlessness over time relative to the true film: 1 is as calm, more flickers, less is frozen."""
    face_found: Score
    """Part of the frames in which the tracker sees a face."""


TRUE_OPENING = "lip opening of the truth"
"""Name of the curve that is the same for every film."""


def score(
    film: Frames, true_frames: Frames, true_track: Track, sound: Float[np.ndarray, " samples"] | None = None
) -> tuple[Scores, dict[str, Float[np.ndarray, " frames"]]]:
    """Compare a film with the true one, frame by frame, holding a few frames at a time; returns scores and curves over time.

    Args:
        film: the frames to score, as many as the truth has and of its size.
        true_frames: the true ones.
        true_track: the face in the true ones.
        sound: of the film, mono at 16 kHz from its first frame; None if it is silent.
    """
    tracker, flicker = FaceTracker(), Flicker()
    columns: dict[str, list[np.ndarray]] = {}
    landmarks = np.full_like(true_track.landmarks, np.nan)
    lids = np.full_like(true_track.lids, np.nan)
    found, done = np.zeros(len(landmarks)), 0
    for pairs in _batches(zip(film(), true_frames(), strict=True)):
        for offset, (frame, truth) in enumerate(pairs):
            flicker.add(frame, truth)
            face = tracker(frame)
            if face is not None:
                landmarks[done + offset], lids[done + offset], found[done + offset] = face.landmarks, face.lids, 1
        part = slice(done, done + len(pairs))
        judged = likeness(pairs, landmarks[part], true_track.landmarks[part])
        for name, values in (_image_scores(pairs, true_track.landmarks[part]) | judged).items():
            columns.setdefault(name, []).append(values)
        done += len(pairs)
    image = {name: np.concatenate(values) for name, values in columns.items()}

    def pooled(name: str) -> Score:
        mean = _mean(image[name])
        if mean.value is None:
            return mean
        return Score(float(decibels(torch.tensor(mean.value, dtype=torch.float64))), mean.frames)

    sync = _sync(landmarks, sound)
    gaps = [lip_gap(x) / interocular(x) for x in (landmarks, true_track.landmarks)]
    curves = {
        "face PSNR": decibels(torch.from_numpy(image["error_face"])).numpy(),
        "lip distance": distances(landmarks, true_track.landmarks, MOUTH),
        "lip opening": gaps[0],
        TRUE_OPENING: gaps[1],
        "HeadNet distance": image["distance"],
    }
    scores = Scores(
        psnr=pooled("error"),
        psnr_face=pooled("error_face"),
        psnr_mouth=pooled("error_mouth"),
        mae=_mean(255 * image["absolute"]),
        mae_face=_mean(255 * image["absolute_face"]),
        mae_mouth=_mean(255 * image["absolute_mouth"]),
        ssim=_mean(image["ssim"]),
        ssim_face=_mean(image["ssim_face"]),
        ssim_mouth=_mean(image["ssim_mouth"]),
        ms_ssim=_mean(image["ms_ssim"]),
        headnet_distance=_mean(image["distance"]),
        headnet_identity=_mean(image["identity"]),
        mouth_distance=landmark_distance(landmarks, true_track.landmarks, MOUTH),
        mouth_distance_percent=landmark_distance(landmarks, true_track.landmarks, MOUTH, relative=True),
        face_distance=landmark_distance(landmarks, true_track.landmarks, FACE),
        mouth_opening=correlation(gaps[0], gaps[1]),
        mouth_lag=best_lag(gaps[0], gaps[1]),
        eye_opening=correlation(eye_opening(lids), eye_opening(true_track.lids)),
        sync_offset=Score(sync.offset, sync.frames) if sync else Score(None, 0),
        sync_confidence=Score(sync.confidence, sync.frames) if sync else Score(None, 0),
        sharpness=_mean(image["sharpness"]),
        flicker=Score(flicker.value, flicker.frames),
        face_found=Score(float(found.mean()), len(found)),
    )
    return scores, curves


def _sync(landmarks: np.ndarray, sound: np.ndarray | None) -> SyncOffset | None:
    """What the lip-sync expert says; None without sound or with too few faces for it."""
    if sound is None:
        return None
    try:
        return sync_offset(landmarks, sound)
    except ScoringError:
        return None


def _batches(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    batch = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _image_scores(pairs: list[tuple[np.ndarray, np.ndarray]], landmarks: np.ndarray) -> dict[str, np.ndarray]:
    mine, true = (
        torch.from_numpy(np.stack([pair[side] for pair in pairs])).permute(0, 3, 1, 2).float() / 255 for side in (0, 1)
    )
    face, mouth = (torch.from_numpy(np.stack([_hull(x, true.shape[-2:], kind) for x in landmarks])) for kind in (0, 1))
    sharp = [
        _detail(frame, inside) / max(_detail(other, inside), 1e-6) if inside.any() else np.nan
        for (frame, other), inside in zip(pairs, face.numpy() > 0, strict=True)
    ]
    columns = {"ms_ssim": ms_ssim(mine, true)}
    similar = ssim_map(mine, true)
    for name, mask in (("", None), ("_face", face), ("_mouth", mouth)):
        columns[f"error{name}"] = squared_error(mine, true, mask)
        columns[f"absolute{name}"] = absolute_error(mine, true, mask)
        columns[f"ssim{name}"] = masked_mean(similar, None if mask is None else inner(mask))
    return {**{name: values.double().numpy() for name, values in columns.items()}, "sharpness": np.array(sharp)}


def _hull(landmarks: np.ndarray, size: tuple[int, ...], kind: int) -> np.ndarray:
    """Mask of the face (0) or the mouth (1); empty where there are no landmarks."""
    if not np.isfinite(landmarks).all():
        return np.zeros(tuple(size), np.float32)
    points = landmarks
    if kind == 1:
        lips = landmarks[list(OUTER_LIPS)]
        points = lips.mean(axis=0) + 1.5 * (lips - lips.mean(axis=0))
    return hull_mask(points, tuple(size)).astype(np.float32)


def _detail(frame: np.ndarray, inside: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F)[inside].std())


def _mean(values: np.ndarray) -> Score:
    valid = np.isfinite(values)
    return Score(float(values[valid].mean()) if valid.any() else None, int(valid.sum()))

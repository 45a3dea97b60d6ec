"""All scores of films against the true one: in lockstep, a few frames of each at a time, then from the curves over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float

from ..capture.mask import PersonSegmenter, hull_mask, polygon_mask
from ..capture.regions import region_masks
from ..capture.track import FACE_OVAL, OUTER_LIPS
from ..judges.sync import FEWEST, REACH, read_curve, sync_curve
from . import lips as lip_scores
from .film import Film
from .follow import Landmarks, Motion, lips_of
from .guests import Guest, Hear, Look
from .image import absolute_error, decibels, greyed, inner, masked_mean, ms_ssim, squared_error, ssim_map, ssim_published
from .lips import FACE, MOUTH, Score, distances
from .person import Flicker, blinks, expression_error, likeness, motion_spectrum, new_edges
from .speech import Speech

BATCH, BATCH_PIXELS = 8, 2**21
"""Most frames, and pixels, that are compared together."""
SILENCE = 1e-3
"""Sound that never exceeds this is none."""
PIECE = 1500
"""Frames over which curves that need all landmarks are computed at a time."""
JAW = tuple(FACE_OVAL[i] for i in range(12, 25))
"""From the viewer's right corner of the jaw to the left one."""
NECK = 0.2
"""How far the neck is looked at below the jaw, in face heights."""
REGIONS = ("face", "mouth", "torso")

Row = dict[str, Score]
"""Scores of one film by measure; what was not measured is not there."""


@dataclass(frozen=True)
class Entry:
    """A film that lies on the truth's frames: same size, same count, frame for frame."""

    film: Film
    landmarks: Landmarks
    """In the truth's pixels."""
    motion: Motion
    sound: Hear | None
    """None if it is silent."""

    def cut(self, window: tuple[int, int, int, int]) -> Entry:
        """The part of its pictures between left, top, right and bottom, half-open, pixels."""
        shift = np.array([[1.0, 0, -window[0]], [0, 1, -window[1]]])
        return replace(self, film=self.film.cut(window), landmarks=self.landmarks.placed(shift))


@dataclass(frozen=True)
class Curves:
    """What of a film is drawn over time, [F] each; NaN where nothing is known."""

    face_psnr: Float[np.ndarray, " frames"]
    lip_distance: Float[np.ndarray, " frames"]
    lip_opening: Float[np.ndarray, " frames"]
    headnet_distance: Float[np.ndarray, " frames"]


def score(
    entries: Mapping[str, Entry],
    truth: Entry,
    speech: Speech | None,
    guests: Callable[[Hear | None], Sequence[Guest]] = lambda sound: [],
    progress: Callable[[float], None] = lambda part: None,
) -> tuple[dict[str, Row], dict[str, Curves]]:
    """Compare films with the true one; nothing but a hundred numbers a frame is kept in memory.

    Args:
        entries: the films by name.
        truth: the true film.
        speech: what is said in the true film's sound; None if it is silent.
        guests: gives fresh judges of others for a film with some sound.
        progress: called with the part that is done, 0..1.
    """
    judges = {name: _Comparison(guests(entry.sound)) for name, entry in entries.items()}
    segment = PersonSegmenter()
    count = truth.film.count
    streams = [truth.film.frames(0, count), *(entry.film.frames(0, count) for entry in entries.values())]
    width, height = truth.film.size
    for first, (true, *others) in _batches(zip(*streams, strict=True), max(1, min(BATCH, BATCH_PIXELS // (width * height)))):
        span = (first, first + len(true))
        true_landmarks = truth.landmarks(*span)
        masks = [_masks(frame, points, segment) for frame, points in zip(true, true_landmarks, strict=True)]
        stacked = {name: np.stack([mask[name] for mask in masks]) for name in masks[0]}
        for (name, entry), frames in zip(entries.items(), others, strict=True):
            judges[name].add(first, frames, entry.landmarks(*span), true, true_landmarks, stacked)
        progress(span[1] / count)
    rows, curves = {}, {}
    for name, entry in entries.items():
        known = judges[name].finish()
        rows[name] = judges[name].row(known) | _motion_row(entry, truth, speech, known) | own_row(entry, truth, speech)
        curves[name] = Curves(known["face PSNR"], known["lip distance"], entry.motion.gap, known["distance"])
    return rows, curves


class _Comparison:
    """Gathers what is measured frame by frame between a film and the truth."""

    def __init__(self, guests: Sequence[Guest]):
        self._columns: dict[str, list[np.ndarray]] = {}
        self._flicker = Flicker()
        self._guests = guests

    def add(
        self,
        first: int,
        frames: np.ndarray,
        landmarks: np.ndarray,
        true: np.ndarray,
        true_landmarks: np.ndarray,
        masks: Mapping[str, np.ndarray],
    ) -> None:
        """The next frames [B, H, W, 3] of both films, the first's number, landmarks [B, 468, 2] and masks [B, H, W]."""
        pairs = list(zip(frames, true, strict=True))
        for pair in pairs:
            self._flicker.add(*pair)
        found = _image_scores(frames, true, masks)
        found |= likeness(pairs, landmarks, true_landmarks)
        found["lip distance"] = distances(landmarks, true_landmarks, MOUTH)
        found["lip distance percent"] = distances(landmarks, true_landmarks, MOUTH, relative=True)
        found["face distance"] = distances(landmarks, true_landmarks, FACE)
        found["seam"] = np.array([new_edges(*pair, neck) for pair, neck in zip(pairs, masks["neck"] > 0, strict=True)])
        for name, values in found.items():
            self._columns.setdefault(name, []).append(np.asarray(values, np.float32))
        for guest in self._guests:
            chosen = [i for i in range(len(frames)) if (first + i) % guest.every == 0]
            if chosen:
                with torch.no_grad():
                    guest.look(Look(frames[chosen], true[chosen], landmarks[chosen], true_landmarks[chosen]))

    def finish(self) -> dict[str, Float[np.ndarray, " frames"]]:
        """Everything that there is a number for in each frame."""
        frames = {name: np.concatenate(values).astype(np.float64) for name, values in self._columns.items()}
        return frames | {"face PSNR": decibels(torch.from_numpy(frames["error_face"])).numpy()}

    def row(self, frames: Mapping[str, Float[np.ndarray, " frames"]]) -> Row:
        """Scores of pictures. The squared error is pooled over all frames, as the published protocol does."""
        row = {"ssim_published": mean(frames["published_ssim"])}
        for region in ("", *(f"_{name}" for name in REGIONS)):
            row[f"ms_ssim{region}"] = mean(frames[f"ms_ssim{region}"])
            row[f"psnr{region}"] = _pooled(frames[f"error{region}"])
            row[f"mae{region}"] = mean(255 * frames[f"absolute{region}"])
            row[f"ssim{region}"] = mean(frames[f"ssim{region}"])
        for region in ("face", "torso"):
            row[f"psnr_{region}_published"] = _pooled(frames[f"published_error_{region}"])
            row[f"ssim_{region}_published"] = mean(frames[f"published_ssim_{region}"])
        row |= {
            "headnet_distance": mean(frames["distance"]),
            "headnet_identity": mean(frames["identity"]),
            "sharpness": mean(frames["sharpness"]),
            "neck_seam": mean(frames["seam"]),
            "flicker": Score(self._flicker.value, self._flicker.frames),
        }
        for guest in self._guests:
            row |= guest.scores()
        return row


def _motion_row(entry: Entry, truth: Entry, speech: Speech | None, frames: Mapping[str, np.ndarray]) -> Row:
    """Scores of how the face moves beside the true one."""
    mine, true = entry.motion, truth.motion
    lag = lip_scores.best_lag(mine.gap, true.gap)
    row = {
        "mouth_distance": mean(frames["lip distance"]),
        "mouth_distance_percent": mean(frames["lip distance percent"]),
        "face_distance": mean(frames["face distance"]),
        "mouth_opening": lip_scores.correlation(mine.gap, true.gap),
        "mouth_lag": Score(
            None if lag.frames is None else float(lag.frames),
            lag.correlation.frames,
            lag.interval and (float(lag.interval[0]), float(lag.interval[1])),
        ),
        "mouth_opening_at_lag": lag.correlation,
        "wrongly_closed": lip_scores.wrongly_closed(mine.gap, true.gap),
        "eye_opening": lip_scores.correlation(mine.eyes, true.eyes),
        "motion_spectrum": motion_spectrum(mine.pose, true.pose),
        "expression_error": expression_error(mine.face, true.face),
    }
    if speech is not None:
        row["closure_recall"] = lip_scores.closure_recall(mine.gap, true.gap, speech.closures)
    return row


def own_row(entry: Entry, truth: Entry, speech: Speech | None) -> Row:
    """What a film has of its own, the true one as well."""
    blinking = blinks(entry.motion.eyes)
    seen = entry.motion.seen
    row = {
        "blink_rate": blinking.rate,
        "blink_duration": blinking.duration,
        "blink_depth": blinking.depth,
        "face_found": Score(float(seen.mean()), len(seen)),
    }
    if speech is not None:
        row["silent_aperture"] = lip_scores.silent_aperture(entry.motion.gap, truth.motion.gap, speech.silent)
        row["silent_jitter"] = _silent_jitter(entry, speech)
    if entry.sound is not None:
        row |= _sync(entry, truth)
    return row


def _silent_jitter(entry: Entry, speech: Speech) -> Score:
    tremor = []
    for start, stop in _pieces(len(speech.silent)):
        # A frame more on both sides, as the second difference has none at the ends.
        low, high = max(0, start - 1), min(len(speech.silent), stop + 1)
        values = 100 * lip_scores.jitter(lips_of(entry.landmarks, low, high))
        tremor.append(values[start - low : len(values) - (high - stop)])
    return mean(np.concatenate(tremor)[speech.silent])


def _sync(entry: Entry, truth: Entry) -> Row:
    """What our lip-sync expert says of lips and sound, a minute at a time; nothing of lips that do not move, or of silence."""
    assert entry.sound is not None
    nothing = {"sync_offset": Score(None, 0), "sync_confidence": Score(None, 0)}
    if not lip_scores.moves(entry.motion.gap, truth.motion.gap):
        return nothing
    count = entry.film.count
    total, frames = np.zeros(2 * REACH + 1), 0
    for start, stop in _pieces(count):
        low, high = max(0, start - REACH), min(count, stop + REACH)
        samples = entry.sound(low, high)
        if np.abs(samples).max(initial=0.0) < SILENCE:
            continue
        curve, judged = sync_curve(lips_of(entry.landmarks, low, high), samples)
        if judged:
            total, frames = total + judged * curve, frames + judged
    if frames < FEWEST:
        return nothing
    found = read_curve(total / frames, frames)
    return {"sync_offset": Score(found.offset, frames), "sync_confidence": Score(found.confidence, frames)}


def _pieces(count: int) -> list[tuple[int, int]]:
    """Half-open ranges of about equal length, at most `PIECE`, that cover so many frames."""
    edges = np.linspace(0, count, max(1, -(-count // PIECE)) + 1).astype(int).tolist()
    return list(zip(edges, edges[1:], strict=False))


def _batches(rows: Iterator[tuple[np.ndarray, ...]], size: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Number of the first frame, and frames [B, H, W, 3] of each stream."""
    batch: list[tuple[np.ndarray, ...]] = []
    first = 0
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield first, [np.stack(stream) for stream in zip(*batch, strict=True)]
            first, batch = first + size, []
    if batch:
        yield first, [np.stack(stream) for stream in zip(*batch, strict=True)]


def _masks(frame: np.ndarray, landmarks: np.ndarray, segment: PersonSegmenter) -> dict[str, np.ndarray]:
    """Regions of a true frame, float32 [H, W], empty where there is no face."""
    size = frame.shape[:2]
    if not np.isfinite(landmarks).all():
        return {name: np.zeros(size, np.float32) for name in (*REGIONS, "neck")}
    regions = region_masks(landmarks.astype(np.float64), segment(frame))
    lips = landmarks[list(OUTER_LIPS)]
    mouth = hull_mask(lips.mean(axis=0) + 1.5 * (lips - lips.mean(axis=0)), size)
    jaw, top, chin = (landmarks[points].astype(np.float64) for points in (list(JAW), FACE_OVAL[0], FACE_OVAL[18]))
    band = polygon_mask(np.concatenate([jaw, (jaw + NECK * (chin - top))[::-1]]), size)
    masks = {"face": regions.face, "mouth": mouth, "torso": regions.torso | regions.neck, "neck": band & ~regions.face}
    return {name: mask.astype(np.float32) for name, mask in masks.items()}


def _image_scores(frames: np.ndarray, true: np.ndarray, masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    mine, other = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 for x in (frames, true))
    weights: dict[str, torch.Tensor | None] = {"": None}
    weights |= {f"_{name}": torch.from_numpy(masks[name]) for name in REGIONS}
    sharp = [
        _detail(frame, inside) / max(_detail(truth, inside), 1e-6) if inside.any() else np.nan
        for frame, truth, inside in zip(frames, true, masks["face"] > 0, strict=True)
    ]
    similar = ssim_map(mine, other)
    columns = {"published_ssim": ssim_published(mine, other)}
    columns |= {f"ms_ssim{name}": s for name, s in zip(weights, ms_ssim(mine, other, list(weights.values())), strict=True)}
    for name, mask in weights.items():
        columns[f"error{name}"] = squared_error(mine, other, mask)
        columns[f"absolute{name}"] = absolute_error(mine, other, mask)
        columns[f"ssim{name}"] = masked_mean(similar, None if mask is None else inner(mask))
    for name in ("face", "torso"):
        mask = torch.from_numpy(masks[name])
        pair = greyed(mine, mask), greyed(other, mask)
        # Of an empty region both pictures are grey all over, and equal: that is no likeness, but nothing to compare.
        there = mask.sum(dim=(1, 2)) > 0
        columns[f"published_error_{name}"] = squared_error(*pair).where(there, torch.nan)
        columns[f"published_ssim_{name}"] = ssim_published(*pair).where(there, torch.nan)
    return {**{name: values.double().numpy() for name, values in columns.items()}, "sharpness": np.array(sharp)}


def _detail(frame: np.ndarray, inside: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F)[inside].std())


def mean(values: Float[np.ndarray, " frames"]) -> Score:
    """Mean over the frames in which there is a value."""
    valid = np.isfinite(values)
    return Score(float(values[valid].mean()) if valid.any() else None, int(valid.sum()))


def _pooled(squared: Float[np.ndarray, " frames"]) -> Score:
    """PSNR of the mean squared error of all frames."""
    pooled = mean(squared)
    if pooled.value is None:
        return pooled
    return Score(float(decibels(torch.tensor(pooled.value, dtype=torch.float64))), pooled.frames)

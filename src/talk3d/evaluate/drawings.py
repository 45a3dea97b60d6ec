"""What people look at in a report: a contact sheet, films side by side, the worst frames, and curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ..pages import Chart
from ..video.clock import AUDIO_RATE, FPS
from ..video.write import VideoWriter
from .film import Film
from .page import TRUTH, Moment
from .scores import Curves, Entry

SHOWN = 320
"""Widest picture in the film of a report, pixels."""
WORST = 4
YAW_PER_NOSE = 1.8
"""Sine of a head's yaw for each eye distance that its nose's tip lies aside, see `yaw_of`."""
ANGLE, FEWEST = 5.0, 5
"""Degrees that are put together in curves over angle, and frames that there must be."""


def sheet(truth: Film, films: Sequence[Film], columns: int = 6) -> np.ndarray:
    """A contact sheet [H, W, 3]: the truth, each film, and the first one's error four times enlarged, at a few moments."""
    moments = np.unique(np.linspace(0, truth.count - 1, columns).astype(int)).tolist()
    rows = [[_small(film.at(number)) for number in moments] for film in (truth, *films)]
    rows.append([cv2.convertScaleAbs(cv2.absdiff(a, b), alpha=4) for a, b in zip(rows[0], rows[1], strict=True)])
    return np.vstack([np.hstack(row) for row in rows])


def side_by_side(path: Path, truth: Entry, results: Mapping[str, Entry]) -> None:
    """A film of the truth and each result with its name, each at most 320 pixels wide, and the truth's sound; with one result
    also of their difference, four times enlarged."""
    width, height = truth.film.size
    scale = min(1.0, SHOWN / width)
    size = 2 * max(1, round(width * scale / 2)), 2 * max(1, round(height * scale / 2))
    names = [TRUTH, *results] + (["difference x4"] if len(results) == 1 else [])
    count = truth.film.count
    streams = [entry.film.frames(0, count) for entry in (truth, *results.values())]
    sound = truth.sound or next((entry.sound for entry in results.values() if entry.sound), None)
    metadata = {"talk3d": {"ai_generated": True}}
    rate = AUDIO_RATE if sound else None
    with VideoWriter(path, (len(names) * size[0], size[1]), crf=23, audio_rate=rate, metadata=metadata) as writer:
        for number, frames in enumerate(zip(*streams, strict=True)):
            if sound is not None:
                writer.write_audio(sound(number, number + 1))
            shown = list(frames)
            if len(results) == 1:
                shown.append(cv2.convertScaleAbs(cv2.absdiff(frames[1], frames[0]), alpha=4))
            small = [np.ascontiguousarray(cv2.resize(x, size, interpolation=cv2.INTER_AREA)) for x in shown]
            for name, picture in zip(names, small, strict=True):
                for colour, thickness in (((0, 0, 0), 2), ((255, 255, 255), 1)):
                    cv2.putText(picture, name, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA)
            writer.write(np.hstack(small))


def worst(name: str, entry: Entry, truth: Entry, quality: np.ndarray, first: int) -> list[Moment]:
    """The worst frames of a film that lie at least half a second apart, the worst first.

    Args:
        name: of the film.
        entry: the film.
        truth: the true one.
        quality: [F], dB.
        first: number of the first frame, for the titles.
    """
    chosen: list[int] = []
    for index in np.argsort(quality)[: np.isfinite(quality).sum()].tolist():
        if len(chosen) < WORST and all(abs(index - other) >= FPS // 2 for other in chosen):
            chosen.append(index)
    moments = []
    for index in chosen:
        frame, true = _small(entry.film.at(index)), _small(truth.film.at(index))
        error = np.clip(cv2.absdiff(frame, true).mean(axis=-1) * 4, 0, 255).astype(np.uint8)
        picture = np.hstack([true, frame, cv2.applyColorMap(error, cv2.COLORMAP_INFERNO)[..., ::-1]])
        moments.append(Moment(f"{name}, frame {first + index}, face {quality[index]:.1f} dB", picture))
    return moments


def _small(frame: np.ndarray) -> np.ndarray:
    """At most `SHOWN` pixels wide."""
    height, width = frame.shape[:2]
    size = SHOWN, max(1, round(height * SHOWN / width))
    return frame if width <= SHOWN else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def charts(truth: Entry, curves: Mapping[str, Curves]) -> list[Chart]:
    """Curves over time, and over where the true head looks."""
    end = truth.film.count / FPS
    over_time = [
        Chart(title, {**more, **{name: getattr(own, field) for name, own in curves.items()}}, 0.0, end, " s")
        for title, field, more in (
            ("Lip opening over time, in eye distances", "lip_opening", {TRUTH: truth.motion.gap}),
            ("Lip distance over time, px", "lip_distance", {}),
            ("PSNR of the face over time, dB", "face_psnr", {}),
            ("HeadNet distance over time", "headnet_distance", {}),
        )
    ]
    yaw = yaw_of(truth.motion.pose)
    if not np.isfinite(yaw).any():
        return over_time
    low, high = np.floor(np.nanmin(yaw) / ANGLE), np.floor(np.nanmax(yaw) / ANGLE) + 1
    places = np.floor(yaw / ANGLE) - low
    over_angle = []
    for title, field in (("PSNR of the face, dB", "face_psnr"), ("Lip distance, px", "lip_distance")):
        binned = {
            name: np.array([_mean(getattr(own, field)[places == place]) for place in range(int(high - low))])
            for name, own in curves.items()
        }
        over_angle.append(Chart(f"{title}, over the true head's yaw (estimated)", binned, low * ANGLE, high * ANGLE, "°"))
    return over_time + over_angle


def yaw_of(pose: np.ndarray) -> np.ndarray:
    """[F] about how far a head is turned to the viewer's right, degrees, from where the nose's tip lies between the eyes.

    Good to a few degrees, as noses differ; it serves to sort frames.
    """
    return np.degrees(np.arcsin(np.clip(pose[:, 4] * YAW_PER_NOSE, -1, 1)))


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) >= FEWEST else float("nan")


def write_curves(path: Path, first: int, truth: Entry, curves: Mapping[str, Curves]) -> None:
    """A table with one line a frame; empty where nothing is known."""
    columns = {"lip opening of the truth": truth.motion.gap}
    for name, own in curves.items():
        columns |= {f"{name}: {field.replace('_', ' ')}": values for field, values in vars(own).items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", *columns])
        for number, values in enumerate(zip(*columns.values(), strict=True), first):
            writer.writerow([number, *(f"{value:.5g}" if np.isfinite(value) else "" for value in values)])

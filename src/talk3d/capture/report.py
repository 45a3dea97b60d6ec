"""What a person should know about a recording: the verdict, the checks behind it, and the numbers behind those."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..partials import write_whole
from ..video.clock import FPS
from ..video.source import Pictures
from .checks import Check, Recording, grade, sentence
from .drift import Drift
from .heard import heard_checks
from .listening import levels, listen
from .looks import Looks
from .mask import Plate
from .page import render
from .seen import CLOSED, count_blinks, face_height, seen_checks, source_pixels
from .sound import Heard, Lateness, read_sound
from .voice import voice

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def review(
    folder: Path,
    video: Path | Pictures,
    config: Mapping[str, Any],
    track: dict[str, np.ndarray],
    looks: Looks,
    parts: Sequence[slice],
    plate: Plate,
    heard: Heard,
    lateness: Lateness,
    drift: Drift,
    found: Found,
) -> None:
    """Judge a finished Capture, and write `report.json` and `report.html` into it.

    Args:
        folder: of the Capture, with its frames and its sound.
        video: the film.
        config: the Capture's settings.
        track: its curves.
        looks: how the face looks in each frame.
        parts: runs of frames that follow each other in the film and lie on one side of the split.
        plate: the background.
        heard: what the sound file holds.
        lateness: what the lip-sync expert said.
        drift: what it said over time.
        found: what of the film could be used.
    """
    numbers = np.concatenate([np.arange(*take) for take in config["takes"]])
    samples = read_sound(folder / "audio.flac", 0, len(numbers))
    voiced = voice(samples)
    recording = Recording(
        track=track,
        looks=looks,
        level=levels(samples),
        voiced=voiced,
        numbers=numbers,
        parts=parts,
        border=config["split"]["train"][1],
        decoded=found.decoded,
        fit=sum(stop - start for start, stop in found.takes),
        lost=found.lost,
        people=found.people,
        face=found.face,
        motion=plate.motion,
        heard=heard,
        sounding=listen(samples, voiced),
        lateness=lateness,
        drift=drift,
        notes=found.notes,
    )
    checks = all_checks(recording)
    described = describe(recording, config, checks, float(plate.seen.mean()), found.asked)
    write_whole(folder / "report.json", (json.dumps(described, indent=1) + "\n").encode())
    write_whole(folder / "report.html", render(recording, checks, config, folder, video).encode())


@dataclass(frozen=True)
class Found:
    """What of a film could be used, before any of it was chosen."""

    decoded: int
    """Frames of the film."""
    takes: Sequence[Sequence[int]]
    """Half-open ranges of those that could be used."""
    asked: float | None
    """Seconds that were to be kept of them; None for all."""
    people: int = 1
    """That were seen in it."""
    face: int = 0
    """Which of them is portrayed, from 0 on."""
    notes: tuple[str, ...] = ()
    """What is said of its pictures: what was mended when they were read, and what is missing."""

    @property
    def lost(self) -> list[tuple[int, int]]:
        """The ranges between and around the takes."""
        edges = [0, *(edge for take in self.takes for edge in take), self.decoded]
        return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if stop > start]


def all_checks(recording: Recording) -> list[Check]:
    """Everything that was looked at, in the order in which people should read it."""
    return [*seen_checks(recording), *heard_checks(recording)]


def describe(
    recording: Recording, config: Mapping[str, Any], checks: Sequence[Check], seen_part: float, asked: float | None
) -> dict[str, Any]:
    """What is written to `report.json`.

    Args:
        recording: what was measured.
        config: the Capture's settings.
        checks: of `all_checks`.
        seen_part: part of the background that was really seen.
        asked: seconds that were to be kept; None for all.
    """
    track, looks, frames = recording.track, recording.looks, recording.frames
    return {
        "verdict": sentence(checks, recording.seconds),
        "grade": grade(checks),
        "checks": [asdict(check) for check in checks],
        "warnings": [*recording.notes, *(f"{check.why} {check.advice}" for check in checks if check.verdict != "pass")],
        "mended": [check.why for check in checks if check.verdict == "pass" and check.why],
        "frames": {
            "decoded": recording.decoded,
            "fit": recording.fit,
            "usable": frames,
            "seconds": frames / FPS,
            "takes": len(config["takes"]),
            "lost": [list(stretch) for stretch in recording.lost],
            "asked_seconds": asked,
        },
        "face_height_px": round(face_height(track), 1),
        "source_pixels_per_crop_pixel": round(source_pixels(track), 3),
        "yaw_degrees": _spread(np.degrees(track["yaw"])),
        "pitch_degrees": _spread(np.degrees(track["pitch"])),
        "lip_gap": _spread(track["lip_gap"]),
        "closed_mouth_part": round(float((track["lip_gap"] < CLOSED).mean()), 4),
        "brow_height": _spread(track["brow_height"]),
        "blinks": count_blinks(track["blink"]),
        "occluded": _spread(track["occluded"]),
        "pose_residual": _spread(track["residual"]),
        "sharpness": _spread(looks.sharpness),
        "brightness": _spread(looks.brightness),
        "background": {"seen_part": round(seen_part, 4), "motion": round(recording.motion, 3)},
        "sound": {
            **asdict(recording.heard),
            "late": asdict(recording.lateness),
            "drift": asdict(recording.drift),
            "speech": {name: None if value is None else round(value, 2) for name, value in vars(recording.sounding).items()},
        },
        "quantiles": list(QUANTILES),
    }


def _spread(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in np.quantile(values, QUANTILES)]

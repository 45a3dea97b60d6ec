"""A synthetic person who talks: phoneme timings become lip shapes, lip shapes become a film with exact truth.

Letters: F frames, P phones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..camera import Orbit
from .model import Array, HeadPack, HeadParameters
from .raster import HeadPicture, render_head

SPREAD = 0.045
"""Seconds by which a phone's shape reaches into its neighbours on each side (coarticulation)."""
CLOSURES = ("PP", "FF")
"""Visemes that must be reached whatever surrounds them."""
UPPER_LIP, LOWER_LIP, LEFT_CORNER, RIGHT_CORNER = 62, 66, 60, 64
"""Inner lips in the 68-point scheme."""


@dataclass(frozen=True)
class Phone:
    """One spoken sound."""

    start: float
    """Seconds."""
    stop: float
    """Seconds."""
    viseme: str
    """A name of the pack's viseme table."""


@dataclass(frozen=True)
class Script:
    """What a person does, one row a frame."""

    expression: list[dict[str, float]]
    """Expression weights by shape name."""
    gaze: NDArray[np.float64]
    """[F, 2] yaw and pitch of the eyes, radians."""
    yaw: NDArray[np.float64]
    """[F] camera orbit, radians: the opposite of the head's rotation."""
    pitch: NDArray[np.float64]
    """[F] radians."""
    shift: NDArray[np.float64]
    """[F, 2] of the head in the picture, in picture widths."""
    fps: float


def write_script(phones: Sequence[Phone], frames: int, fps: float, pack: HeadPack, seed: int) -> Script:
    """Lip shapes from phones; blinks, brows, gaze and head motion from seeded noise with human statistics."""
    rng = np.random.default_rng(seed)
    lips = lip_shapes(phones, frames, fps, pack.visemes["viseme_to_expression"])
    blink = _blinks(frames, fps, rng)
    brow = np.clip(wander(frames, fps, 0.6, rng), 0, None) * 0.35
    smile = np.clip(wander(frames, fps, 0.2, rng), 0, None) * 0.1
    for row, b, up, happy in zip(lips, blink, brow, smile, strict=True):
        row["eyeBlink"] = float(b)
        row["browInnerUp"] = float(up)
        row["browOuterUp"] = float(up * 0.7)
        row["mouthSmile"] = row.get("mouthSmile", 0.0) + float(happy)
    gaze = np.stack([wander(frames, fps, 0.8, rng) * 0.06, wander(frames, fps, 0.8, rng) * 0.03], 1)
    return Script(
        expression=lips,
        gaze=gaze,
        yaw=wander(frames, fps, 0.35, rng) * math.radians(7),
        pitch=wander(frames, fps, 0.35, rng) * math.radians(3),
        shift=np.stack([wander(frames, fps, 0.2, rng), wander(frames, fps, 0.2, rng)], 1) * 0.012,
        fps=fps,
    )


def lip_shapes(
    phones: Sequence[Phone], frames: int, fps: float, visemes: dict[str, dict[str, float]]
) -> list[dict[str, float]]:
    """Expression weights of each frame: phones blend in raised cosines, closures dominate, gaps are at rest."""
    time = (np.arange(frames) + 0.5) / fps
    names = sorted({name for shape in visemes.values() for name in shape})
    shapes = {viseme: np.array([shape.get(name, 0.0) for name in names]) for viseme, shape in visemes.items()}
    total = np.full(frames, 1e-3)  # a trace of rest everywhere, so that silence is at rest
    blended = np.zeros((frames, len(names)))
    for phone in phones:
        centre, reach = (phone.start + phone.stop) / 2, (phone.stop - phone.start) / 2 + SPREAD
        weight = 0.5 + 0.5 * np.cos(np.pi * np.clip((time - centre) / reach, -1, 1))
        if phone.viseme in CLOSURES:
            weight = 6 * weight**2
        total += weight
        blended += weight[:, None] * shapes[phone.viseme]
    blended /= total[:, None]
    return [dict(zip(names, map(float, row), strict=True)) for row in blended]


@dataclass(frozen=True)
class Frame:
    """One frame of a film with its truth."""

    rgb: NDArray[np.uint8]
    """[S, S, 3], over the background."""
    picture: HeadPicture
    """The head alone, with alpha, depth and labels."""
    cam2world: Array
    """[4, 4]."""
    lip_gap: float
    """Between the inner lips, cm."""
    lip_width: float
    """Between the inner mouth corners, cm."""


def perform(
    person: HeadParameters, script: Script, pack: HeadPack, orbit: Orbit, background: NDArray[np.uint8]
) -> Iterator[Frame]:
    """Film a script, frame by frame.

    Args:
        person: whom to draw; expression and gaze come from the script.
        script: what the person does.
        pack: the head pack.
        orbit: the camera that moves instead of the head.
        background: [S, S, 3] uint8, does not move; its size is the film's.
    """
    import torch

    size = background.shape[0]
    poses = orbit.pose(torch.from_numpy(script.yaw).float(), torch.from_numpy(script.pitch).float()).numpy()
    for index, expression in enumerate(script.expression):
        yaw, pitch = script.gaze[index]
        head = pack.build(replace(person, expression=expression, gaze=(float(yaw), float(pitch))))
        intrinsics = orbit.intrinsics().numpy().copy()
        intrinsics[:2, 2] += script.shift[index]
        picture = render_head(head, pack, poses[index], intrinsics, size)
        cover = picture.alpha[..., None].astype(np.float32) / 255
        rgb = np.clip(picture.rgb + (1 - cover) * background + 0.5, 0, 255).astype(np.uint8)
        mouth = head.vertices[pack.lm68]
        yield Frame(
            rgb,
            picture,
            poses[index],
            float(np.linalg.norm(mouth[UPPER_LIP] - mouth[LOWER_LIP])),
            float(np.linalg.norm(mouth[LEFT_CORNER] - mouth[RIGHT_CORNER])),
        )


def _blinks(frames: int, fps: float, rng: np.random.Generator) -> NDArray[np.float64]:
    time = np.arange(frames) / fps
    track = np.zeros(frames)
    centre = rng.uniform(1, 3)
    while centre < frames / fps:
        track = np.maximum(track, np.clip(1.3 - np.abs(time - centre) / 0.09, 0, 1))
        centre += rng.uniform(2, 6)
    return track


def wander(frames: int, fps: float, hertz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Low-passed noise of unit deviation."""
    count = frames + int(8 * fps)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / fps)
    track = np.fft.irfft(spectrum * np.exp(-((frequencies / hertz) ** 2)), count)[:frames]
    return (track - track.mean()) / (track.std() + 1e-9)

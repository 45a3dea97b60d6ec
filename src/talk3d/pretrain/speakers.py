"""Synthetic people who speak, as the tracker would report their lips, thousands of times faster than drawing and tracking.

A film of a few dozen drawn people is tracked once; a linear map from the mesh's true 68 points to the tracker's lips is fitted
to it, and what the map leaves over is kept as a sample of the tracker's errors. From then on a speaker is: phones, lip shapes,
68 points, the map, and a random piece of error.

Letters: T frames at 25 per second, N samples at 16 kHz.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..artifacts import load_state, save_state
from ..camera import Orbit
from ..capture.track import FaceTracker
from ..errors import NoFaceError
from ..heads.latent import LATENT_SIZE, parameters_from_latent
from ..heads.model import HeadPack, HeadParameters, to_world
from ..heads.subject import Phone, Script, lip_shapes, perform, write_script
from ..judges.sync import LIP_NUMBERS, in_face, lips_in_face
from ..partials import write_whole
from ..video.clock import AUDIO_RATE, FPS

MOUTH = tuple(range(48, 68))
"""Of the 68 points."""
EYES, NOSE = (36, 39, 42, 45), (27, 28, 29, 30, 31, 33, 35)
FILMED, FILMED_FRAMES, FILMED_SIZE = 28, 60, 256
"""Persons drawn and tracked for the map, frames of each, side of their pictures."""
RIDGE = 1e-3


@dataclass(frozen=True)
class Recording:
    """Speech with its phones."""

    samples: NDArray[np.float32]
    """[N]."""
    phones: list[Phone]

    @property
    def frames(self) -> int:
        return len(self.samples) * FPS // AUDIO_RATE


def save_recordings(path: Path, recordings: Sequence[Recording], visemes: list[str]) -> None:
    """Write recordings into one file; `visemes` are the names that phones may have."""
    arrays: dict[str, Any] = {"visemes": np.array(visemes)}
    for index, one in enumerate(recordings):
        arrays[f"sound{index}"] = (one.samples.clip(-1, 1) * 32767).astype(np.int16)
        arrays[f"phones{index}"] = np.array([(p.start, p.stop, visemes.index(p.viseme)) for p in one.phones], np.float32)
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_whole(path, file.getvalue())


def load_recordings(path: Path) -> list[Recording]:
    """What `save_recordings` wrote."""
    with np.load(path) as file:
        visemes = [str(name) for name in file["visemes"]]
        return [
            Recording(
                file[f"sound{index}"].astype(np.float32) / 32768,
                [Phone(float(start), float(stop), visemes[int(v)]) for start, stop, v in file[f"phones{index}"]],
            )
            for index in range((len(file.files) - 1) // 2)
        ]


class Rig:
    """The 68 points of any head in any expression, without its other 26,000 vertices."""

    def __init__(self, pack: HeadPack):
        self.visemes = pack.visemes["viseme_to_expression"]
        self._rest = pack.mean[pack.lm68]
        self._modes = pack.identity_modes.reshape(len(pack.identity_modes), -1, 3)[:, pack.lm68]
        names = {name for shape in self.visemes.values() for name in shape} | {"mouthSmile", "browInnerUp", "eyeBlink"}
        self._shapes = {name: pack.displacement({name: 1.0})[pack.lm68] for name in names}
        self._orbit = Orbit()

    @property
    def identity_size(self) -> int:
        """Length of the vectors that `points` takes."""
        return len(self._modes)

    def points(self, identity: NDArray[np.float32], script: Script) -> NDArray[np.float64]:
        """[T, 68, 2] of a head that plays a script, in its own face's frame (`judges.sync.in_face`)."""
        neutral = self._rest + np.einsum("k,kpc->pc", identity, self._modes)
        weights = np.array([[row.get(name, 0.0) for name in self._shapes] for row in script.expression])
        moved = neutral + np.einsum("tk,kpc->tpc", weights, np.stack(list(self._shapes.values())))
        yaw, pitch = torch.from_numpy(script.yaw).float(), torch.from_numpy(script.pitch).float()
        poses = self._orbit.pose(yaw, pitch).numpy()
        world = to_world(moved.astype(np.float32))
        camera = np.einsum("tpc,tcd->tpd", world - poses[:, None, :3, 3], poses[:, :3, :3])
        return in_face((camera[..., :2] / camera[..., 2:]).astype(np.float64), EYES, NOSE)


@dataclass(frozen=True)
class TrackerModel:
    """How the tracker reports lips, measured on drawn films."""

    gain: NDArray[np.float32]
    """[40, 80] from deviations of the mouth's 20 true points to deviations of the 40 tracked ones."""
    mouth: NDArray[np.float32]
    """[persons, 80] median tracked mouths."""
    noise: NDArray[np.float32]
    """[persons, frames, 80] what the map leaves over."""
    explained: float
    """Part of the variance of tracked lips that the map explains on persons that it was not fitted to."""

    def save(self, path: Path) -> None:
        arrays = {name: torch.from_numpy(value) for name, value in vars(self).items() if name != "explained"}
        save_state(path, arrays, {"explained": self.explained})

    @classmethod
    def load(cls, path: Path) -> TrackerModel:
        tensors, state = load_state(path)
        return cls(tensors["gain"].numpy(), tensors["mouth"].numpy(), tensors["noise"].numpy(), float(state["explained"]))


def measure_tracker(
    pack: HeadPack, recordings: Sequence[Recording], progress: Callable[[int, int], None] = lambda done, of: None
) -> TrackerModel:
    """Draw people who speak, track them, and fit the map.

    Raises:
        ModelMissingError: the tracker's models are not installed.
        NoFaceError: the tracker finds hardly any face.
    """
    rig = Rig(pack)
    true, tracked, mouths = [], [], []
    for index in range(FILMED):
        rng = np.random.default_rng([20240402, index])
        recording = recordings[int(rng.integers(len(recordings)))]
        person = random_person(rng, pack)
        phones = shifted(recording.phones, -rng.uniform(0, max(0.0, recording.frames - FILMED_FRAMES) / FPS))
        script = write_script(phones, FILMED_FRAMES, float(FPS), pack, seed=index)
        lips = tracked_lips(person, script, pack, rng)
        known = np.isfinite(lips).all(1)
        progress(index + 1, FILMED)
        if known.mean() < 0.95:
            continue
        lips = lips[known]
        points = rig.points(person.identity, script)[known][:, list(MOUTH)].reshape(len(lips), -1)
        mouths.append(np.median(lips, 0))
        tracked.append((lips - lips.mean(0))[: FILMED_FRAMES - 3])
        true.append((points - points.mean(0))[: FILMED_FRAMES - 3])
    if len(true) < FILMED // 2:
        raise NoFaceError(f"The tracker found a steady face in only {len(true)} of {FILMED} drawn films.")
    half = len(true) // 2
    gain = _ridge(true[:half], tracked[:half])
    rest = sum(float(((t @ gain - y) ** 2).sum()) for t, y in zip(true[half:], tracked[half:], strict=True))
    explained = 1 - rest / sum(float((y**2).sum()) for y in tracked[half:])
    gain = _ridge(true, tracked)
    noise = [y - t @ gain for t, y in zip(true, tracked, strict=True)]
    return TrackerModel(gain.astype(np.float32), np.array(mouths, np.float32), np.array(noise, np.float32), explained)


def _ridge(true: list[NDArray], tracked: list[NDArray]) -> NDArray[np.float64]:
    x, y = np.concatenate(true), np.concatenate(tracked)
    return np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]) * float((x**2).mean()), x.T @ y)


def random_person(rng: np.random.Generator, pack: HeadPack) -> HeadParameters:
    """Someone of the training textures."""
    return parameters_from_latent(rng.standard_normal(LATENT_SIZE).astype(np.float32), pack)


def tracked_lips(person: HeadParameters, script: Script, pack: HeadPack, rng: np.random.Generator) -> NDArray[np.float64]:
    """[T, 80] lips of a drawn film, followed by the real tracker; NaN where it sees no face."""
    return lips_in_face(film_landmarks(person, script, pack, rng))


def film_landmarks(person: HeadParameters, script: Script, pack: HeadPack, rng: np.random.Generator) -> NDArray[np.float64]:
    """[T, 468, 2] pixels: a film is drawn over a plain background and tracked."""
    background = np.full((FILMED_SIZE, FILMED_SIZE, 3), rng.integers(40, 200, 3), np.uint8)
    tracker = FaceTracker()
    rows = []
    for frame in perform(person, script, pack, Orbit(), background):
        face = tracker(frame.rgb)
        rows.append(face.landmarks if face else np.full((468, 2), np.nan))
    return np.array(rows, np.float64)


def shifted(phones: Sequence[Phone], seconds: float) -> list[Phone]:
    """The same phones so much later; those that end before 0 fall away."""
    moved = [Phone(phone.start + seconds, phone.stop + seconds, phone.viseme) for phone in phones]
    return [phone for phone in moved if phone.stop > -0.2]


def speaking_lips(recording: Recording, rig: Rig, tracker: TrackerModel, rng: np.random.Generator) -> NDArray[np.float64]:
    """[T, 80] tracked lips of a random person who says a recording, each time another way.

    Mouth shapes are the viseme table's, each weight with a gain of its own; sounds reach into their neighbours by random
    amounts, farther ahead than back, as lips prepare for what comes.
    """
    frames = recording.frames
    gain = math.exp(rng.normal(-0.1, 0.35))
    visemes = {
        viseme: {name: weight * gain * math.exp(rng.normal(0, 0.35)) for name, weight in shape.items()}
        for viseme, shape in rig.visemes.items()
    }
    for shape in visemes.values():
        shape["jawOpen"] = shape.get("jawOpen", 0.0) + rng.uniform(0, 0.06)
    ahead, back = rng.uniform(-0.02, 0.06), rng.uniform(-0.02, 0.03)
    phones = [
        dataclasses.replace(p, start=p.start - ahead, stop=max(p.stop + back, p.start - ahead + 0.02))
        for p in recording.phones
        if p.viseme in ("PP", "FF") or rng.random() > 0.05  # some sounds are slurred
    ]
    expression = lip_shapes(phones, frames, float(FPS), visemes)
    smile, jaw = wander(frames, rng.uniform(0.1, 0.5), rng), wander(frames, rng.uniform(0.2, 1.0), rng)
    happy, loose = rng.uniform(0, 0.25), rng.uniform(0, 0.05)
    for row, s, j in zip(expression, smile, jaw, strict=True):
        row["mouthSmile"] = row.get("mouthSmile", 0.0) + happy * max(0.0, float(s))
        row["jawOpen"] = row["jawOpen"] + loose * max(0.0, float(j))
    lively = rng.uniform(0.3, 1.5)
    script = Script(
        expression=expression,
        gaze=np.zeros((frames, 2)),
        yaw=wander(frames, 0.4, rng) * lively * math.radians(6) + rng.normal(0, math.radians(8)),
        pitch=wander(frames, 0.4, rng) * lively * math.radians(3) + rng.normal(0, math.radians(4)),
        shift=np.zeros((frames, 2)),
        fps=float(FPS),
    )
    identity = np.clip(rng.standard_normal(rig.identity_size), -2.5, 2.5).astype(np.float32) * np.float32(0.8)
    points = rig.points(identity, script)[:, list(MOUTH)].reshape(frames, -1)
    lips = (points - points.mean(0)) @ tracker.gain + tracker.mouth[rng.integers(len(tracker.mouth))]
    return lips + rng.uniform(0.3, 2.0) * _noise(tracker, frames, rng)


def _noise(tracker: TrackerModel, frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[T, 80]: pieces of the tracker's errors, forwards and backwards so that they join, with a fresh tremor."""
    pieces: list[NDArray] = []
    total = 0
    noise = tracker.noise[rng.integers(len(tracker.noise))]
    while total < frames:
        pieces.append(noise[:: 1 if len(pieces) % 2 == 0 else -1])
        total += len(noise)
    start = rng.integers(total - frames + 1)
    tremor = rng.normal(0, 0.004, (frames, LIP_NUMBERS))
    return np.concatenate(pieces)[start : start + frames] * rng.choice([-1.0, 1.0]) + tremor


def wander(frames: int, hertz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """[T] low-passed noise of unit deviation."""
    count = frames + 8 * FPS
    frequencies = np.fft.rfftfreq(count, 1 / FPS)
    track = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * np.exp(-((frequencies / hertz) ** 2)), count)[:frames]
    return (track - track.mean()) / (track.std() + 1e-9)

"""Films of a synthetic head, for whoever has the reference data and the face models."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d import frozen
from talk3d.camera import Orbit
from talk3d.capture.artifact import Capture
from talk3d.capture.build import prepare
from talk3d.capture.checks import Recording
from talk3d.capture.drift import Drift
from talk3d.capture.listening import Sounding
from talk3d.capture.looks import Looks
from talk3d.capture.sound import Heard, Lateness
from talk3d.video.read import read_audio, read_frames
from talk3d.video.write import VideoWriter


@pytest.fixture(scope="session")
def models() -> None:
    if not all(status.installed for status in frozen.list_models()):
        pytest.skip(f"the face models are not installed; `{frozen.INSTALL_COMMAND}` puts them in the cache")


@pytest.fixture(scope="session")
def subject(shared: Path, models: None) -> Path:
    """The synthetic subject's folder."""
    return shared / "data/synthetic/A"


@pytest.fixture(scope="session")
def truth(subject: Path) -> dict[str, np.ndarray]:
    """Exact poses, lips and blinks of its film."""
    with np.load(subject / "self.truth.npz") as data:
        return dict(data)


@pytest.fixture(scope="session")
def film_frames(subject: Path) -> np.ndarray:
    """The first 88 frames, uint8 [88, 256, 256, 3]."""
    return np.stack(list(read_frames(subject / "A.mp4", stop=88)))


@pytest.fixture(scope="session")
def film_sound(subject: Path) -> np.ndarray:
    return read_audio(subject / "A.mp4")[: 88 * 640]


@pytest.fixture(scope="session")
def tracked_subject(subject: Path) -> np.ndarray:
    """Landmarks of its first twelve seconds, pixels [300, 468, 2]."""
    from talk3d.capture.track import track

    return track(read_frames(subject / "A.mp4", stop=300)).landmarks


@pytest.fixture(scope="session")
def canonical(subject: Path, truth: dict[str, np.ndarray]) -> np.ndarray:
    """The subject's own landmarks [468, 3]: tracked ones, triangulated with the true cameras."""
    from talk3d.capture.track import track

    chosen = np.flatnonzero((truth["lip_gap_cm"] < 0.25) & (truth["blink"] < 0.1))[:150]
    frames = read_frames(subject / "A.mp4", stop=int(chosen[-1]) + 1)
    seen = track(frame for number, frame in enumerate(frames) if number in set(chosen.tolist()))
    camera, focal = truth["cam2world"][chosen].astype(np.float64), float(truth["intrinsics"][0, 0])
    rays = np.concatenate([(seen.landmarks / 256 - 0.5) / focal, np.ones((len(chosen), 468, 1))], axis=-1)
    rays = np.einsum("fij,flj->fli", camera[:, :3, :3], rays)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    across = np.eye(3) - rays[..., :, None] * rays[..., None, :]  # [F, 468, 3, 3]
    right = np.einsum("flij,fj->li", across, camera[:, :3, 3])
    return np.linalg.solve(across.sum(axis=0), right[..., None])[..., 0]


SIDE = 128


@pytest.fixture(scope="session")
def run(canonical: np.ndarray) -> Callable[..., Capture]:
    def run(video: Path, output: Path, **options: object) -> Capture:
        settings = {"resolution": SIDE, "consent": "synthetic"} | options
        return prepare(video, output, canonical=canonical, orbit=Orbit(), prior_hash="ab" * 32, **settings)

    return run


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory, film_frames: np.ndarray, film_sound: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with VideoWriter(path, (256, 256), audio_rate=16000, crf=12, preset="veryfast", causal=True) as writer:
        writer.write_audio(film_sound)
        for frame in film_frames:
            writer.write(frame)
    return path


MakeFilm = Callable[..., Path]


@pytest.fixture
def make_film(tmp_path: Path) -> MakeFilm:
    """Write frames and sound to `tmp_path / name`."""

    def make(name: str, frames: np.ndarray, sound: np.ndarray | None, fps: int = 25, causal: bool = False) -> Path:
        path = tmp_path / name
        size = (frames.shape[2], frames.shape[1])
        rate = None if sound is None else 16000
        with VideoWriter(path, size, fps, rate, crf=14, preset="veryfast", causal=causal) as writer:
            if sound is not None:
                writer.write_audio(sound)
            for frame in frames:
                writer.write(frame)
        return path

    return make


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small tensors on a busy machine: waiting for a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


MakeRecording = Callable[..., Recording]


@pytest.fixture
def make_recording() -> MakeRecording:
    """A recording of seventy seconds with nothing to complain about, and anything about it changed."""

    def make(frames: int = 1750, **changes: object) -> Recording:
        time = np.arange(frames) / 25
        rng = np.random.default_rng(0)
        speaks = time % 3 < 2.4
        gap = np.where(speaks, 0.06 + 0.055 * np.sin(2 * np.pi * 2.1 * time), 0.015)
        blink = np.where(time % 4 < 0.2, 1.0, 0.05)
        track = {
            "yaw": np.radians(8 * np.sin(time / 3)),
            "pitch": np.radians(5 * np.cos(time / 5)),
            "lip_gap": gap,
            "lip_width": 0.45 + 0.02 * np.sin(2 * np.pi * 1.3 * time) * speaks,
            "blink": blink,
            "brow_height": 0.26 + 0.02 * np.sin(time / 2),
            "confidence": np.full(frames, 0.999),
            "occluded": np.zeros(frames),
            "residual": 0.007 + 0.001 * rng.random(frames),
            "landmarks": np.full((frames, 468, 2), 0.5),
            "face_height": np.full(frames, 250.0),
            "crop_from_source": np.broadcast_to(np.array([[0.7, 0.0, 0.0], [0.0, 0.7, 0.0]]), (frames, 2, 3)),
        }
        looks = Looks(
            11 + 0.3 * rng.standard_normal(frames), 140 + 0.4 * rng.standard_normal(frames), np.zeros(frames), np.zeros(frames)
        )
        border = frames * 10 // 11
        settings: dict[str, object] = {
            "track": track,
            "looks": looks,
            "level": np.where(speaks, -20.0, -60.0),
            "voiced": np.where(speaks, 0.98, 0.02),
            "numbers": np.arange(frames),
            "parts": [slice(0, border), slice(border, frames)],
            "border": border,
            "decoded": frames,
            "fit": frames,
            "lost": [],
            "people": 1,
            "face": 0,
            "motion": 1.0,
            "heard": Heard(frames / 25, 0.7, 48000, 1, 0.0),
            "sounding": Sounding(-20.0, -20.0, -55.0, 35.0, 8000.0, 0.8 * frames / 25, frames / 25),
            "lateness": Lateness(0.1, 0.4, 0.0),
            "drift": Drift(0.1, 0.3, 0.0, 0.1, 11),
            "notes": [],
        }
        curves = {name: changes.pop(name) for name in list(changes) if name in track}
        seen = {name: changes.pop(name) for name in list(changes) if name in vars(looks)}
        settings["track"] = track | curves
        settings["looks"] = dataclasses.replace(looks, **seen)
        return Recording(**(settings | changes))

    return make

"""Films of a synthetic head, for whoever has the reference data and the face models."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d import frozen
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

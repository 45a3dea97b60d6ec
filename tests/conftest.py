"""Fixtures shared by all rooms."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d.artifacts import creating
from talk3d.capture.artifact import Capture
from talk3d.capture.takes import split_of
from talk3d.prior.generator import MINI, Generator, LoadedPrior, Profile, load_prior, save_prior
from talk3d.prior.subject import Subject
from talk3d.prior.superres import SuperResolutionConfig
from talk3d.talker.config import TrainConfig
from talk3d.talker.speak import save_avatar
from talk3d.talker.train import train_talker
from talk3d.video.write import GrayWriter, VideoWriter

if not torch.cuda.is_available():
    # Triton reads it when it is imported, which is done by whoever needs it first: its kernels then run on the CPU, slowly.
    os.environ["TRITON_INTERPRET"] = "1"

SHARED = Path(__file__).resolve().parents[1].parent / "shared"

TINY: Profile = dataclasses.replace(
    MINI,
    name="tiny",
    z_dim=12,
    w_dim=16,
    mapping_features=16,
    plane_resolution=32,
    plane_channels=4,
    channel_base=256,
    channel_max=16,
    decoder_hidden=8,
    decoder_features=4,
    neural_resolution=16,
    superres=SuperResolutionConfig(input_resolution=16, widths=(8, 4), first_up=True, clamp=None),
    render=dataclasses.replace(MINI.render, samples_coarse=6, samples_fine=6),
)
"""The shape of the shipped profile at a size where a training step takes milliseconds."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden vectors, the head pack and clips, which lies beside the repository where it exists."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the reference data, and there is none beside the repository ({SHARED.name}/)")
    return SHARED


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory: pytest.TempPathFactory) -> LoadedPrior:
    """A prior of random weights at tiny sizes, whose space is neither empty nor full."""
    torch.manual_seed(8)
    path = tmp_path_factory.mktemp("prior") / "tiny"
    canonical = np.random.default_rng(1).normal(0, 0.1, (468, 3)).astype(np.float32)
    expressions = {name: torch.randn(TINY.z_dim) for name in ("jawOpen", "eyeBlink")}
    generator = Generator(TINY)
    with torch.no_grad():
        # A fresh generator is full of fog; a trained one has surfaces.
        generator.decoder.net[2].weight[0] *= TINY.density_gain
    save_prior(path, generator, canonical, expressions=expressions)
    prior, orbit = load_prior(path), TINY.orbit
    middle = (
        prior.generator.map(torch.zeros(1, TINY.z_dim)),
        orbit.pose(torch.zeros(1), torch.zeros(1)),
        orbit.intrinsics()[None],
    )
    assert 0.3 < float(prior.generator(*middle).raw.alpha.mean()) < 0.7
    return prior


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory: pytest.TempPathFactory, tiny_prior: LoadedPrior) -> Capture:
    """A made-up capture of 66 frames that needs neither a face nor models: a disc whose dark slit opens with the sound."""
    return make_tiny_capture(tmp_path_factory.mktemp("capture") / "tiny", tiny_prior.hash)


@pytest.fixture(scope="session")
def make_capture() -> Callable[..., Capture]:
    """`make_tiny_capture`, for tests that need a capture of their own."""
    return make_tiny_capture


@pytest.fixture(scope="session")
def tiny_subject(tiny_prior: LoadedPrior, tiny_capture: Capture) -> Subject:
    """The tiny prior at its mean, as if personalised to the tiny capture."""
    generator = tiny_prior.generator
    with torch.no_grad():
        ws = generator.map(torch.zeros(1, TINY.z_dim))
        planes = generator.planes(ws)
    return Subject(
        generator, ws, planes, torch.from_numpy(tiny_capture.yaw).float(), torch.from_numpy(tiny_capture.pitch).float(),
        tiny_prior.expressions, "subject", "synthetic", tiny_capture.root, tiny_capture.hash, tiny_prior.hash,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_avatar(tmp_path_factory: pytest.TempPathFactory, tiny_subject: Subject, tiny_capture: Capture) -> Path:
    """An avatar after two steps of training; for reading only."""
    folder = tmp_path_factory.mktemp("avatar")
    config = TrainConfig(steps=2, minutes=None, frames_per_step=2, listen_steps=2)
    talker = train_talker(tiny_subject, tiny_capture, folder / "run", config, lambda part, text: None)
    save_avatar(folder / "tiny.talk3d", tiny_subject, tiny_capture, talker, config, False)
    return folder / "tiny.talk3d"


@pytest.fixture(scope="module")
def avatar(tiny_avatar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, a module's own."""
    return Path(shutil.copy(tiny_avatar, tmp_path_factory.mktemp("avatar")))


def make_tiny_capture(path: Path, prior_hash: str, test_noise: bool = False) -> Capture:
    """See `tiny_capture`; with `test_noise`, everything about the test frames is replaced by noise."""
    import soundfile

    frames, size = 66, TINY.image_resolution
    rng = np.random.default_rng(5)
    split = split_of(frames)
    test = split["test"][0]
    opening = 0.5 + 0.5 * np.sin(np.arange(frames) * 0.7)
    pictures = np.full((frames, size, size, 3), 60, np.uint8)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    person = x**2 + y**2 < 0.12
    for picture, gap in zip(pictures, opening, strict=True):
        picture[person] = (200, 150, 120)
        picture[(abs(x) < 0.15) & (abs(y - 0.15) < 0.08 * gap)] = (40, 10, 10)
    landmarks = rng.uniform(0.3, 0.7, (1, 468, 2)).repeat(frames, 0) + rng.normal(0, 1e-3, (frames, 468, 2))
    landmarks[..., 1] += 0.05 * opening[:, None]
    sound = (rng.standard_normal(frames * 640) * 0.1 * opening.repeat(640)).astype(np.float32)
    curves = {"yaw": np.sin(np.arange(frames) * 0.1) * 0.1, "pitch": np.zeros(frames), "lip_gap": opening * 0.3}
    if test_noise:
        pictures[test:] = rng.integers(0, 255, pictures[test:].shape)
        landmarks[test:] = rng.uniform(0, 1, landmarks[test:].shape)
        sound[test * 640 :] = rng.uniform(-1, 1, len(sound) - test * 640)
        curves = {name: np.where(np.arange(frames) < test, curve, rng.random()) for name, curve in curves.items()}
    crop = np.tile(np.array([[1.0, 0, 4], [0, 1, -3]]), (frames, 1, 1))
    crop[:, 0, 2] += np.sin(np.arange(frames) * 0.2)
    with creating(Capture, path) as draft:
        draft.consent = "synthetic"
        draft.config = {
            "fps": 25, "frames": frames, "resolution": size, "source": {"width": 80, "height": 80},
            "orbit": dataclasses.asdict(TINY.orbit), "prior_hash": prior_hash, "split": split, "takes": [[0, frames]],
        }  # fmt: skip
        with VideoWriter(draft.folder / "frames.mp4", (size, size), crf=0, full_colour=True) as writer:
            for picture in pictures:
                writer.write(picture)
        with GrayWriter(draft.folder / "person.mkv", (size, size)) as masks:
            for _ in range(frames):
                masks.write(person.astype(np.uint8) * 255)
        soundfile.write(draft.folder / "audio.flac", sound, 16000)
        plate = np.full((80, 80, 3), 60, np.uint8)
        import cv2

        cv2.imwrite(str(draft.folder / "plate.png"), plate)
        cv2.imwrite(str(draft.folder / "plate_seen.png"), plate[..., 0] * 0 + 255)
        zeros = np.zeros(frames)
        arrays = curves | {
            "landmarks": landmarks, "crop_from_source": crop, "blink": zeros,
            "lip_width": zeros + 0.4, "confidence": zeros + 1,
        }  # fmt: skip
        draft.write_tensors(
            "track.safetensors", {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
        )
        draft.write_json("report.json", {"warnings": []})
    return Capture.open(path)

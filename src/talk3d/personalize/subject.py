"""The story of `talk3d personalize`: choose frames, invert them jointly, tune the prior, refine all cameras.

Letters: F frames of the capture, S side of its frames, L style vectors.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..artifacts import Subject as SubjectArtifact
from ..artifacts import creating, remove_stale_partials
from ..capture.build import Capture
from ..errors import ArtifactError, ConfigError
from ..prior.generator import Generator, LoadedPrior, Profile
from .cameras import CameraConfig, refine_cameras
from .invert import InvertConfig, Inversion, Views, invert
from .tune import TuneConfig, tune


@dataclass(frozen=True)
class PersonalizeConfig:
    """Settings of the personalisation."""

    frames: int = 5
    """Frames that are inverted, chosen for their spread of pose and expression."""
    invert: InvertConfig = field(default_factory=InvertConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    cameras: CameraConfig = field(default_factory=CameraConfig)


@dataclass(frozen=True)
class PersonFrames:
    """Consecutive frames of a capture on disk, as the generator would have to draw them; memory holds what is asked for."""

    start: int
    pictures: np.ndarray
    """[n, S, S, 3] uint8, memory-mapped."""
    mattes: np.ndarray
    """[n, S, S] uint8, memory-mapped: how much of each pixel is the person."""
    plate: np.ndarray
    """[H, W, 3] uint8: the background in source pixels."""
    crops: Float[np.ndarray, "frames 2 3"]
    """Source pixels to crop pixels, all frames of the capture."""

    @classmethod
    def cached(cls, capture: Capture, folder: Path, start: int, stop: int) -> PersonFrames:
        """Decode the frames into `folder` once; later calls find them there."""
        size, count = capture.resolution, stop - start
        pictures, mattes = folder / "pictures.npy", folder / "mattes.npy"
        if not mattes.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for path, source, shape in (
                (pictures, capture.frames(start, stop), (count, size, size, 3)),
                (mattes, capture.person(start, stop), (count, size, size)),
            ):
                partial = path.with_suffix(".partial")
                store = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
                for row, frame in zip(store, source, strict=True):
                    row[:] = frame
                store.flush()
                partial.rename(path)
        return cls(
            start, np.load(pictures, mmap_mode="r"), np.load(mattes, mmap_mode="r"), capture.plate(),
            capture.crop_from_source,
        )  # fmt: skip

    def views(self, index: np.ndarray) -> tuple[Float[Tensor, "n 4 size size"], Float[Tensor, "n 3 size size"]]:
        """Premultiplied person with matte, and the background behind it, of the capture's frames `index`; -1..1."""
        pictures = self.pictures[index - self.start].astype(np.float32) / 255
        mattes = self.mattes[index - self.start].astype(np.float32)[..., None] / 255
        target = np.concatenate([pictures * mattes, mattes], -1)
        size = pictures.shape[1]
        background = np.stack([warp_plate(self.plate, self.crops[i], size) for i in index]).astype(np.float32) / 255
        return tuple(torch.from_numpy(x * 2 - 1).permute(0, 3, 1, 2).contiguous() for x in (target, background))  # type: ignore[return-value]


def warp_plate(plate: np.ndarray, crop_from_source: Float[np.ndarray, "2 3"], size: int) -> np.ndarray:
    """The part of the background plate that lies behind a crop: [size, size, 3] uint8."""
    # OpenCV counts pixels from their centres, we count from the corner of the first one.
    matrix = crop_from_source.copy()
    matrix[:, 2] += matrix[:, :2].sum(1) * 0.5 - 0.5
    return cv2.warpAffine(plate, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Subject:
    """A personalised prior in memory."""

    generator: Generator
    """Tuned to the person; evaluation mode, frozen."""
    ws: Float[Tensor, "1 layers w"]
    """The person."""
    planes: Float[Tensor, "1 3 channels side side"]
    """The identity planes that deltas are added to."""
    yaw: Float[Tensor, " frames"]
    """Refined, radians; all frames of the capture."""
    pitch: Float[Tensor, " frames"]
    """Refined, radians; all frames of the capture."""
    hash: str
    consent: str
    capture_path: Path
    capture_hash: str
    prior_hash: str


@dataclass(frozen=True)
class Personalized:
    """What `personalize` found."""

    generator: Generator
    """Tuned to the person."""
    inversion: Inversion
    """Of the chosen frames."""
    corrections: Float[Tensor, "2 frames"]
    """To the tracked yaw and pitch of all frames of the capture, radians."""


def personalize(
    capture: Capture, prior: LoadedPrior, config: PersonalizeConfig, progress: Callable[[str, float], None], cache: Path
) -> Personalized:
    """Personalise a prior to the person of a capture, from training frames only.

    Args:
        capture: the prepared video.
        prior: the prior whose camera and canonical landmarks the capture was posed with.
        progress: called with (stage, part done 0..1).
        cache: folder for decoded frames.

    Raises:
        ConfigError: the capture has fewer training frames than are to be chosen.
        ArtifactError: the capture was posed with another prior.
    """
    start, stop = capture.train
    if stop - start < config.frames:
        raise ConfigError(
            f"The capture has only {stop - start} training frames, {config.frames} are needed. Record a longer video."
        )
    if capture.prior_hash != prior.artifact.hash:
        raise ArtifactError(
            f"The capture was posed with prior {capture.prior_hash[:12]}, but prior {prior.artifact.hash[:12]} was given. "
            "Prepare the video again with this prior, or personalise with that one."
        )
    frames = PersonFrames.cached(capture, cache, start, stop)
    chosen = start + choose_frames(capture, config.frames)

    def load(index: np.ndarray) -> Views:
        target, background = frames.views(index)
        return Views(
            target, background, torch.from_numpy(capture.yaw[index]).float(), torch.from_numpy(capture.pitch[index]).float()
        )

    views = load(chosen)
    inversion = invert(prior.generator, views, config.invert, lambda i, n: progress("inverting", i / n))
    tuned = tune(prior.generator, views, inversion, config.tune, lambda i, n: progress("tuning", i / n))
    with torch.no_grad():
        planes = tuned.planes(identity_ws(inversion, tuned.profile))

    def batches() -> list[tuple[np.ndarray, Callable[[], Views]]]:
        pieces = np.array_split(np.arange(stop - start), max(1, (stop - start) // 32))
        return [(piece, lambda piece=piece: load(start + piece)) for piece in pieces]

    found = refine_cameras(
        tuned, planes, batches, stop - start, config.cameras, lambda i, n: progress("cameras", i / n)
    )
    # Frames outside the training part get the mean correction: it belongs to the person's shape, not to the frame.
    corrections = found.mean(1, keepdim=True).repeat(1, capture.count)
    corrections[:, start:stop] = found
    return Personalized(tuned, inversion, corrections)


@contextmanager
def working_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside the output for decoded frames, removed at the end whatever happens."""
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(output)
    folder = output.parent / f".{output.name}.{os.getpid()}.frames.partial"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def identity_ws(inversion: Inversion, profile: Profile) -> Float[Tensor, "1 layers w"]:
    """The person's style vectors, with the expression the chosen frames have on average."""
    return (inversion.w + inversion.offsets.mean(0)).expand(1, profile.num_ws, -1)


def choose_frames(capture: Capture, count: int) -> np.ndarray:
    """Training frames that cover pose and expression: greedy k-centre on the landmarks, from the most typical frame.

    Returns indices relative to the first training frame, ascending.
    """
    start, stop = capture.train
    points = capture.landmarks[start:stop]
    shape = (points - points.mean(1, keepdims=True)).reshape(len(points), -1)
    scale = np.sqrt(points.shape[1])
    pose = np.stack([capture.yaw, capture.pitch], 1)[start:stop] * scale * 0.5
    features = np.concatenate([shape, pose - pose.mean(0)], 1)
    # Frames that no one resembles are tracking errors more often than expressions: leave the oddest hundredth out.
    oddness = np.linalg.norm(features - np.median(features, 0), axis=1)
    allowed = np.flatnonzero(oddness <= np.quantile(oddness, 0.99))
    chosen = [int(allowed[np.argmin(oddness[allowed])])]
    distance = np.full(len(allowed), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(features[allowed] - features[chosen[-1]], axis=1))
        chosen.append(int(allowed[np.argmax(distance)]))
    return np.sort(chosen)


def save_subject(
    path: Path,
    capture: Capture,
    prior: LoadedPrior,
    found: Personalized,
    config: PersonalizeConfig,
    overwrite: bool,
) -> None:
    """Write a Subject artifact."""
    tuned, inversion, corrections = found.generator, found.inversion, found.corrections
    with creating(SubjectArtifact, path, overwrite=overwrite) as draft:
        draft.consent = capture.consent
        draft.parents = {"Prior": prior.artifact.hash, "Capture": capture.hash}
        draft.config = {
            "profile": tuned.profile.to_json(),
            "capture": str(capture.root.resolve()),
            "personalize": dataclasses.asdict(config),
        }
        draft.write_tensors("generator.safetensors", tuned.state_dict())
        draft.write_tensors(
            "person.safetensors",
            {
                "w": inversion.w,
                "offsets": inversion.offsets,
                "yaw": torch.from_numpy(capture.yaw).float() + corrections[0],
                "pitch": torch.from_numpy(capture.pitch).float() + corrections[1],
            },
        )


def load_subject(path: Path) -> Subject:
    """Open a Subject artifact.

    Raises:
        ArtifactError: it is missing, damaged, or something else.
    """
    artifact = SubjectArtifact.open(path)
    profile = Profile.from_json(artifact.config["profile"])
    generator = Generator(profile).eval().requires_grad_(False)
    generator.load_state_dict(artifact.tensors("generator.safetensors"))
    person = artifact.tensors("person.safetensors")
    ws = (person["w"] + person["offsets"].mean(0)).expand(1, profile.num_ws, -1)
    with torch.no_grad():
        planes = generator.planes(ws)
    return Subject(
        generator=generator,
        ws=ws,
        planes=planes,
        yaw=person["yaw"],
        pitch=person["pitch"],
        hash=artifact.hash,
        consent=artifact.consent,
        capture_path=Path(artifact.config["capture"]),
        capture_hash=artifact.parents["Capture"],
        prior_hash=artifact.parents["Prior"],
    )

"""A capture's frames as training wants them: decoded once to disk, matted, with the background behind them.

Letters: n frames, S their side, H and W the source's size.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..partials import partial_path, remove_stale_partials
from .artifact import Capture
from .covers import OCCLUDED
from .detect import warp


@dataclass(frozen=True)
class Views:
    """Frames of one person, as the prior would have to draw them; colours in -1..1."""

    target: Float[Tensor, "frames 4 size size"]
    """The person: colour premultiplied by the matte, and the matte * 2 - 1."""
    background: Float[Tensor, "frames 3 size size"]
    """The background plate behind each frame."""
    known: Float[Tensor, "frames 1 size size"]
    """1 where the crop lies within the filmed frame, 0 where nobody knows."""

    def __getitem__(self, chosen: np.ndarray) -> Views:
        index = torch.from_numpy(chosen)
        return Views(self.target[index], self.background[index], self.known[index])

    def to(self, device: torch.device) -> Views:
        return Views(self.target.to(device), self.background.to(device), self.known.to(device))

    def __len__(self) -> int:
        return len(self.target)


def free_frames(capture: Capture, start: int, stop: int) -> Int[np.ndarray, " free"]:
    """The frames `start` to `stop` that a person may be learnt from: those in which nothing is before the face."""
    return start + np.flatnonzero(capture.occluded[start:stop] < OCCLUDED)


def spread_frames(among: Int[np.ndarray, " some"], resolution: int, gigabytes: float) -> Int[np.ndarray, " kept"]:
    """Some frames if they fit into so many gigabytes on disk; else as many of them as do, evenly spread.

    A minute of 256² pictures and mattes takes 0.4 GB, an hour 24 GB.
    """
    most = max(1, int(gigabytes * 1e9 / (4 * resolution**2)))
    if len(among) <= most:
        return among
    return among[((2 * np.arange(most) + 1) * len(among)) // (2 * most)]


@dataclass(frozen=True)
class PersonFrames:
    """Frames of a capture on disk, as the generator would have to draw them; memory holds what is asked for."""

    index: Int[np.ndarray, " kept"]
    """Which frames of the capture are here, ascending."""
    pictures: np.ndarray
    """[kept, S, S, 3] uint8, memory-mapped."""
    mattes: np.ndarray
    """[kept, S, S] uint8, memory-mapped: how much of each pixel is the person."""
    plate: np.ndarray
    """[H, W, 3] uint8: the background in source pixels."""
    crops: Float[np.ndarray, "frames 2 3"]
    """Source pixels to crop pixels, all frames of the capture."""

    @classmethod
    def cached(
        cls, capture: Capture, folder: Path, start: int, stop: int, kept: Int[np.ndarray, " kept"] | None = None
    ) -> PersonFrames:
        """Decode the frames into `folder` once; later calls find them there.

        Args:
            capture: the film.
            folder: for the decoded frames; those of other captures or ranges may lie in it.
            start: first frame to read.
            stop: the one after the last.
            kept: which of them to keep; None for all.
        """
        index = np.arange(start, stop) if kept is None else kept
        size = capture.resolution
        # The names say what is inside: a run that was killed early may be followed by one of another film.
        digest = hashlib.sha256(capture.hash.encode() + index.tobytes()).hexdigest()[:12]
        pictures, mattes = folder / f"pictures-{digest}.npy", folder / f"mattes-{digest}.npy"
        if not mattes.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for path, source, shape in (
                (pictures, capture.frames(start, stop), (len(index), size, size, 3)),
                (mattes, capture.person(start, stop), (len(index), size, size)),
            ):
                partial = path.with_suffix(".partial")
                store = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
                wanted = set(index.tolist())
                chosen = (frame for number, frame in enumerate(source, start) if number in wanted)
                for row, frame in zip(store, chosen, strict=True):
                    row[:] = frame
                store.flush()
                partial.rename(path)
        return cls(
            index, np.load(pictures, mmap_mode="r"), np.load(mattes, mmap_mode="r"), capture.plate(),
            capture.crop_from_source,
        )  # fmt: skip

    def views(self, index: np.ndarray) -> Views:
        """What the generator would have to draw for the capture's frames `index`, which must be among those kept."""
        rows = np.searchsorted(self.index, index)
        assert np.array_equal(self.index[rows], index), "a frame that was not kept"
        pictures = self.pictures[rows].astype(np.float32) / 255
        mattes = self.mattes[rows].astype(np.float32)[..., None] / 255
        target = np.concatenate([pictures * mattes, mattes], -1)
        size = pictures.shape[1]
        crops = [self.crops[i] for i in index]
        background = np.stack([warp_plate(self.plate, crop, size) for crop in crops]).astype(np.float32) / 255
        whole = np.full(self.plate.shape[:2], 255, np.uint8)
        known = np.stack([warp(whole, crop, (size, size)) > 250 for crop in crops])[:, None]
        return Views(_planar(target * 2 - 1), _planar(background * 2 - 1), torch.from_numpy(known).float())


def _planar(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def warp_plate(plate: np.ndarray, crop_from_source: Float[np.ndarray, "2 3"], size: int) -> np.ndarray:
    """The part of the background plate that lies behind a crop: [size, size, 3] uint8."""
    # OpenCV counts pixels from their centres, we count from the corner of the first one.
    matrix = crop_from_source.copy()
    matrix[:, 2] += matrix[:, :2].sum(1) * 0.5 - 0.5
    return cv2.warpAffine(plate, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@contextmanager
def working_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside the output for decoded frames, removed at the end whatever happens."""
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(output)
    folder = partial_path(output, "frames")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

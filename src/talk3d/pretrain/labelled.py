"""Data sets in EG3D's layout: pictures in a folder or ZIP, and `dataset.json` with a camera label for each (method 3.3).

Letters: N pictures in all, B of a batch, S their side.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..camera import Orbit
from ..errors import ConfigError

INDEX = "dataset.json"
LABEL_SIZE = 25


@dataclass(frozen=True)
class LabelledPictures:
    """B pictures with the cameras they were taken by."""

    images: Float[Tensor, "batch 3 size size"]
    """-1..1."""
    labels: Float[Tensor, "batch 25"]
    """Row-major cam2world [4, 4] and intrinsics [3, 3] (divided by the picture's size)."""


class LabelledDataset:
    """Random access to a data set in EG3D's layout; pictures are read when asked for.

    Args:
        path: a folder, or a ZIP file, with `dataset.json` = {"labels": [[file, [25 numbers]], ...]}.
        mirrored: add the mirror image of each picture, with the mirrored camera.

    Raises:
        ConfigError: it is not such a data set; the message names the first thing that is wrong.
    """

    def __init__(self, path: Path, mirrored: bool = False):
        self.path, self.mirrored = path, mirrored
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        if not path.is_dir() and not zipfile.is_zipfile(path):
            raise ConfigError(f"`{path}` is neither a folder nor a ZIP file. Give a data set in EG3D's layout.")
        try:
            entries = json.loads(self._read(INDEX))["labels"]
        except (KeyError, FileNotFoundError, ValueError, TypeError) as error:
            raise ConfigError(
                f"`{path}` holds no readable {INDEX} with an entry `labels` ({error}). It must list each picture's camera: "
                '{"labels": [["00000.png", [25 numbers]], ...]}.'
            ) from error
        if not entries:
            raise ConfigError(f"{INDEX} of `{path}` lists no pictures (`labels` is empty or null).")
        for entry in entries:
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and _is_label(entry[1])):
                raise ConfigError(
                    f"{INDEX} of `{path}` has the entry {str(entry)[:80]}, which is not [file, [25 finite numbers]]."
                )
        self.names = [name for name, _ in entries]
        self.labels: Float[np.ndarray, "pictures 25"] = np.array([label for _, label in entries], np.float32)
        missing = sorted(set(self.names) - self._members())
        if missing:
            raise ConfigError(f"`{path}` lacks {len(missing)} of the {len(entries)} pictures in {INDEX}: `{missing[0]}` first.")
        self.resolution = self._picture(0).shape[0]
        """Side of the pictures, pixels."""

    def __len__(self) -> int:
        return len(self.names) * (2 if self.mirrored else 1)

    def get(self, indices: Int[np.ndarray, " batch"]) -> LabelledPictures:
        """The pictures `indices`; with mirror images, odd ones are mirrored.

        Raises:
            ConfigError: a picture is damaged, not square, or of another size than the first one.
        """
        images = []
        for index in indices:
            number, mirror = divmod(int(index), 2) if self.mirrored else (int(index), 0)
            image = self._picture(number)
            if image.shape[0] != self.resolution:
                raise ConfigError(
                    f"`{self.names[number]}` of `{self.path}` is {image.shape[0]} pixels wide, the first picture "
                    f"{self.resolution}. Bring all to one size."
                )
            images.append(image[:, ::-1] if mirror else image)
        stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        return LabelledPictures(stack / 127.5 - 1, self.cameras(indices))

    def cameras(self, indices: Int[np.ndarray, " batch"]) -> Float[Tensor, "batch 25"]:
        """The labels alone of the pictures `indices`."""
        numbers, mirrors = np.divmod(indices, 2) if self.mirrored else (indices, np.zeros_like(indices))
        labels = [mirror_label(self.labels[n]) if m else self.labels[n] for n, m in zip(numbers, mirrors, strict=True)]
        return torch.from_numpy(np.stack(labels))

    def digest(self) -> str:
        """SHA-256 of the list of pictures and labels, by which a run knows its data."""
        return hashlib.sha256("\n".join(self.names).encode() + self.labels.tobytes() + bytes([self.mirrored])).hexdigest()

    def orbit(self) -> Orbit:
        """The camera that the pictures were taken by, on the whole: distance, the point it looks at, focal length."""
        poses = self.labels[:, :16].reshape(-1, 4, 4).astype(np.float64)
        positions, axes = poses[:, :3, 3], poses[:, :3, 2]
        # The point with the least squared distance from all optical axes; a common direction leaves its place along it open.
        across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
        pivot = np.linalg.lstsq(across.sum(0), (across @ positions[..., None]).sum(0)[:, 0], rcond=1e-6)[0]
        focal = float(np.median(self.labels[:, [16, 20]]))
        x, y, z = (round(float(value), 4) for value in pivot)
        return Orbit(
            radius=round(float(np.median(np.linalg.norm(positions, axis=1))), 4), pivot=(x, y, z), focal=round(focal, 4)
        )

    def _picture(self, number: int) -> np.ndarray:
        """[S, S, 3] uint8 RGB."""
        image = cv2.imdecode(np.frombuffer(self._read(self.names[number]), np.uint8), cv2.IMREAD_COLOR)
        if image is None or image.shape[0] != image.shape[1]:
            what = "cannot be read as a picture" if image is None else f"is {image.shape[1]} x {image.shape[0]}, not square"
            raise ConfigError(f"`{self.names[number]}` of `{self.path}` {what}. Repair it or take it out of {INDEX}.")
        return image[..., ::-1]

    def _members(self) -> set[str]:
        if self.path.is_dir():
            return {p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()}
        return set(self._zip().namelist())

    def _read(self, member: str) -> bytes:
        if self.path.is_dir():
            return (self.path / member).read_bytes()
        return self._zip().read(member)

    def _zip(self) -> zipfile.ZipFile:
        # A handle must not be shared with a forked process: both would move its position.
        if self._archive is None or self._archive[0] != os.getpid():
            self._archive = os.getpid(), zipfile.ZipFile(self.path)
        return self._archive[1]


def mirror_label(label: Float[np.ndarray, 25]) -> Float[np.ndarray, 25]:
    """The camera that takes the mirror image.

    Elements [0,1], [0,2], [1,0], [2,0] and [0,3] of the pose change their sign (method 3.3), and so does the skew; an optical
    axis that is not in the middle moves to the other side.
    """
    signs = np.ones(LABEL_SIZE, np.float32)
    signs[[1, 2, 3, 4, 8, 17]] = -1
    mirrored = label * signs
    mirrored[18] = 1 - label[18]
    return mirrored


def _is_label(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == LABEL_SIZE
        and all(isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x) for x in value)
    )

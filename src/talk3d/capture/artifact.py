"""A Capture on disk, read back: curves, aligned crops, masks, sound and background of one film."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from .. import artifacts
from ..camera import Orbit
from ..errors import ArtifactError
from ..video.read import read_frames
from .detect import apply, invert, warp
from .palette import Palette
from .regions import Regions, region_masks


class Capture(artifacts.Capture):
    """A prepared video. Open one with `Capture.open(path)`; arrays are numpy, float64, all F frames long."""

    @property
    def count(self) -> int:
        """F, the number of usable frames."""
        return int(self.config["frames"])

    @property
    def resolution(self) -> int:
        """S, the side of the crops in pixels."""
        return int(self.config["resolution"])

    @property
    def prior_hash(self) -> str:
        return str(self.config["prior_hash"])

    @property
    def orbit(self) -> Orbit:
        """The camera that the poses belong to."""
        values = self.config["orbit"]
        return Orbit(values["radius"], tuple(values["pivot"]), values["focal"])

    @property
    def train(self) -> tuple[int, int]:
        """Half-open range of training frames."""
        start, stop = self.config["split"]["train"]
        return start, stop

    @property
    def test(self) -> tuple[int, int]:
        """Half-open range of test frames."""
        start, stop = self.config["split"]["test"]
        return start, stop

    @cached_property
    def track(self) -> dict[str, np.ndarray]:
        """All curves by name."""
        return {name: tensor.double().numpy() for name, tensor in self.tensors("track.safetensors").items()}

    @property
    def landmarks(self) -> Float[np.ndarray, "frames 468 2"]:
        """Positions in the crops, 0..1."""
        return self.track["landmarks"]

    @property
    def landmarks_source(self) -> Float[np.ndarray, "frames 468 2"]:
        """Positions in the source's frames, pixels."""
        return apply(invert(self.crop_from_source), self.landmarks * self.resolution)

    @property
    def yaw(self) -> Float[np.ndarray, frames]:
        """Radians; of the `orbit` camera."""
        return self.track["yaw"]

    @property
    def pitch(self) -> Float[np.ndarray, frames]:
        """Radians; of the `orbit` camera."""
        return self.track["pitch"]

    @property
    def crop_from_source(self) -> Float[np.ndarray, "frames 2 3"]:
        """Affine maps from source pixels to crop pixels."""
        return self.track["crop_from_source"]

    @property
    def blink(self) -> Float[np.ndarray, frames]:
        """0 open to 1 closed."""
        return self.track["blink"]

    @property
    def lip_gap(self) -> Float[np.ndarray, frames]:
        """Opening of the inner lips, in distances between the outer eye corners."""
        return self.track["lip_gap"]

    @property
    def lip_width(self) -> Float[np.ndarray, frames]:
        """Width of the inner mouth, in distances between the outer eye corners."""
        return self.track["lip_width"]

    @property
    def brow_height(self) -> Float[np.ndarray, frames]:
        """Of the brows over the corners of the eyes, in distances between the outer eye corners; nods are taken off.

        Raises:
            ArtifactError: the capture is of a version that did not measure it.
        """
        return self._curve("brow_height")

    def _curve(self, name: str) -> np.ndarray:
        if name not in self.track:
            raise ArtifactError(f"`{self.root}` holds no `{name}`: it was made by an older version. Prepare the video again.")
        return self.track[name]

    @property
    def confidence(self) -> Float[np.ndarray, frames]:
        """The tracker's 0..1; 0 where a short loss of the face was bridged."""
        return self.track["confidence"]

    @property
    def occluded(self) -> Float[np.ndarray, frames]:
        """Part of the face that something is before, 0..1; 0 throughout where nobody looked, as in captures of older versions.

        `frames.free_frames` says which frames may be learnt from.
        """
        return self.track["occluded"] if "occluded" in self.track else np.zeros(self.count)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        """The aligned crops of a range of frames, RGB; background where they reach beyond the source, see `inside`."""
        return read_frames(self.path("frames.mp4"), start=start, stop=self.count if stop is None else stop)

    def person(self, start: int = 0, stop: int | None = None) -> Iterator[UInt8[np.ndarray, "side side"]]:
        """The person's mask in the crops of a range of frames, 0..255."""
        return read_frames(self.path("person.mkv"), start=start, stop=self.count if stop is None else stop, gray=True)

    @cached_property
    def palette(self) -> Palette | None:
        """What skin, hair and clothes of the film look like; None where nobody learnt it, as in captures of older versions."""
        if "palette.safetensors" not in self.manifest["members"]:
            return None
        return Palette.of({name: tensor.numpy() for name, tensor in self.tensors("palette.safetensors").items()})

    def region_masks(
        self, index: int, picture: UInt8[np.ndarray, "side side 3"], person: UInt8[np.ndarray, "side side"]
    ) -> Regions:
        """Face, hair, neck, clothes and more of crop `index`, given the crop and its mask; see `Regions`."""
        return region_masks(self.landmarks[index] * self.resolution, person, picture, self.palette)

    def inside(self, index: int) -> Bool[np.ndarray, "side side"]:
        """Where crop `index` lies within the source's frame; elsewhere it shows the background and no person."""
        source = self.config["source"]
        whole = np.full((source["height"], source["width"]), 255, np.uint8)
        return warp(whole, self.crop_from_source[index], (self.resolution, self.resolution)) == 255

    def audio(self) -> Float[np.ndarray, " samples"]:
        """16 kHz mono float32, exactly F / 25 seconds."""
        import soundfile

        return soundfile.read(self.path("audio.flac"), dtype="float32")[0]

    def plate(self) -> UInt8[np.ndarray, "height width 3"]:
        """The background without the person, in the source's frame, RGB."""
        return _read_image(self.path("plate.png"), cv2.IMREAD_COLOR)[..., ::-1].copy()

    def plate_seen(self) -> Bool[np.ndarray, "height width"]:
        """Where the background was really seen."""
        return _read_image(self.path("plate_seen.png"), cv2.IMREAD_GRAYSCALE) > 127

    def background(self, index: int) -> UInt8[np.ndarray, "side side 3"]:
        """The background behind crop `index`."""
        return warp(self.plate(), self.crop_from_source[index], (self.resolution, self.resolution), replicate=True)

    @property
    def report(self) -> dict[str, Any]:
        """What `prepare` noticed: `checks`, the `verdict` on them, `warnings` with advice; report.html shows all of it."""
        return self.json("report.json")


def _read_image(path: Path, flag: int) -> np.ndarray:
    image = cv2.imread(str(path), flag)
    if image is None:
        raise ArtifactError(f"`{path}` cannot be read as a picture; the Capture is damaged. Prepare the video again.")
    return image

"""The last pass over a film: cutting the aligned crops and masking the person in them.

Letters: F usable frames, S the side of the crops in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from ..video.clock import FPS
from ..video.source import Pictures
from ..video.write import GrayWriter, VideoWriter, join_films
from . import stretches
from .ahead import ahead
from .covers import look_of
from .detect import apply, invert, warp
from .looks import Looks, look, looks_of
from .mask import PersonSegmenter, Plate, certainty_of, mend_mask
from .passes import Progress
from .stretches import Stretches
from .takes import frames_of, split_of

MAX_MOTION = 8.0
"""Levels of 255; a background that moves more is not used to mend the masks."""

CONTEXT = 1.6
"""Side of the window in which the person is masked, in crops."""

CUT = "cut"
"""The pass's name."""


def cut_crops(
    folder: Path,
    video: Path | Pictures,
    frame_numbers: Int[np.ndarray, " frames"],
    crops: Float[np.ndarray, "frames 2 3"],
    landmarks: Float[np.ndarray, "frames 468 2"],
    plate: Plate,
    segment: PersonSegmenter,
    resolution: int,
    kept: Stretches,
    say: Progress,
) -> Looks:
    """The last pass: aligned crops, masks and an overview. Returns how the face looks in each frame.

    How each landmark looks (`covers.look_of`) is left in `kept`, as `marks`.

    Args:
        folder: of the Capture; gets `frames.mp4`, `person.mkv` and `overview.png`.
        video: the film.
        frame_numbers: which of its frames are usable.
        crops: source pixels to crop pixels.
        landmarks: positions in the crops, 0..1.
        plate: the background.
        segment: gives the person's mask.
        resolution: S.
        kept: what an interrupted run has left of this pass.
        say: told how far it is.
    """
    size, frames = (resolution, resolution), len(frame_numbers)
    shown = set(np.linspace(0, frames - 1, 8).astype(int).tolist())
    start = kept.rows(CUT, "looks")
    with closing(ahead(_cut(video, frame_numbers, crops, start, plate, segment, size))) as cut:
        while start < frames:
            number, stop = kept.count(CUT), min(start + stretches.STRETCH, frames)
            looks, marks, tiles = [], [], []
            with (
                VideoWriter(
                    kept.media(CUT, ".mp4", number), size, FPS, crf=6, full_colour=True, preset="ultrafast", causal=True,
                    gop=FPS, overwrite=True,
                ) as pictures,
                GrayWriter(kept.media(CUT, ".mkv", number), size, overwrite=True) as masks,
            ):  # fmt: skip
                for index, (picture, mask) in zip(range(start, stop), cut, strict=False):
                    points = landmarks[index] * resolution
                    pictures.write(picture)
                    masks.write(mask)
                    looks.append(look(picture, points))
                    marks.append(look_of(picture, landmarks[index]))
                    if index in shown:
                        tiles.append(draw_overview(picture, mask, points))
                    say("cutting", (index + 1) / frames)
            shots = np.array(tiles, np.uint8).reshape(-1, resolution, resolution, 3)
            kept.keep(CUT, {"looks": np.array(looks), "marks": np.array(marks), "tiles": shots}, stop == frames)
            start = stop
    numbers = range(kept.count(CUT))
    join_films([kept.media(CUT, ".mp4", number) for number in numbers], folder / "frames.mp4")
    join_films([kept.media(CUT, ".mkv", number) for number in numbers], folder / "person.mkv")
    tiles = list(kept.joined(CUT, "tiles"))
    rows = [np.hstack(tiles[i : i + 4]) for i in range(0, len(tiles), 4)]
    cv2.imwrite(str(folder / "overview.png"), np.vstack(rows)[..., ::-1])
    return looks_of(kept.joined(CUT, "looks"))


def _cut(
    video: Path | Pictures,
    frame_numbers: np.ndarray,
    crops: np.ndarray,
    start: int,
    plate: Plate,
    segment: PersonSegmenter,
    size: tuple[int, int],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The crop of each usable frame from `start` on, and the person's mask in it."""
    # By the training frames alone: test frames must leave no trace in them, not even the plate's resolution.
    behind = _Behind(plate, crops[slice(*split_of(len(crops))["train"])])
    whole = np.full(plate.seen.shape, 255, np.uint8)
    for crop, frame in zip(crops[start:], frames_of(video, frame_numbers[start:]), strict=True):
        picture = warp(frame, crop, size, cubic=True, replicate=True)
        outside = warp(whole, crop, size) < 255
        background, certainty = behind(crop, size)
        picture[outside] = background[outside]
        mask = _person_in_crop(frame, crop, size, segment)
        if plate.motion < MAX_MOTION:
            mask = mend_mask(mask, picture, background, certainty)
        mask[outside] = 0
        yield picture, mask


def _person_in_crop(frame: np.ndarray, crop: np.ndarray, size: tuple[int, int], segment: PersonSegmenter) -> np.ndarray:
    """The person's mask in a crop, found in a wider window: the network needs to see shoulders to be sure of ears."""
    height, width = frame.shape[:2]
    corners = apply(invert(crop), np.array([[0.0, 0.0], [size[0], 0.0], [0.0, size[1]], [size[0], size[1]]]))
    centre, reach = corners.mean(axis=0), CONTEXT / 2 * np.ptp(corners, axis=0)
    left, top = np.clip(np.floor(centre - reach), 0, [width - 2, height - 2]).astype(int)
    right, bottom = np.clip(np.ceil(centre + reach), [left + 2, top + 2], [width, height]).astype(int)
    mask = segment(np.ascontiguousarray(frame[top:bottom, left:right]))
    return warp(mask, np.column_stack([crop[:, :2], crop[:, 2] + crop[:, :2] @ [left, top]]), size)


class _Behind:
    """The background in a crop, quickly: the plate is brought near the crops' scale once."""

    def __init__(self, plate: Plate, crops: np.ndarray) -> None:
        scale = min(1.0, float(np.median(np.sqrt(np.abs(np.linalg.det(crops[..., :2]))))))
        height, width = plate.seen.shape
        size = max(1, round(width * scale)), max(1, round(height * scale))
        layers = np.dstack([plate.image, certainty_of(plate)])
        self._layers = cv2.resize(layers, size, interpolation=cv2.INTER_AREA)
        self._scale = np.array([[width / size[0], height / size[1], 1.0]])

    def __call__(self, crop: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Background of a crop and its certainty (see `certainty_of`), given the affine map from source pixels."""
        layers = warp(self._layers, crop * self._scale, size, replicate=True)
        return np.ascontiguousarray(layers[..., :3]), layers[..., 3]


def draw_overview(
    picture: UInt8[np.ndarray, "height width 3"],
    person: UInt8[np.ndarray, "height width"],
    landmarks: Float[np.ndarray, "468 2"],
) -> UInt8[np.ndarray, "height width 3"]:
    """A crop with the person's outline and the landmarks (pixels) drawn on it, for people to look at."""
    drawn = picture.copy()
    outline = cv2.findContours((person > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(drawn, outline, -1, (255, 60, 60), 1)
    draw_landmarks(drawn, landmarks, 0.5)
    return drawn


def draw_landmarks(picture: UInt8[np.ndarray, "height width 3"], landmarks: Float[np.ndarray, "468 2"], radius: float) -> None:
    """Draw landmarks (pixels) into a picture, as dots of so many pixels."""
    for x, y in np.rint((landmarks - 0.5) * 16).astype(int):
        cv2.circle(picture, (int(x), int(y)), round(16 * radius), (0, 230, 90), -1, cv2.LINE_AA, shift=4)

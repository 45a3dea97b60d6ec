"""What skin, hair and clothes of one film look like, and where in its aligned crops they are.

Nothing is known of other films: the training frames say it all. Where landmarks and the person's mask leave no doubt, colours
are read off: skin on cheeks and nose, hair over the face. Hair below the jaw has such colours and comes down from the head
without a break; what else is below the jaw, is no skin even in the shade, and comes up from the lower edge is clothes. These
first labels give a histogram of colours and a map of places for each part; the labels that those give teach them again, twice.

Source of the idea: Rother et al., "GrabCut", 2004, where a person draws what landmarks say here.

Letters: P = 3 parts (`PARTS`), N sampled frames, S side of the crops, G side of the grid, B bins of a colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..video.read import read_frames
from .mask import above_jaw, hull_mask
from .track import FACE_OVAL, LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE, UNDER_NOSE

PARTS = ("skin", "hair", "clothes")
SKIN, HAIR, CLOTHES = range(3)
SAMPLES = 40
"""Training frames that are looked at, evenly spread."""
GRID = 128
"""G: pixels of a crop are judged in so many columns and rows."""
BINS = 32
"""B, of each of red, green and blue."""
PLACES = 32
"""Columns and rows of the maps of places."""
LEAST = 0.004
"""Of the grid's pixels, over all samples, below which a part is not there."""
STRANGE = 1e-3
"""Part of its own pixels whose colours a part is taken to share with anything."""
DOUBT = 0.03
"""Least probability that a place gives to a part."""
BLUR = 4.0
"""Of the maps of places: deviation in pixels of the grid."""
SHADE, SHADED = 0.33, 0.1
"""Skin is also seen in the shade, as under a chin: down to so much of its light, and so often."""
TIMES = 2
"""That labels teach colours and places again."""


@dataclass(frozen=True)
class Palette:
    """Colours and places of the parts of one person."""

    colours: Float[np.ndarray, "parts bins"]
    """Log probability of each colour, given the part; a colour's bin is that of `bins_of`."""
    places: Float[np.ndarray, "parts places places"]
    """Log probability of each part at each place of the crops, rows first."""

    def tensors(self) -> dict[str, np.ndarray]:
        """What is stored of it."""
        return {"colours": self.colours, "places": self.places}

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> Palette:
        """As stored."""
        return cls(tensors["colours"], tensors["places"])

    def votes(self, picture: UInt8[np.ndarray, "grid grid 3"]) -> Float[np.ndarray, "parts grid grid"]:
        """How probable each part is at each pixel of a crop of G x G pixels, wherever the person is; they add up to 1."""
        size = picture.shape[:2]
        bins = bins_of(picture)
        votes = np.stack(
            [
                colour[bins] + cv2.resize(place, size[::-1], interpolation=cv2.INTER_LINEAR)
                for colour, place in zip(self.colours, self.places, strict=True)
            ]
        )
        votes -= votes.max(axis=0)
        np.exp(votes, out=votes)
        return votes / votes.sum(axis=0)


def bins_of(picture: UInt8[np.ndarray, "height width 3"]) -> np.ndarray:
    """The bin of each pixel's colour, [H, W] of 0..B^3 - 1."""
    fine = (picture >> 3).astype(np.int32)
    return (fine[..., 0] * BINS + fine[..., 1]) * BINS + fine[..., 2]


def learn(
    pictures: Sequence[UInt8[np.ndarray, "side side 3"]],
    persons: Sequence[UInt8[np.ndarray, "side side"]],
    landmarks: Float[np.ndarray, "frames 468 2"],
) -> Palette | None:
    """The palette of N crops of one person; None where no skin can be seen in them.

    Args:
        pictures: the crops, RGB.
        persons: the person's mask in each.
        landmarks: positions in the crops, 0..1.
    """
    shown = [_Sample.of(picture, person, points) for picture, person, points in zip(pictures, persons, landmarks, strict=True)]
    least = LEAST * GRID**2 * len(shown)
    counts = np.zeros((len(PARTS), BINS**3), np.float32)
    for sample in shown:
        counts[SKIN] += sample.count(sample.cheeks)
    if counts[SKIN].sum() < least:
        return None
    skin = _log_density(counts[SKIN])
    # A turned cheek shows a little hair or background behind it: what is rare there is no skin for certain.
    rare = np.quantile(np.concatenate([skin[sample.bins[sample.cheeks]] for sample in shown]), 0.1)
    for sample in shown:
        counts[HAIR] += sample.count(sample.above & (skin[sample.bins] < rare))
    colours = _log_colours(counts, least)
    palette = _of_votes(shown, [sample.first_votes(colours) for sample in shown], least)
    for _ in range(TIMES):
        palette = _of_votes(shown, [sample.sure(palette.votes(sample.picture)) for sample in shown], least)
    return palette


def learn_from(folder: Path, landmarks: Float[np.ndarray, "frames 468 2"]) -> Palette | None:
    """The palette of the first frames of the crops in a folder.

    Args:
        folder: of a Capture, with its crops and masks.
        landmarks: of the frames to learn from, positions in the crops, 0..1.
    """
    chosen = np.unique(np.linspace(0, len(landmarks) - 1, SAMPLES).astype(int)).tolist()
    pictures = [next(read_frames(folder / "frames.mp4", start=k, stop=k + 1)) for k in chosen]
    persons = [next(read_frames(folder / "person.mkv", start=k, stop=k + 1, gray=True)) for k in chosen]
    return learn(pictures, persons, landmarks[chosen])


@dataclass(frozen=True)
class _Sample:
    """What is known of one crop without its colours; masks and pictures are [G, G]."""

    picture: np.ndarray
    bins: np.ndarray
    inside: np.ndarray
    """Clearly the person."""
    cheeks: np.ndarray
    """Cheeks and nose: neither brows, fringe, lips nor beard."""
    face: np.ndarray
    """The hull of the landmarks."""
    above: np.ndarray
    """The person over the face."""
    below: np.ndarray
    """Everything below the jaw line."""
    throat: np.ndarray
    """What is straight below the chin, where no hair hangs."""

    @classmethod
    def of(cls, picture: np.ndarray, person: np.ndarray, landmarks: np.ndarray) -> _Sample:
        size = (GRID, GRID)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        inside = cv2.resize(person, size, interpolation=cv2.INTER_AREA) > 230
        points = landmarks.astype(np.float64) * GRID
        face = hull_mask(points, size)
        rows = np.arange(GRID)[:, None] + 0.5
        eyes, nose = points[[*LEFT_EYE, *RIGHT_EYE], 1].max() + 1, points[UNDER_NOSE, 1]
        cheeks = _shrunk(face, 2) & inside & (rows > eyes) & (rows < nose)
        oval = points[list(FACE_OVAL)]
        left, right = oval[:, 0].min(), oval[:, 0].max()
        columns = np.arange(GRID)[None] + 0.5
        over = ~_grown(face, 2) & (rows < points[list(LEFT_BROW + RIGHT_BROW), 1].min()) & (columns > left) & (columns < right)
        below = ~above_jaw(points, size)
        chin = points[[FACE_OVAL[i] for i in range(15, 22)], 0]
        throat = below & (columns > chin.min()) & (columns < chin.max())
        return cls(picture, bins_of(picture), inside, cheeks, face, over & inside, below, throat)

    def count(self, where: np.ndarray) -> np.ndarray:
        """How often each colour is there, [B^3]."""
        return np.bincount(self.bins[where], minlength=BINS**3).astype(np.float32)

    def first_votes(self, colours: np.ndarray) -> np.ndarray:
        """Parts by the colours of skin and hair alone, and by what hangs together."""
        floor = np.log(1 / BINS**3)
        skin, hair = colours[SKIN][self.bins], colours[HAIR][self.bins]
        like_hair = ((hair > floor) & (hair > skin) & self.inside).astype(np.uint8)
        like_hair = cv2.morphologyEx(like_hair, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
        hanging = _hanging(like_hair & ~self.throat, like_hair & ~self.below)
        # A neck in the shade may have the colour of hair, but no hair comes down there.
        like_skin = (skin > floor) & ((skin >= hair) | self.throat)
        votes = np.zeros((len(PARTS), *self.inside.shape), np.float32)
        votes[CLOTHES] = _rising(self.below & ~like_skin & ~hanging & self.inside)
        votes[HAIR] = np.where(self.below, hanging, ~like_skin & ~self.face)
        votes[SKIN] = 1 - votes[CLOTHES] - votes[HAIR]
        return votes

    def sure(self, votes: np.ndarray) -> np.ndarray:
        """Votes, with what the landmarks know better: cheeks are skin, and above the jaw are no clothes."""
        votes = votes.copy()
        votes[CLOTHES] *= self.below
        votes[HAIR] *= ~self.throat
        votes[:, self.cheeks] = np.array([1, 0, 0], np.float32)[:, None]
        return votes / np.maximum(votes.sum(axis=0), 1e-6)


def _hanging(allowed: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Where something comes down from the `head`, through what is allowed and not flatter than half a right angle."""
    hanging = head.copy()
    for row in range(1, len(head)):
        above = hanging[row - 1]
        beside = above.copy()
        beside[1:] |= above[:-1]
        beside[:-1] |= above[1:]
        hanging[row] |= beside & allowed[row]
    return hanging


def _rising(allowed: np.ndarray) -> np.ndarray:
    """What hangs together with the lower edge."""
    pieces = cv2.connectedComponents(allowed.astype(np.uint8), connectivity=4)[1]
    return allowed & np.isin(pieces, np.unique(pieces[-3:][allowed[-3:]]))


def _of_votes(shown: Sequence[_Sample], votes: Sequence[np.ndarray], least: float) -> Palette:
    """Colours and places of the parts, given how much each pixel is taken to be of each."""
    counts = np.zeros((len(PARTS), BINS**3), np.float32)
    places = np.zeros((len(PARTS), GRID, GRID), np.float32)
    for sample, vote in zip(shown, votes, strict=True):
        places += vote * sample.inside
        for part, of_part in enumerate(vote):
            counts[part] += np.bincount(sample.bins[sample.inside], of_part[sample.inside], minlength=BINS**3)
    near = np.stack([cv2.GaussianBlur(place, (0, 0), BLUR) for place in places])
    # Where nobody ever was, the nearest places say what to expect.
    wide = np.stack([cv2.GaussianBlur(place, (0, 0), 6 * BLUR) for place in places])
    rough = [cv2.resize(place, (PLACES, PLACES), interpolation=cv2.INTER_AREA) for place in near + 0.02 * wide + 1e-6]
    part = np.stack(rough) / np.sum(rough, axis=0)
    return Palette(_log_colours(counts, least), np.log((1 - len(PARTS) * DOUBT) * part + DOUBT).astype(np.float32))


def _log_colours(counts: np.ndarray, least: float) -> np.ndarray:
    """Log probability of each colour for each part, given how often the part showed it; a part that is not there shows none."""
    counts = np.stack([counts[SKIN] + SHADED * _shaded(counts[SKIN]), *counts[HAIR:]])
    nowhere = np.full(BINS**3, np.log(STRANGE / BINS**3), np.float32)
    return np.stack([_log_density(count) if count.sum() >= least else nowhere for count in counts])


def _log_density(count: np.ndarray) -> np.ndarray:
    """Log probability of each colour; those close to seen ones count a little too."""
    near = _blurred(count, 1.0) + 0.1 * _blurred(count, 3.0)
    return np.log((1 - STRANGE) * near / near.sum() + STRANGE / BINS**3).astype(np.float32)


def _shaded(count: np.ndarray) -> np.ndarray:
    """As many colours, spread evenly from all of their light down to `SHADE` of it."""
    seen = np.flatnonzero(count)
    colours = np.stack(np.unravel_index(seen, (BINS,) * 3)) + 0.5
    steps = np.linspace(SHADE, 1, 16)
    shaded = np.zeros_like(count)
    for step in steps:
        darker = np.floor(colours * step).astype(int)
        np.add.at(shaded, np.ravel_multi_index(tuple(darker), (BINS,) * 3), count[seen] / len(steps))
    return shaded


def _blurred(count: np.ndarray, reach: float) -> np.ndarray:
    """Counts [B^3] spread over colours that differ by about so many bins."""
    cube = count
    for _ in range(3):  # one axis after the other; turning the cube three times brings it back
        rows = cv2.GaussianBlur(cube.reshape(BINS, BINS**2), (1, 0), sigmaX=0, sigmaY=reach, borderType=cv2.BORDER_REPLICATE)
        cube = np.ascontiguousarray(rows.reshape(BINS, BINS, BINS).transpose(1, 2, 0))
    return cube.reshape(-1)


def _shrunk(mask: np.ndarray, reach: int) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)).astype(bool)


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)).astype(bool)

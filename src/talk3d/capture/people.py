"""Who is in a film, and who of them is portrayed.

Some frames, spread over the film, are looked at. Faces in them that look alike are one person, whose looks the tracker then
keeps to (`track.FaceTracker`). The one portrayed is, unless the user says otherwise, the one who is largest, longest in the
picture, and moves the lips most.

Letters: E size of HeadNet's embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..errors import ConfigError
from .detect import warp
from .track import Face, FaceTracker, embed, lip_opening

LOOKS = 12
"""Frames that are looked at."""
STILL = 0.02
"""Spread of the lips' opening, in eye distances, that a closed mouth has by the tracker's noise."""
ALIKE = 0.9
"""Cosine of HeadNet's embeddings, to the most similar look of a person, from which on another face is that person's."""
PORTRAIT = 128
"""Side of the pictures that people are shown by, pixels."""


@dataclass
class Person:
    """Somebody who was seen."""

    looks: list[Float[np.ndarray, " embedding"]]
    """Embeddings, unit vectors: one face looks different with every expression, so they are kept one by one."""
    portrait: UInt8[np.ndarray, "side side 3"]
    """The largest face that was seen."""
    heights: list[float] = field(default_factory=list)
    """Of the face in each frame, pixels."""
    openings: list[float] = field(default_factory=list)
    """Of the lips in each frame, eye distances."""
    middle: tuple[float, float] = (0.0, 0.0)
    """Where the face was in the first of them, 0..1 of the picture's width and height."""

    @property
    def weight(self) -> float:
        """How likely this is the one who is to be portrayed: size times presence times how much the lips move."""
        return float(np.sum(self.heights) * (STILL + np.std(self.openings)))

    def likeness(self, embedding: Float[np.ndarray, " embedding"]) -> float:
        """Cosine to the most similar look."""
        return float((np.stack(self.looks) @ embedding).max())


def find_people(frames: Iterable[UInt8[np.ndarray, "height width 3"]]) -> list[Person]:
    """Everybody seen in some frames of a film, the likeliest speaker first.

    Raises:
        ModelMissingError: the face models are not installed.
    """
    tracker = FaceTracker()
    people: list[Person] = []
    for frame in frames:
        present: list[Person] = []
        for face in tracker.everyone(frame):
            person = _recognise(people, present, frame, face)
            present.append(person)
    return sorted(people, key=lambda person: -person.weight)


def choose_person(people: Sequence[Person], number: int | None) -> int:
    """Index of the one to portray: the first, or the one the user asked for.

    Args:
        people: as `find_people` gives them, at least one.
        number: which of them, counting from 1.

    Raises:
        ConfigError: there are not so many.
    """
    if number is None:
        return 0
    if not 1 <= number <= len(people):
        found = "one face was" if len(people) == 1 else f"{len(people)} faces were"
        raise ConfigError(f"There is no face {number}: {found} found. They count from 1, the likeliest speaker first.")
    return number - 1


def portraits(people: Sequence[Person], chosen: int) -> UInt8[np.ndarray, "height width 3"]:
    """The faces with their numbers in a row, a frame around the chosen one."""
    tiles = []
    for number, person in enumerate(people):
        tile = person.portrait.copy()
        cv2.putText(tile, str(number + 1), (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.putText(tile, str(number + 1), (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 1, cv2.LINE_AA)
        if number == chosen:
            cv2.rectangle(tile, (0, 0), (PORTRAIT - 1, PORTRAIT - 1), (0, 230, 90), 4)
        tiles.append(tile)
    return np.hstack(tiles)


def _recognise(people: list[Person], present: Sequence[Person], frame: np.ndarray, face: Face) -> Person:
    """The person whose face this is, with what was seen now; nobody is twice in one frame."""
    seen = embed(frame, face.landmarks)
    others = [person for person in people if not any(person is other for other in present)]
    person = max(others, key=lambda other: other.likeness(seen), default=None)
    low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    if person is None or person.likeness(seen) < ALIKE:
        centre = (low + high) / 2 / (frame.shape[1], frame.shape[0])
        person = Person([seen], np.zeros((PORTRAIT, PORTRAIT, 3), np.uint8), middle=(float(centre[0]), float(centre[1])))
        people.append(person)
    else:
        person.looks.append(seen)
    height = float(high[1] - low[1])
    if height > max(person.heights, default=0.0):
        scale = PORTRAIT / (1.6 * height)
        corner = (low + high) / 2 * scale - PORTRAIT / 2
        shift = np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]])
        person.portrait = warp(frame, shift, (PORTRAIT, PORTRAIT), replicate=True)
    person.heights.append(height)
    person.openings.append(float(lip_opening(face.landmarks[None])[0]))
    return person

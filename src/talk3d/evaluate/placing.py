"""Films laid on the true one: followed, found, and cut to the frames that all of them show.

Letters: H, W height and width of the true picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..capture.artifact import Capture
from ..capture.detect import warp
from ..errors import NoFaceError, ScoringError
from ..video.clock import FPS
from . import align
from .claims import Claims
from .film import Film, Sound
from .follow import Landmarks, Motion, follow, measure_again
from .guests import Hear
from .scores import Entry

SMALLEST_WINDOW = 32
"""Pixels that a common part of the pictures must have on each side."""
SQUASHED = 0.01
"""A film whose width and height are changed by factors that differ by more than this must be measured again."""
FEWEST = 10
"""Frames below which nothing is scored."""
FEWEST_FACES = 10
"""Frames of the truth that must show a face: over fewer, nothing is said of lips either."""
WIDER = 1.1
"""By what factor the frames compared must grow without some of the films, or readers are not told."""
OFTEN = 0.5
"""Part of the frames in which a face must be found, or readers are warned."""

Say = Callable[[str, float], None]
"""Called with a stage's name and the part of it that is done, 0..1."""


@dataclass(frozen=True)
class Followed:
    """A film whose face was followed, from one of its frames on."""

    film: Film
    landmarks: Landmarks
    motion: Motion
    sound: Sound | None
    sound_first: int
    """Frame of the sound that belongs to the film's first frame."""

    @cached_property
    def loudness(self) -> np.ndarray | None:
        """Of the whole sound, see `align.loudness`; listened to once, however many films are held against it."""
        return None if self.sound is None else align.loudness(self.sound)

    def heard_in(self, true: Followed) -> float | None:
        """Frames of the true film at which the sound of this one begins; None if it is not the same sound."""
        if self.sound is None or true.sound is None or self.loudness is None or true.loudness is None:
            return None
        seconds = align.by_waves(self.sound, true.sound)
        if seconds is None:
            seconds = align.by_sound(self.loudness, true.loudness)
        return None if seconds is None else FPS * seconds - true.sound_first + self.sound_first

    def entry(self, start: int, stop: int, sound: Hear | None = None) -> Entry:
        """A half-open range of its frames, as it is; with another sound if it has none."""
        heard = sound if self.sound is None else self.sound.part(self.sound_first + start)
        return Entry(self.film.part(start, stop), self.landmarks.part(start), self.motion.part(start, stop), heard)


@dataclass(frozen=True)
class Placed:
    """A result, and how it lies on the truth's frames from the beginning of the range."""

    followed: Followed
    place: align.Place
    by_sound: float | None
    """Frames of the range at which its sound begins; None if it has not the truth's sound."""
    by_motion: int | None
    """The same of how its head moves; None if that does not tell."""

    def other_sound(self, true: Followed) -> bool:
        """Whether it says other words than the true film: both have enough sound to tell, and it is not the same."""
        seconds = self.seconds_of_both(true)
        return self.by_sound is None and seconds is not None and seconds >= align.LEAST

    def seconds_of_both(self, true: Followed) -> float | None:
        """Length of the shorter sound; None if one of the films is silent."""
        if true.loudness is None or self.followed.loudness is None:
            return None
        return min(len(true.loudness), len(self.followed.loudness)) / align.HERTZ

    def entry(self, true: Followed, start: int, stop: int) -> Entry:
        """On the truth's frames of a half-open range."""
        first = start - self.place.offset
        plain = self.followed.entry(first, stop - self.place.offset)
        film = plain.film.placed(None if self.place.resize else self.place.matrix, true.film.size)
        landmarks, motion = plain.landmarks.placed(self.place.matrix), plain.motion
        if abs(self.place.matrix[0, 0] / self.place.matrix[1, 1] - 1) > SQUASHED:
            motion = measure_again(motion, landmarks)
        return Entry(film, landmarks, motion, plain.sound)

    def covered(self, size: tuple[int, int]) -> np.ndarray:
        """[H, W], where its pictures cover true ones of `size` (width, height)."""
        width, height = self.followed.film.size
        if self.place.resize:
            return np.ones(size[::-1], bool)
        return warp(np.full((height, width), 255, np.uint8), self.place.matrix, size) == 255


class Desk:
    """Where films are followed and laid on the truth; its scratch folder holds what is too long for memory."""

    def __init__(self, scratch: Path, say: Say):
        self._scratch, self._say, self._number = scratch, say, 0

    def followed(self, film: Film, sound: Path | None, first: int) -> Followed:
        """Follow the face in a film, whose first frame belongs to frame `first` of a sound."""
        self._number += 1
        landmarks_at = self._scratch / f"{self._number}.landmarks"
        say = self._say
        count, landmarks, motion = follow(film, landmarks_at, lambda part: say(f"tracking {film.name}", part))
        heard = None if sound is None else Sound(sound, self._scratch / f"{self._number}.sound")
        return Followed(Film(film.name, film.size, count, film.frames, None), landmarks, motion, heard, first)

    def placed(self, film: Film, claims: Claims, true: Followed, base: tuple[int, int], asked: bool) -> Placed:
        """Follow a result, and find out where and when it shows the truth.

        Args:
            film: the result.
            claims: what its metadata says.
            true: the true film's frames of `base`.
            base: half-open range.
            asked: whether somebody said that the film shows that range.
        """
        own = self.followed(film, film.sound, 0)
        heard = own.heard_in(true)
        moved = align.by_motion(own.motion, true.motion)
        if claims.frames is not None:
            offset, by = claims.frames[0] - base[0], "its metadata"
        elif heard is not None:
            offset, by = round(heard), "its sound"
        else:
            offset, by = (
                (0, "the frames that were asked for" if asked else "") if moved is None else (moved, "how the head moves")
            )
        common = range(max(0, offset), min(true.film.count, own.film.count + offset))
        sizes = own.film.size, true.film.size
        if claims.frames is not None or not len(common):
            matrix, resize = align.resizing(*sizes), True
        else:
            matrix, resize = align.fit(own.landmarks, true.landmarks, offset, common, sizes)
        return Placed(own, align.Place(offset, by, matrix, resize), heard, moved)


def base_of(frames: tuple[int, int] | None, capture: Capture | None, film: Film, claims: Sequence[Claims]) -> tuple[int, int]:
    """The range of true frames within which films are compared."""
    claimed = [one.frames for one in claims if one.frames]
    if claimed:
        start, stop = max(a for a, _ in claimed), min(b for _, b in claimed)
        if start >= stop:
            raise ScoringError("The films show different frames, as their metadata says; there is nothing to compare.")
        return start, stop
    if frames is not None:
        start, stop = max(0, frames[0]), min(film.count, frames[1])
        if start >= stop:
            raise ScoringError(f"Frames {frames[0]}..{frames[1] - 1} do not exist in `{film.name}`, which has {film.count}.")
        return start, stop
    return (0, film.count) if capture is None else capture.test


def common_frames(placed: Mapping[str, Placed], true: Followed, base: tuple[int, int]) -> tuple[int, int]:
    """The frames that all films show, counted from the range's beginning.

    Raises:
        ScoringError: there are fewer than `FEWEST`.
    """
    start = max(0, *(one.place.offset for one in placed.values()))
    stop = min(true.film.count, *(one.place.offset + one.followed.film.count for one in placed.values()))
    if stop - start < FEWEST:
        raise ScoringError(
            f"Only {max(0, stop - start)} frames are shown by all films and lie between frames {base[0]} and {base[1] - 1} of "
            f"the truth; at least {FEWEST} are needed. Check that all of them show the same part of the same performance."
        )
    return start, stop


def share_warning(
    placed: Mapping[str, Placed],
    claims: Mapping[str, Claims],
    base: tuple[int, int],
    span: tuple[int, int],
    base_without: Callable[[Sequence[Claims]], tuple[int, int]],
) -> list[str]:
    """Whether some of the films keep the others from being compared on clearly more frames; one warning, or none.

    Args:
        placed: the films.
        claims: what their metadata says.
        base: the range of true frames within which they were placed, half-open.
        span: the frames that all of them show, counted from the range's beginning.
        base_without: the range for films of which only so much is known, see `base_of`.
    """
    firsts = {name: base[0] + one.place.offset for name, one in placed.items()}
    shown = {name: (first, first + placed[name].followed.film.count) for name, first in firsts.items()}

    def shared(names: Sequence[str]) -> int:
        low, high = base_without([claims[name] for name in names])
        return min(high, *(shown[name][1] for name in names)) - max(low, *(shown[name][0] for name in names))

    # The shortest go first, up to the one that costs most.
    by_length = sorted(shown, key=lambda name: shared([name]))
    counts = [span[1] - span[0], *(shared(by_length[number:]) for number in range(1, len(by_length)))]
    steps = [more / count for count, more in zip(counts, counts[1:], strict=False)]
    if not steps or max(counts) < WIDER * counts[0]:
        return []
    number = int(np.argmax(steps)) + 1
    left_out = " and ".join(by_length[:number])
    return [
        f"All films were compared on the {counts[0]} frames that all of them show; without {left_out} it would be "
        f"{counts[number]}. Score short films by themselves for numbers that rest on more."
    ]


def require_face(true: Followed, start: int, stop: int, first: int) -> None:
    """Refuse a truth that shows nobody, before more work is done.

    Args:
        true: the true film.
        start: the first of its frames that is to have a face.
        stop: the one after the last.
        first: the number by which its frame 0 is known to people.

    Raises:
        NoFaceError: a face was found in fewer than `FEWEST_FACES` of these frames.
    """
    found = int(true.motion.seen[start:stop].sum())
    if found < FEWEST_FACES:
        raise NoFaceError(
            f"A face was found in {found or 'none'} of the frames {first + start}..{first + stop - 1} of the truth, "
            f"`{true.film.name}`; at least {FEWEST_FACES} are needed. Scores say how near a film comes to the true face, so "
            "there is nothing to compare with. Give as --truth the real video of the person who talks."
        )


def place_warnings(placed: Mapping[str, Placed], base: tuple[int, int]) -> list[str]:
    """Which films may show other frames than those that they are compared with."""
    return [
        f"{name}: when it begins is not known, as neither its sound nor its motion says. That its first frame shows frame "
        f"{base[0] + one.place.offset} of the truth was taken for granted; if it does not, its numbers mean nothing. If you "
        "know which frames it shows, say so with --frames."
        for name, one in placed.items()
        if not one.place.by
    ]


def face_warnings(entries: Mapping[str, Entry], truth: Entry) -> list[str]:
    """Which films show no face, or hardly any, on the frames that are compared."""
    warnings = []
    for name, entry in {"the truth": truth, **entries}.items():
        found, count = int(entry.motion.seen.sum()), len(entry.motion.seen)
        if not found:
            warnings.append(
                f"{name}: no face was found in any of its {count} frames, so nothing can be said of its lips and of the "
                "person; numbers of pictures compare whatever it shows with the true face."
            )
        elif found < OFTEN * count:
            warnings.append(
                f"{name}: a face was found in only {found} of its {count} frames; numbers of lips and of the person rest on "
                "those."
            )
    return warnings


def notes_on(
    placed: Mapping[str, Placed], claims: Mapping[str, Claims], true: Followed, capture: Capture | None, base: tuple[int, int]
) -> list[str]:
    """What a reader must know before believing the numbers."""
    notes = []
    for name, one in placed.items():
        place, film = one.place, one.followed.film
        if claims[name].frames is None:
            if place.by:
                first = base[0] + place.offset
                notes.append(f"{name}: its first frame shows frame {first} of the truth (known from {place.by}).")
        elif one.by_sound is not None and abs(one.by_sound - place.offset) > 1:
            late = place.offset - one.by_sound
            notes.append(f"{name}: against what its metadata says, its sound begins {late:+.1f} frames off.")
        if one.by_motion is not None and one.by_motion != place.offset:
            late = place.offset - one.by_motion
            notes.append(
                f"{name}: its head moves {abs(late)} frames {'later' if late > 0 else 'earlier'} than the true one where it "
                "was placed; all scores of pictures suffer from that."
            )
        seconds = one.seconds_of_both(true)
        if one.other_sound(true):
            notes.append(f"{name}: its sound is not the truth's, so that comparing lips frame by frame means little.")
        elif seconds is not None and one.by_sound is None and claims[name].frames is None:
            notes.append(f"{name}: {seconds:.1f} s of sound are too few to tell whether it is the truth's.")
        if not place.resize:
            scale, turn = np.hypot(*place.matrix[:, 0]), np.degrees(np.arctan2(place.matrix[1, 0], place.matrix[0, 0]))
            notes.append(
                f"{name}: laid on the truth by its face: enlarged {scale:.3f} times, turned {turn:+.1f} degrees, moved by "
                f"({place.matrix[0, 2]:+.0f}, {place.matrix[1, 2]:+.0f}) pixels."
            )
        elif film.size != true.film.size:
            (width, height), (w, h) = film.size, true.film.size
            notes.append(f"{name}: {width}x{height}, was resized to {w}x{h}.")
        there = film.count + min(0, place.offset)
        if there < true.film.count - max(0, place.offset) - 1:
            notes.append(f"{name}: shows {there} of the truth's {true.film.count} frames.")
    if capture is None:
        notes.append("The truth is a plain video, so it is not known whether its frames were trained on.")
    return notes


def common_window(covered: Sequence[np.ndarray]) -> tuple[int, int, int, int]:
    """A rectangle that all films cover: left, top, right and bottom, half-open, pixels. All of the picture if they can.

    Sides that are least covered move in first, until nothing is uncovered.

    Raises:
        ScoringError: there is hardly any.
    """
    everywhere = np.logical_and.reduce(covered)
    height, width = everywhere.shape
    left, top, right, bottom = 0, 0, width, height
    while right - left > 1 and bottom - top > 1:
        inside = everywhere[top:bottom, left:right]
        if inside.all():
            break
        missing = [1 - edge.mean() for edge in (inside[:, 0], inside[0], inside[:, -1], inside[-1])]
        worst = int(np.argmax(missing))
        left, top, right, bottom = left + (worst == 0), top + (worst == 1), right - (worst == 2), bottom - (worst == 3)
        if not any(missing):  # a hole in the middle: there is none in what affine maps cover
            break
    if min(right - left, bottom - top) < SMALLEST_WINDOW:
        raise ScoringError(
            "The films show hardly any common part of the true picture, by where their faces are. Do they show the same?"
        )
    return left, top, right, bottom

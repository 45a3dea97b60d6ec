"""What a recording is judged by: one check for each thing that can spoil it, with its number, its limit, and what to do.

The limits are those of experience with a handful of films; each says where it comes from. None of them stops anything: a person
is told, and decides.

Letters: F usable frames at 25 per second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ..video.clock import FPS
from .drift import Drift
from .listening import Sounding
from .looks import Looks
from .sound import Heard, Lateness

Verdict = Literal["pass", "warn", "fail"]
MATERIAL, PICTURE, PERSON, SOUND = "Material", "Picture", "Person", "Sound"


@dataclass(frozen=True)
class Recording:
    """All that is known of a recording once it has been tracked, cut and listened to."""

    track: dict[str, np.ndarray]
    """Curves of F frames, as a Capture holds them."""
    looks: Looks
    level: Float[np.ndarray, " frames"]
    """Of the sound, dBFS."""
    voiced: Float[np.ndarray, " frames"]
    """How probable a voice is, 0..1."""
    numbers: Int[np.ndarray, " frames"]
    """Which frames of the film the usable ones are."""
    parts: Sequence[slice]
    """Runs of usable frames that follow each other in the film and lie on one side of the split."""
    border: int
    """The first usable frame that is for testing."""
    decoded: int
    """Frames of the film."""
    fit: int
    """Of them those that could be used; more than F if a part of them was asked for."""
    lost: Sequence[tuple[int, int]]
    """Half-open ranges of frames of the film that could not be used."""
    people: int
    """That were seen in the film."""
    face: int
    """Which of them is portrayed, from 0 on."""
    motion: float
    """Of the background, levels of 255."""
    heard: Heard
    sounding: Sounding
    lateness: Lateness
    drift: Drift
    notes: Sequence[str]
    """What a person should know about the film as it was read, in sentences."""

    @property
    def frames(self) -> int:
        """F."""
        return len(self.numbers)

    @property
    def seconds(self) -> float:
        return self.frames / FPS

    def film(self, indices: Sequence[int]) -> list[int]:
        """Which frames of the film usable ones are."""
        return [int(self.numbers[index]) for index in indices]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    group: str
    verdict: Verdict
    value: float | None
    """The number that decides, in the check's own unit; None if it could not be told."""
    found: str
    """The number in words."""
    limit: str
    """What it should be, in words."""
    brief: str = ""
    """What is wrong, as a part of a sentence; empty if nothing is."""
    why: str = ""
    """What is wrong and what it does, in whole sentences; of a check that passes, what was mended."""
    advice: str = ""
    """What to do about it."""
    moments: tuple[int, ...] = ()
    """Frames of the film at which it can be seen, the worst first."""


def judged(value: float | None, warn: float, fail: float | None = None, *, least: bool = False) -> Verdict:
    """The verdict on a number, which should not exceed `warn` and `fail`, or reach them at `least`; what is unknown passes."""
    if value is None:
        return "pass"
    beyond = (lambda limit: value < limit) if least else (lambda limit: value > limit)
    if fail is not None and beyond(fail):
        return "fail"
    return "warn" if beyond(warn) else "pass"


def check(
    name: str,
    group: str,
    verdict: Verdict,
    value: float | None,
    found: str,
    limit: str,
    brief: str,
    why: str,
    advice: str,
    moments: Sequence[int] = (),
) -> Check:
    """A check whose complaints are kept only if there is something to complain about."""
    value = None if value is None else round(float(value), 4)
    if verdict == "pass":
        return Check(name, group, verdict, value, found, limit)
    return Check(name, group, verdict, value, found, limit, brief, why, advice, tuple(int(moment) for moment in moments))


def sentence(checks: Sequence[Check], seconds: float) -> str:
    """The verdict on the whole recording in one sentence: what fails, or else what is not as it should be."""
    failed = [each.brief for each in checks if each.verdict == "fail"]
    warned = [each.brief for each in checks if each.verdict == "warn"]
    if failed:
        return f"Record again: {_listed(failed)}."
    if warned:
        return f"Usable, but {_listed(warned)}."
    return f"Good: {seconds:.0f} s of one person, steady, sharp and well lit, with clear sound in step with the lips."


def grade(checks: Sequence[Check]) -> Verdict:
    """The worst of all verdicts."""
    found = {each.verdict for each in checks}
    return "fail" if "fail" in found else "warn" if "warn" in found else "pass"


def _listed(words: Sequence[str]) -> str:
    """The first four of them as a part of a sentence."""
    shown = list(words[:4])
    if len(words) > 4:
        more = len(words) - 4
        return f"{', '.join(shown)}, and {more} more {'thing' if more == 1 else 'things'}"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def time_of(frame: int) -> str:
    """The time of a frame of the film, for people: 1:02.3."""
    tenths = round(frame / FPS * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def worst(values: Float[np.ndarray, " frames"], count: int = 2, apart: int = 2 * FPS) -> list[int]:
    """The frames with the largest values, the largest first, at least `apart` from each other."""
    found: list[int] = []
    for index in np.argsort(-values, kind="stable"):
        if all(abs(int(index) - other) >= apart for other in found):
            found.append(int(index))
            if len(found) == count:
                break
    return found

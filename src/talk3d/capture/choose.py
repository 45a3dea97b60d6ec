"""The best part of a film for a budget of seconds: as many head poses and mouth shapes as fit in.

Training material is chosen among the frames that would be trained on if all were kept, and by them alone; the frames for
testing are the first ones of those that would be. So what is tested on has no say in what is learnt, here as everywhere.

The film is cut into blocks. A set of blocks is worth the sum, over all kinds of pose and all kinds of mouth, of the square root
of the number of its frames of that kind: the tenth second of a look is worth less than the first one of another. Frames that
are blurred or silent count less. Blocks are taken one by one, always the one that adds most: for such sums that is never worse
than 63 % of the best set.

Source: Nemhauser, Wolsey, Fisher, "An analysis of approximations for maximizing submodular set functions", 1978.

Letters: F frames to choose from, B blocks, K kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ..camera import Orbit
from ..errors import ConfigError
from ..video.clock import FPS, SAMPLES_PER_FRAME
from ..video.read import read_audio, read_frames
from ..video.source import Pictures
from .listening import SPEAKS
from .looks import look
from .seen import BLURRED, UNSURE
from .takes import MIN_TAKE, TEST_PART, bridge, parts_of, select, solve_parts, split_of
from .track import Track, interocular, lip_opening, lip_width
from .voice import voice

BLOCK = 5 * FPS
"""Frames: every seam costs a little, so blocks are not too short."""
LEAST = 5.0
"""Seconds that can be asked for."""
POSE, OPENING, WIDTH = 5.0, 0.03, 0.04
"""What makes poses (degrees) and mouths (eye distances) kinds of their own."""
DULL, MUTE = 0.2, 0.3
"""What a blurred frame counts, and one in which nobody speaks."""


def require_seconds(seconds: float | None) -> None:
    """Raises ConfigError for a budget that nothing can be learnt from."""
    if seconds is not None and not seconds >= LEAST:
        raise ConfigError(f"--seconds is {seconds:g}; at least {LEAST:g} must be kept, and 60 or more are good.")


def choose(
    takes: list[list[int]],
    seconds: float,
    video: Path | Pictures,
    sound_file: Path,
    tracked: Track,
    canonical: Float[np.ndarray, "468 3"],
    orbit: Orbit,
) -> list[list[int]]:
    """The best `seconds` of the takes, or a little less, as half-open ranges of the film's frames; all if they are fewer.

    Args:
        takes: what can be used.
        seconds: to keep, with those for testing.
        video: the film, which is read once more for how sharp its frames are.
        sound_file: its sound.
        tracked: the face in all frames of the film.
        canonical: the prior's landmarks, scene units.
        orbit: the prior's camera.
    """
    numbers = np.concatenate([np.arange(*take) for take in takes])
    budget = round(seconds * FPS)
    if budget >= len(numbers):
        return takes
    split = split_of(len(numbers))
    learnt = numbers[: split["train"][1]]
    parts = [part for part in parts_of(takes, split) if part.stop <= len(learnt)]
    observed = bridge(select(tracked, learnt), parts)
    poses = solve_parts(observed, parts, canonical, orbit)
    angles = np.stack([poses.yaw, poses.pitch], 1)
    mouth = np.stack([lip_opening(observed.landmarks), lip_width(observed.landmarks) / interocular(observed.landmarks)], 1)
    sharpness, wanted = np.zeros(len(learnt)), dict(zip(learnt.tolist(), range(len(learnt)), strict=True))
    for number, frame in enumerate(read_frames(video, stop=int(learnt[-1]) + 1)):
        if number in wanted:
            sharpness[wanted[number]] = look(frame, observed.landmarks[wanted[number]])[0]
    talk = voice(read_audio(sound_file)[: (int(learnt[-1]) + 1) * SAMPLES_PER_FRAME])
    speaks = np.pad(talk, (0, int(learnt[-1]) + 1 - len(talk)))[learnt] > SPEAKS
    weight = np.where(sharpness >= BLURRED * np.median(sharpness), 1.0, DULL) * np.where(speaks, 1.0, MUTE)
    weight *= observed.confidence >= UNSURE
    kept = best_blocks(
        [_kinds(np.degrees(angles) / POSE), _kinds(mouth / [OPENING, WIDTH])], weight, parts, split_of(budget)["train"][1]
    )
    # Of the frames in order, so many are for training that the usual split falls between these and those for testing.
    count = len(kept) // (TEST_PART - 1) * (TEST_PART - 1)
    testing = numbers[len(learnt) : len(learnt) + count // (TEST_PART - 1)]
    return _ranges(np.concatenate([learnt[kept[:count]], testing]))


def best_blocks(
    kinds: Sequence[Int[np.ndarray, " frames"]], weight: Float[np.ndarray, " frames"], parts: Sequence[slice], budget: int
) -> Int[np.ndarray, " kept"]:
    """Which frames to keep, at most `budget`, in their order.

    Args:
        kinds: what each frame shows, from 0 on, in several ways to sort them.
        weight: what each frame counts.
        parts: runs of frames that follow each other.
        budget: frames; what is left in the end and shorter than a take is not filled.
    """
    blocks = [
        np.arange(start, min(start + BLOCK, part.stop)) for part in parts for start in range(part.start, part.stop, BLOCK)
    ]
    shown = np.concatenate(
        [[np.bincount(kind[block], weight[block], kind.max() + 1) for block in blocks] for kind in kinds],
        axis=1,
    )  # [B, K]
    have, kept, free = np.zeros(shown.shape[1]), [], set(range(len(blocks)))
    while free and budget >= MIN_TAKE:
        order = sorted(free)
        gain = np.sqrt(have + shown[order]).sum(axis=1) - np.sqrt(have).sum()
        block = order[int(gain.argmax())]  # of several equal ones the first
        free.remove(block)
        have = have + shown[block]
        kept.append(blocks[block][:budget])
        budget -= len(kept[-1])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)


def _kinds(values: np.ndarray) -> np.ndarray:
    """[F] numbers from 0 on of the cells of size 1 in which points [F, 2] lie."""
    cells = np.floor(values).astype(np.int64)
    return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)


def _ranges(numbers: np.ndarray) -> list[list[int]]:
    """Half-open ranges of ascending numbers."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [[int(run[0]), int(run[-1]) + 1] for run in runs]

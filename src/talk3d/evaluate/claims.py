"""What a film's own metadata says about it, and whether a score of it would mean anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..capture.artifact import Capture
from ..errors import ScoringError
from ..video.look import probe

PROTOCOLS = {"paper": "camera, blinks and head motion of these frames", "audio-only": "nothing"}
"""What the protocols of `talk3d speak` give to a film besides sound."""


@dataclass(frozen=True)
class Claims:
    """What is known of a film before it is looked at."""

    protocol: str
    """`paper`, `audio-only`, or `unknown`."""
    frames: tuple[int, int] | None
    """Which of the truth's frames it says to show, half-open."""
    unseen: bool
    """Whether it says that these were not trained on."""


def read_claims(result: Path, truth: Path, capture: Capture | None, frames: tuple[int, int] | None) -> Claims:
    """Read them, and hold them against the truth.

    Args:
        result: the film.
        truth: what it is to be compared with.
        capture: the truth, if it is a Capture.
        frames: which frames were asked for, if any were.

    Raises:
        ScoringError: the film shows frames that were trained on, belongs to another capture, or contradicts what was asked
            for; a score would mean nothing.
    """
    said: Any = probe(result).metadata.get("talk3d", {})
    said = said if isinstance(said, dict) else {}
    claimed = (int(said["frames"][0]), int(said["frames"][1])) if said.get("frames") else None
    protocol = str(said.get("protocol", "unknown"))
    if capture is not None and claimed is not None and frames is not None and claimed != tuple(frames):
        raise ScoringError(
            f"`{result.name}` says that it shows frames {claimed[0]}..{claimed[1] - 1}, but {frames[0]}..{frames[1] - 1} "
            "were asked for. Leave the range out; it is known from the file."
        )
    if said.get("split") == "train":
        raise ScoringError(
            f"`{result.name}` shows frames that its avatar was trained on; such scores say nothing about new speech. "
            "Make it again from the test part."
        )
    if capture is None:
        # Which film its own frame numbers and split speak of is not known here.
        return Claims(protocol, None, False)
    trained, shown = said.get("capture"), said.get("shows", said.get("capture"))
    if shown not in (None, capture.hash):
        raise ScoringError(
            f"`{result.name}` belongs to capture {str(shown)[:12]}, but `{truth}` is {capture.hash[:12]}. "
            "Score it against the capture that it was made from."
        )
    start, stop = claimed or frames or capture.test
    if not 0 <= start < stop <= capture.count:
        raise ScoringError(f"Frames {start}..{stop - 1} do not exist in `{truth}`, which has {capture.count}.")
    if shown is not None and trained not in (None, capture.hash):
        return Claims(protocol, claimed, said.get("split") == "test")  # another film of the person than it learnt from
    train = capture.train
    if max(start, train[0]) < min(stop, train[1]):
        raise ScoringError(
            f"Frames {start}..{stop - 1} overlap the training frames {train[0]}..{train[1] - 1} of `{truth}`; such "
            f"scores say nothing about new speech. Make the result from the test part, frames {capture.test[0]}.."
            f"{capture.test[1] - 1}."
        )
    return Claims(protocol, claimed, claimed is not None)

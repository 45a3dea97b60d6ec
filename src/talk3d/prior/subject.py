"""A personalised prior on disk and in memory: one person's generator, identity planes and cameras.

Letters: F frames of the capture, L style vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..artifacts import Subject as SubjectArtifact
from ..artifacts import creating
from .generator import Generator, Profile


@dataclass(frozen=True)
class Subject:
    """A personalised prior in memory."""

    generator: Generator
    """Tuned to the person; evaluation mode, frozen."""
    ws: Float[Tensor, "1 layers w"]
    """The person."""
    planes: Float[Tensor, "1 3 channels side side"]
    """The identity planes that deltas are added to."""
    yaw: Float[Tensor, " frames"]
    """Refined, radians; all frames of the capture."""
    pitch: Float[Tensor, " frames"]
    """Refined, radians; all frames of the capture."""
    expressions: Mapping[str, Float[Tensor, " z"]]
    """As the prior knows them: directions of the latent that play one expression each, as strongly as in training."""
    hash: str
    consent: str
    capture_path: Path
    capture_hash: str
    prior_hash: str


def save_subject(
    path: Path,
    generator: Generator,
    w: Float[Tensor, " w"],
    yaw: Float[Tensor, " frames"],
    pitch: Float[Tensor, " frames"],
    expressions: Mapping[str, Float[Tensor, " z"]],
    *,
    capture_path: Path,
    parents: Mapping[str, str],
    consent: str,
    config: Mapping[str, Any],
    overwrite: bool,
) -> None:
    """Write a Subject artifact.

    Args:
        path: the folder to make.
        generator: tuned to the person.
        w: the person.
        yaw: refined, radians, of all frames of the capture.
        pitch: likewise.
        expressions: of the prior.
        capture_path: where the capture lies.
        parents: hashes of the `Prior` and the `Capture`.
        consent: as the capture says.
        config: how it was made.
        overwrite: replace an existing Subject.

    Raises:
        OutputExistsError: `path` is taken.
    """
    with creating(SubjectArtifact, path, overwrite=overwrite) as draft:
        draft.consent, draft.parents = consent, dict(parents)
        draft.config = {
            "profile": generator.profile.to_json(),
            "capture": str(capture_path.resolve()),
            "personalize": dict(config),
        }
        draft.write_tensors("generator.safetensors", generator.state_dict())
        draft.write_tensors("person.safetensors", {"w": w, "yaw": yaw, "pitch": pitch})
        draft.write_tensors("expressions.safetensors", expressions)


def load_subject(path: Path) -> Subject:
    """Open a Subject artifact.

    Raises:
        ArtifactError: it is missing, damaged, or something else.
    """
    artifact = SubjectArtifact.open(path)
    profile = Profile.from_json(artifact.config["profile"])
    generator = Generator(profile).eval().requires_grad_(False)
    generator.load_state_dict(artifact.tensors("generator.safetensors"))
    person = artifact.tensors("person.safetensors")
    ws = person["w"].expand(1, profile.num_ws, -1)
    with torch.no_grad():
        planes = generator.planes(ws)
    return Subject(
        generator=generator,
        ws=ws,
        planes=planes,
        yaw=person["yaw"],
        pitch=person["pitch"],
        expressions=artifact.tensors("expressions.safetensors"),
        hash=artifact.hash,
        consent=artifact.consent,
        capture_path=Path(artifact.config["capture"]),
        capture_hash=artifact.parents["Capture"],
        prior_hash=artifact.parents["Prior"],
    )

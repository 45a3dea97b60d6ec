"""From a film of a synthetic person to an avatar, stage by stage. A stage whose result is already there is not repeated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..capture import build
from ..capture.artifact import Capture
from ..capture.frames import working_folder
from ..personalize.preview import preview_of
from ..personalize.subject import PersonalizeConfig, personalize
from ..prior.generator import LoadedPrior
from ..prior.subject import load_subject
from ..runs import join
from ..talker.config import TrainConfig
from ..talker.speak import save_avatar
from ..talker.train import finish_run, run_folder, train_talker

Progress = Callable[..., None]
"""Called with (stage, part done 0..1)."""


def prepare(film: Path, capture_at: Path, prior: LoadedPrior, report: Progress) -> Capture:
    """The Capture of the film."""
    if not capture_at.exists():
        build.prepare(
            film,
            capture_at,
            canonical=prior.canonical_landmarks,
            orbit=prior.profile.orbit,
            resolution=prior.profile.image_resolution,
            prior_hash=prior.hash,
            consent="synthetic",
            progress=report,
        )
    return Capture.open(capture_at)


def make_subject(capture: Capture, subject_at: Path, prior: LoadedPrior, config: PersonalizeConfig, report: Progress) -> None:
    """The Subject of the capture's person."""
    if not subject_at.exists():
        with working_folder(subject_at) as cache:
            found = personalize(capture, prior, config, report, cache, preview_of(subject_at))
            found.save(subject_at, capture, prior, config, False)


def make_avatar(capture: Capture, subject_at: Path, avatar_at: Path, config: TrainConfig, report: Progress) -> None:
    """The Avatar of the subject."""
    if not avatar_at.exists():
        subject = load_subject(subject_at)
        capture.require_hash(subject.capture_hash, "Subject")
        run = run_folder(avatar_at)
        with join() as workers:
            talker = train_talker(subject, capture, run, config, lambda part, _: report("training", part), workers)
        save_avatar(avatar_at, subject, capture, talker, config, overwrite=False)
        finish_run(run)

"""The story of `talk3d personalize`: choose frames, invert them jointly, tune the prior, refine all cameras.

Letters: F frames of the capture, S side of its frames, L style vectors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..capture.artifact import Capture
from ..capture.frames import PersonFrames, free_frames, spread_frames
from ..errors import ArtifactError, ConfigError
from ..prior.generator import Generator, LoadedPrior
from ..prior.subject import save_subject
from ..runs import keep_memory
from .cameras import CameraConfig, refine_cameras
from .invert import InvertConfig, invert
from .preview import Preview
from .tune import TuneConfig, tune


@dataclass(frozen=True)
class PersonalizeConfig:
    """Settings of the personalisation."""

    frames: int = 5
    """Frames that are inverted, chosen for their spread of pose and expression."""
    cache_gigabytes: float = 2.0
    """Disk for decoded frames while it runs; of a film that needs more, the cameras of evenly spread frames are refined, and
    those between get what lies between their corrections."""
    invert: InvertConfig = field(default_factory=InvertConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    cameras: CameraConfig = field(default_factory=CameraConfig)


@dataclass(frozen=True)
class Personalized:
    """What `personalize` found."""

    generator: Generator
    """Tuned to the person."""
    w: Float[Tensor, " w"]
    """The person, with the expression the chosen frames have on average."""
    corrections: Float[Tensor, "2 frames"]
    """To the tracked yaw and pitch of all frames of the capture, radians."""
    chosen: list[int]
    """The frames that were inverted."""

    def save(self, path: Path, capture: Capture, prior: LoadedPrior, config: PersonalizeConfig, overwrite: bool) -> None:
        """Write a Subject artifact."""
        save_subject(
            path,
            self.generator,
            self.w,
            torch.from_numpy(capture.yaw).float() + self.corrections[0],
            torch.from_numpy(capture.pitch).float() + self.corrections[1],
            prior.expressions,
            capture_path=capture.root,
            parents={"Prior": prior.hash, "Capture": capture.hash},
            consent=capture.consent,
            config={**dataclasses.asdict(config), "frames_used": self.chosen},
            overwrite=overwrite,
        )


def personalize(
    capture: Capture,
    prior: LoadedPrior,
    config: PersonalizeConfig,
    progress: Callable[[str, float], None],
    cache: Path,
    preview: Path | None = None,
) -> Personalized:
    """Personalise a prior to the person of a capture, from training frames only.

    Args:
        capture: the prepared video.
        prior: the prior whose camera and canonical landmarks the capture was posed with.
        progress: called with (stage, part done 0..1).
        cache: folder for decoded frames.
        preview: a PNG file that shows the chosen frames and what is drawn of them, renewed every half a minute.

    Raises:
        ConfigError: the capture has fewer training frames than are to be chosen, or the prior's pictures carry no alpha.
        ArtifactError: the capture was posed with another prior.
    """
    start, stop = capture.train
    if stop - start < config.frames:
        raise ConfigError(
            f"The capture has only {stop - start} training frames, {config.frames} are needed. Record a longer video."
        )
    free = free_frames(capture, start, stop)
    if len(free) < config.frames:
        raise ConfigError(
            f"Something is before the face in all but {len(free)} of {stop - start} training frames, and {config.frames} free "
            "ones are needed. Record again, and keep hands, microphones and cups off the face."
        )
    if capture.prior_hash != prior.artifact.hash:
        raise ArtifactError(
            f"The capture was posed with prior {capture.prior_hash[:12]}, but prior {prior.artifact.hash[:12]} was given. "
            "Prepare the video again with this prior, or personalise with that one."
        )
    if not prior.profile.alpha:
        raise ConfigError(
            f"The pictures of the prior `{prior.profile.name}` carry no alpha, so a person cannot be told from a background in "
            "them, and personalising needs that. Use the shipped prior, or one made by `talk3d prior train --heads`."
        )
    keep_memory()
    chosen = choose_frames(capture, config.frames, free)
    refined = spread_frames(free, capture.resolution, config.cache_gigabytes)
    frames = PersonFrames.cached(capture, cache, start, stop, np.union1d(refined, chosen))
    yaw, pitch = torch.from_numpy(capture.yaw).float(), torch.from_numpy(capture.pitch).float()
    views = frames.views(chosen)
    show = Preview(preview, views) if preview else None
    inversion = invert(
        prior.generator, views, yaw[chosen], pitch[chosen], config.invert, lambda i, n: progress("inverting", i / n), show
    )
    tuned = tune(prior.generator, views, inversion, config.tune, lambda i, n: progress("tuning", i / n), show)
    w = inversion.w + inversion.offsets.mean(0)
    with torch.no_grad():
        planes = tuned.planes(w.expand(1, tuned.profile.num_ws, -1))
    found = refine_cameras(
        tuned,
        planes,
        lambda index: frames.views(refined[index]),
        yaw[refined],
        pitch[refined],
        config.cameras,
        lambda i, n: progress("cameras", i / n),
    )
    # Frames outside the training part get the mean correction: it belongs to the person's shape, not to the frame.
    corrections = found.mean(1, keepdim=True).repeat(1, capture.count)
    between = [np.interp(np.arange(start, stop), refined, one) for one in found.double().numpy()]
    corrections[:, start:stop] = torch.from_numpy(np.stack(between))
    return Personalized(tuned, w, corrections, chosen.tolist())


def choose_frames(capture: Capture, count: int, among: Int[np.ndarray, " allowed"]) -> Int[np.ndarray, " chosen"]:
    """Frames that cover pose and expression: greedy k-centre on the landmarks, from the most typical frame.

    Args:
        capture: the film.
        count: how many to choose.
        among: the frames to choose from, `count` at least.

    Returns:
        Some of `among`, ascending.
    """
    points = capture.landmarks[among]
    shape = (points - points.mean(1, keepdims=True)).reshape(len(points), -1)
    scale = np.sqrt(points.shape[1])
    pose = np.stack([capture.yaw, capture.pitch], 1)[among] * scale * 0.5
    features = np.concatenate([shape, pose - pose.mean(0)], 1)
    # Frames that no one resembles are tracking errors more often than expressions: leave the oddest hundredth out.
    oddness = np.linalg.norm(features - np.median(features, 0), axis=1)
    allowed = np.flatnonzero(oddness <= np.quantile(oddness, 0.99))
    chosen = [int(allowed[np.argmin(oddness[allowed])])]
    distance = np.full(len(allowed), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(features[allowed] - features[chosen[-1]], axis=1))
        chosen.append(int(allowed[np.argmax(distance)]))
    return np.sort(among[chosen])

"""The story of `talk3d prior train`: heads or pictures in, a Prior out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, NoFaceError
from ..frozen import MODELS, model_path
from ..heads.latent import HeadEmbedding
from ..heads.model import HeadPack
from ..prior.generator import FULL, MINI, Generator, Profile, save_prior
from ..runs import join
from .adversarial import EG3D, AdversarialConfig, HeadSource, LabelledSource, check, train_adversarially
from .canonical import measure_canonical
from .dataset import DEPTH_SIZE, HELD_OUT_SHARDS, IMAGE_SIZE, HeadShards, ShardWriters, claim
from .labelled import LabelledDataset
from .train import FIRST_SHARDS, PretrainConfig, shards_at, train_prior

MINI_PICTURES = dataclasses.replace(
    MINI, name="mini-pictures", alpha=False, z_dim=128, c_dim=25, mapping_embed=128, normalize_latent=True, camera_scale=1.0,
    density_gain=1.0,
)  # fmt: skip
"""The size of the shipped prior for pictures that have a background and no known parameters."""
PEOPLE, PEOPLE_SEED = 2000, 2025
"""How many latents of random heads a prior of heads keeps, to draw people from."""
PRESETS: dict[str, tuple[Profile, AdversarialConfig]] = {
    "mini": (MINI_PICTURES, AdversarialConfig(steps=20_000)),
    "eg3d": (FULL, EG3D),
}
"""Network and settings for pictures: one for a patient CPU, and EG3D's sizes for several GPUs."""


def default_work(output: Path) -> Path:
    """Where the unfinished training of a prior lives: beside it."""
    return output.with_name(output.name + ".training")


def from_heads(
    pack: HeadPack,
    output: Path,
    work: Path,
    start: Generator | None,
    config: PretrainConfig,
    adversarial: AdversarialConfig,
    progress: Callable[[str, float], None],
    overwrite: bool,
    renderers: int = 1,
) -> None:
    """Render heads and learn them, sharpen adversarially if asked to, measure canonical landmarks, write the Prior.

    Args:
        pack: the head model.
        output: folder of the Prior.
        work: folder for rendered heads and the training states; all are continued.
        start: weights to start from; None for fresh ones of the shipped prior's size.
        config: settings of the supervised phase, with the number of shards.
        adversarial: settings of the adversarial phase; none with 0 steps.
        progress: called with (stage, part done 0..1).
        overwrite: replace an existing Prior.
        renderers: processes that draw heads while this one trains.

    Raises:
        ConfigError: too few shards to train on, or weights that were not made for this head model.
    """
    if config.shards is None or config.shards < HELD_OUT_SHARDS + FIRST_SHARDS:
        raise ConfigError(
            f"{config.shards or 'No'} shards were asked for, but the first {HELD_OUT_SHARDS} are held out for scoring and "
            f"training begins with {FIRST_SHARDS}. Ask for more of them."
        )
    if config.steps < 1:
        raise ConfigError(f"{config.steps} supervised steps were asked for; a prior of heads begins with at least one.")
    embedding = HeadEmbedding(pack)
    profile = start.profile if start else dataclasses.replace(MINI, z_dim=embedding.size)
    if profile.z_dim != embedding.size or not profile.alpha:
        raise ConfigError(
            f"The prior to start from reads {profile.z_dim} numbers and this head model gives {embedding.size}: it was trained "
            "on another one, or on pictures. Start from a prior of the same head model, or from none."
        )
    if (profile.image_resolution, profile.neural_resolution) != (IMAGE_SIZE, DEPTH_SIZE):
        raise ConfigError(
            f"The prior to start from draws {profile.image_resolution} and {profile.neural_resolution} pixels; heads are "
            f"rendered with {IMAGE_SIZE} and {DEPTH_SIZE}."
        )
    for name in MODELS:
        model_path(name)  # canonical landmarks are measured last, and must not fail then
    heads = work / "shards"
    claim(heads, pack, profile.orbit)
    adversarial = adversarial.continued()
    with join() as workers:
        if adversarial.steps:
            check(adversarial, workers)
        with ShardWriters(heads, range(config.shards), pack, profile.orbit, 0 if workers.rank else renderers) as writers:
            generator = train_prior(
                pack,
                heads,
                work / "run",
                profile,
                config,
                lambda step, steps, _: progress("training", step / steps),
                workers,
                start,
                writers,
            )
        generator.latents = torch.from_numpy(embedding.random(PEOPLE, PEOPLE_SEED))
        if adversarial.steps:
            generator = train_adversarially(
                generator,
                # The shards that the last supervised step saw; the writers may have been further, or not.
                HeadSource(HeadShards(heads, pack, below=shards_at(config.steps - 1, config)), profile.orbit),
                work / "adversarial",
                adversarial,
                lambda step, steps, _: progress("adversarial training", step / steps),
                workers,
            )
        if workers.rank:
            return
    settings = {"supervised": dataclasses.asdict(config)}
    if adversarial.steps:
        settings["adversarial"] = dataclasses.asdict(adversarial)
    save_heads(output, generator.cpu(), embedding, settings, overwrite)


def save_heads(
    output: Path, generator: Generator, embedding: HeadEmbedding, settings: Mapping[str, Any], overwrite: bool
) -> None:
    """Write the Prior of a generator that was trained on heads, with their expressions and with its landmarks.

    Args:
        output: folder of the Prior.
        generator: on the CPU, frozen, with latents of people.
        embedding: of the heads.
        settings: of the training, for the manifest.
        overwrite: replace an existing Prior.
    """
    save_prior(
        output,
        generator,
        _landmarks(generator),
        expressions={name: torch.from_numpy(direction) for name, direction in embedding.expressions().items()},
        half=True,
        config={"training": settings},
        licence="Apache-2.0",
        overwrite=overwrite,
    )


def from_images(
    dataset: LabelledDataset,
    output: Path,
    work: Path,
    preset: str,
    start: Generator | None,
    steps: int | None,
    tensorboard: bool,
    progress: Callable[[str, float], None],
    overwrite: bool,
) -> None:
    """Train on a data set in EG3D's layout and write the Prior.

    Args:
        dataset: pictures with camera labels.
        output: folder of the Prior.
        work: folder for the training state; it is continued.
        preset: a name of `PRESETS`.
        start: weights to start from instead of fresh ones of the preset's sizes.
        steps: iterations; None for the preset's.
        tensorboard: also write event files.
        progress: called with (stage, part done 0..1).
        overwrite: replace an existing Prior.

    Raises:
        ConfigError: the pictures are not of the network's size, or the prior to start from has alpha.
    """
    profile, config = PRESETS[preset]
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    config = dataclasses.replace(config, tensorboard=tensorboard)
    # The camera belongs to the pictures: samples, conditioning and canonical landmarks are drawn with it.
    profile = dataclasses.replace(start.profile if start else profile, orbit=dataset.orbit())
    if dataset.resolution != profile.image_resolution:
        raise ConfigError(
            f"The pictures of `{dataset.path}` are {dataset.resolution} pixels wide, the network draws "
            f"{profile.image_resolution}. Resize them, or choose another preset."
        )
    if profile.alpha:
        raise ConfigError("The prior to start from draws heads with alpha, and pictures of a data set have none.")
    for name in MODELS:
        model_path(name)  # canonical landmarks are measured last, and must not fail then
    torch.manual_seed(config.seed)
    generator = Generator(profile)
    if start:
        generator.load_state_dict(start.state_dict())
        config = config.continued()
    with join() as workers:
        generator = train_adversarially(
            generator,
            LabelledSource(dataset),
            work / "adversarial",
            config,
            lambda step, steps, _: progress("adversarial training", step / steps),
            workers,
            dataset.digest(),
        )
        if workers.rank:
            return
    generator = generator.cpu()
    save_prior(
        output,
        generator,
        _landmarks(generator),
        half=True,
        config={"training": {"adversarial": dataclasses.asdict(config), "data": dataset.digest()}},
        licence="as the pictures it was trained on",
        overwrite=overwrite,
    )


def _landmarks(generator: Generator) -> np.ndarray | None:
    """Canonical landmarks; None where no face is seen (cats, a prior that was hardly trained): it still draws pictures."""
    try:
        return measure_canonical(generator)
    except NoFaceError:
        return None

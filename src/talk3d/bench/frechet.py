"""Do a prior's samples look like the heads it learnt? Fréchet distance in HeadNet's features.

As FID (Heusel et al. 2017), with the features of our own network instead of Inception's, so the numbers compare with each other
only: samples against renders, beside renders against other renders, which is the floor.

Letters: N pictures, C features, S their side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..errors import ConfigError
from ..heads.latent import LATENT_SIZE, parameters_from_latent
from ..heads.model import HeadPack
from ..heads.raster import render_head
from ..judges.frechet import FeatureStatistics, frechet_distance
from ..judges.headnet import SIZE, HeadNet
from ..prior.generator import Generator, composite

YAW, PITCH = 0.35, 0.15
"""Standard deviations of the cameras' angles, radians."""
GREY = 0.0
SEED = 77002
FEATURES = 160
"""Of HeadNet's last stage."""
FEWEST = 2 * FEATURES
"""Pictures of each kind: twice as many as there are features."""


@torch.no_grad()
def features(network: HeadNet, pictures: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n features"]:
    """Means over all places of HeadNet's last stage."""
    return network.glance.features(pictures)[-1].mean((2, 3))


def cameras(generator: Generator, count: int, seed: int) -> Iterator[Float[Tensor, "4 4"]]:
    """The cameras of picture 0, 1, ...; sets that are compared have different seeds, or they were alike in this for free."""
    angles = np.random.default_rng([SEED, seed]).normal(0, 1, (count, 2)) * [YAW, PITCH]
    yield from generator.profile.orbit.pose(*torch.from_numpy(angles).float().T)


def renders(pack: HeadPack, generator: Generator, count: int, seed: int) -> Iterator[Float[Tensor, "1 3 size size"]]:
    """Random heads in the training textures, over grey, drawn at the size HeadNet reads."""
    rng = np.random.default_rng([SEED, 1, seed])
    intrinsics = generator.profile.orbit.intrinsics().numpy()
    for camera in cameras(generator, count, seed):
        head = pack.build(parameters_from_latent(rng.standard_normal(LATENT_SIZE).astype(np.float32), pack))
        drawn = render_head(head, pack, camera.numpy(), intrinsics, generator.profile.image_resolution)
        picture = np.concatenate([drawn.rgb, drawn.alpha[..., None]], 2).transpose(2, 0, 1)[None]
        yield _small(torch.from_numpy(picture).float() / 127.5 - 1)


@torch.no_grad()
def samples(generator: Generator, count: int, seed: int) -> Iterator[Float[Tensor, "1 3 size size"]]:
    """The prior's own people, of random latents, each once while there are enough, over grey if they have alpha."""
    latents = generator.random_latents(count, SEED + seed)
    intrinsics = generator.profile.orbit.intrinsics()[None]
    for z, camera in zip(latents, cameras(generator, count, seed), strict=True):
        ws = generator.map(z[None], generator.frontal_label(1))
        yield _small(generator(ws, camera[None], intrinsics).image)


def require_enough(count: int) -> None:
    """Raises ConfigError if `count` samples are too few for covariances. Call before any expensive work."""
    if count < FEWEST:
        raise ConfigError(f"{count} samples are too few to tell their spread; ask for at least {FEWEST}, or for none (0).")


def bench_samples(
    generator: Generator, pack: HeadPack, network: HeadNet, count: int, progress: Callable[[float, str], None]
) -> dict[str, float]:
    """Distances of `count` samples to `count` renders, and of other renders to the same: the floor.

    Args:
        generator: of the prior.
        pack: the head model.
        network: HeadNet.
        count: pictures of each kind; the distance shrinks with it, so compare equal ones only.
        progress: called with (part done 0..1, what is done).

    Raises:
        ConfigError: too few pictures for covariances.
    """
    require_enough(count)
    found = []
    kinds = (
        ("drawing heads", renders(pack, generator, count, 0)),
        ("drawing other heads", renders(pack, generator, count, 1)),
        ("drawing samples", samples(generator, count, 2)),
    )
    for index, (name, pictures) in enumerate(kinds):
        statistics = FeatureStatistics(FEATURES)
        for number, picture in enumerate(pictures):
            statistics.add(features(network, picture))
            progress((index + (number + 1) / count) / len(kinds), name)
        found.append(statistics)
    truth, other, drawn = found
    return {"samples": frechet_distance(drawn, truth), "floor": frechet_distance(other, truth), "pictures": count}


def _small(image: Float[Tensor, "1 channels size size"]) -> Float[Tensor, "1 3 small small"]:
    """At the size HeadNet reads; over grey, if there is alpha."""
    if image.shape[1] == 4:
        image = composite(image, torch.full_like(image[:, :3], GREY))
    return F.interpolate(image.clamp(-1, 1), (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)

"""The adversarial phase: EG3D's training of a generator against the dual discriminator (method 3.2).

It sharpens what the supervised phase blurs, and it trains on any data set in EG3D's layout. Fades are fractions of the
budget, so that a short run goes through the same stages as a long one. On heads, where a latent's true picture is known, the
supervised losses go on as an anchor.

Letters: B pictures of a step, S side of the finished pictures, R side of the raw ones.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..camera import camera_from_label, camera_label
from ..errors import ConfigError
from ..prior.discriminator import DiscriminatorConfig, DualDiscriminator
from ..prior.generator import Generator, composite
from ..prior.patch import Windows, picture_losses, render_patch
from .dataset import HeadShards, gallery, save_png
from .labelled import LabelledDataset
from .run import Run, Workers, finish_gradients, follow


@dataclass(frozen=True)
class AdversarialConfig:
    """Settings of one adversarial run. Defaults suit a CPU; EG3D's are in brackets."""

    steps: int = 2000
    """Optimiser steps of each network."""
    batch: int = 4
    """Pictures per step [32]."""
    generator_rate: float = 1e-3
    """Learning rate [0.0025 from scratch]."""
    discriminator_rate: float = 2e-3
    channel_base: int = 4096
    """Width of the discriminator [32768]: a wide one costs more than everything else together."""
    channel_max: int = 256
    r1_weight: float = 5.0
    """Gamma of the R1 penalty [1 at batch 32; larger for small batches]."""
    r1_every: int = 16
    density_weight: float = 0.25
    density_distance: float = 0.004
    """Scene units between the two points whose densities should agree."""
    density_points: int = 1000
    density_every: int = 4
    blur_sigma: float = 10.0
    """Pictures that the discriminator sees are blurred at first, pixels."""
    blur_fade: float = 0.1
    """Part of the steps over which the blur fades."""
    swap_end: float = 0.5
    """Probability that the mapping is given another picture's camera, reached from 1 [0.5; 0.8 rebalanced]."""
    swap_fade: float = 0.1
    start_resolution: int | None = None
    """Raw resolution at the start; None for the profile's from the start [64, then 128]."""
    resolution_fade: float = 0.1
    anchor_weight: float = 1.0
    """Of the supervised losses, where true pictures of the latents are known."""
    ema: float = 0.05
    """Half-life of the averaged weights, as a part of the steps [10,000 pictures]."""
    bfloat16: bool = True
    seed: int = 0
    save_every: int = 100
    sample_every: int = 500
    tensorboard: bool = False


@dataclass(frozen=True)
class Reals:
    """B real pictures."""

    images: Float[Tensor, "batch 3 size size"]
    """-1..1, over the background."""
    labels: Float[Tensor, "batch 25"]
    background: Float[Tensor, "batch 3 1 1"] | None
    """The plain colour behind pictures whose prior has alpha."""
    latents: Float[Tensor, "batch z"] | None
    """Of the heads they show, where that is known."""
    straight: Float[Tensor, "batch 4 size size"] | None
    """The same with alpha, without background."""


@dataclass(frozen=True)
class LabelledSource:
    """Pictures of a data set; the prior draws its own background."""

    dataset: LabelledDataset

    def draw(self, rng: np.random.Generator, count: int, mine: slice) -> Reals:
        """`count` random pictures, of which this process wants `mine`."""
        pictures = self.dataset.get(rng.integers(0, len(self.dataset), count)[mine])
        return Reals(pictures.images, pictures.labels, None, None, None)


@dataclass(frozen=True)
class HeadSource:
    """Rendered heads over plain backgrounds, each seen from one of its views."""

    shards: HeadShards
    generator: Generator
    """For its camera."""

    def draw(self, rng: np.random.Generator, count: int, mine: slice) -> Reals:
        """`count` random heads, of which this process wants `mine`."""
        colours = torch.from_numpy(rng.uniform(-1, 1, (count, 3, 1, 1))).float()[mine]
        indices, views = self.shards.choose(rng, count, 1)
        batch = self.shards.get(indices[mine], views[mine])
        orbit = self.generator.profile.orbit
        cameras = orbit.pose(batch.yaw[:, 0], batch.pitch[:, 0])
        straight = batch.images[:, 0].float() / 127.5 - 1
        images = composite(straight, colours.expand(-1, -1, *straight.shape[2:]))
        labels = camera_label(cameras, orbit.intrinsics().expand(len(cameras), 3, 3))
        return Reals(images, labels, colours, batch.latents, straight)


RealSource = LabelledSource | HeadSource


@dataclass(frozen=True)
class _Networks:
    generator: Generator
    discriminator: DualDiscriminator
    config: AdversarialConfig
    device: torch.device


def train_adversarially(
    generator: Generator,
    source: RealSource,
    run: Path,
    config: AdversarialConfig,
    progress: Callable[[int, int, str], None],
    workers: Workers | None = None,
) -> Generator:
    """Train, or continue an interrupted run; returns the averaged generator. The given one is the starting point.

    Args:
        generator: where to start: fresh, or after the supervised phase.
        source: real pictures of the generator's size.
        run: folder for the training state, `log.jsonl` and sample sheets.
        config: settings.
        progress: called with (step, steps, one line of numbers).
        workers: the processes that train together; None for this one alone.

    Raises:
        ConfigError: a batch that the processes cannot share, or an impossible fade.
        CheckpointError: the state in `run` belongs to other settings.
    """
    workers = workers or Workers()
    profile, device = generator.profile, workers.device
    mine = workers.share(config.batch)
    if max(config.blur_fade, config.swap_fade, config.resolution_fade) > 1:
        raise ConfigError("A fade is a part of the training steps: it must be at most 1.")
    torch.manual_seed(config.seed)
    discriminator = DualDiscriminator(
        DiscriminatorConfig(profile.image_resolution, 25, config.channel_base, config.channel_max)
    ).to(device)
    generator = copy.deepcopy(generator).to(device).train().requires_grad_(True)
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    nets = _Networks(generator, discriminator, config, device)
    optimizers = {
        "generator_optimizer": _lazy_adam(generator, config.generator_rate, config.density_every),
        "discriminator_optimizer": _lazy_adam(discriminator, config.discriminator_rate, config.r1_every),
    }
    modules = {"generator": generator, "average": average, "discriminator": discriminator}
    record = Run(run, config, modules, optimizers, workers, config.tensorboard)
    start = record.resume()
    for step in range(start, config.steps):
        began = time.monotonic()
        rng = np.random.default_rng([config.seed, step])
        entry: dict[str, float] = {}
        for name, phase in (("generator", _generator_losses), ("discriminator", _discriminator_losses)):
            optimizers[f"{name}_optimizer"].zero_grad(set_to_none=True)
            reals = _to(source.draw(rng, config.batch, mine), device)
            latents = torch.from_numpy(rng.standard_normal((config.batch, profile.z_dim))).float()[mine].to(device)
            for term, value in phase(nets, reals, latents, step, rng).items():
                entry[term] = round(value, 5)
            finish_gradients(modules[name].parameters(), workers)
            optimizers[f"{name}_optimizer"].step()
        half_life = min(config.ema * config.steps, 0.05 * (step + 1))
        follow(average, generator, 0.5 ** (1 / max(half_life, 1e-3)))
        done = step + 1
        if workers.rank == 0 and (done % config.sample_every == 0 or done == config.steps):
            save_png(run / "samples.png", _sheet(average, source))
        record.log(done, entry | {"seconds": round(time.monotonic() - began, 3)})
        if done % config.save_every == 0 or done == config.steps:
            record.save(done)
        progress(done, config.steps, " ".join(f"{name} {value:.3f}" for name, value in entry.items()))
    return average


def _generator_losses(nets: _Networks, reals: Reals, latents: Tensor, step: int, rng: np.random.Generator) -> dict[str, float]:
    """Accumulates the generator's gradients; returns its losses."""
    config = nets.config
    # Where the truth of a latent is known, fakes are drawn from such latents half of the time, and held to it.
    latents = reals.latents if reals.latents is not None and rng.random() < 0.5 else latents
    nets.discriminator.requires_grad_(False)
    image, raw, ws = _fakes(nets.generator, config, latents, reals, step, rng)
    terms = {"fooling": F.softplus(-nets.discriminator(_blurred(image, config, step), raw, reals.labels)).mean()}
    if latents is reals.latents and config.anchor_weight > 0:
        terms["anchor"] = config.anchor_weight * _anchor(nets, ws, reals, rng)
    torch.stack(list(terms.values())).sum().backward()
    if step % config.density_every == 0:
        terms["density"] = config.density_weight * _density_difference(nets, latents, reals.labels, step, rng)
        (config.density_every * terms["density"]).backward()
    nets.discriminator.requires_grad_(True)
    return {name: float(value.detach()) for name, value in terms.items()}


def _discriminator_losses(
    nets: _Networks, reals: Reals, latents: Tensor, step: int, rng: np.random.Generator
) -> dict[str, float]:
    """Accumulates the discriminator's gradients; returns its losses."""
    config, discriminator = nets.config, nets.discriminator
    with torch.no_grad():
        image, raw, ws = _fakes(nets.generator, config, latents, reals, step, rng)
        nets.generator.backbone.mapping.track_average(ws)
    fake = F.softplus(discriminator(_blurred(image, config, step), raw, reals.labels)).mean()
    penalised = step % config.r1_every == 0
    real_image = _blurred(reals.images, config, step).detach().requires_grad_(penalised)
    size = (_raw_resolution(nets.generator, config, step),) * 2
    real_raw = F.interpolate(reals.images, size, mode="bilinear", align_corners=False, antialias=True)
    # EG3D blurs the real raw pictures but not the generator's own.
    real_raw = _blurred(real_raw, config, step).detach().requires_grad_(penalised)
    logits = discriminator(real_image, real_raw, reals.labels)
    real = F.softplus(-logits).mean()
    terms = {"fake": fake, "real": real}
    total = fake + real
    if penalised:
        gradients = torch.autograd.grad(logits.sum(), (real_image, real_raw), create_graph=True)
        steepness = torch.stack([gradient.square().sum((1, 2, 3)) for gradient in gradients]).sum(0)
        terms["r1"] = 0.5 * config.r1_weight * steepness.mean()
        total = total + config.r1_every * terms["r1"]
    total.backward()
    return {name: float(value.detach()) for name, value in terms.items()}


def _fakes(
    generator: Generator, config: AdversarialConfig, latents: Tensor, reals: Reals, step: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Finished and raw pictures [B, 3, *, *] of latents from the reals' cameras, over their backgrounds, and styles."""
    device = reals.images.device
    jitter = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
        ws = generator.map(latents, _conditioning(generator, config, reals.labels, step, rng))
        planes = generator.planes(ws)
    ws, planes = ws.float(), planes.float()
    cameras, intrinsics = camera_from_label(reals.labels)
    resolution = _raw_resolution(generator, config, step)
    seen = generator.render(planes, cameras, intrinsics, resolution, deterministic=False, generator=jitter)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
        image = generator.superresolve(seen.features, seen.rgb, seen.alpha, ws)
    image, raw = image.float(), seen.rgb
    if generator.profile.alpha:
        assert reals.background is not None, "a prior with alpha needs a background"
        image = composite(image, reals.background.expand(-1, -1, *image.shape[2:]))
        raw = torch.cat([raw, 2 * seen.alpha - 1], 1)
        raw = composite(raw, reals.background.expand(-1, -1, *raw.shape[2:]))
    return image, raw, ws


def _conditioning(
    generator: Generator, config: AdversarialConfig, labels: Tensor, step: int, rng: np.random.Generator
) -> Tensor | None:
    """The camera the mapping is told: sometimes a neighbour's, so that the face does not learn to turn with the camera."""
    if generator.profile.c_dim == 0:
        return None
    probability = 1 + (config.swap_end - 1) * _faded(step, config.swap_fade * config.steps)
    swapped = torch.from_numpy(rng.random((len(labels), 1)) < probability).to(labels.device)
    return torch.where(swapped, labels.roll(1, 0), labels)


def _density_difference(nets: _Networks, latents: Tensor, labels: Tensor, step: int, rng: np.random.Generator) -> Tensor:
    """Mean absolute difference of raw density between points of the box and points close by.

    EG3D draws them from a cube of twice the box's side, so that seven in eight say nothing; here all lie inside.
    """
    generator, config = nets.generator, nets.config
    with torch.autocast(nets.device.type, torch.bfloat16, enabled=config.bfloat16):
        planes = generator.planes(generator.map(latents, _conditioning(generator, config, labels, step, rng)))
    half = generator.profile.render.box_warp / 2
    count = config.density_points
    points = rng.uniform(-half, half, (len(latents), count, 3))
    moved = points + rng.normal(0, config.density_distance, points.shape)
    both = torch.from_numpy(np.concatenate([points, moved], 1)).float().to(nets.device)
    density = generator.query(planes.float(), both)[1] / generator.profile.density_gain
    return (density[:, :count] - density[:, count:]).abs().mean()


def _anchor(nets: _Networks, ws: Tensor, reals: Reals, rng: np.random.Generator) -> Tensor:
    """The supervised losses on one window of each picture."""
    generator = nets.generator
    assert reals.straight is not None
    assert reals.background is not None
    with torch.autocast(nets.device.type, torch.bfloat16, enabled=nets.config.bfloat16):
        planes = generator.planes(ws)
    windows = Windows.random(len(ws), generator.profile.neural_resolution, rng)
    cameras, _ = camera_from_label(reals.labels)
    patch = render_patch(generator, planes.float(), ws, cameras, windows, rng, bfloat16=nets.config.bfloat16)
    background = reals.background.expand(-1, -1, *reals.straight.shape[2:])
    terms = picture_losses(patch, reals.straight, background, windows, 0.4)
    return torch.stack([value.mean() for value in terms.values()]).sum()


def _blurred(images: Tensor, config: AdversarialConfig, step: int) -> Tensor:
    """Pictures through 2^-(i / sigma)^2, sigma falling to nothing over the fade; zeros beyond the edge, as in EG3D."""
    sigma = config.blur_sigma * (1 - _faded(step, config.blur_fade * config.steps))
    reach = math.floor(3 * sigma)
    if reach < 1:
        return images
    taps = torch.exp2(-((torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2))
    taps = (taps / taps.sum()).expand(images.shape[1], 1, 1, -1)
    across = F.conv2d(images, taps, padding=(0, reach), groups=images.shape[1])
    return F.conv2d(across, taps.mT, padding=(reach, 0), groups=images.shape[1])


def _raw_resolution(generator: Generator, config: AdversarialConfig, step: int) -> int:
    """Side of the raw pictures, growing from the first to the profile's in steps of four pixels."""
    end = generator.profile.neural_resolution
    start = config.start_resolution or end
    size = start + (end - start) * _faded(step, config.resolution_fade * config.steps)
    return end if size == end else int(size // 4 * 4)


def _faded(step: int, length: float) -> float:
    """0 at the beginning, 1 from `length` steps on."""
    return 1.0 if length <= 0 else min(1.0, step / length)


def _lazy_adam(module: torch.nn.Module, rate: float, every: int) -> torch.optim.Adam:
    """Adam whose rate and memory allow for a regulariser that comes in one of `every` steps, multiplied by `every`."""
    ratio = every / (every + 1)
    return torch.optim.Adam(module.parameters(), lr=rate * ratio, betas=(0.0, 0.99**ratio), eps=1e-8)


def _to(reals: Reals, device: torch.device) -> Reals:
    def move(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device)

    return Reals(
        reals.images.to(device), reals.labels.to(device), move(reals.background), move(reals.latents), move(reals.straight)
    )


@torch.no_grad()
def _sheet(average: Generator, source: RealSource) -> np.ndarray:
    """Eight real pictures, eight samples of the average generator from the same cameras."""
    rng = np.random.default_rng(5)
    device = next(average.parameters()).device
    reals = _to(source.draw(rng, 8, slice(0, 8)), device)
    latents = torch.from_numpy(rng.standard_normal((8, average.profile.z_dim))).float().to(device)
    cameras, intrinsics = camera_from_label(reals.labels)
    label = None if average.profile.c_dim == 0 else reals.labels
    image = average(average.map(latents, label, truncation=0.7), cameras, intrinsics).image
    if average.profile.alpha:
        assert reals.background is not None
        image = composite(image, reals.background.expand(-1, -1, *image.shape[2:]))
    return gallery(torch.cat([reals.images, image]).cpu(), columns=8)

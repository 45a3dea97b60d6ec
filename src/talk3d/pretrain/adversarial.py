"""The adversarial phase: EG3D's training of a generator against the dual discriminator (method 3.2).

It sharpens what the supervised phase blurs, and it trains on any data set in EG3D's layout. Fades are fractions of the
budget, so that a short run goes through the same stages as a long one. On heads, where a latent's true picture is known, the
supervised losses go on as an anchor.

Letters: B pictures of a step, S side of the finished pictures, R side of the raw ones.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..camera import Orbit, camera_from_label, camera_label
from ..errors import ConfigError
from ..losses import fooling, slope
from ..pictures import Image, as_image, in_rows, write_png
from ..prior.discriminator import DiscriminatorConfig, DualDiscriminator
from ..prior.generator import Generator, composite
from ..prior.patch import Windows, picture_losses, render_patch
from ..runs import Run, Workers, finish_gradients, follow, weights_digest
from .dataset import Batch, HeadShards
from .labelled import LabelledDataset


@dataclass(frozen=True)
class AdversarialConfig:
    """Settings of one adversarial run. Defaults suit a CPU; EG3D's are in brackets (`EG3D`)."""

    steps: int = 2000
    """Iterations: each takes one step of both networks, and now and then one more for a regulariser."""
    batch: int = 4
    """Pictures per step, of all processes together [32]."""
    generator_rate: float = 1e-3
    """Learning rate of the generator [0.0025]."""
    discriminator_rate: float = 2e-3
    """Learning rate of the discriminator [0.002]."""
    channel_base: int = 4096
    """Width of the discriminator [32768]: a wide one costs more than everything else together."""
    channel_max: int = 256
    """Most channels of a block of the discriminator [512]."""
    r1_weight: float = 5.0
    """Gamma of the R1 penalty [1 at batch 32; larger for small batches]."""
    r1_every: int = 16
    """Iterations from one R1 step to the next."""
    density_weight: float = 0.25
    """Of the difference in density between neighbouring points."""
    density_distance: float = 0.004
    """Standard deviation of the way between them, scene units."""
    density_points: int = 1000
    """Pairs of points per picture."""
    density_every: int = 4
    """Iterations from one density step to the next."""
    blur_sigma: float = 10.0
    """Pictures that the discriminator sees are blurred at first, pixels; 0 when training goes on from trained weights."""
    blur_fade: float = 0.1
    """Part of the steps over which the blur fades."""
    swap_start: float = 1.0
    """Probability that the mapping is told another picture's camera, at first; as `swap_end` from trained weights."""
    swap_end: float = 0.5
    """The same, in the end [0.5; 0.8 for rebalanced data]."""
    swap_fade: float = 0.1
    """Part of the steps between the two."""
    start_resolution: int | None = None
    """Raw resolution at the start; None for the profile's from the start [64, then 128]."""
    resolution_fade: float = 0.1
    """Part of the steps over which it grows."""
    anchor_weight: float = 1.0
    """Of the picture losses of the supervised phase, where true pictures of the latents are known."""
    structure_weight: float = 0.4
    """Of the perceptual distance among them."""
    ema: float = 0.05
    """Half-life of the averaged weights, as a part of the steps [10,000 pictures]."""
    bfloat16: bool = True
    """Convolutions in bfloat16; rendering stays in single precision."""
    seed: int = 0
    save_every: int = 100
    sample_every: int = 500
    tensorboard: bool = False

    def continued(self) -> AdversarialConfig:
        """The same from trained weights: what eases a fresh network in is left out (method 3.2)."""
        return dataclasses.replace(self, blur_sigma=0.0, swap_start=self.swap_end, start_resolution=None)


EG3D = AdversarialConfig(
    steps=780_000, batch=32, generator_rate=2.5e-3, channel_base=32768, channel_max=512, r1_weight=1.0, blur_fade=0.008,
    swap_fade=0.04, start_resolution=64, ema=0.0004, save_every=1000, sample_every=5000,
)  # fmt: skip
"""What EG3D trained FFHQ with, 25 million pictures, for several GPUs and days; but raw pictures grow to the profile's size in
the first tenth of this one run, where EG3D did all of it at 64 pixels and grew them in a second, shorter run."""


@dataclass(frozen=True)
class Reals:
    """B real pictures."""

    images: Float[Tensor, "batch 3 size size"]
    """-1..1, over the background."""
    labels: Float[Tensor, "batch 25"]
    neighbours: Float[Tensor, "batch 25"]
    """Labels of other pictures of the same batch."""
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
        indices = rng.integers(0, len(self.dataset), count)
        pictures, neighbours = self.dataset.get(indices[mine]), self.dataset.cameras(np.roll(indices, 1)[mine])
        return Reals(pictures.images, pictures.labels, neighbours, None, None, None)


@dataclass(frozen=True)
class HeadSource:
    """Rendered heads over plain backgrounds, each seen from one of its views."""

    shards: HeadShards
    orbit: Orbit

    def draw(self, rng: np.random.Generator, count: int, mine: slice) -> Reals:
        """`count` random heads, of which this process wants `mine`."""
        colours = torch.from_numpy(rng.uniform(-1, 1, (count, 3, 1, 1))).float()[mine]
        indices, views = self.shards.choose(rng, count, 1)
        batch = self.shards.get(indices[mine], views[mine])
        beside = self.shards.get(np.roll(indices, 1)[mine], np.roll(views, 1, 0)[mine])
        straight = batch.images[:, 0].float() / 127.5 - 1
        images = composite(straight, colours.expand(-1, -1, *straight.shape[2:]))
        return Reals(images, self._labels(batch), self._labels(beside), colours, batch.latents, straight)

    def _labels(self, batch: Batch) -> Tensor:
        cameras = self.orbit.pose(batch.yaw[:, 0], batch.pitch[:, 0])
        return camera_label(cameras, self.orbit.intrinsics().expand(len(cameras), 3, 3))


RealSource = LabelledSource | HeadSource


@dataclass(frozen=True)
class Draw:
    """All random numbers of one phase: drawn for the whole batch, then cut to this process's share."""

    latents: Float[Tensor, "batch z"]
    swapped: Bool[Tensor, "batch 1"]
    """Whose mapping is told the neighbour's camera."""
    points: Float[Tensor, "batch points 3"]
    """Where densities are compared, -0.5..0.5 of the box's side."""
    steps: Float[Tensor, "batch points 3"]
    """Unit normal; from there to the other point."""
    windows: Windows
    """For the anchor."""
    jitter: int
    """Seed of the samples along the rays and of the noise; another one in each process."""

    @classmethod
    def of(
        cls,
        rng: np.random.Generator,
        generator: Generator,
        config: AdversarialConfig,
        step: int,
        mine: slice,
        device: torch.device,
    ) -> Draw:
        """For one phase of a step; `mine` is this process's share of the batch."""
        profile, count, points = generator.profile, config.batch, config.density_points
        probability = config.swap_start + (config.swap_end - config.swap_start) * _faded(step, config.swap_fade * config.steps)
        latents = generator.random_latents(count, int(rng.integers(2**62)))
        swapped = rng.random((count, 1)) < probability
        places, steps = rng.uniform(-0.5, 0.5, (count, points, 3)), rng.standard_normal((count, points, 3))
        windows = Windows.random(count, profile.neural_resolution, rng)
        jitter = int(rng.integers(2**62)) + mine.start

        def give(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values[mine]).float().to(device)

        return cls(
            latents[mine],
            torch.from_numpy(swapped[mine]).to(device),
            give(places),
            give(steps),
            Windows(windows.top[mine], windows.left[mine], windows.side, windows.size),
            jitter,
        )


@dataclass(frozen=True)
class Fakes:
    """What the generator drew, and from what."""

    image: Float[Tensor, "batch 3 size size"]
    """Finished, over the background."""
    raw: Float[Tensor, "batch 3 small small"]
    """Raw, over the background."""
    ws: Float[Tensor, "batch layers w"]
    planes: Float[Tensor, "batch 3 channels height width"]


def check(config: AdversarialConfig, workers: Workers) -> None:
    """Refuse what cannot work, before any expensive work.

    Raises:
        ConfigError: no steps, a fade longer than the run, or a batch that the processes cannot share in twos at least.
    """
    if config.steps < 1:
        raise ConfigError(f"{config.steps} adversarial steps train nothing. Ask for at least one.")
    if max(config.blur_fade, config.swap_fade, config.resolution_fade) > 1:
        raise ConfigError("A fade is a part of the training steps: it must be at most 1.")
    mine = workers.share(config.batch)
    if mine.stop - mine.start < 2:
        raise ConfigError(
            f"A batch of {config.batch} for {workers.count} processes leaves one picture each, and the discriminator compares "
            "pictures of a batch. Use a larger batch or fewer processes."
        )


def train_adversarially(
    generator: Generator,
    source: RealSource,
    run: Path,
    config: AdversarialConfig,
    progress: Callable[[int, int, str], None],
    workers: Workers | None = None,
    data: str = "",
) -> Generator:
    """Train, or continue an interrupted run; returns the averaged generator. The given one is the starting point.

    Args:
        generator: where to start: fresh, or after the supervised phase.
        source: real pictures of the generator's size.
        run: folder for the training state, `log.jsonl` and sample sheets.
        config: settings.
        progress: called with (step, steps, one line of numbers).
        workers: the processes that train together; None for this one alone.
        data: what the pictures are; a run continues with the same ones only.

    Raises:
        ConfigError: see `check`.
        CheckpointError: the state in `run` belongs to other settings.
    """
    workers = workers or Workers()
    check(config, workers)
    profile, device = generator.profile, workers.device
    mine = workers.share(config.batch)
    torch.manual_seed(config.seed)
    discriminator = DualDiscriminator(
        DiscriminatorConfig(profile.image_resolution, 25, config.channel_base, config.channel_max)
    ).to(device)
    origin = {"profile": json.loads(profile.to_json()), "start": weights_digest(generator), "data": data}
    generator = copy.deepcopy(generator).to(device).train().requires_grad_(True)
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    optimizers = {
        "generator_optimizer": _lazy_adam(generator, config.generator_rate, config.density_every),
        "discriminator_optimizer": _lazy_adam(discriminator, config.discriminator_rate, config.r1_every),
    }
    modules = {"generator": generator, "average": average, "discriminator": discriminator}
    record = Run(run, config, modules, optimizers, workers, config.tensorboard, origin)

    def update(name: str, losses: Mapping[str, Tensor], entry: dict[str, float], factor: int = 1) -> None:
        """One optimiser step on the sum of losses."""
        optimizer = optimizers[f"{name}_optimizer"]
        optimizer.zero_grad(set_to_none=True)
        (factor * torch.stack(list(losses.values())).sum()).backward()
        finish_gradients(modules[name].parameters(), workers)
        optimizer.step()
        values = torch.stack([value.detach() for value in losses.values()])
        workers.mean([values])
        entry.update({term: round(float(value), 5) for term, value in zip(losses, values, strict=True)})

    for step in range(record.resume(), config.steps):
        began = time.monotonic()
        rng = np.random.default_rng([config.seed, step])
        entry: dict[str, float] = {}

        def draw(rng: np.random.Generator = rng, step: int = step) -> tuple[Reals, Draw]:
            reals = _to(source.draw(rng, config.batch, mine), device)
            return reals, Draw.of(rng, generator, config, step, mine, device)

        # EG3D's order: the generator, its regulariser, the discriminator, its regulariser; each a step of its own.
        discriminator.requires_grad_(False)
        reals, drawn = draw()
        anchored = reals.latents is not None and config.anchor_weight > 0 and rng.random() < 0.5
        update("generator", generator_losses(generator, discriminator, config, reals, drawn, step, anchored), entry)
        if step % config.density_every == 0:
            reals, drawn = draw()
            update("generator", {"density": density_loss(generator, config, reals, drawn)}, entry, config.density_every)
        discriminator.requires_grad_(True)
        reals, drawn = draw()
        with torch.no_grad():
            fakes = draw_fakes(generator, config, drawn.latents, reals, drawn, step)
            centre = fakes.ws[:, :1].mean(0, keepdim=True)
            workers.mean([centre])
            generator.backbone.mapping.track_average(centre)
        update("discriminator", discriminator_losses(discriminator, config, reals, fakes, step), entry)
        if step % config.r1_every == 0:
            update("discriminator", {"r1": r1_penalty(discriminator, config, reals, fakes, step)}, entry, config.r1_every)

        half_life = min(config.ema * config.steps, 0.05 * (step + 1))
        follow(average, generator, 0.5 ** (1 / max(half_life, 1e-3)))
        done = step + 1
        if workers.rank == 0 and (done % config.sample_every == 0 or done == config.steps):
            write_png(run / "samples.png", _sheet(average, source))
        record.log(done, entry | {"seconds": round(time.monotonic() - began, 3)})
        if done % config.save_every == 0 or done == config.steps:
            record.save(done)
        progress(done, config.steps, " ".join(f"{name} {value:.3f}" for name, value in entry.items()))
    return average


def generator_losses(
    generator: Generator,
    discriminator: DualDiscriminator,
    config: AdversarialConfig,
    reals: Reals,
    drawn: Draw,
    step: int,
    anchored: bool,
) -> dict[str, Tensor]:
    """Non-saturating logistic loss; from the reals' own latents also the distance to their pictures, if `anchored`."""
    latents = reals.latents if anchored and reals.latents is not None else drawn.latents
    fakes = draw_fakes(generator, config, latents, reals, drawn, step)
    terms = {"fooling": fooling(discriminator(blurred(fakes.image, config, step), fakes.raw, reals.labels)).mean()}
    if anchored:
        terms["anchor"] = config.anchor_weight * _anchor(generator, config, fakes, reals, drawn)
    return terms


def density_loss(generator: Generator, config: AdversarialConfig, reals: Reals, drawn: Draw) -> Tensor:
    """Mean absolute difference of raw density between points of the box and points close by.

    EG3D draws them from a cube of twice the box's side, so that seven in eight say nothing; here all lie inside.
    """
    _, planes = _planes(generator, config, drawn.latents, reals, drawn)
    points = drawn.points * generator.profile.render.box_warp
    both = torch.cat([points, points + config.density_distance * drawn.steps], 1)
    density = generator.query(planes, both)[1] / generator.profile.density_gain
    first, second = density.chunk(2, 1)
    return config.density_weight * (first - second).abs().mean()


def discriminator_losses(
    discriminator: DualDiscriminator, config: AdversarialConfig, reals: Reals, fakes: Fakes, step: int
) -> dict[str, Tensor]:
    """Logistic losses of fake and real pictures."""
    fake = discriminator(blurred(fakes.image, config, step), fakes.raw, reals.labels)
    real = discriminator(*_real_pair(config, reals, fakes, step), reals.labels)
    return {"fake": fooling(-fake).mean(), "real": fooling(real).mean()}


def r1_penalty(discriminator: DualDiscriminator, config: AdversarialConfig, reals: Reals, fakes: Fakes, step: int) -> Tensor:
    """Half gamma times the squared slope of the logits at real pictures, finished and raw (Mescheder et al. 2018)."""
    image, raw = (picture.detach().requires_grad_() for picture in _real_pair(config, reals, fakes, step))
    logits = discriminator(image, raw, reals.labels)
    return 0.5 * config.r1_weight * slope(logits, image, raw).mean()


def draw_fakes(generator: Generator, config: AdversarialConfig, latents: Tensor, reals: Reals, drawn: Draw, step: int) -> Fakes:
    """Pictures of latents, from the reals' cameras and over their backgrounds."""
    device = latents.device
    ws, planes = _planes(generator, config, latents, reals, drawn)
    cameras, intrinsics = camera_from_label(reals.labels)
    jitter = torch.Generator(device).manual_seed(drawn.jitter)
    resolution = raw_resolution(generator, config, step)
    seen = generator.render(planes, cameras, intrinsics, resolution, deterministic=False, generator=jitter)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
        image = generator.superresolve(seen.features, seen.rgb, seen.alpha, ws)
    image, raw = image.float(), seen.rgb
    if generator.profile.alpha:
        assert reals.background is not None, "a prior with alpha needs a background"
        image = composite(image, reals.background.expand(-1, -1, *image.shape[2:]))
        raw = torch.cat([raw, 2 * seen.alpha - 1], 1)
        raw = composite(raw, reals.background.expand(-1, -1, *raw.shape[2:]))
    return Fakes(image, raw, ws, planes)


def _planes(
    generator: Generator, config: AdversarialConfig, latents: Tensor, reals: Reals, drawn: Draw
) -> tuple[Tensor, Tensor]:
    """Styles and planes in single precision, with fresh noise where the backbone has any.

    The mapping is sometimes told a neighbour's camera, so that the face does not learn to turn with the camera.
    """
    told = torch.where(drawn.swapped, reals.neighbours, reals.labels) if generator.profile.c_dim > 0 else None
    noise = torch.Generator(latents.device).manual_seed(drawn.jitter + 1)
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=config.bfloat16):
        ws = generator.map(latents, told)
        planes = generator.planes(ws, "random" if generator.profile.noise_parameters else "none", generator=noise)
    return ws.float(), planes.float()


def _real_pair(config: AdversarialConfig, reals: Reals, fakes: Fakes, step: int) -> tuple[Tensor, Tensor]:
    """Real pictures as the discriminator sees them: finished, and as small as the raw fakes.

    EG3D blurs the real raw pictures but not the generator's own.
    """
    size = fakes.raw.shape[-2:]
    raw = F.interpolate(reals.images, size, mode="bilinear", align_corners=False, antialias=True)
    return blurred(reals.images, config, step), blurred(raw, config, step)


def _anchor(generator: Generator, config: AdversarialConfig, fakes: Fakes, reals: Reals, drawn: Draw) -> Tensor:
    """The supervised picture losses on one window of each picture."""
    assert reals.straight is not None
    assert reals.background is not None
    cameras, _ = camera_from_label(reals.labels)
    rng = np.random.default_rng(drawn.jitter)
    dtype = torch.bfloat16 if config.bfloat16 else torch.float32
    patch = render_patch(generator, fakes.planes, fakes.ws, cameras, drawn.windows, rng, dtype=dtype)
    background = reals.background.expand(-1, -1, *reals.straight.shape[2:])
    terms = picture_losses(patch, reals.straight, background, drawn.windows, config.structure_weight)
    return torch.stack([value.mean() for value in terms.values()]).sum()


def blurred(images: Tensor, config: AdversarialConfig, step: int) -> Tensor:
    """Pictures through 2^-(i / sigma)^2, sigma falling to nothing over the fade; zeros beyond the edge, as in EG3D."""
    sigma = config.blur_sigma * (1 - _faded(step, config.blur_fade * config.steps))
    reach = math.floor(3 * sigma)
    if reach < 1:
        return images
    taps = torch.exp2(-((torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2))
    taps = (taps / taps.sum()).expand(images.shape[1], 1, 1, -1)
    across = F.conv2d(images, taps, padding=(0, reach), groups=images.shape[1])
    return F.conv2d(across, taps.mT, padding=(reach, 0), groups=images.shape[1])


def raw_resolution(generator: Generator, config: AdversarialConfig, step: int) -> int:
    """Side of the raw pictures, growing from the first to the profile's in steps of four pixels."""
    end = generator.profile.neural_resolution
    start = config.start_resolution or end
    size = start + (end - start) * _faded(step, config.resolution_fade * config.steps)
    return end if size == end else int(size // 4 * 4)


def _faded(step: int, length: float) -> float:
    """0 at the beginning, 1 from `length` steps on."""
    return 1.0 if length <= 0 else min(1.0, step / length)


def _lazy_adam(module: torch.nn.Module, rate: float, every: int) -> torch.optim.Adam:
    """Adam whose rate and memory allow for the one more step that a regulariser takes in each `every` iterations."""
    ratio = every / (every + 1)
    return torch.optim.Adam(module.parameters(), lr=rate * ratio, betas=(0.0, 0.99**ratio), eps=1e-8)


def _to(reals: Reals, device: torch.device) -> Reals:
    def move(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device)

    return Reals(
        reals.images.to(device),
        reals.labels.to(device),
        reals.neighbours.to(device),
        move(reals.background),
        move(reals.latents),
        move(reals.straight),
    )


@torch.no_grad()
def _sheet(average: Generator, source: RealSource) -> Image:
    """Eight real pictures, eight samples of the average generator from the same cameras."""
    rng = np.random.default_rng(5)
    device = average.backbone.mapping.w_avg.device
    reals = _to(source.draw(rng, 8, slice(0, 8)), device)
    latents = average.random_latents(8, 5)
    cameras, intrinsics = camera_from_label(reals.labels)
    label = None if average.profile.c_dim == 0 else reals.labels
    image = average(average.map(latents, label, truncation=0.7), cameras, intrinsics).image
    if average.profile.alpha:
        assert reals.background is not None
        image = composite(image, reals.background.expand(-1, -1, *image.shape[2:]))
    return in_rows([as_image(picture) for picture in torch.cat([reals.images, image])], columns=8)

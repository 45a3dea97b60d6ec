"""Supervised training of a prior on rendered heads.

The latent *is* the head's own parameter vector, so nothing has to be inverted: the generator learns the function from
parameters to planes by comparing patches of its pictures with the renderer's, raw and super-resolved, with alpha and depth.

Letters: B heads, K views, N = B K pictures, P side of the ray patch, S side of its enlargement.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..heads.model import HeadPack
from ..losses import l1
from ..pictures import Image, as_image, in_rows, write_png
from ..prior.generator import Generator, Profile, composite
from ..prior.patch import Windows, picture_losses, render_patch
from ..runs import Run, Workers, finish_gradients, follow, warmed_cosine, weights_digest
from .dataset import HELD_OUT_SHARDS, Batch, HeadShards, ShardWriters, claim

WARM_UP = 100
"""Steps until the learning rate is full."""
FIRST_SHARDS = 4
"""Of heads to train on, before the first step."""


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of one training run."""

    steps: int = 6000
    """Optimiser steps in all; the learning rate falls to zero over them."""
    heads: int = 6
    """Heads per step."""
    views: int = 1
    """Views of each head per step."""
    learning_rate: float = 5e-3
    mapping_rate: float = 4.0
    """Factor on the learning rate of the mapping network, whose equalised layers otherwise move ten times too slowly."""
    superres_from: float = 0.25
    """Fraction of the steps after which super-resolution joins in."""
    depth_weight: float = 0.5
    structure_weight: float = 0.4
    ema_steps: float = 200.0
    """Half-life of the averaged weights, in steps; shorter near the start."""
    bfloat16: bool = True
    """Convolutions in bfloat16; rendering stays in single precision."""
    shards: int | None = None
    """Shards that are being rendered while training runs, the held-out ones included; None: what is there is all.

    Training begins with the first few and is given one more every `steps_per_shard`; it waits for a late one, so that a run
    depends on its seed alone, however fast the heads are drawn.
    """
    steps_per_shard: int = 20
    seed: int = 0
    save_every: int = 100
    sample_every: int = 500
    tensorboard: bool = False


def train_prior(
    pack: HeadPack,
    shards: Path,
    run: Path,
    profile: Profile,
    config: PretrainConfig,
    progress: Callable[[int, int, str], None],
    workers: Workers | None = None,
    start: Generator | None = None,
    writers: ShardWriters | None = None,
) -> Generator:
    """Train, or continue an interrupted run, and return the averaged generator.

    Args:
        pack: the head pack the shards were rendered from.
        shards: folder of rendered heads (`pretrain/dataset.py`).
        run: folder for the training state, `log.jsonl` and sample sheets.
        profile: sizes of the generator.
        progress: called with (step, steps, one line of numbers).
        workers: the processes that train together; None for this one alone.
        start: weights to start from instead of fresh ones.
        writers: who draws the shards that are not there yet.

    Raises:
        ConfigError: there are no shards, nobody draws them any more, or a batch that the processes cannot share.
        CheckpointError: the state in `run` belongs to other settings.
    """
    workers = workers or Workers()
    workers.share(config.heads)
    if workers.rank == 0:
        claim(shards, pack, profile.orbit)
    data = HeadShards(shards, pack, below=None if config.shards is None else 0)
    if config.shards is None and not len(data):
        raise ConfigError(f"No rendered heads in `{shards}`: render some first.")
    torch.manual_seed(config.seed)
    generator = copy.deepcopy(start) if start else _fresh(profile)
    origin = {"profile": json.loads(profile.to_json()), "start": weights_digest(start) if start else None}
    generator = generator.to(workers.device).train().requires_grad_(True)
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    mapping = list(generator.backbone.mapping.parameters())
    others = [*generator.backbone.synthesis.parameters(), *generator.decoder.parameters()]
    others += generator.superresolution.parameters()
    optimizer = torch.optim.Adam([{"params": others}, {"params": mapping}], betas=(0.9, 0.99))
    modules = {"generator": generator, "average": average}
    record = Run(run, config, modules, {"optimizer": optimizer}, workers, config.tensorboard, origin)
    for step in range(record.resume(), config.steps):
        began = time.monotonic()
        _wait_for_heads(data, step, config, writers, workers.rank == 0)
        rate = config.learning_rate * warmed_cosine(step, config.steps, WARM_UP)
        for group, factor in zip(optimizer.param_groups, (1.0, config.mapping_rate), strict=True):
            group["lr"] = rate * factor
        rng = np.random.default_rng([config.seed, step])
        terms = _losses(generator, data, config, rng, workers, superres=step >= config.superres_from * config.steps)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        finish_gradients(generator.parameters(), workers)
        optimizer.step()
        follow(average, generator, 0.5 ** (1 / min(config.ema_steps, max(1.0, 0.05 * step))))

        done = step + 1
        losses = torch.stack([value.detach() for value in terms.values()])
        workers.mean([losses])
        entry = {name: round(float(value), 5) for name, value in zip(terms, losses, strict=True)}
        text = " ".join(f"{name} {value:.3f}" for name, value in entry.items())
        entry |= {"seconds": round(time.monotonic() - began, 3), "heads": len(data)}
        if workers.rank == 0 and (done % config.sample_every == 0 or done == config.steps):
            held_out = HeadShards(shards, pack, held_out=True)
            scores = evaluate_heads(average, held_out, heads=16)
            entry |= {name: round(value, 3) for name, value in scores.items()}
            write_png(run / "samples.png", sample_sheet(average, held_out))
        record.log(done, entry)
        if done % config.save_every == 0 or done == config.steps:
            record.save(done)
        progress(done, config.steps, text)
    return average


def _fresh(profile: Profile) -> Generator:
    """A new generator whose styles start close to one.

    Usual random styles are a wild function of the latent, which suits sampling; a regression learns from there ten times
    more slowly than from a function that is nearly linear.
    """
    generator = Generator(profile)
    with torch.no_grad():
        for name, parameter in generator.backbone.synthesis.named_parameters():
            if name.endswith("affine.weight"):
                parameter.mul_(0.1)
    return generator


def shards_at(step: int, config: PretrainConfig) -> int:
    """How many shards, the held-out ones included, a step of a run that draws its heads itself may look at."""
    return min(config.shards or 0, HELD_OUT_SHARDS + FIRST_SHARDS + step // config.steps_per_shard)


def _wait_for_heads(data: HeadShards, step: int, config: PretrainConfig, writers: ShardWriters | None, first: bool) -> None:
    """Make sure that the shards which this step may draw from are there, and no others are looked at."""
    if config.shards is None:
        if step % 50 == 0:
            data.refresh()
        return
    wanted = shards_at(step, config)
    while data.shards < wanted - HELD_OUT_SHARDS:
        at_work = writers is not None and writers.at_work()
        data.refresh(below=wanted)
        # Only the first process of several draws heads, and torchrun ends all when it fails.
        if first and not at_work and data.shards < wanted - HELD_OUT_SHARDS:
            raise ConfigError(
                f"Training needs {wanted} shards of rendered heads in `{data.root}`, and no process draws the missing ones. "
                "If one failed, its error stands above: mend that and run the same command again."
            )
        time.sleep(0.1)


def _losses(
    generator: Generator,
    data: HeadShards,
    config: PretrainConfig,
    rng: np.random.Generator,
    workers: Workers,
    superres: bool,
) -> dict[str, Tensor]:
    profile, device = generator.profile, workers.device
    views = config.views
    # Everything random is drawn for the whole batch, so that several processes see together what one would see alone.
    mine = workers.share(config.heads)
    heads, seen = data.choose(rng, config.heads, views)
    count = config.heads * views
    everywhere = Windows.random(count, profile.neural_resolution, rng)
    colours = rng.uniform(-1, 1, (config.heads, views, 3))[mine].reshape(-1, 3, 1, 1)

    batch = data.get(heads[mine], seen[mine])
    pictures = slice(mine.start * views, mine.stop * views)
    windows = everywhere[pictures]
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
        ws = generator.map(batch.latents.to(device))
        planes = generator.planes(ws)
    centre = ws.detach().float()[:, :1].mean(0, keepdim=True)
    workers.mean([centre])
    generator.backbone.mapping.track_average(centre)
    planes = planes.float().repeat_interleave(views, 0)
    ws = ws.float().repeat_interleave(views, 0)

    images = batch.images.flatten(0, 1).to(device).float() / 127.5 - 1  # [N, 4, H, H]
    cameras = profile.orbit.pose(batch.yaw.flatten(), batch.pitch.flatten()).to(device)
    patch = render_patch(
        generator, planes, ws, cameras, windows, rng,
        superres=superres, dtype=torch.bfloat16 if config.bfloat16 else torch.float32, batch=count, first=pictures.start,
    )  # fmt: skip
    # A new plain background for every picture, so that nothing can hide by floating in front of a known one.
    background = torch.from_numpy(colours).float().to(device).expand(-1, -1, *images.shape[2:])
    terms = picture_losses(patch, images, background, windows, config.structure_weight)
    true_depth = windows.cut(batch.depth.flatten(0, 1)[:, None].to(device))
    covered = torch.isfinite(true_depth)
    terms["depth"] = config.depth_weight * l1(patch.depth, torch.where(covered, true_depth, 0.0), covered.float())
    return {name: value.mean() for name, value in terms.items()}


@torch.no_grad()
def evaluate_heads(generator: Generator, data: HeadShards, heads: int) -> dict[str, float]:
    """Mean PSNR (dB) over unseen heads drawn from their true latents, all views, raw and final, over mid grey."""
    generator.eval()
    scores: dict[str, list[float]] = {"psnr_raw": [], "psnr_final": [], "depth_error": []}
    for _, batch in zip(range(heads), data, strict=False):
        raw, final = _draw(generator, batch)
        truth = batch.images.flatten(0, 1).float() / 127.5 - 1
        small = F.avg_pool2d(truth, truth.shape[-1] // raw.shape[-1])
        grey = torch.zeros(len(truth), 3, 1, 1)
        for name, x, y in (("psnr_raw", raw[:, :4], small), ("psnr_final", final, truth)):
            background = grey.expand(-1, -1, *x.shape[2:])
            error = (composite(x, background).clamp(-1, 1) - composite(y, background)).square().mean((1, 2, 3))
            scores[name] += (10 * torch.log10(4 / error)).tolist()
        true_depth = batch.depth.flatten(0, 1)[:, None]
        covered = torch.isfinite(true_depth)
        scores["depth_error"].append(float((raw[:, 4:] - true_depth)[covered].abs().mean()))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _draw(generator: Generator, batch: Batch) -> tuple[Tensor, Tensor]:
    """Raw pictures with alpha and depth [N, 5, *, *], and final ones, on the CPU whatever the generator runs on."""
    profile, device = generator.profile, generator.backbone.mapping.w_avg.device
    views = batch.yaw.shape[1]
    ws = generator.map(batch.latents.to(device)).repeat_interleave(views, 0)
    planes = generator.planes(ws[::views]).repeat_interleave(views, 0)
    cameras = profile.orbit.pose(batch.yaw.flatten(), batch.pitch.flatten()).to(device)
    intrinsics = profile.orbit.intrinsics().to(device).expand(len(cameras), 3, 3)
    raw = generator.render(planes, cameras, intrinsics, deterministic=True)
    final = generator.superresolve(raw.features, raw.rgb, raw.alpha, ws)
    return torch.cat([raw.rgb, 2 * raw.alpha - 1, raw.depth], 1).cpu(), final.cpu()


@torch.no_grad()
def sample_sheet(generator: Generator, data: HeadShards, heads: int = 6) -> Image:
    """Unseen heads, four views each: the truth in one row, ours from the true latent in the next."""
    rows = []
    for _, batch in zip(range(heads), data, strict=False):
        truth = batch.images.flatten(0, 1).float() / 127.5 - 1
        background = torch.full((len(truth), 3, *truth.shape[2:]), 0.2)
        rows += [composite(truth, background), composite(_draw(generator, batch)[1], background)]
    return in_rows([as_image(picture) for picture in torch.cat(rows)], columns=len(rows[0]))

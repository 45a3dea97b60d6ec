"""Supervised training of a prior on rendered heads.

The latent *is* the head's own parameter vector, so nothing has to be inverted: the generator learns the function from
parameters to planes by comparing patches of its pictures with the renderer's, raw and super-resolved, with alpha and depth.

Letters: B heads, K views, N = B K pictures, P side of the ray patch, S side of its enlargement.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..artifacts import load_state, optimizer_tensors, restore_optimizer, save_state
from ..errors import CheckpointError, ConfigError
from ..heads.model import HeadEmbedding, HeadPack
from ..prior.generator import MINI, Generator, Profile, composite, save_prior
from ..prior.patch import Windows, picture_losses, render_patch
from .canonical import measure_canonical
from .dataset import HELD_OUT_SHARDS, Batch, HeadShards, gallery, render_shard, save_png

STATE = "training.safetensors"


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
    seed: int = 0
    save_every: int = 100
    sample_every: int = 500


def train_prior(
    pack: HeadPack,
    shards: Path,
    run: Path,
    profile: Profile,
    config: PretrainConfig,
    progress: Callable[[int, int, str], None],
) -> Generator:
    """Train, or continue an interrupted run, and return the averaged generator.

    Args:
        pack: the head pack the shards were rendered from.
        shards: folder of rendered heads (`pretrain/dataset.py`).
        run: folder for the training state, `log.jsonl` and sample sheets.
        profile: sizes of the generator.
        progress: called with (step, steps, one line of numbers).

    Raises:
        ConfigError: there are no shards.
        CheckpointError: the state in `run` belongs to other settings.
    """
    data, held_out = HeadShards(shards, pack), HeadShards(shards, pack, held_out=True)
    if not len(data):
        raise ConfigError(f"No rendered heads in `{shards}`: render some first.")
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    generator = _fresh(profile)
    average = Generator(profile).eval().requires_grad_(False)
    average.load_state_dict(generator.state_dict())
    mapping = list(generator.backbone.mapping.parameters())
    others = [*generator.backbone.synthesis.parameters(), *generator.decoder.parameters()]
    others += generator.superresolution.parameters()
    optimizer = torch.optim.Adam([{"params": others}, {"params": mapping}], betas=(0.9, 0.99))
    start = _resume(run, generator, average, optimizer, config)

    for step in range(start, config.steps):
        began = time.monotonic()
        if step % 50 == 0:
            data.refresh()
        rate = config.learning_rate * _schedule(step, config.steps)
        for group, factor in zip(optimizer.param_groups, (1.0, config.mapping_rate), strict=True):
            group["lr"] = rate * factor
        rng = np.random.default_rng([config.seed, step])
        batch = data.random(rng, config.heads, config.views)
        terms = _losses(generator, batch, config, rng, superres=step >= config.superres_from * config.steps)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        for parameter in generator.parameters():
            if parameter.grad is not None:
                # One bad ray must not end a run of hours (method: NaN to 0, infinities to 1e5).
                torch.nan_to_num(parameter.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        optimizer.step()
        _average(average, generator, step, config)

        done = step + 1
        entry = {name: round(float(value.detach()), 5) for name, value in terms.items()}
        entry |= {"step": done, "seconds": round(time.monotonic() - began, 3), "heads": len(data)}
        if done % config.sample_every == 0 or done == config.steps:
            scores = evaluate_heads(average, held_out, heads=16)
            entry |= {name: round(value, 3) for name, value in scores.items()}
            save_png(run / "samples.png", sample_sheet(average, held_out))
        with (run / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")
        if done % config.save_every == 0 or done == config.steps:
            tensors = {f"generator.{k}": v for k, v in generator.state_dict().items()}
            tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
            tensors |= optimizer_tensors(optimizer, "optimizer")
            save_state(run / STATE, tensors, {"step": done, "config": dataclasses.asdict(config)})
        progress(done, config.steps, " ".join(f"{name} {value:.3f}" for name, value in terms.items()))
    return average


def make_prior(
    pack: HeadPack,
    output: Path,
    work: Path,
    shards: int,
    config: PretrainConfig,
    progress: Callable[[str, float], None],
    overwrite: bool,
) -> None:
    """The story of `talk3d prior train`: render heads, train on them, measure canonical landmarks, write the Prior.

    Args:
        pack: the head model.
        output: folder of the Prior.
        work: folder for rendered heads and the training state; both are continued.
        shards: how many shards to render.
        config: settings of the training.
        progress: called with (stage, part done 0..1).
        overwrite: replace an existing Prior.

    Raises:
        ConfigError: too few shards to train on.
    """
    if shards <= HELD_OUT_SHARDS:
        raise ConfigError(
            f"{shards} shards were asked for, but the first {HELD_OUT_SHARDS} are held out for scoring. Render more of them."
        )
    for number in range(shards):
        render_shard(work / "shards", number, pack, MINI.orbit)
        progress("rendering heads", (number + 1) / shards)
    generator = train_prior(
        pack, work / "shards", work / "run", MINI, config, lambda step, steps, _: progress("training", step / steps)
    )
    expressions = {name: torch.from_numpy(direction) for name, direction in HeadEmbedding(pack).expressions().items()}
    save_prior(
        output,
        generator,
        measure_canonical(generator),
        expressions=expressions,
        half=True,
        licence="Apache-2.0",
        overwrite=overwrite,
    )


def load_average(run: Path, profile: Profile) -> Generator:
    """The averaged generator of a run, finished or not."""
    tensors, _ = load_state(run / STATE)
    generator = Generator(profile).eval().requires_grad_(False)
    generator.load_state_dict({k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")})
    return generator


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


def _losses(
    generator: Generator, batch: Batch, config: PretrainConfig, rng: np.random.Generator, superres: bool
) -> dict[str, Tensor]:
    profile = generator.profile
    views = config.views
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
        ws = generator.map(batch.latents)
        planes = generator.planes(ws)
    if rng.random() < 0.5:
        generator.backbone.mapping.track_average(ws.detach().float())
    planes = planes.float().repeat_interleave(views, 0)
    ws = ws.float().repeat_interleave(views, 0)

    images = batch.images.flatten(0, 1).float() / 127.5 - 1  # [N, 4, H, H]
    windows = Windows.random(len(images), profile.neural_resolution, rng)
    cameras = profile.orbit.pose(batch.yaw.flatten(), batch.pitch.flatten())
    patch = render_patch(generator, planes, ws, cameras, windows, rng, superres=superres, bfloat16=config.bfloat16)
    # A new plain background for every picture, so that nothing can hide by floating in front of a known one.
    colour = torch.from_numpy(rng.uniform(-1, 1, (len(images), 3, 1, 1))).float()
    background = colour.expand(-1, -1, *images.shape[2:])
    terms = picture_losses(patch, images, background, windows, config.structure_weight)
    true_depth = windows.cut(batch.depth.flatten(0, 1)[:, None])
    covered = torch.isfinite(true_depth)
    depth_error = torch.where(covered, patch.depth - torch.where(covered, true_depth, 0.0), 0.0).abs()
    return {name: value.mean() for name, value in terms.items()} | {
        "depth": config.depth_weight * depth_error.sum() / covered.sum().clamp(min=1)
    }


def _schedule(step: int, steps: int) -> float:
    """Short warm-up, then a cosine to zero."""
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def _average(average: Generator, generator: Generator, step: int, config: PretrainConfig) -> None:
    decay = 0.5 ** (1 / min(config.ema_steps, max(1.0, 0.05 * step)))
    for target, source in zip(average.parameters(), generator.parameters(), strict=True):
        target.lerp_(source, 1 - decay)
    for kept, current in zip(average.buffers(), generator.buffers(), strict=True):
        kept.copy_(current)


def _resume(
    run: Path, generator: Generator, average: Generator, optimizer: torch.optim.Optimizer, config: PretrainConfig
) -> int:
    if not (run / STATE).exists():
        return 0
    tensors, state = load_state(run / STATE)
    if state["config"] != dataclasses.asdict(config):
        raise CheckpointError(
            f"The run in `{run}` was started with other settings ({state['config']}). "
            "Continue with the same ones, or train into another folder."
        )
    for name, module in (("generator.", generator), ("average.", average)):
        module.load_state_dict({k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)})
    restore_optimizer(optimizer, tensors, "optimizer")
    return int(state["step"])


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
    profile = generator.profile
    views = batch.yaw.shape[1]
    ws = generator.map(batch.latents).repeat_interleave(views, 0)
    planes = generator.planes(ws[::views]).repeat_interleave(views, 0)
    cameras = profile.orbit.pose(batch.yaw.flatten(), batch.pitch.flatten())
    raw = generator.render(planes, cameras, profile.orbit.intrinsics().expand(len(cameras), 3, 3), deterministic=True)
    final = generator.superresolve(raw.features, raw.rgb, raw.alpha, ws)
    return torch.cat([raw.rgb, 2 * raw.alpha - 1, raw.depth], 1), final


@torch.no_grad()
def sample_sheet(generator: Generator, data: HeadShards, heads: int = 6) -> np.ndarray:
    """Unseen heads, four views each: the truth in one row, ours from the true latent in the next."""
    rows = []
    for _, batch in zip(range(heads), data, strict=False):
        truth = batch.images.flatten(0, 1).float() / 127.5 - 1
        background = torch.full((len(truth), 3, *truth.shape[2:]), 0.2)
        rows += [composite(truth, background), composite(_draw(generator, batch)[1], background)]
    return gallery(torch.cat(rows), columns=rows[0].shape[0])

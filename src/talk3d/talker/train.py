"""Training the talker: sound and the other conditions to the delta planes that make the person's frames.

First the audio encoder alone learns to hear lip shapes (seconds), then everything learns together through the renderer,
super-resolution included (method, stage 2b).

Letters: B frames per step, F frames of the capture, S side of the frames.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..artifacts import load_state, optimizer_tensors, restore_optimizer, save_state
from ..capture.build import Capture
from ..capture.frames import PersonFrames
from ..errors import CheckpointError
from ..prior.generator import Generator
from ..prior.patch import render_patch
from ..prior.subject import Subject
from .audio import AudioConfig
from .clip import audio_neighbourhood, training_conditions
from .delta import DeltaConfig, DeltaNetwork
from .gaze import Gaze, draw_outlines, lip_outlines
from .listen import closed_frames, learn_to_listen, lip_shapes, listening_parameters, vary
from .modes import EXPRESSIONS
from .objective import LossWeights, Step, weighted_losses
from .tokens import TokenConfig
from .unet import UNetConfig

STATE = "training.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the talker's training."""

    steps: int | None = None
    """Stop after so many steps..."""
    minutes: float | None = 15.0
    """...or after so many minutes of training time, whichever comes first."""
    frames_per_step: int = 4
    learning_rate: float = 2e-3
    constant_learning_rate: float = 1e-2
    """Of the part of the delta planes that is the same for all frames."""
    modes_learning_rate: float = 5e-4
    """Of the expressions' delta planes, which start close to right."""
    superres_from: float = 0.0
    """Part of the training after which super-resolution is tuned along."""
    superres_learning_rate: float = 2e-3
    listen_steps: int = 400
    """Steps in which the audio encoder learns lip shapes by itself."""
    silence: float = 0.1
    """Part of the frames with closed lips that are shown with pure silence, so that silence closes the mouth."""
    weights: LossWeights = field(default_factory=LossWeights)
    audio: AudioConfig = field(default_factory=AudioConfig)
    tokens: TokenConfig = field(default_factory=TokenConfig)
    seed: int = 0
    save_seconds: float = 30.0


@dataclass(frozen=True)
class Talker:
    """What is trained, and the constants it relies on."""

    network: DeltaNetwork
    generator: Generator
    """Frozen but for its super-resolution."""
    landmark_scale: Float[Tensor, "2 4"]
    """Mean and deviation of the landmark token over the training frames."""


def run_folder(output: Path) -> Path:
    """Where the unfinished training of an avatar lives: beside it."""
    return output.with_name(output.name + ".training")


def finish_run(run: Path) -> None:
    """Keep the log of a finished training, drop its state and decoded frames."""
    shutil.rmtree(run / "frames", ignore_errors=True)
    (run / STATE).unlink(missing_ok=True)


def train_talker(
    subject: Subject,
    capture: Capture,
    run: Path,
    config: TrainConfig,
    progress: Callable[[float, str], None],
) -> Talker:
    """Train, or continue an interrupted run.

    Args:
        subject: the personalised prior.
        capture: the capture it was made from; only its training frames are read.
        run: folder for the training state and `log.jsonl`; the same call continues from there.
        progress: called with (part done 0..1, a line of numbers).

    Raises:
        CheckpointError: the state in `run` belongs to other settings or another subject.
    """
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    start, stop = capture.train
    conditions, landmark_scale = training_conditions(capture, subject, config.audio)
    frames = PersonFrames.cached(capture, run / "frames", start, stop)
    profile = subject.generator.profile
    closed_shape, shapes = lip_shapes(capture, config.tokens.lip_shapes)

    generator = copy.deepcopy(subject.generator).eval().requires_grad_(False)
    network = _new_network(subject, config)
    encoder, unet = network.encoder, network.unet
    talker = Talker(network, generator, landmark_scale)
    superres = list(generator.superresolution.parameters())
    special = {"constant": [unet.constant], "modes": [network.modes.planes], "listening": listening_parameters(encoder)}
    groups = {"network": _all_but(network, special), "superresolution": superres, **special}
    optimizer = torch.optim.Adam([{"params": group, "name": name} for name, group in groups.items()], betas=(0.9, 0.99))
    identity = {"subject": subject.hash, "config": _comparable(config)}
    fresh = not (run / STATE).exists()
    step, elapsed = _resume(run, talker, optimizer, identity)
    if fresh:
        learn_to_listen(
            encoder, conditions.audio, shapes, closed_shape, config.audio, config.listen_steps, config.seed, progress
        )

    planes = subject.planes
    ws = subject.ws
    gaze_at = Gaze.of(capture)
    outlines = lip_outlines(capture)[start:stop]
    closed = torch.from_numpy(closed_frames(capture))
    saved = time.monotonic()
    while True:
        part = _part_done(step, elapsed, config)
        if part >= 1:
            break
        began = time.monotonic()
        rng = np.random.default_rng([config.seed, 3, step])
        tuning = part >= config.superres_from
        rates = {
            "network": config.learning_rate * min(1.0, (step + 1) / 50),
            "constant": config.constant_learning_rate,
            "modes": config.modes_learning_rate,
            # The encoder can already hear; at full speed the still wandering network would make it forget.
            "listening": 0.1 * config.learning_rate * min(1.0, (step + 1) / 50),
            "superresolution": config.superres_learning_rate if tuning else 0.0,
        }
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]] * _fall(part)
        for parameter in superres:
            parameter.requires_grad_(tuning)

        index, windows = gaze_at.choose(config.frames_per_step, profile.neural_resolution, rng)
        where = torch.from_numpy(index)
        silent = closed[where] & torch.from_numpy(rng.random(len(index)) < config.silence)
        sound = vary(audio_neighbourhood(conditions.audio, where, config.tokens.windows), config.audio, rng)
        codes = encoder.hear(torch.where(silent[:, None, None, None], -1.0, sound))
        delta = network(unet.trunk(planes), conditions.at(where, codes))
        cameras = profile.orbit.pose(conditions.yaw[where], conditions.pitch[where])
        patch = render_patch(generator, planes + delta, ws.expand(len(index), -1, -1), cameras, windows, rng)
        views = frames.views(start + index)
        mouth = draw_outlines(outlines[index], views.target.shape[-1])
        made = Step(patch, windows, views, mouth, delta / unet.scale, encoder.lips(codes), shapes[where])
        losses = weighted_losses(made, config.weights)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(groups["network"], 1.0)
        optimizer.step()
        step += 1
        elapsed += time.monotonic() - began
        numbers = {name: round(float(value.detach()), 5) for name, value in losses.items()}
        with (run / LOG).open("a") as log:
            log.write(json.dumps(numbers | {"step": step, "seconds": round(elapsed, 2)}) + "\n")
        if time.monotonic() - saved > config.save_seconds:
            _save(run, talker, optimizer, identity, step, elapsed)
            saved = time.monotonic()
        progress(min(1.0, _part_done(step, elapsed, config)), f"step {step} loss {float(total.detach()):.3f}")
    _save(run, talker, optimizer, identity, step, elapsed)
    return talker


def _new_network(subject: Subject, config: TrainConfig) -> DeltaNetwork:
    """Before training: the delta planes of every sound are zero."""
    profile = subject.generator.profile
    unet = UNetConfig(
        plane_channels=profile.plane_channels, plane_size=profile.plane_resolution, token_width=config.tokens.width
    )
    known = tuple(name for name in EXPRESSIONS if name in subject.expressions)
    network = DeltaNetwork(DeltaConfig(config.audio, config.tokens, unet, known))
    network.unet.scale.copy_(subject.planes.std())
    network.modes.start_from(subject.generator, subject.ws, subject.expressions, network.unet.scale)
    # Only while the encoder learns to listen is anything dropped.
    return network.eval()


def _all_but(module: torch.nn.Module, groups: dict[str, list[torch.nn.Parameter]]) -> list[torch.nn.Parameter]:
    known = {id(parameter) for group in groups.values() for parameter in group}
    return [parameter for parameter in module.parameters() if id(parameter) not in known]


# ------------------------------------------------------------------------------------------------------------- state


def _part_done(step: int, elapsed: float, config: TrainConfig) -> float:
    parts = [0.0]
    if config.steps is not None:
        parts.append(step / config.steps)
    if config.minutes is not None:
        parts.append(elapsed / (60 * config.minutes))
    return max(parts)


def _fall(part: float) -> float:
    """Constant for the first half, then a cosine to a twentieth."""
    return 1.0 if part < 0.5 else 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (2 * part - 1)))


def _comparable(config: TrainConfig) -> dict:
    """The settings that a continued run must share; how long it lasts may change."""
    fields = dataclasses.asdict(config)
    for name in ("steps", "minutes", "save_seconds"):
        del fields[name]
    return fields


def _modules(talker: Talker) -> dict[str, torch.nn.Module]:
    return {"network": talker.network, "superresolution": talker.generator.superresolution}


def _save(run: Path, talker: Talker, optimizer: torch.optim.Optimizer, identity: dict, step: int, elapsed: float) -> None:
    tensors = {f"{name}.{k}": v for name, module in _modules(talker).items() for k, v in module.state_dict().items()}
    tensors |= optimizer_tensors(optimizer, "optimizer")
    save_state(run / STATE, tensors, identity | {"step": step, "elapsed": elapsed})


def _resume(run: Path, talker: Talker, optimizer: torch.optim.Optimizer, identity: dict) -> tuple[int, float]:
    if not (run / STATE).exists():
        return 0, 0.0
    tensors, state = load_state(run / STATE)
    if state["subject"] != identity["subject"] or state["config"] != identity["config"]:
        raise CheckpointError(
            f"The unfinished training in `{run}` was started with another subject or other settings. "
            "Continue with the same ones, or delete that folder to start afresh."
        )
    for name, module in _modules(talker).items():
        prefix = name + "."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    restore_optimizer(optimizer, tensors, "optimizer")
    return int(state["step"]), float(state["elapsed"])

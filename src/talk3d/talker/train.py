"""Training the talker: sound and the other conditions to the delta planes that make the person's frames.

First the audio encoder alone learns to hear lip shapes (seconds), then everything learns together through the renderer,
super-resolution included (method, stage 2b). Meanwhile `preview.png` in the run's folder shows how far it is. What comes out is
averaged weights; of a long film, at the moment when they did best on a stretch that nothing was learnt from (`validate.py`).

Letters: B frames per step, F frames of the training part, S side of the frames.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from ..capture.build import Capture
from ..capture.frames import PersonFrames, spread_frames
from ..errors import ConfigError
from ..judges.sync import lips_in_face
from ..prior.patch import render_patch
from ..prior.subject import Subject
from ..runs import STATE, Every, Run, Workers, finish_gradients, follow
from .audio import SAMPLES_PER_FRAME, AudioConfig
from .clip import CameraCorrections, audio_neighbourhood, training_conditions
from .delta import DeltaConfig, DeltaNetwork
from .draw import Talker, draw_frames
from .gaze import Gaze, draw_outlines, lip_outlines
from .listen import closed_frames, learn_to_listen, listening_parameters, vary
from .modes import EXPRESSIONS
from .objective import LossWeights, Objective, Step
from .preview import Preview
from .reader import LipSpace, SyncJudge, filmed_mouths, learn_to_read
from .tokens import TokenConfig
from .unet import Convolution, RollOut, UNetConfig
from .validate import Validation, held_out, is_due, spread_over

PREVIEW = "preview.png"
HARMLESS = frozenset({"steps", "minutes", "save_seconds", "preview_seconds"})
"""How long a training lasts may change when it is continued, and what no weight depends on."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the talker's training."""

    steps: int | None = None
    """Stop after so many steps..."""
    minutes: float | None = 15.0
    """...or after so many minutes of training, whichever comes first. Learning rates follow the clock then, so that another
    run, or one that was interrupted, comes out alike but not bit for bit, as it does with `steps` (on a CPU)."""
    frames_per_step: int = 4
    learning_rate: float = 2e-3
    """Of what encodes tokens, and of what says how much of each expression they play."""
    unet_learning_rate: float = 5e-4
    """Of the U-Net but for its constant part: at four times that rate it learns to say nothing."""
    constant_learning_rate: float = 1e-2
    """Of the part of the delta planes that is the same for all frames."""
    modes_learning_rate: float = 5e-4
    """Of the expressions' delta planes, which start close to right."""
    superres_from: float = 0.0
    """Part of the training after which super-resolution is tuned along."""
    superres_learning_rate: float = 2e-3
    camera_learning_rate: float = 3e-4
    """Of the corrections to each frame's yaw and pitch, radians; 0 leaves the cameras as they are."""
    discriminator_learning_rate: float = 2e-3
    read_steps: int = 200
    """Steps in which a reader of drawn lips learns this mouth, if a loss needs one."""
    told: float = 0.7
    """Part of the frames whose true lip shape is told beside their sound; see `TokenEncoder.tell`."""
    listen_steps: int = 400
    """Steps in which the audio encoder learns lip shapes by itself."""
    ema_half_life: float = 50.0
    """Of the averaged weights that are validated, shown and kept, in steps; a twentieth of the steps done while that is less.
    0 for the trained weights themselves."""
    validation: float = 0.08
    """The last eight seconds of the training part are held out, to find the best state by, if that is at most this part of it:
    of clips of 100 seconds and more. 0 to learn from all frames of any clip, and keep the last state."""
    bfloat16: bool = False
    """U-Net and super-resolution in bfloat16: faster where the processor knows it."""
    cache_gigabytes: float = 2.0
    """Disk for decoded frames while training runs; of a film that needs more, evenly spread frames are learnt from."""
    strange_sound: float = 1.0
    """Part of the windows above the mouth that are shown with the sound of another moment, so that eyes do not follow it."""
    silence: float = 0.1
    """Part of the frames with closed lips that are shown with pure silence, so that silence closes the mouth."""
    weights: LossWeights = field(default_factory=LossWeights)
    audio: AudioConfig = field(default_factory=AudioConfig)
    tokens: TokenConfig = field(default_factory=TokenConfig)
    rollout: RollOut = "aligned"
    """What planes see of each other in the U-Net."""
    convolution: Convolution = "split"
    """Whether each plane has convolutions of its own in the U-Net, or one runs over all planes at once."""
    seed: int = 0
    save_seconds: float = 30.0
    """From one saved state to the next: what a killed training has to repeat at most."""
    preview_seconds: float = 60.0
    """From one sheet to the next."""


def run_folder(output: Path) -> Path:
    """Where the unfinished training of an avatar lives: beside it."""
    return output.with_name(output.name + ".training")


def finish_run(run: Path) -> None:
    """Keep the log and the preview of a finished training, drop its state and decoded frames."""
    shutil.rmtree(run / "frames", ignore_errors=True)
    (run / STATE).unlink(missing_ok=True)


def frames_note(capture: Capture, config: TrainConfig) -> str | None:
    """What the user should know if not all frames are learnt from for want of disk space."""
    border = _border(capture, config)
    kept = len(spread_frames(0, border, capture.resolution, config.cache_gigabytes))
    if kept == border:
        return None
    return f"{kept} of {border} frames are learnt from, evenly spread, so that they fit into {config.cache_gigabytes:g} GB."


def train_talker(
    subject: Subject,
    capture: Capture,
    run: Path,
    config: TrainConfig,
    progress: Callable[[float, str], None],
    workers: Workers | None = None,
) -> Talker:
    """Train, or continue an interrupted run.

    Args:
        subject: the personalised prior.
        capture: the capture it was made from; only its training frames are read.
        run: folder for the training state, `log.jsonl` and `preview.png`; the same call continues from there.
        config: settings.
        progress: called with (part done 0..1, a line of numbers).
        workers: the processes that train together; None for this one alone, on the CPU.

    Raises:
        CheckpointError: the state in `run` belongs to other settings or another subject.
        ConfigError: the processes cannot share `frames_per_step`, or not in the pairs that a loss needs.
    """
    workers = workers or Workers()
    device, mine = workers.device, workers.share(config.frames_per_step)
    if config.weights.pairs and (mine.stop - mine.start) % 2:
        raise ConfigError(
            f"The losses of changes from frame to frame compare pairs, but each process draws {mine.stop - mine.start} frames "
            "of a step. Set frames_per_step to an even number for each process, or the weights temporal and smoothness to 0."
        )
    torch.manual_seed(config.seed)
    start, stop = capture.train
    conditions, landmark_scale = training_conditions(capture, subject, config.audio)
    lips = lips_in_face(capture.landmarks[start:stop].astype(np.float64))
    space, closed = LipSpace.of(lips, config.tokens.lip_shapes), torch.from_numpy(closed_frames(capture))
    shapes = space.shapes(torch.from_numpy(lips).float())
    border = _border(capture, config)
    learnt = spread_frames(0, border, capture.resolution, config.cache_gigabytes)
    validated = spread_over(border, stop - start)

    generator = copy.deepcopy(subject.generator).eval().requires_grad_(False)
    network = _new_network(subject, config)
    encoder, unet = network.encoder, network.unet
    fresh = not (run / STATE).exists()
    if fresh:
        learn_to_listen(
            encoder, conditions.audio[:border], shapes[:border], shapes[closed].mean(0), config.audio, config.listen_steps,
            config.seed, progress, config.told > 0,
        )  # fmt: skip
    talker = Talker(network.to(device), generator.to(device), landmark_scale)
    average, best = copy.deepcopy(talker), copy.deepcopy(talker)
    superres = list(generator.superresolution.parameters())
    corrections = CameraCorrections(stop - start).to(device)
    special = {
        "unet": [parameter for parameter in unet.parameters() if parameter is not unet.constant],
        "constant": [unet.constant],
        "modes": [network.modes.planes],
        "listening": listening_parameters(encoder),
        "cameras": list(corrections.parameters()),
    }
    groups = {"network": _all_but(network, special), "superresolution": superres, **special}
    optimizer = torch.optim.Adam([{"params": group, "name": name} for name, group in groups.items()], betas=(0.9, 0.99))
    modules = talker.trained() | average.trained("average_") | best.trained("best_") | {"cameras": corrections}
    optimizers = {"optimizer": optimizer}

    with workers.first_goes_first():
        frames = PersonFrames.cached(capture, run / "frames", start, stop, start + np.concatenate([learnt, validated]))
    gaze = Gaze.of(capture)
    reader = expert = None
    if config.weights.reads:
        mouths = filmed_mouths(frames.pictures[: len(learnt)], gaze.mouths[learnt])
        reader = learn_to_read(mouths, shapes[learnt], config.read_steps, config.seed, progress)
    if config.weights.sync:
        expert = SyncJudge(lips, capture.audio()[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME])
    objective = Objective(config.weights, generator, space, reader, expert, config.seed).to(device)
    if objective.discriminator is not None:
        optimizers["judging"] = torch.optim.Adam(
            objective.discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.0, 0.99)
        )
        modules["discriminator"] = objective.discriminator
    origin = {"subject": subject.hash}
    record = Run(run, config, modules, optimizers, workers, origin=origin, harmless=HARMLESS)
    step, elapsed = record.resume(), float(record.notes.get("elapsed", 0.0))
    best_score: float | None = record.notes.get("best_score")
    if fresh:
        record.save(step)  # nobody has to learn to listen twice

    planes, ws = subject.planes.to(device), subject.ws.to(device)
    gaze = _among(gaze, learnt)
    outlines = lip_outlines(capture)[start:stop]
    validation = Validation.of(capture, frames, validated) if len(validated) else None
    preview = Preview.of(run / PREVIEW, subject, capture, conditions, frames, learnt, validated)
    profile = generator.profile

    part = _part_done(step, elapsed, config)
    saving, showing, clock = Every(config.save_seconds), Every(config.preview_seconds), time.monotonic()
    while part < 1:
        rng = np.random.default_rng([config.seed, 3, step])
        tuning = part >= config.superres_from
        rates = {
            "network": config.learning_rate * min(1.0, (step + 1) / 50),
            "unet": config.unet_learning_rate * min(1.0, (step + 1) / 50),
            "constant": config.constant_learning_rate,
            "modes": config.modes_learning_rate,
            # The encoder can already hear; at full speed the still wandering network would make it forget.
            "listening": 0.1 * config.learning_rate * min(1.0, (step + 1) / 50),
            "superresolution": config.superres_learning_rate if tuning else 0.0,
            "cameras": config.camera_learning_rate,
        }
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]] * _fall(part)
        for parameter in superres:
            parameter.requires_grad_(tuning)

        # Everything random is drawn for the whole batch, so that several processes see together what one would see alone.
        chosen, windows = gaze.choose(config.frames_per_step, profile.neural_resolution, rng, config.weights.pairs)
        where = torch.from_numpy(learnt[chosen])
        heard_at = torch.from_numpy(learnt[gaze.strangers(chosen, windows, config.strange_sound, rng, config.weights.pairs)])
        silent = closed[heard_at] & torch.from_numpy(rng.random(len(where)) < config.silence)
        sound = vary(audio_neighbourhood(conditions.audio, heard_at, config.tokens.windows), config.audio, rng)
        sound = torch.where(silent[:, None, None, None], -1.0, sound)[mine].to(device)
        tells = torch.from_numpy(rng.random(len(where)) < config.told)[:, None]
        where, heard_at, windows = where[mine], heard_at[mine], windows[mine]

        codes = encoder.hear(sound)
        told = torch.where(tells[mine].to(device), encoder.tell(codes, shapes[heard_at].to(device)), codes)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            heard = conditions.at(where, told)
            delta = network(unet.trunk(planes), heard).float()
        residual = corrections(where)
        pose = torch.stack([conditions.yaw[where], conditions.pitch[where]], -1).to(device) + residual
        cameras = profile.orbit.pose(pose[:, 0], pose[:, 1])
        patch = render_patch(
            generator, planes + delta, ws.expand(len(where), -1, -1), cameras, windows, rng,
            bfloat16=config.bfloat16, batch=config.frames_per_step, first=mine.start,
        )  # fmt: skip
        views = frames.views(start + where.numpy()).to(device)
        made = Step(
            number=step, index=where.to(device), patch=patch, windows=windows, views=views, planes=planes + delta,
            delta=delta / unet.scale, cam2world=cameras, residual=residual,
            outline=draw_outlines(outlines[where.numpy()], views.target.shape[-1]).to(device),
            mouths=torch.from_numpy(gaze.mouths[chosen[mine]]).float().to(device), tokens=encoder(heard),
            heard=encoder.lips(codes), shapes=shapes[heard_at].to(device), own_sound=heard_at == where,
        )  # fmt: skip
        losses = objective(made, rng)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        finish_gradients((parameter for group in groups.values() for parameter in group), workers)
        torch.nn.utils.clip_grad_norm_(groups["network"] + groups["unet"], 1.0)
        optimizer.step()
        if objective.discriminator is not None:
            judged = objective.discriminator_losses(made)
            optimizers["judging"].zero_grad(set_to_none=True)
            torch.stack(list(judged.values())).sum().backward()
            finish_gradients(objective.discriminator.parameters(), workers)
            optimizers["judging"].step()
            losses |= judged
        step += 1
        _copy(talker, average, _decay(step, config))

        now = time.monotonic()
        numbers = torch.stack([*(value.detach() for value in losses.values()), total.new_tensor(now - clock)])
        workers.mean([numbers])  # the time as well: all processes must agree on when it is over
        *values, seconds = numbers.tolist()
        elapsed, clock = elapsed + seconds, now
        before, part = part, _part_done(step, elapsed, config)
        entry = dict(zip(losses, values, strict=True))
        if validation is not None and is_due(before, part):
            scores = validation.scores(draw_frames(average, subject, conditions, validation.index))
            entry |= scores
            if part >= 0.5 and (best_score is None or scores["val_score"] < best_score):
                best_score = scores["val_score"]
                _copy(average, best)
        record.log(step, {name: float(f"{value:.6g}") for name, value in entry.items()} | {"seconds": round(elapsed, 2)})
        if saving.due() or part >= 1:
            record.save(step, {"elapsed": elapsed, "best_score": best_score})
        if workers.rank == 0 and showing.due():
            preview.write(average, step, elapsed)
        progress(part, f"step {step} loss {sum(values):.3f}")
    kept = average if best_score is None else best
    if workers.rank == 0:
        preview.write(kept, step, elapsed)
    return Talker(kept.network.cpu(), kept.generator.cpu(), landmark_scale)


def _new_network(subject: Subject, config: TrainConfig) -> DeltaNetwork:
    """Before training: the delta planes of every sound are zero."""
    profile = subject.generator.profile
    unet = UNetConfig(
        plane_channels=profile.plane_channels, plane_size=profile.plane_resolution, token_width=config.tokens.width,
        rollout=config.rollout, convolution=config.convolution,
    )  # fmt: skip
    known = tuple(name for name in EXPRESSIONS if name in subject.expressions)
    network = DeltaNetwork(DeltaConfig(config.audio, config.tokens, unet, known))
    network.unet.scale.copy_(subject.planes.std())
    network.modes.start_from(subject.generator, subject.ws, subject.expressions, network.unet.scale)
    # Only while the encoder learns to listen is anything dropped.
    return network.eval()


def _all_but(module: torch.nn.Module, groups: dict[str, list[torch.nn.Parameter]]) -> list[torch.nn.Parameter]:
    known = {id(parameter) for group in groups.values() for parameter in group}
    return [parameter for parameter in module.parameters() if id(parameter) not in known]


def _border(capture: Capture, config: TrainConfig) -> int:
    """How many of the training frames come before the ones that are held out."""
    count = len(range(*capture.train))
    return count - held_out(count, config.validation)


def _among(gaze: Gaze, rows: Int[np.ndarray, " learnt"]) -> Gaze:
    """Looks at some of the frames only."""
    odds = gaze.blinking[rows]
    return Gaze(gaze.mouths[rows], gaze.eyes[rows], odds / odds.sum(), gaze.lips_top[rows])


# ---------------------------------------------------------------------------------------------------------- schedule


def _part_done(step: int, elapsed: float, config: TrainConfig) -> float:
    """Of the training, 0..1."""
    parts = [0.0]
    if config.steps is not None:
        parts.append(step / config.steps)
    if config.minutes is not None:
        parts.append(elapsed / (60 * config.minutes))
    return min(1.0, max(parts))


def _fall(part: float) -> float:
    """Constant for the first half, then a cosine to a twentieth."""
    return 1.0 if part < 0.5 else 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (2 * part - 1)))


def _decay(step: int, config: TrainConfig) -> float:
    """Of the averaged weights."""
    half_life = min(config.ema_half_life, 0.05 * step)
    return 0.5 ** (1 / half_life) if half_life > 0 else 0.0


def _copy(source: Talker, target: Talker, decay: float = 0.0) -> None:
    """Move a talker's weights towards another's; without decay they become the same."""
    for from_module, to_module in zip(source.trained().values(), target.trained().values(), strict=True):
        follow(to_module, from_module, decay)

"""Training the talker: sound and the other conditions to the delta planes that make the person's frames.

First the audio encoder alone learns to hear lip shapes (seconds), then everything learns together through the renderer,
super-resolution included (method, stage 2b). Meanwhile `preview.png` in the run's folder shows how far it is. What comes out is
averaged weights; of a long film, at the moment when they did best on a stretch whose frames were not shown (`validate.py`).

Letters: B frames per step, F frames of the training part, S side of the frames.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..capture.artifact import Capture
from ..capture.frames import spread_frames
from ..errors import ConfigError
from ..prior.generator import Generator
from ..prior.patch import render_patch
from ..prior.subject import Subject
from ..runs import STATE, Every, Run, Workers, finish_gradients, follow, keep_memory
from ..video.clock import SAMPLES_PER_FRAME
from .clip import CameraCorrections
from .config import TrainConfig
from .delta import DeltaConfig, DeltaNetwork
from .draw import Talker, draw_frames
from .listen import learn_to_listen, listening_parameters
from .material import Material, last_learnt, learnable
from .modes import EXPRESSIONS
from .objective import Objective, Step
from .preview import Preview
from .quick import delta_of
from .reader import SyncJudge, filmed_mouths, learn_to_read
from .unet import UNetConfig
from .validate import Validation, is_due

PREVIEW = "preview.png"
HARMLESS = frozenset({"steps", "minutes", "save_seconds", "preview_seconds"})
"""How long a training lasts may change when it is continued, and what no weight depends on."""


def run_folder(output: Path) -> Path:
    """Where the unfinished training of an avatar lives: beside it."""
    return output.with_name(output.name + ".training")


def finish_run(run: Path) -> None:
    """Keep the log and the preview of a finished training, drop its state and decoded frames."""
    shutil.rmtree(run / "frames", ignore_errors=True)
    (run / STATE).unlink(missing_ok=True)


def frames_note(capture: Capture, config: TrainConfig) -> str | None:
    """What the user should know if not all frames are learnt from: the face is covered, or disk space is wanting."""
    border, free = last_learnt(capture, config), learnable(capture, config)
    kept = len(spread_frames(free, capture.resolution, config.cache_gigabytes))
    notes = []
    if len(free) < border:
        notes.append(f"{border - len(free)} of {border} frames are left out: something is before the face.")
    if kept < len(free):
        notes.append(
            f"{kept} of {len(free)} frames are learnt from, evenly spread, so that they fit into {config.cache_gigabytes:g} GB."
        )
    return " ".join(notes) or None


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

    Several processes are as good as one, and in single precision, for the usual weights, the same. Terms that look at one
    frame of a batch, or only at its whole mouths, look at one frame or the mouths of each process.

    Raises:
        CheckpointError: the state in `run` belongs to other settings or another subject.
        ConfigError: the processes cannot share `frames_per_step`, or not in the pairs that a loss needs; or the disk that was
            granted has no room for such pairs.
    """
    workers = workers or Workers()
    mine = workers.share(config.frames_per_step)
    if config.weights.pairs and (mine.stop - mine.start) % 2:
        raise ConfigError(
            f"The losses of changes from frame to frame compare pairs, but each process draws {mine.stop - mine.start} frames "
            "of a step. Set frames_per_step to an even number for each process, or the weights temporal and smoothness to 0."
        )
    training = Training(subject, capture, run, config, progress, workers)
    while training.part < 1:
        training.advance()
    return training.result()


class Training:
    """A training under way, for those who want to look at it between steps; arguments are those of `train_talker`.

    `average` is what it would keep so far, `elapsed` the seconds it took, also before interruptions.
    """

    def __init__(
        self,
        subject: Subject,
        capture: Capture,
        run: Path,
        config: TrainConfig,
        progress: Callable[[float, str], None],
        workers: Workers,
    ) -> None:
        self.subject, self.config, self.progress, self.workers = subject, config, progress, workers
        device = workers.device
        keep_memory()
        torch.manual_seed(config.seed)
        with workers.first_goes_first():
            material = self.material = Material.of(capture, subject, run / "frames", config)
        generator = copy.deepcopy(subject.generator).eval().requires_grad_(False)
        network = _new_network(subject, config)
        fresh = not (run / STATE).exists()
        if fresh:
            heard = material.before_validation
            learn_to_listen(
                network.encoder, material.conditions.audio[heard], material.shapes[heard],
                material.shapes[material.closed].mean(0), config.audio, config.listen_steps, config.seed, progress,
                config.told > 0,
            )  # fmt: skip
        self.talker = Talker(network.to(device), generator.to(device), material.landmark_scale)
        self.dtype = config.dtype(device)
        self.delta = delta_of(network, self.dtype)
        self.average, self.best = copy.deepcopy(self.talker), copy.deepcopy(self.talker)
        self.corrections = CameraCorrections(len(material.shapes), material.learnt).to(device)
        special = {
            "superresolution": list(generator.superresolution.parameters()),
            "unet": [parameter for parameter in network.unet.parameters() if parameter is not network.unet.constant],
            "constant": [network.unet.constant],
            "modes": [network.modes.planes],
            "listening": listening_parameters(network.encoder),
            "cameras": list(self.corrections.parameters()),
        }
        self.groups = {"network": _all_but(network, special), **special}
        self.optimizer = torch.optim.Adam(
            [{"params": group, "name": name} for name, group in self.groups.items()], betas=(0.9, 0.99), fused=True
        )
        self.objective = _objective(capture, material, generator, config, progress).to(device)
        self.planes, self.ws = subject.planes.to(device), subject.ws.to(device)

        modules = self.talker.trained() | self.average.trained("average_") | self.best.trained("best_")
        modules |= {"cameras": self.corrections}
        optimizers = {"optimizer": self.optimizer}
        self.judging: torch.optim.Adam | None = None
        if self.objective.discriminator is not None:
            modules["discriminator"] = self.objective.discriminator
            self.judging = optimizers["judging"] = torch.optim.Adam(
                self.objective.discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.0, 0.99)
            )
        self.record = Run(run, config, modules, optimizers, workers, origin={"subject": subject.hash}, harmless=HARMLESS)
        self.step = self.record.resume()
        self.elapsed = float(self.record.notes.get("elapsed", 0.0))
        self.best_score: float | None = self.record.notes.get("best_score")
        if fresh:
            self.record.save(self.step)  # nobody has to learn to listen twice
        held = material.validated
        self.validation = Validation.of(capture, material.frames, held) if len(held) else None
        self.preview = Preview.of(run / PREVIEW, subject, capture, material.conditions, material.frames, material.learnt, held)
        self.part = _part_done(self.step, self.elapsed, config)
        self.saving, self.showing = Every(config.save_seconds), Every(config.preview_seconds)
        self.clock = time.monotonic()

    def advance(self) -> None:
        """One step, and what is due after it."""
        rng = np.random.default_rng([self.config.seed, 3, self.step])
        self._set_rates()
        drawn = self._draw(rng)
        losses = self.objective(drawn, rng)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        finish_gradients((parameter for group in self.groups.values() for parameter in group), self.workers)
        torch.nn.utils.clip_grad_norm_(self.groups["network"] + self.groups["unet"], 1.0)
        self.optimizer.step()
        if self.judging is not None and self.objective.discriminator is not None:
            judged = self.objective.discriminator_losses(drawn)
            self.judging.zero_grad(set_to_none=True)
            torch.stack(list(judged.values())).sum().backward()
            finish_gradients(self.objective.discriminator.parameters(), self.workers)
            self.judging.step()
            losses |= judged
        self.step += 1
        _copy(self.talker, self.average, _decay(self.step, self.config))
        self._take_note(losses)

    def result(self) -> Talker:
        """What is kept, on the CPU."""
        kept = self.average if self.best_score is None else self.best
        if self.workers.rank == 0:
            self.preview.write(kept, self.step, self.elapsed)
        return Talker(kept.network.cpu(), kept.generator.cpu(), kept.landmark_scale)

    def _set_rates(self) -> None:
        """The learning rates of this step, and whether super-resolution learns at all."""
        config, tuning = self.config, self.part >= self.config.superres_from
        start = min(1.0, (self.step + 1) / 50)
        rates = {
            "network": config.learning_rate * start,
            "unet": config.unet_learning_rate * start,
            "constant": config.constant_learning_rate,
            "modes": config.modes_learning_rate,
            # The encoder can already hear; at full speed the still wandering network would make it forget.
            "listening": 0.1 * config.learning_rate * start,
            "superresolution": config.superres_learning_rate if tuning else 0.0,
            "cameras": config.camera_learning_rate,
        }
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]] * _fall(self.part)
        for parameter in self.groups["superresolution"]:
            parameter.requires_grad_(tuning)

    def _draw(self, rng: np.random.Generator) -> Step:
        """This process's share of a batch, drawn with the present weights."""
        config, device, material = self.config, self.workers.device, self.material
        network, generator = self.talker.network, self.talker.generator
        encoder, orbit = network.encoder, generator.profile.orbit
        mine = self.workers.share(config.frames_per_step)
        batch = material.batch(config, generator.profile.neural_resolution, mine, rng)

        codes = encoder.hear(batch.sound.to(device))
        shapes = material.shapes[batch.heard_at].to(device)
        heard = material.conditions.at(batch.index, torch.where(batch.told.to(device), encoder.tell(codes, shapes), codes))
        delta = self.delta(self.planes, heard, self.step % config.descend_every == 0)
        planes = torch.add(self.planes, delta, alpha=float(network.unet.scale))
        residual = self.corrections(batch.index)
        pose = heard.rotation + residual
        cameras = orbit.pose(*pose.unbind(-1))
        patch = render_patch(
            generator, planes, self.ws, cameras, batch.windows, rng,
            dtype=self.dtype, batch=config.frames_per_step, first=mine.start,
        )  # fmt: skip
        views = material.views(batch.index).to(device)
        return Step(
            number=self.step, index=batch.index.to(device), patch=patch, windows=batch.windows, views=views, planes=planes,
            delta=delta, cam2world=cameras, pose=pose, residual=residual,
            outline=material.lip_masks(batch.index, views.target.shape[-1]).to(device), mouths=batch.mouths.to(device),
            tokens=encoder(heard) if config.weights.smoothness else None, heard=encoder.lips(codes), shapes=shapes,
            own_sound=batch.heard_at == batch.index,
        )  # fmt: skip

    def _take_note(self, losses: Mapping[str, Tensor]) -> None:
        """Write the log; validate, save and show if that is due."""
        now = time.monotonic()
        numbers = torch.stack([*(value.detach() for value in losses.values()), self.planes.new_tensor(now - self.clock)])
        self.workers.mean([numbers])  # the time as well: all processes must agree on when it is over
        *values, seconds = numbers.tolist()
        self.elapsed, self.clock = self.elapsed + seconds, now
        before, self.part = self.part, _part_done(self.step, self.elapsed, self.config)
        entry = dict(zip(losses, values, strict=True))
        if self.validation is not None and is_due(before, self.part):
            entry |= self._validate(self.validation)
        entry = {name: float(f"{value:.6g}") for name, value in entry.items()}
        self.record.log(self.step, entry | {"seconds": round(self.elapsed, 2)})
        if self.saving.due() or self.part >= 1:
            self.record.save(self.step, {"elapsed": self.elapsed, "best_score": self.best_score})
        if self.workers.rank == 0 and self.showing.due():
            self.preview.write(self.average, self.step, self.elapsed)
        self.progress(self.part, f"step {self.step} loss {sum(values):.3f}")

    def _validate(self, validation: Validation) -> dict[str, float]:
        """Score the averaged weights, and keep them if they are the best of the second half."""
        drawn = draw_frames(self.average, self.subject, self.material.conditions, validation.index)
        scores = validation.scores(drawn)
        if self.part >= 0.5 and (self.best_score is None or scores["val_score"] < self.best_score):
            self.best_score = scores["val_score"]
            _copy(self.average, self.best)
        return scores


def _objective(
    capture: Capture, material: Material, generator: Generator, config: TrainConfig, progress: Callable[[float, str], None]
) -> Objective:
    """The losses, with those judges that they need."""
    reader = expert = None
    if config.weights.reads:
        mouths = filmed_mouths(material.frames.pictures[: len(material.learnt)], material.sampler.mouths)
        reader = learn_to_read(mouths, material.shapes[material.learnt], config.read_steps, config.seed, progress)
    if config.weights.sync:
        start, stop = (SAMPLES_PER_FRAME * frame for frame in capture.train)
        expert = SyncJudge(material.lips, capture.audio()[start:stop])
    return Objective(config.weights, generator, material.space, reader, expert, config.seed)


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

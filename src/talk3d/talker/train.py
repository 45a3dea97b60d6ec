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
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..artifacts import load_state, optimizer_tensors, restore_optimizer, save_state
from ..capture.build import Capture
from ..capture.frames import PersonFrames
from ..capture.track import INNER_LIPS, OUTER_EYE_CORNERS, OUTER_LIPS
from ..errors import CheckpointError
from ..losses import l2, magnitude
from ..prior.generator import Generator
from ..prior.patch import Windows, picture_losses, render_patch
from ..prior.subject import Subject
from ..prior.superres import BORDER
from .audio import SAMPLES_PER_FRAME, AudioConfig, Loudness, frame_windows
from .delta import DeltaConfig, DeltaNetwork
from .modes import EXPRESSIONS
from .tokens import Conditions, TokenConfig, TokenEncoder
from .unet import UNetConfig

STATE = "training.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; 0 switches it off."""

    picture: float = 1.0
    """L1 of raw and final picture (its perceptual part has a weight of its own)."""
    structure: float = 0.4
    mouth: float = 10.0
    """Squared error inside the lips' outline, final picture."""
    delta: float = 0.001
    """Mean size of the delta planes."""
    lips: float = 0.1
    """The audio code's prediction of the lip shape."""


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


@dataclass(frozen=True)
class ClipConditions:
    """Everything that drives the frames of a clip, one row a frame."""

    audio: Float[Tensor, "frames channels columns"]
    blink: Float[Tensor, " frames"]
    yaw: Float[Tensor, " frames"]
    pitch: Float[Tensor, " frames"]
    landmark: Float[Tensor, "frames 4"]

    def at(self, index: Tensor, code: Float[Tensor, "batch width"]) -> Conditions:
        """The conditions of frames `index` [B], of which `code` is heard."""
        return Conditions(
            code=code,
            blink=self.blink[index],
            rotation=torch.stack([self.yaw[index], self.pitch[index]], -1),
            landmark=self.landmark[index],
        )


def audio_neighbourhood(
    audio: Float[Tensor, "frames channels columns"], index: Tensor, windows: int
) -> Float[Tensor, "batch windows channels columns"]:
    """The windows f - W/2 .. f + W/2 - 1 of each frame f; outside the clip there is silence (-1)."""
    around = index[:, None] + torch.arange(windows) - windows // 2
    inside = (around >= 0) & (around < len(audio))
    picked = audio[around.clamp(0, len(audio) - 1)]
    return torch.where(inside[..., None, None], picked, -1.0)


def crop_numbers(crop_from_source: Float[np.ndarray, "frames 2 3"], resolution: int) -> Float[np.ndarray, "frames 4"]:
    """Where each crop lies in its source frame: centre x, y (in widths of that crop), log scale, roll (radians)."""
    linear, shift = crop_from_source[:, :, :2], crop_from_source[:, :, 2]
    centre = np.linalg.solve(linear, (resolution / 2 - shift)[..., None])[..., 0]
    scale = np.hypot(linear[:, 0, 0], linear[:, 1, 0])
    roll = np.arctan2(linear[:, 1, 0], linear[:, 0, 0])
    widths = centre * scale[:, None] / resolution
    return np.concatenate([widths, np.log(scale)[:, None], roll[:, None]], 1)


def training_conditions(capture: Capture, subject: Subject, audio: AudioConfig) -> tuple[ClipConditions, Tensor]:
    """Conditions of the training frames (row 0 is the first of them), and the landmark token's mean and deviation.

    The sound ends where the training part ends, so that no window reaches into the test part.
    """
    start, stop = capture.train
    sound = capture.audio()[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
    windows = torch.cat(list(frame_windows([sound], Loudness.of([sound]).gain, audio)))
    numbers = torch.from_numpy(crop_numbers(capture.crop_from_source[start:stop], capture.resolution)).float()
    scale = torch.stack([numbers.mean(0), numbers.std(0).clamp(min=0.01)])
    conditions = ClipConditions(
        audio=windows,
        blink=torch.from_numpy(capture.blink[start:stop]).float(),
        yaw=subject.yaw[start:stop],
        pitch=subject.pitch[start:stop],
        landmark=((numbers - scale[0]) / scale[1]).clamp(-4, 4),
    )
    return conditions, scale


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
    lips, lip_shapes = _lip_shapes(capture, config.tokens.lip_shapes)

    generator = copy.deepcopy(subject.generator).eval().requires_grad_(False)
    network = _new_network(subject, config)
    encoder, unet = network.encoder, network.unet
    talker = Talker(network, generator, landmark_scale)
    superres = list(generator.superresolution.parameters())
    special = {"constant": [unet.constant], "modes": [network.modes.planes], "listening": _listening(encoder)}
    groups = {"network": _all_but(network, special), "superresolution": superres, **special}
    optimizer = torch.optim.Adam([{"params": group, "name": name} for name, group in groups.items()], betas=(0.9, 0.99))
    identity = {"subject": subject.hash, "config": _comparable(config)}
    fresh = not (run / STATE).exists()
    step, elapsed = _resume(run, talker, optimizer, identity)
    if fresh:
        _learn_to_listen(encoder, conditions.audio, lip_shapes, lips, config, progress)

    planes = subject.planes
    ws = subject.ws
    gaze_at = _Gaze.of(capture)
    outlines = _lip_outlines(capture)[start:stop]
    closed = torch.from_numpy(_closed_frames(capture))
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
        sound = _augment(audio_neighbourhood(conditions.audio, where, config.tokens.windows), config.audio, rng)
        codes = encoder.hear(torch.where(silent[:, None, None, None], -1.0, sound))
        delta = network(unet.trunk(planes), conditions.at(where, codes))
        cameras = profile.orbit.pose(conditions.yaw[where], conditions.pitch[where])
        patch = render_patch(generator, planes + delta, ws.expand(len(index), -1, -1), cameras, windows, rng)
        views = frames.views(start + index)
        terms = picture_losses(patch, views.target, views.background, windows, config.weights.structure, views.known)
        assert patch.final is not None
        mask = windows.cut(_draw_outlines(outlines[index], views.target.shape[-1]), BORDER)
        losses = {name: config.weights.picture * value.mean() for name, value in terms.items()}
        losses["mouth"] = config.weights.mouth * l2(patch.final[:, :3], windows.cut(views.target, BORDER)[:, :3], mask).mean()
        losses["delta"] = config.weights.delta * magnitude(delta / unet.scale).mean()
        losses["lips"] = config.weights.lips * F.mse_loss(encoder.lips(codes), lip_shapes[where])
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


# ------------------------------------------------------------------------------------------------------- listening


def _learn_to_listen(
    encoder: TokenEncoder,
    audio: Float[Tensor, "frames channels columns"],
    shapes: Float[Tensor, "frames shapes"],
    closed_shape: Float[Tensor, " shapes"],
    config: TrainConfig,
    progress: Callable[[float, str], None],
) -> None:
    """Teach the audio encoder to predict lip shapes."""
    encoder.audio_net.measure(audio)
    encoder.train()
    optimizer = torch.optim.AdamW(_listening(encoder), lr=2e-3, weight_decay=1e-2)
    silence = torch.full((2, config.tokens.windows, config.audio.channels, config.audio.columns), -1.0)
    for step in range(config.listen_steps):
        rng = np.random.default_rng([config.seed, 4, step])
        optimizer.param_groups[0]["lr"] = 2e-3 * (0.5 + 0.5 * math.cos(math.pi * step / config.listen_steps))
        index = torch.from_numpy(rng.integers(0, len(audio), 48))
        around = audio_neighbourhood(audio, index, config.tokens.windows)
        heard = torch.cat([_augment(around, config.audio, rng), silence])
        wanted = torch.cat([shapes[index], closed_shape.expand(2, -1)])
        loss = F.mse_loss(encoder.lips(encoder.hear(heard)), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 25 == 0:
            progress(0.0, f"listening {step + 1}/{config.listen_steps} error {float(loss.detach()):.3f}")
    # From here on its codes are looked at by another network, which should not have to see through the noise of dropout.
    encoder.eval()
    with torch.no_grad():
        pieces = torch.arange(len(audio)).split(128)
        encoder.settle(torch.cat([encoder.hear(audio_neighbourhood(audio, piece, config.tokens.windows)) for piece in pieces]))


def _listening(encoder: TokenEncoder) -> list[torch.nn.Parameter]:
    """The part of the encoder that hears."""
    modules = (encoder.audio_net, encoder.audio_attention, encoder.lips)
    return [parameter for module in modules for parameter in module.parameters()]


def _all_but(module: torch.nn.Module, groups: dict[str, list[torch.nn.Parameter]]) -> list[torch.nn.Parameter]:
    known = {id(parameter) for group in groups.values() for parameter in group}
    return [parameter for parameter in module.parameters() if id(parameter) not in known]


def _augment(windows: Tensor, audio: AudioConfig, rng: np.random.Generator) -> Tensor:
    """Another level (0.9 dB) and a little noise: what must not change the lips."""
    gain = torch.zeros(len(windows), 1, windows.shape[2], 1)
    gain[:, :, : audio.bands] = torch.from_numpy(rng.normal(0, 0.03, (len(windows), 1, 1, 1))).float()
    return windows + gain + torch.from_numpy(rng.standard_normal(windows.shape, dtype=np.float32)) * 0.02


def _lip_shapes(capture: Capture, count: int) -> tuple[Tensor, Tensor]:
    """The closed shape [shapes] and the lip shape of each training frame [frames, shapes] (principal components)."""
    start, stop = capture.train
    points = capture.landmarks[start:stop][:, [*OUTER_LIPS, *INNER_LIPS]]
    lips = torch.from_numpy(points - points.mean(1, keepdims=True)).float().flatten(1)
    centred = lips - lips.mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    scale = values[0] / math.sqrt(len(lips))
    shapes = centred @ directions[:count].T / scale
    closed = torch.from_numpy(_closed_frames(capture))
    return shapes[closed].mean(0), shapes


def _closed_frames(capture: Capture) -> np.ndarray:
    """Which training frames have their lips as closed as the tightest tenth of them."""
    gap = capture.lip_gap[slice(*capture.train)]
    return gap <= np.quantile(gap, 0.1)


# ----------------------------------------------------------------------------------------------------- where to look


@dataclass(frozen=True)
class _Gaze:
    """Which frames a step looks at, and where in them."""

    mouths: Float[np.ndarray, "frames 2"]
    eyes: Float[np.ndarray, "frames 2"]
    blinking: Float[np.ndarray, " frames"]
    """Odds of the frames that are chosen for their eyes: half of them evenly, half by how closed the eyes are."""

    @classmethod
    def of(cls, capture: Capture) -> _Gaze:
        """Of the training frames."""
        landmarks = capture.landmarks[slice(*capture.train)]
        blink = np.clip(capture.blink[slice(*capture.train)], 0, 1).astype(np.float64) + 1e-6
        odds = 0.5 / len(blink) + 0.5 * blink / blink.sum()
        return cls(landmarks[:, list(OUTER_LIPS)].mean(1), landmarks[:, list(OUTER_EYE_CORNERS)].mean(1), odds)

    def choose(self, count: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, Windows]:
        """Frames [B] and a window of each: every second one at the mouth, one in four at the eyes, the others anywhere."""
        turn = (np.arange(count) + rng.integers(4)) % 4  # so that smaller counts have their turns too
        index = rng.integers(0, len(self.mouths), count)
        index[turn == 3] = rng.choice(len(self.eyes), int((turn == 3).sum()), p=self.blinking)
        windows = Windows.around(self.mouths[index], size, rng).where(turn % 2 == 0, Windows.random(count, size, rng))
        return index, windows.where(turn != 3, Windows.around(self.eyes[index], size, rng))


def _lip_outlines(capture: Capture) -> Float[np.ndarray, "frames points 2"]:
    """The lips' outline, widened by a quarter so that the skin which moves along is inside."""
    lips = capture.landmarks[:, list(OUTER_LIPS)]
    centre = lips.mean(1, keepdims=True)
    return centre + 1.25 * (lips - centre)


def _draw_outlines(outlines: Float[np.ndarray, "frames points 2"], size: int) -> Float[Tensor, "frames 1 size size"]:
    import cv2

    masks = np.zeros((len(outlines), size, size), np.uint8)
    for mask, outline in zip(masks, outlines, strict=True):
        cv2.fillPoly(mask, [np.round(outline * size).astype(np.int32)], 1)
    return torch.from_numpy(masks)[:, None].float()


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

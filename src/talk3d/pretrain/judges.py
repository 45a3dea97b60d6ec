"""Training of the judges that ship: HeadNet on portraits, the lip-sync expert on speaking landmarks. Synthetic people only.

Both are the same loop: losses of a step are a function of the network and of numbers drawn from (seed, step), so a run that
was interrupted continues as if it had not been.

Letters: B pictures, S image side, W clips, T frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..heads.subject import Phone
from ..judges.headnet import CLOSE, SIZE, HeadNet, face_frame
from ..judges.sync import REACH, SyncExpert, mouth_features, sound_features
from ..runs import Run, Workers, warmed_cosine
from ..video.clock import AUDIO_RATE, FPS
from .portraits import PICTURES, Portraits
from .speakers import Recording, Rig, TrackerModel, shifted, speaking_lips

Losses = Callable[[nn.Module, np.random.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class JudgeConfig:
    """Settings of one training run."""

    steps: int
    """Optimiser steps in all; the learning rate falls to zero over them."""
    batch: int
    """Persons (two pictures each) or clips per step."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    seed: int = 0
    save_every: int = 100


GLANCE = JudgeConfig(steps=1300, batch=32)
CLOSEUP = JudgeConfig(steps=4200, batch=64)
SYNC = JudgeConfig(steps=1800, batch=8)
WARM_UP = 50
"""Steps until the learning rate is full."""
CLIP, PIECE = 150, 50
"""Frames of a clip that is trained on, and of the piece whose offset is asked for."""


def fit(
    network: nn.Module,
    losses: Losses,
    run: Path,
    config: JudgeConfig,
    progress: Callable[[int, int, str], None],
    minutes: float = math.inf,
) -> bool:
    """Train, or continue an interrupted run.

    Args:
        network: trained in place.
        losses: the named terms of one step, to be added up, from the network and the step's random numbers.
        run: folder for the training state and `log.jsonl`.
        config: settings.
        progress: called with (step, steps, one line of numbers).
        minutes: save and stop after so long.

    Returns:
        Whether the training is complete.

    Raises:
        CheckpointError: the state in `run` belongs to other settings.
    """
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=config.weight_decay)
    record = Run(run, config, {"network": network}, {"optimizer": optimizer}, Workers())
    began = time.monotonic()
    network.train()
    for step in range(record.resume(), config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warmed_cosine(step, config.steps, WARM_UP)
        terms = losses(network, np.random.default_rng([config.seed, step]))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        done = step + 1
        values = {name: round(float(value.detach()), 5) for name, value in terms.items()}
        record.log(done, {"minutes": round((time.monotonic() - began) / 60, 3), **values})
        out_of_time = time.monotonic() - began > 60 * minutes
        if done % config.save_every == 0 or done == config.steps or out_of_time:
            record.save(done)
        progress(done, config.steps, " ".join(f"{name} {value:.3f}" for name, value in values.items()))
        if out_of_time and done < config.steps:
            return False
    network.eval()
    return True


# HeadNet


def train_headnet(
    data: Portraits,
    run: Path,
    glance: JudgeConfig,
    closeup: JudgeConfig,
    progress: Callable[[int, int, str], None],
    minutes: float = math.inf,
) -> HeadNet | None:
    """Train both parts of HeadNet, or continue interrupted runs; the folded network, or None while it is not complete.

    See `fit` for arguments and errors; `minutes` are those of each part.
    """
    torch.manual_seed(glance.seed)
    network: HeadNet = HeadNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    done = fit(network.glance, glance_losses(data, glance), run / "glance", glance, progress, minutes)
    done &= fit(network.closeup, closeup_losses(data, closeup), run / "closeup", closeup, progress, minutes)
    return network.folded() if done else None


def glance_losses(data: Portraits, config: JudgeConfig) -> Losses:
    """Two pictures each of `config.batch` persons: landmarks, readings, and who goes with whom.

    Twins come together, so that the batch holds persons who differ in shape alone.
    """
    persons = len(data) // PICTURES
    twin_of = np.arange(persons)
    first = data.twins[::PICTURES] != data.person[::PICTURES]  # the younger ones, each next to the elder
    twin_of[np.flatnonzero(first)] -= 1
    twin_of[np.flatnonzero(first) - 1] += 1
    scale = torch.from_numpy(data.readings.std(0) + 1e-3)

    def losses(network: nn.Module, rng: np.random.Generator) -> dict[str, Tensor]:
        half = rng.permutation(persons)[: config.batch]
        chosen = list(dict.fromkeys(int(p) for person in half for p in (person, twin_of[person])))[: config.batch]
        # Two different pictures of each: all first ones, then all second ones.
        pairs = np.stack([rng.permutation(PICTURES)[:2] for _ in chosen]) + PICTURES * np.array(chosen)[:, None]
        rows = pairs.T.ravel()
        pictures, landmarks = augmented(data, rows, rng)
        with torch.autocast("cpu", torch.bfloat16):
            read = network(pictures.to(memory_format=torch.channels_last))
        readings = torch.from_numpy(data.readings[rows])
        likeness = read.embedding[: len(chosen)] @ read.embedding[len(chosen) :].T / 0.1  # [persons, persons]
        same = torch.arange(len(chosen))
        return {
            "landmarks": 20 * (read.landmarks - landmarks).abs().mean(),
            "readings": F.smooth_l1_loss(read.readings / scale, readings / scale, beta=0.5),
            "identity": 0.25 * (F.cross_entropy(likeness, same) + F.cross_entropy(likeness.T, same)),
        }

    return losses


def closeup_losses(data: Portraits, config: JudgeConfig) -> Losses:
    """Readings of `config.batch` faces, cut out about where they are: the glance will not be more exact."""
    scale = torch.from_numpy(data.readings.std(0) + 1e-3)

    def losses(network: nn.Module, rng: np.random.Generator) -> dict[str, Tensor]:
        rows = rng.integers(len(data), size=config.batch)
        frames = face_frame(torch.from_numpy(data.landmarks[rows])).numpy()
        faces = []
        for row, frame in zip(rows, frames, strict=True):
            # From pixels of the close-up to pixels of the picture; both count from pixel centres.
            linear = frame[:, :2] * (SIZE / CLOSE) @ _jitter(rng, 0.07, 0.07)
            middle = frame @ [0.5, 0.5, 1.0] * SIZE - 0.5 + rng.normal(0, 1.5, 2)
            warp = np.column_stack([linear, middle - linear @ np.full(2, (CLOSE - 1) / 2)])
            faces.append(_picture(data, int(row), warp, CLOSE, rng, inverse=True))
        with torch.autocast("cpu", torch.bfloat16):
            readings = network(_stacked(faces).to(memory_format=torch.channels_last))
        true = torch.from_numpy(data.readings[rows])
        # Squares, not absolute differences: half of all weights are 0, and so is the median of what is hard to see.
        return {"readings": F.mse_loss(readings / scale, true / scale)}

    return losses


def augmented(data: Portraits, rows: NDArray[np.integer], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pictures [B, 3, S, S] in -1..1 as a camera might have seen them, and their landmarks [B, 68, 2], moved along."""
    pictures, landmarks = [], []
    for row in rows:
        warp = _random_warp(rng)
        pictures.append(_picture(data, int(row), warp, SIZE, rng))
        # warpAffine counts from pixel centres, landmarks from the picture's corner.
        points = data.landmarks[row] * SIZE - 0.5
        landmarks.append((points @ warp[:, :2].T + warp[:, 2] + 0.5) / SIZE)
    return _stacked(pictures), torch.from_numpy(np.stack(landmarks)).float()


def _picture(
    data: Portraits, row: int, warp: NDArray[np.floating], size: int, rng: np.random.Generator, inverse: bool = False
) -> NDArray[np.uint8]:
    """[size, size, 3] in 0..255: a head, moved, over a random background, filmed; `warp` [2, 3] is cv2's."""
    flags = cv2.INTER_LINEAR | (cv2.WARP_INVERSE_MAP if inverse else 0)
    head = cv2.warpAffine(data.images[row].transpose(1, 2, 0), warp, (size, size), flags=flags)
    cover = head[..., 3:].astype(np.float32) / 255
    return _filmed(head[..., :3] + (1 - cover) * random_background(data, rng)[:size, :size], rng)


def _stacked(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """[B, 3, S, S] in -1..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def _random_warp(rng: np.random.Generator) -> NDArray[np.float64]:
    """[2, 3] about the middle: turned, scaled, shifted; one in five as it is."""
    if rng.random() < 0.2:
        return np.array([[1.0, 0, 0], [0, 1.0, 0]])
    linear, middle = _jitter(rng, 0.12, 0.1), (SIZE - 1) / 2
    shift = rng.normal(0, 0.05 * SIZE, 2)
    return np.column_stack([linear, middle + shift - linear @ [middle, middle]])


def _jitter(rng: np.random.Generator, turn: float, zoom: float) -> NDArray[np.float64]:
    """[2, 2]: a small rotation and scale, with the deviations of the angle (radians) and of the scale's logarithm."""
    angle, scale = rng.normal(0, turn), math.exp(rng.normal(0, zoom))
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[c, s], [-s, c]])


def random_background(data: Portraits, rng: np.random.Generator) -> NDArray[np.float32]:
    """[S, S, 3] in 0..255: a colour, a gradient, 1/f noise, or part of another head's picture."""
    kind = rng.integers(4)
    one, other = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    if kind == 0:
        return np.broadcast_to(one, (SIZE, SIZE, 3))
    if kind == 1:
        across = cv2.resize(rng.random((2, 2)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        return one + across[..., None] * (other - one)
    if kind == 2:
        noise = np.zeros((SIZE, SIZE, 3), np.float32)
        for octave in range(1, 7):
            grid = rng.normal(0, 2.0**-octave, (2**octave, 2**octave, 3)).astype(np.float32)
            noise += cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        return np.clip(one + 120 * noise, 0, 255)
    image = data.images[rng.integers(len(data)), :3].transpose(1, 2, 0)
    x, y = rng.integers(0, SIZE // 2, 2)
    return cv2.resize(image[y : y + SIZE // 2, x : x + SIZE // 2], (SIZE, SIZE)).astype(np.float32)


def _filmed(picture: NDArray, rng: np.random.Generator) -> NDArray[np.uint8]:
    """[S, S, 3] in 0..255 after a camera's colours, focus, noise and codec."""
    gain = math.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.04, 3))
    gamma = math.exp(rng.normal(0, 0.12))
    levels = np.clip(np.linspace(0, 1, 256)[:, None] ** gamma * gain * 255, 0, 255)  # [256, 3]
    picture = cv2.LUT(np.clip(picture + 0.5, 0, 255).astype(np.uint8), levels.astype(np.uint8)[None])
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.5))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 12), picture.shape)
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 90))])
        picture = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return np.asarray(picture, np.uint8)


# The lip-sync expert


def train_sync(
    recordings: Sequence[Recording],
    rig: Rig,
    tracker: TrackerModel,
    run: Path,
    config: JudgeConfig,
    progress: Callable[[int, int, str], None],
    minutes: float = math.inf,
) -> SyncExpert | None:
    """Train the lip-sync expert, or continue an interrupted run; None while the training is not complete.

    See `fit` for arguments and errors.
    """
    torch.manual_seed(config.seed)
    network = SyncExpert()
    if not fit(network, sync_losses(recordings, rig, tracker, config), run, config, progress, minutes):
        return None
    return network.requires_grad_(False)


def sync_losses(recordings: Sequence[Recording], rig: Rig, tracker: TrackerModel, config: JudgeConfig) -> Losses:
    """`config.batch` people speak for six seconds.

    `frame` asks of every frame's lips which of all frames' sounds is theirs, and the other way round; `piece` asks what users
    ask: at which of 31 offsets do two seconds of lips and sound agree best?
    """
    long_enough = [one for one in recordings if one.frames >= CLIP * 1.2]

    def losses(network: nn.Module, rng: np.random.Generator) -> dict[str, Tensor]:
        torch.manual_seed(int(rng.integers(2**62)))  # dropout is part of the step
        mouths, sounds = [], []
        for index in rng.integers(len(long_enough), size=config.batch):
            clip = random_clip(long_enough[index], rng)
            other = long_enough[rng.integers(len(long_enough))].samples
            mouths.append(mouth_features(speaking_lips(clip, rig, tracker, rng)))
            sounds.append(sound_features(heard(clip.samples, other, rng), CLIP))
        seen, sound = network(torch.stack(mouths), torch.stack(sounds))  # [W, T, D]
        likeness = seen.flatten(0, 1) @ sound.flatten(0, 1).T / 0.07  # [W T, W T]
        own = torch.arange(len(likeness))
        frame = F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)
        start = int(rng.integers(REACH, CLIP - REACH - PIECE))
        piece = seen[:, start : start + PIECE]
        agreement = torch.stack(
            [(piece * sound[:, start + d : start + d + PIECE]).sum(2).mean(1) for d in range(-REACH, REACH + 1)], 1
        )
        middle = torch.full((len(agreement),), REACH)
        return {"frame": 0.25 * frame, "piece": F.cross_entropy(agreement / 0.03, middle)}

    return losses


def random_clip(recording: Recording, rng: np.random.Generator) -> Recording:
    """Six seconds of a recording, played faster or slower: other lengths of the vocal tract, other tempos."""
    factor = math.exp(rng.uniform(-0.16, 0.16))
    length = int(CLIP * AUDIO_RATE / FPS)
    begin = int(rng.integers(len(recording.samples) - int(length * factor)))
    places = begin + np.arange(length) * factor
    samples = np.interp(places, np.arange(len(recording.samples)), recording.samples).astype(np.float32)
    phones = shifted(recording.phones, -begin / AUDIO_RATE)
    return Recording(samples, [Phone(p.start / factor, p.stop / factor, p.viseme) for p in phones])


def heard(samples: NDArray[np.float32], other: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Speech [N] as it may reach a listener: through a room, a poor microphone, a codec, beside noise or another voice."""
    level = float(samples.std()) + 1e-6
    if rng.random() < 0.4:  # a room: an exponential tail of 0.1 to 0.6 s beside the direct sound
        seconds = np.arange(AUDIO_RATE // 2) / AUDIO_RATE
        tail = rng.standard_normal(len(seconds)) * np.exp(-seconds * 6.9 / rng.uniform(0.1, 0.6))
        tail *= rng.uniform(0.1, 0.6) / np.sqrt((tail**2).sum())
        tail[0] = 1
        samples = _filtered(samples, np.fft.rfft(tail, len(samples) + len(tail)))
    if rng.random() < 0.4:  # a codec or a telephone: low-passed at 3 to 7.5 kHz
        hertz = np.fft.rfftfreq(2 * len(samples), 1 / AUDIO_RATE)
        samples = _filtered(samples, 1 / (1 + (hertz / rng.uniform(3000, 7500)) ** 8))
    if rng.random() < 0.7:
        white = rng.standard_normal(len(samples))
        noise = white if rng.random() < 0.5 else np.cumsum(white - white.mean()) % 200 / 50  # hiss, or rumble
        noise = (noise - noise.mean()) / noise.std()
        samples = samples + noise * level * 10 ** (-rng.uniform(5, 45) / 20)
    if rng.random() < 0.2:
        babble = np.resize(other, len(samples))
        samples = samples + babble * level / (babble.std() + 1e-6) * 10 ** (-rng.uniform(6, 25) / 20)
    return samples.astype(np.float32)


def _filtered(samples: NDArray[np.floating], response: NDArray) -> NDArray[np.floating]:
    size = 2 * (len(response) - 1)
    return np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: len(samples)]

"""How long a step of the talker's training takes, and the memory it needs, plain and fast, on a CPU.

    python benchmarks/training_step.py {mini,full} [--repeats N]

A person of the profile with random weights is drawn by a new U-Net in windows of four frames, compared with noise, and
everything that learns takes a step: what `talk3d train` does, less reading frames and the judges' part. "Plain" is the network
as it is written down, the reference renderer, Adam tensor by tensor, and memory that goes back to the system; "fast" is what
training uses. Both run in turn; memory is that of a process of its own. `full` has EG3D's sizes and 512 x 512 pixels.
"""

import argparse
import dataclasses
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from talk3d.losses import magnitude
from talk3d.prior import fast
from talk3d.prior.generator import FULL, MINI, Generator
from talk3d.prior.patch import Windows, picture_losses, render_patch
from talk3d.runs import keep_memory
from talk3d.talker.audio import AudioConfig
from talk3d.talker.config import TrainConfig
from talk3d.talker.delta import DeltaConfig, DeltaNetwork
from talk3d.talker.modes import EXPRESSIONS
from talk3d.talker.quick import QuickDelta
from talk3d.talker.tokens import Conditions, TokenConfig
from talk3d.talker.unet import UNetConfig

FRAMES = 4
ROUND = TrainConfig().descend_every
"""Steps after which everything has learnt once."""
# Training needs pictures with alpha; EG3D's have none.
PROFILES = {"mini": MINI, "full": dataclasses.replace(FULL, alpha=True)}
PATHS = ("plain", "fast, float32", "fast, bfloat16")


def step_of(profile_name: str, path: str) -> Callable[[], None]:
    """One step of training by a path."""
    profile = PROFILES[profile_name]
    torch.manual_seed(0)
    generator = Generator(profile).eval().requires_grad_(False)
    ws = generator.map(torch.randn(1, profile.z_dim), generator.frontal_label(1))
    planes = generator.planes(ws)
    tokens = TokenConfig()
    sizes = UNetConfig(plane_channels=profile.plane_channels, plane_size=profile.plane_resolution, token_width=tokens.width)
    network = DeltaNetwork(DeltaConfig(AudioConfig(), tokens, sizes, EXPRESSIONS)).eval()
    network.unet.scale.copy_(planes.std())
    learning = [*network.parameters(), *generator.superresolution.requires_grad_(True).parameters()]
    optimizer = torch.optim.Adam(learning, fused=path != "plain")
    conditions = Conditions(
        torch.randn(FRAMES, tokens.width), torch.rand(FRAMES), torch.zeros(FRAMES, 2), torch.zeros(FRAMES, 4)
    )
    rng = np.random.default_rng(0)
    side = profile.image_resolution
    target = torch.rand(FRAMES, 4, side, side) * 2 - 1
    behind = torch.zeros(FRAMES, 3, side, side)
    dtype = torch.bfloat16 if path.endswith("bfloat16") else torch.float32
    quick = QuickDelta(network, dtype)
    cameras = profile.orbit.pose(torch.zeros(FRAMES), torch.zeros(FRAMES))
    number = itertools.count()

    def step() -> None:
        windows = Windows.random(FRAMES, profile.neural_resolution, rng)
        person = ws
        if path == "plain":
            person = ws.expand(FRAMES, -1, -1)  # each picture with a style of its own, as far as the network knows
            delta = network(network.unet.trunk(planes), conditions)
            moved, delta = planes + delta, delta / network.unet.scale
        else:
            delta = quick(planes, conditions, next(number) % ROUND == 0)
            moved = torch.add(planes, delta, alpha=float(network.unet.scale))
        patch = render_patch(generator, moved, person, cameras, windows, rng, dtype=dtype)
        terms = picture_losses(patch, target, behind, windows, 0.4)
        loss = torch.stack([value.mean() for value in terms.values()]).sum() + 0.001 * magnitude(delta).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def plain_step() -> None:
        with mock.patch.object(fast, "learnt", None):  # as where numba is not installed
            step()

    return plain_step if path == "plain" else step


def measure(profile: str, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds by the clock and of the processor for a step of each path, in turn: means of a round, in which all learns."""
    steps = {path: step_of(profile, path) for path in PATHS}
    for step in steps.values():
        step()
    taken: dict[str, list[tuple[float, float]]] = {path: [] for path in PATHS}
    for _ in range(repeats):
        for path, step in steps.items():
            clock, processor = time.perf_counter(), time.process_time()
            for _ in range(ROUND):
                step()
            taken[path].append(((time.perf_counter() - clock) / ROUND, (time.process_time() - processor) / ROUND))
    return taken


def resident(name: str) -> float:
    """MiB of memory now (VmRSS) or at most (VmHWM; the system's other count begins with what the parent process had)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def peak(profile: str, path: str) -> list[float]:
    """Resident MiB before the first step, and at most within three. Linux only."""
    command = [sys.executable, __file__, profile, "--peak", path]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(value) for value in output.split()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=list(PROFILES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", choices=PATHS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        if given.peak != "plain":
            keep_memory()
        step = step_of(given.profile, given.peak)
        before = resident("VmRSS")  # making random weights took more for a moment
        for _ in range(3):
            step()
        print(before, resident("VmHWM"))
        return
    # What fresh memory costs cannot be told apart in one process: here all pay for it.
    taken = measure(given.profile, given.repeats)
    peaks = {path: peak(given.profile, path) for path in PATHS}
    plain_time = statistics.median(processor for _, processor in taken["plain"])
    plain_growth = peaks["plain"][1] - peaks["plain"][0]
    print(f"{given.profile}, {torch.get_num_threads()} threads, {given.repeats} rounds of {ROUND} steps each in turn")
    print(f"{'path':16}{'clock, s':>10}{'core-s':>10}{'loaded':>10}{'peak MiB':>10}{'growth/':>9}{'plain/this':>12}")
    for path, values in taken.items():
        clock, processor = (statistics.median(column) for column in zip(*values, strict=True))
        loaded, most = peaks[path]
        part = (most - loaded) / plain_growth
        print(f"{path:16}{clock:10.3f}{processor:10.3f}{loaded:10.0f}{most:10.0f}{part:9.2f}{plain_time / processor:12.2f}")


if __name__ == "__main__":
    main()

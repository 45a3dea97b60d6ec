"""Where a training step of the prior spends its time, and how fast heads are drawn: medians on one thread.

    python benchmarks/pretrain_step.py --heads HEAD_MODEL [--repeats N]

Stages are cumulative: each row runs everything above it again, and the last column says what the row adds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from talk3d.heads.latent import LATENT_SIZE, parameters_from_latent
from talk3d.heads.model import HeadPack
from talk3d.heads.raster import render_head
from talk3d.pretrain import dataset
from talk3d.pretrain.train import PretrainConfig, _fresh, _losses
from talk3d.prior.generator import MINI
from talk3d.prior.patch import Windows, render_patch
from talk3d.runs import Workers


def median(work: Callable[[], object], repeats: int) -> float:
    """Seconds, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pack, orbit = HeadPack(options.heads), MINI.orbit
    rng = np.random.default_rng(0)
    parameters = [parameters_from_latent(rng.standard_normal(LATENT_SIZE).astype(np.float32), pack) for _ in range(8)]
    poses, intrinsics = orbit.pose(torch.linspace(-1, 1, 8), torch.zeros(8)).numpy(), orbit.intrinsics().numpy()
    heads = [pack.build(one) for one in parameters]

    def build() -> None:
        for one in parameters:
            pack.build(one)

    def draw() -> None:
        for head, pose in zip(heads, poses, strict=True):
            render_head(head, pack, pose, intrinsics, dataset.IMAGE_SIZE)

    print(f"{'heads':40}{'ms':>8}   median of {options.repeats}, one thread, torch {torch.__version__}")
    for name, work in (("shape and paint a head", build), ("draw a head at 256 x 256", draw)):
        print(f"{name:40}{1000 * median(work, options.repeats) / 8:8.1f}")

    config = PretrainConfig()
    generator = _fresh(MINI)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-9)
    with tempfile.TemporaryDirectory() as folder:
        dataset.HEADS_PER_SHARD = 8
        dataset.render_shard(Path(folder), dataset.HELD_OUT_SHARDS, pack, orbit)
        data = dataset.HeadShards(Path(folder), pack)

        def batch() -> dataset.Batch:
            return data.get(*data.choose(np.random.default_rng(1), config.heads, config.views))

        def planes() -> tuple[torch.Tensor, torch.Tensor]:
            given = batch()
            with torch.autocast("cpu", torch.bfloat16):
                ws = generator.map(given.latents)
                return ws.float(), generator.planes(ws).float()

        def patch(superres: bool) -> object:
            rng = np.random.default_rng(1)
            windows = Windows.random(config.heads, MINI.neural_resolution, rng)
            cameras = orbit.pose(torch.zeros(config.heads), torch.zeros(config.heads))
            ws, drawn = planes()
            return render_patch(generator, drawn, ws, cameras, windows, rng, superres=superres, dtype=torch.bfloat16)

        def losses() -> torch.Tensor:
            terms = _losses(generator, data, config, np.random.default_rng(1), Workers(), superres=True)
            return torch.stack(list(terms.values())).sum()

        def backward() -> None:
            optimizer.zero_grad(set_to_none=True)
            losses().backward()

        def step() -> None:
            backward()
            optimizer.step()

        stages: tuple[tuple[str, Callable[[], object]], ...] = (
            ("read a batch", batch),
            ("+ planes", planes),
            ("+ render a window", lambda: patch(False)),
            ("+ super-resolution", lambda: patch(True)),
            ("+ losses", losses),
            ("+ gradients", backward),
            ("+ optimiser: a whole step", step),
        )
        print(f"\n{f'step of {config.heads} heads x {config.views} view':40}{'ms':>8}{'added':>8}")
        before = 0.0
        for name, work in stages:
            now = 1000 * median(work, options.repeats)
            print(f"{name:40}{now:8.0f}{now - before:8.0f}")
            before = now


if __name__ == "__main__":
    main()

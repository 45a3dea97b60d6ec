"""Rendered heads on disk: shards that one process writes while another trains on what is there.

A shard is a folder of .npy files, written under a temporary name and renamed, so readers only ever see whole ones. Its
content is a pure function of its number, so an interrupted run continues where it stopped and two machines agree.

Letters: N heads per shard, K views per head, S image size, R size of the depth maps.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..camera import Orbit
from ..errors import ConfigError
from ..partials import partial_path, remove_stale_partials, write_whole

if TYPE_CHECKING:
    from ..heads.model import HeadPack

HEADS_PER_SHARD = 64
VIEWS_PER_HEAD = 4
IMAGE_SIZE = 256
DEPTH_SIZE = 64
YAW_RANGE = math.radians(70)
PITCH_RANGE = math.radians(28)
HEADS_VERSION = 3
"""Counted up when the same numbers would give other pictures."""
HELD_OUT_SHARDS = 2
"""The first shards are never trained on; they measure progress on unseen heads."""


@dataclass(frozen=True)
class Batch:
    """B heads, K views each."""

    latents: Tensor
    """[B, z] float32: the heads' parameters, embedded; zero mean, unit deviation."""
    yaw: Tensor
    """[B, K] radians."""
    pitch: Tensor
    """[B, K] radians."""
    images: Tensor
    """[B, K, 4, S, S] uint8: sRGB premultiplied by alpha, and alpha."""
    depth: Tensor
    """[B, K, R, R] float32 distance along the ray in scene units; inf where the head does not cover the whole cell."""


def claim(root: Path, pack: HeadPack, orbit: Orbit) -> None:
    """Note in the folder of shards what they are drawn from, or compare with what is noted there.

    Raises:
        ConfigError: the folder holds heads of another kind.
    """
    from ..heads.latent import LATENT_SIZE
    from ..heads.raster import SUPERSAMPLING

    mine = {
        "heads": HEADS_VERSION,
        "latent": LATENT_SIZE,
        "size": [IMAGE_SIZE, SUPERSAMPLING],
        "orbit": json.loads(json.dumps(asdict(orbit))),
        "pack": pack.digest,
    }
    note = root / "shards.json"
    if not note.exists() and any(root.glob("shard-*")):
        raise ConfigError(
            f"`{root}` holds rendered heads, and no note of what they were drawn from. Render into another folder."
        )
    if note.exists() and (noted := json.loads(note.read_text())) != mine:
        different = ", ".join(sorted(name for name in mine if noted.get(name) != mine[name]))
        raise ConfigError(
            f"The rendered heads in `{root}` were drawn from something else ({different}). Render into another folder, or "
            "remove that one."
        )
    if not note.exists():
        write_whole(note, json.dumps(mine, indent=1).encode())


def render_shard(root: Path, number: int, pack: HeadPack, orbit: Orbit) -> Path:
    """Render shard `number` into `root` unless it is already there; returns its folder."""
    from ..heads.latent import LATENT_SIZE, parameters_from_latent
    from ..heads.raster import render_head

    final = root / f"shard-{number:05d}"
    if final.is_dir():
        return final
    rng = np.random.default_rng([20240328, number])
    latents = rng.standard_normal((HEADS_PER_SHARD, LATENT_SIZE)).astype(np.float32)
    shape = (HEADS_PER_SHARD, VIEWS_PER_HEAD)
    # Half of the views lie near the front, where users look; the other half spreads to the sides.
    side = rng.random(shape) < 0.5
    yaw = np.where(side, rng.uniform(-1, 1, shape), np.clip(rng.normal(0, 0.2, shape), -1, 1)) * YAW_RANGE
    pitch = np.where(side, rng.uniform(-1, 1, shape), np.clip(rng.normal(0, 0.35, shape), -1, 1)) * PITCH_RANGE
    images = np.empty((*shape, 4, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    depth = np.empty((*shape, DEPTH_SIZE, DEPTH_SIZE), np.float16)
    poses = orbit.pose(torch.tensor(yaw.ravel()).float(), torch.tensor(pitch.ravel()).float()).numpy()
    intrinsics = orbit.intrinsics().numpy()
    for i in range(HEADS_PER_SHARD):
        head = pack.build(parameters_from_latent(latents[i], pack))
        for k in range(VIEWS_PER_HEAD):
            picture = render_head(head, pack, poses[i * VIEWS_PER_HEAD + k], intrinsics, IMAGE_SIZE)
            images[i, k, :3] = picture.rgb.transpose(2, 0, 1)
            images[i, k, 3] = picture.alpha
            # Averaging with inf leaves inf: a cell counts only where the head covers all of it.
            factor = IMAGE_SIZE // DEPTH_SIZE
            depth[i, k] = picture.depth.reshape(DEPTH_SIZE, factor, DEPTH_SIZE, factor).mean((1, 3))
    angles = {"yaw": yaw.astype(np.float32), "pitch": pitch.astype(np.float32)}
    write_shard(final, {"latents": latents, "images": images, "depth": depth, **angles})
    return final


def write_shard(final: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write the folder `final` of .npy files, whole or not at all; it may be there by now, from another process."""
    remove_stale_partials(final)
    partial = partial_path(final)
    partial.mkdir(parents=True)
    try:
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array)
        partial.rename(final)
    except OSError:
        # The writer of a killed run may have finished the same shard meanwhile; its content depends on the number alone.
        if not final.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class ShardWriters:
    """Processes that draw shards while another trains; a context that ends them.

    They take the numbers in turns, in ascending order, and leave out what is there already.

    Args:
        root: folder of shards.
        numbers: which shards.
        pack: the head pack.
        orbit: the camera.
        processes: how many; none if another process of the run does it.
    """

    def __init__(self, root: Path, numbers: range, pack: HeadPack, orbit: Orbit, processes: int):
        # Forking a process that has used threads may hang it, so these start afresh.
        context = multiprocessing.get_context("spawn")
        arguments = [(root, numbers[start::processes], pack.root, orbit, os.getpid()) for start in range(processes)]
        self._processes = [context.Process(target=_draw_shards, args=a, daemon=True) for a in arguments]

    def at_work(self) -> bool:
        """Whether any of them still draws, and none has failed."""
        failed = any(process.exitcode not in (None, 0) for process in self._processes)
        return not failed and any(process.is_alive() for process in self._processes)

    def __enter__(self) -> ShardWriters:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()


def _draw_shards(root: Path, numbers: Sequence[int], pack_at: Path, orbit: Orbit, parent: int) -> None:
    from ..heads.model import HeadPack

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to everyone; the trainer ends this one in order
    pack = HeadPack(pack_at)
    for number in numbers:
        if os.getppid() != parent:  # the trainer was killed
            return
        render_shard(root, number, pack, orbit)


class HeadShards:
    """Random access to the heads rendered so far; new shards are noticed when `refresh` is called.

    Args:
        root: folder of shards.
        pack: the head pack they were rendered from.
        held_out: read the held-out shards instead of the training ones.
        below: take note only of shards with smaller numbers than this.
    """

    def __init__(self, root: Path, pack: HeadPack, held_out: bool = False, below: int | None = None):
        from ..heads.latent import HeadEmbedding

        self.root, self.held_out = root, held_out
        self._pack, self._embed = pack, HeadEmbedding(pack)
        self._shards: list[tuple[int, Path, NDArray]] = []
        """Number, folder and embedded heads. Files are opened when they are read: hundreds of shards are more than most systems
        let a process hold open."""
        self._known: set[str] = set()
        self.refresh(below)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self._shards)

    def refresh(self, below: int | None = None) -> None:
        """Take note of new shards, of those with numbers below `below` if that is given."""
        from ..heads.latent import parameters_from_latent

        for folder in sorted(self.root.glob("shard-*")):
            number = int(folder.name.removeprefix("shard-"))
            if below is not None and number >= below:
                break
            if folder.name not in self._known and (number < HELD_OUT_SHARDS) == self.held_out:
                self._known.add(folder.name)
                heads = [parameters_from_latent(z, self._pack) for z in np.load(folder / "latents.npy")]
                self._shards.append((number, folder, np.stack([self._embed(head) for head in heads])))
        # A head's index must not depend on which of two writers was faster.
        self._shards.sort(key=lambda entry: entry[0])

    def __len__(self) -> int:
        """Number of heads."""
        return len(self._shards) * HEADS_PER_SHARD

    def get(self, indices: NDArray[np.int64], views: NDArray[np.int64]) -> Batch:
        """The heads `indices` [B], seen from their views `views` [B, K]."""
        parts: dict[str, list[NDArray]] = {name: [] for name in ("latents", "yaw", "pitch", "images", "depth")}
        for index, chosen in zip(indices, views, strict=True):
            (_, folder, latents), row = self._shards[index // HEADS_PER_SHARD], index % HEADS_PER_SHARD
            parts["latents"].append(latents[row])
            for name in ("yaw", "pitch", "images", "depth"):
                parts[name].append(np.load(folder / f"{name}.npy", mmap_mode="r")[row][chosen])
        latents, yaw, pitch, images, depth = (torch.from_numpy(np.stack(rows)) for rows in parts.values())
        return Batch(latents, yaw, pitch, images, depth.float())

    def choose(self, rng: np.random.Generator, heads: int, views: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Random heads [heads], and `views` different views of each [heads, views], for `get`."""
        indices = rng.integers(0, len(self), heads)
        return indices, np.stack([rng.permutation(VIEWS_PER_HEAD)[:views] for _ in range(heads)])

    def __iter__(self) -> Iterator[Batch]:
        """Every head once, all its views, one by one."""
        for index in range(len(self)):
            yield self.get(np.array([index]), np.arange(VIEWS_PER_HEAD)[None])

"""What every long training needs: a state that survives any interruption, a log, averaged weights, and several processes.

A run is a folder with the training state, `log.jsonl` and sample sheets. Killed at any moment and started again, it goes on
from its last state, and its log with it: on the same machine the numbers are the same, bit for bit, as if nothing had happened.
Started by `torchrun`, several processes share one run: each takes its part of every batch, gradients are averaged over all,
and the first one writes.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .artifacts import load_state, optimizer_tensors, restore_optimizer, save_state
from .errors import CheckpointError, ConfigError
from .partials import write_whole

STATE = "training.safetensors"
LOG = "log.jsonl"
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
HARMLESS = frozenset({"tensorboard", "save_every", "sample_every"})
"""Settings that may change when a run is continued: no weight depends on them."""


@dataclass(frozen=True)
class Workers:
    """The processes that train together."""

    rank: int = 0
    """This one's number."""
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def share(self, total: int) -> slice:
        """Which samples of a batch of `total` are this process's.

        Raises:
            ConfigError: the batch cannot be shared evenly.
        """
        if total % self.count:
            raise ConfigError(
                f"A batch of {total} cannot be shared evenly by {self.count} processes. Start a number of them that divides it."
            )
        size = total // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first process runs the block alone; the others follow when it is done, and find what it left on disk."""
        if self.count > 1 and self.rank:
            torch.distributed.barrier()
        yield
        if self.count > 1 and not self.rank:
            torch.distributed.barrier()


@contextmanager
def join() -> Iterator[Workers]:
    """The processes that `torchrun` started, or this one alone; on a GPU if there is one.

    Raises:
        ConfigError: more processes than GPUs.
    """
    count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    if cuda and local >= torch.cuda.device_count():
        raise ConfigError(f"{count} processes were started, and this machine has {torch.cuda.device_count()} GPUs: one each.")
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if count == 1:
        yield Workers(device=device)
        return
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Workers(torch.distributed.get_rank(), count, device)
    finally:
        torch.distributed.destroy_process_group()


def keep_memory() -> None:
    """Let this process keep what it frees, for its next step.

    A step asks for a gigabyte in pieces; to get them from the system anew, page by page, takes a tenth of its time. Pieces of
    32 MiB and more for which there is no room in what is kept go back nevertheless: such holes are seldom filled. Only where
    the C library is glibc; elsewhere nothing happens.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for name, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**25), (_TOP_PAD, 2**28)):
            library.mallopt(name, value)


def chosen_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """What draws: `auto` is a GPU if there is one.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "There is no CUDA device here that this PyTorch can use. Leave `--device` out, or install a PyTorch with CUDA and "
            "a driver for it."
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Every:
    """Says about every so many seconds that it is time for something."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        """Whether it is time; then the next time is counted from now."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def warmed_cosine(step: int, steps: int, warm_up: int) -> float:
    """Factor on a learning rate: a rise over `warm_up` steps, times a cosine that falls to zero over all `steps`."""
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / steps))


def finish_gradients(parameters: Iterable[nn.Parameter], workers: Workers) -> None:
    """Average gradients over all processes and make them finite.

    One bad ray must not end a run of hours (method 3.2: NaN to 0, infinities to 1e5).
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    workers.mean(gradients)
    for gradient in gradients:
        torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move averaged weights towards the current ones; buffers are copied."""
    for target, source in zip(average.parameters(), module.parameters(), strict=True):
        target.lerp_(source, 1 - decay)
    for kept, current in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(current)


class Run:
    """A training run on disk.

    Args:
        folder: of the run; made if need be.
        config: the settings (a dataclass); a run continues with the same ones only.
        modules: what is trained or averaged, by name.
        optimizers: by name.
        workers: the processes; only the first one writes.
        tensorboard: also write event files for TensorBoard.
        origin: what else the run depends on, by name: profile, starting weights, data.
        harmless: settings that may differ when the run is continued.

    Raises:
        ConfigError: tensorboard is asked for and not installed.
    """

    notes: dict[str, Any]
    """What else the resumed state says, as it was given to `save`; empty for a fresh run."""

    def __init__(
        self,
        folder: Path,
        config: Any,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        workers: Workers,
        tensorboard: bool = False,
        origin: Mapping[str, Any] | None = None,
        harmless: Collection[str] = HARMLESS,
    ):
        self.folder, self.notes = folder, {}
        # As JSON gives it back, so that tuples and lists compare equal.
        self._config = json.loads(json.dumps(dataclasses.asdict(config) | {"origin": origin}))
        self._modules, self._optimizers, self._workers, self._harmless = modules, optimizers, workers, harmless
        folder.mkdir(parents=True, exist_ok=True)
        self._board: Any = _board(folder) if tensorboard and workers.rank == 0 else None

    def resume(self) -> int:
        """Load the state, if there is one, and forget what was logged after it; returns the number of steps done.

        Raises:
            CheckpointError: the state is damaged or belongs to other settings.
        """
        if not (self.folder / STATE).exists():
            self._cut_log(0)
            return 0
        tensors, state = load_state(self.folder / STATE)
        self._require_same(state["config"])
        for name, module in self._modules.items():
            prefix = f"{name}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        for name, optimizer in self._optimizers.items():
            restore_optimizer(optimizer, tensors, name)
        self.notes = state.get("notes", {})
        self._cut_log(int(state["step"]))
        return int(state["step"])

    def save(self, step: int, notes: Mapping[str, Any] | None = None) -> None:
        """Write the whole state; an interruption while it is written leaves the earlier one.

        Args:
            step: how many are done.
            notes: JSON values that are to come back with it.
        """
        if self._workers.rank == 0:
            tensors = {f"{name}.{k}": v for name, module in self._modules.items() for k, v in module.state_dict().items()}
            for name, optimizer in self._optimizers.items():
                tensors |= optimizer_tensors(optimizer, name)
            save_state(self.folder / STATE, tensors, {"step": step, "config": self._config, "notes": dict(notes or {})})

    def log(self, step: int, entry: Mapping[str, float]) -> None:
        """Append one line of numbers."""
        if self._workers.rank == 0:
            with (self.folder / LOG).open("a") as log:
                log.write(json.dumps({"step": step, **entry}) + "\n")
            if self._board is not None:
                for name, value in entry.items():
                    self._board.add_scalar(name, value, step)

    def _require_same(self, then: Mapping[str, Any]) -> None:
        now, skipped = self._config, {"origin", *self._harmless}
        differences = [f"another {name} ({change})" for name, change in _changes(then.get("origin") or {}, now["origin"] or {})]
        if known := "; ".join(f"{name} {change}" for name, change in _changes(then, now) if name not in skipped):
            differences.append(f"other settings ({known})")
        if differences:
            raise CheckpointError(
                f"The run in `{self.folder}` was started with {' and '.join(differences)}. "
                "Continue with the same, train into another folder, or delete that one to start afresh."
            )

    def _cut_log(self, step: int) -> None:
        """Drop what was logged after the state, which will be logged again, and a line that a kill left unfinished."""
        path = self.folder / LOG
        if self._workers.rank or not path.exists():
            return
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            write_whole(path, b"".join(kept))


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each entry that differs, and how."""
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield name, f"{_short(then.get(name))}, now {_short(now.get(name))}"


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of all weights, by which a run knows where it started."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("TensorBoard is not installed. Run `pip install tensorboard`, or train without it.") from error
    return SummaryWriter(str(folder / "tensorboard"))

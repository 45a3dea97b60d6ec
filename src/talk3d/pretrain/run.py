"""What every long training needs: a state that survives any interruption, a log, averaged weights, and several processes.

A run is a folder with the training state, `log.jsonl` and sample sheets. Started by `torchrun`, several processes share one
run: each takes its part of every batch, gradients are averaged over all, and the first one writes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..artifacts import load_state, optimizer_tensors, restore_optimizer, save_state
from ..errors import CheckpointError, ConfigError

STATE = "training.safetensors"
HARMLESS = {"tensorboard", "save_every", "sample_every"}
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
        origin: what else the run depends on: profile, starting weights, data.

    Raises:
        ConfigError: tensorboard is asked for and not installed.
    """

    def __init__(
        self,
        folder: Path,
        config: Any,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        workers: Workers,
        tensorboard: bool = False,
        origin: Mapping[str, Any] | None = None,
    ):
        self.folder = folder
        # As JSON gives it back, so that tuples and lists compare equal.
        self._config = json.loads(json.dumps(dataclasses.asdict(config) | {"origin": origin}))
        self._modules, self._optimizers, self._workers = modules, optimizers, workers
        folder.mkdir(parents=True, exist_ok=True)
        self._board: Any = _board(folder) if tensorboard and workers.rank == 0 else None

    def resume(self) -> int:
        """Load the state, if there is one; returns the number of steps done.

        Raises:
            CheckpointError: the state is damaged or belongs to other settings.
        """
        if not (self.folder / STATE).exists():
            return 0
        tensors, state = load_state(self.folder / STATE)
        then, now = state["config"], self._config
        names = sorted((then.keys() | now.keys()) - HARMLESS)
        if different := [name for name in names if then.get(name) != now.get(name)]:
            known = "; ".join(f"{name} {_short(then.get(name))}, now {_short(now.get(name))}" for name in different)
            raise CheckpointError(
                f"The run in `{self.folder}` was started with other settings ({known}). "
                "Continue with the same ones, or train into another folder."
            )
        for name, module in self._modules.items():
            prefix = f"{name}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        for name, optimizer in self._optimizers.items():
            restore_optimizer(optimizer, tensors, name)
        return int(state["step"])

    def save(self, step: int) -> None:
        """Write the whole state; an interruption while it is written leaves the earlier one."""
        if self._workers.rank == 0:
            tensors = {f"{name}.{k}": v for name, module in self._modules.items() for k, v in module.state_dict().items()}
            for name, optimizer in self._optimizers.items():
                tensors |= optimizer_tensors(optimizer, name)
            save_state(self.folder / STATE, tensors, {"step": step, "config": self._config})

    def log(self, step: int, entry: Mapping[str, float]) -> None:
        """Append one line of numbers."""
        if self._workers.rank == 0:
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, **entry}) + "\n")
            if self._board is not None:
                for name, value in entry.items():
                    self._board.add_scalar(name, value, step)


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

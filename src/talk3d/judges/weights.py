"""The judges' files: half-precision safetensors with the network's sizes beside the weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import CheckpointError
from ..partials import write_whole

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def save_weights(network: nn.Module, dims: Any, path: Path) -> None:
    """Write a network in half precision, with its sizes `dims` (a dataclass); the file is there whole or not at all."""
    import safetensors.torch

    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    write_whole(path, safetensors.torch.save(tensors, {"dims": json.dumps(dataclasses.asdict(dims))}))


def read_weights(path: Path, build: Callable[[dict[str, Any]], AnyNetwork], what: str) -> AnyNetwork:
    """A network that `save_weights` wrote; frozen, single precision.

    Args:
        path: the file.
        build: the network of given sizes; JSON's lists are tuples again.
        what: the network's name, for the error.

    Raises:
        CheckpointError: the file is missing, damaged, or holds another network.
    """
    import safetensors
    import safetensors.torch

    try:
        with safetensors.safe_open(path, "pt") as file:
            dims: dict[str, Any] = json.loads((file.metadata() or {})["dims"])
        # First weights are drawn at random, and a caller's random numbers must not depend on who has read a file before.
        with torch.random.fork_rng(devices=[]):
            network = build({name: tuple(value) if isinstance(value, list) else value for name, value in dims.items()})
        network.load_state_dict({name: value.float() for name, value in safetensors.torch.load_file(path).items()})
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"`{path}` is not a readable {what} ({error}). Install talk3d again, or train one with tools/train_judges.py."
        ) from error
    return network.eval().requires_grad_(False)

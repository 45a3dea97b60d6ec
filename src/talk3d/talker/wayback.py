"""The way of pictures from a GPU to the CPU, which copies one batch while the card draws the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor


class WayBack:
    """Two buffers in turn, page-locked where pictures come from a GPU: only into such is copied while it computes.

    For one thread at a time.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor | None] = [None, None]
        self._stream: torch.cuda.Stream | None = None

    def bring(self, batches: Iterable[UInt8[Tensor, "_ height width 3"]]) -> Iterator[UInt8[np.ndarray, "_ height width 3"]]:
        """Each batch, in order. The next one is asked for before one is waited for."""
        waiting: Callable[[], np.ndarray] | None = None
        for number, batch in enumerate(batches):
            # Of two buffers, one is being written and one is being read.
            sent = self._send(batch, number % 2)
            if waiting is not None:
                yield waiting()
            waiting = sent
        if waiting is not None:
            yield waiting()

    def _send(self, batch: Tensor, place: int) -> Callable[[], np.ndarray]:
        """Begin to copy; what is returned waits for that."""
        buffer = self._buffers[place]
        if buffer is None or buffer.shape != batch.shape:
            buffer = self._buffers[place] = torch.empty_like(batch, device="cpu", pin_memory=batch.is_cuda)
        if not batch.is_cuda:
            buffer.copy_(batch)
            return lambda: buffer.numpy().copy()
        self._stream = self._stream or torch.cuda.Stream(batch.device)
        self._stream.wait_stream(torch.cuda.current_stream(batch.device))
        with torch.cuda.stream(self._stream):
            buffer.copy_(batch, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        # Or its memory would be given to the next batch while it is still being read.
        batch.record_stream(self._stream)

        def wait() -> np.ndarray:
            copied.synchronize()
            return buffer.numpy().copy()

        return wait

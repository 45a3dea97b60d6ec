"""Working ahead in another thread: networks, OpenCV and FFmpeg all let go of Python's lock while they compute."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, cast

import torch

S = TypeVar("S")
T = TypeVar("T")

DEPTH = 4
"""Items that are made before they are asked for, at most."""


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items in the same order, made by a thread of their own while the caller works on those before.

    What making them raises is raised here. A caller who stops early stops the thread too.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(DEPTH)
    stopped = threading.Event()

    def hand_over(item: T | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                hand_over(item, None)
                if stopped.is_set():
                    return
            hand_over(None, StopIteration())
        except BaseException as error:
            hand_over(None, error)
        finally:
            if isinstance(items, Generator):
                items.close()  # here, where it ran

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield cast(T, item)
    finally:
        stopped.set()
        thread.join()


def spread(items: Iterable[S], work: Callable[[S], T], workers: int) -> Generator[T, None, None]:
    """`work` of each item, in the order of the items, done by threads of their own, each on whole items.

    Torch's threads are shared out among them: with as many workers as torch has threads each computes by itself, and nobody
    waits for anybody. At most `DEPTH` items wait for a worker, and no more results are kept than items may be under way.

    What making an item or working on it raises is raised here. A caller who stops early stops the threads too, once they have
    done what is in hand.

    Args:
        items: made in the caller's thread; see `ahead`.
        work: must not depend on which thread it runs in, or on what others do.
        workers: how many threads.
    """
    threads = torch.get_num_threads()
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=use_threads, initargs=(max(1, threads // workers),))
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == workers + DEPTH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def use_threads(count: int) -> None:
    """Let torch compute with so many threads where the calling thread asks it to, and where threads do that begin later."""
    # A thread that has never asked for their number takes over the process's when it first computes, and forgets its own.
    torch.get_num_threads()
    torch.set_num_threads(count)


@contextmanager
def alone() -> Iterator[None]:
    """Compute without torch's other threads meanwhile: some results are rounded differently if they share the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

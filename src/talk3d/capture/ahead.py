"""Working ahead in another thread: networks, OpenCV and FFmpeg all let go of Python's lock while they compute."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar, cast

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

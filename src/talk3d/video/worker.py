"""The process that decodes, `python -m talk3d.video.worker`, which `door` starts: what goes wrong here harms nothing else.

It imports the standard library, numpy and PyAV, reads requests from its input, one JSON object per line, and writes
messages (see `wire`) to its output. Where the system has such limits, it may use so much memory, so much processor time
between two signs of life, and write to no file. It ends when its input does, that is, when its parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any

import av
import numpy as np

from ..errors import MediaError, NoAudioError
from .jobs import JOBS
from .wire import packed

try:
    import resource
except ImportError:  # not a Unix: no limits, the rest is the same
    resource = None  # type: ignore[assignment]

SIGN_OF_LIFE = 1.0
"""Seconds between messages that say no more than that work goes on."""

CPU_SECONDS = 120
"""Of processor time that may pass before a job gets one step further."""

AHEAD = 4
"""Messages that wait for the parent, at most: frames are decoded while it is busy with those before."""

LARGE = 1 << 24
"""Bytes of an array that waits for all before it to be sent, so that few large frames are in memory at once."""


class Worker:
    """One request after the other; decoding, sending and listening each in a thread of its own."""

    def __init__(self, requests: Any, messages: Any) -> None:
        self.requests, self.messages = requests, messages
        self.waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self.outgoing: queue.Queue[tuple[dict[str, Any], np.ndarray | None]] = queue.Queue(AHEAD)
        self.stopped = 0
        self.last_sign = self.renewed = 0.0

    def run(self) -> None:
        for thread in (self._listen, self._send):
            threading.Thread(target=thread, daemon=True).start()
        self._put({"kind": "ready"})
        while True:
            self._serve(self.waiting.get())

    def _listen(self) -> None:
        for line in self.requests:
            request = json.loads(line)
            if "stop" in request:
                self.stopped = request["stop"]
            else:
                self.waiting.put(request)
        os._exit(0)  # from this thread, the only way out

    def _send(self) -> None:
        try:
            while True:
                for piece in packed(*self.outgoing.get()):
                    view = memoryview(piece)
                    while view:  # a pipe may take a part
                        view = view[self.messages.write(view) :]
                self.outgoing.task_done()
        except BaseException:
            os._exit(1)  # the parent is gone, or would wait for ever

    def _renew_processor_time(self) -> None:
        """The system ends this process when it computes for long without getting here, even where it listens to nobody."""
        if time.monotonic() - self.renewed > SIGN_OF_LIFE:
            self.renewed = time.monotonic()
            limit_processor_time()

    def _put(self, message: dict[str, Any], array: np.ndarray | None = None) -> None:
        if array is not None and array.nbytes > LARGE:
            self.outgoing.join()
        self.outgoing.put((message, array))
        self.last_sign = time.monotonic()

    def _serve(self, request: dict[str, Any]) -> None:
        number = request["number"]
        try:
            for found in JOBS[request["job"]](request["source"], **request["arguments"]):
                if self.stopped >= number:
                    break
                self._renew_processor_time()
                if isinstance(found, np.ndarray):
                    self._put({"kind": "array"}, found)
                elif found is not None:
                    self._put({"kind": "found", "found": found})
                elif time.monotonic() - self.last_sign > SIGN_OF_LIFE:
                    self._put({"kind": "alive"})
        except (MediaError, NoAudioError) as error:
            self._put({"kind": "error", "error": type(error).__name__, "text": str(error)})
        except Exception as error:  # FFmpeg's wrapper has many ways to say that it cannot make sense of a file
            what = "memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
            self._put({"kind": "failure", "what": what, "trace": traceback.format_exc()})
        self._put({"kind": "done", "number": number})


def limit_processor_time() -> None:
    """To CPU_SECONDS from now on."""
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def limit_resources(memory: int) -> None:
    """At most `memory` bytes of addresses beyond what the imports took; no file written, no core dumped."""
    if resource is None:
        return
    with contextlib.suppress(OSError, ValueError):  # a system without /proc limits what it can
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, taken + memory)
    limit_processor_time()
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(limit: int, value: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def main() -> None:
    # Whatever a library prints must not get between the messages.
    messages = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    av.logging.set_level(None)
    limit_resources(int(sys.argv[1]))
    with contextlib.suppress(KeyboardInterrupt):
        Worker(sys.stdin.buffer, messages).run()


if __name__ == "__main__":
    main()

"""The only way to what decodes: requests go to a worker process, and its answers come back.

Media that anyone may hand us goes through a large amount of C code. A process of its own may crash, hang or run out of memory
without harm; here each of these becomes a MediaError. Workers that are idle are kept for the next request. On systems without
`resource` (not Unix) nothing limits a worker's memory, and on those without `poll` (Windows) none is stopped for being silent.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import MediaError, NoAudioError
from .source import Source, described
from .wire import HEADER, MAX_TEXT, bytes_of, empty_array

MEMORY = 3 << 30
"""Bytes of addresses that a worker may take beyond its imports: enough for 8K, and less than machines have."""

PATIENCE = 60.0
"""Seconds without a sign of life after which a worker is ended."""

PATIENCE_FOR_RESULTS = 600.0
"""Seconds in which it may give signs of life but no result, for example on its way to a place far into a long film."""

PIPE = 1 << 20
"""Bytes of a pipe: a frame of 512x512 goes in at once."""

IDLE = 2
"""Workers that are kept for later: films are read two at a time, picture and mask."""

_idle: list[_Worker] = []
_lock = threading.RLock()
"""Of `_idle`; re-entrant, as the garbage collector may end a forgotten reader while another one begins."""


def ask(job: str, source: Source, **arguments: Any) -> Generator[Any, None, None]:
    """Have a worker do one of `jobs.JOBS`, and give what it finds: dicts and arrays, a few of which are computed ahead.

    Raises:
        MediaError: what the job raises; or the worker crashed, was silent for too long, or ran out of memory.
        NoAudioError: what the job raises.
    """
    worker = _borrow()
    done = False
    try:
        worker.request(job, described(source), arguments)
        while (answer := worker.receive()) is not None:
            yield answer
        done = True
    except (MediaError, NoAudioError):
        done = worker.finished
        raise
    except GeneratorExit:
        done = worker.stop()
        raise
    finally:
        _give_back(worker, done)


class _Worker:
    """A process, and the conversation with it."""

    def __init__(self) -> None:
        environment = os.environ | {
            # Each thread that allocates would reserve 64 MB of addresses, and those are limited.
            "MALLOC_ARENA_MAX": "2",
            "OPENBLAS_NUM_THREADS": "1",
        }
        root = Path(__file__).parents[2]
        if root.name not in ("site-packages", "dist-packages"):  # a checkout: the worker has to be of the same one
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
        # -P: no module from the working folder, where films are that anyone made. A group of its own: Ctrl-C is for us.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "talk3d.video.worker", str(MEMORY)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=environment,
            process_group=0 if os.name == "posix" else None,
        )  # fmt: skip
        self.input, self.output = cast(io.FileIO, self.process.stdin), cast(io.FileIO, self.process.stdout)
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(self.output, fcntl.F_SETPIPE_SZ, PIPE)
        self.number, self.finished, self.shown = 0, True, ""
        self.signs_until = self.results_until = 0.0
        self._expect()
        try:
            if self._message()[0].get("kind") != "ready":
                raise ValueError("no greeting")
        except (MediaError, ValueError, OSError) as error:
            self.end()
            raise RuntimeError(
                "The process that decodes media could not be started. `python -m talk3d.video.worker 1000000000` says why."
            ) from error

    def request(self, job: str, source: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.number, self.finished, self.shown = self.number + 1, False, source["shown"]
        self._say({"number": self.number, "job": job, "source": source, "arguments": arguments})

    def _say(self, request: dict[str, Any]) -> None:
        line = json.dumps(request).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # the answer, or its absence, will say more
            self.input.write(line)

    def receive(self) -> dict[str, Any] | np.ndarray | None:
        """The next thing that the job found, None at its end."""
        self._expect()
        while True:
            message, array = self._message()
            kind = message.get("kind")
            if kind == "array" and array is not None:
                return array
            if kind == "found" and isinstance(message.get("found"), dict):
                return message["found"]
            if kind == "alive":
                self.signs_until = time.monotonic() + PATIENCE
            elif kind == "done":
                self.finished = True
                return None
            elif kind == "error":
                self._drain()
                raise (NoAudioError if message.get("error") == "NoAudioError" else MediaError)(str(message.get("text")))
            elif kind == "failure":
                self._drain()
                raise self._failure(str(message.get("what")), str(message.get("trace")))
            else:
                raise self._lost("said what no decoder says")

    def stop(self) -> bool:
        """End the job early; whether the worker can be used again."""
        self._say({"stop": self.number})
        self._expect(2.0)
        with contextlib.suppress(MediaError, ValueError):
            self._drain()
        return self.finished

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.input.close()
        self.output.close()

    def _expect(self, seconds: float | None = None) -> None:
        now = time.monotonic()
        self.signs_until = now + (PATIENCE if seconds is None else seconds)
        self.results_until = now + (PATIENCE_FOR_RESULTS if seconds is None else seconds)

    def _drain(self) -> None:
        while self._message()[0].get("kind") != "done":
            pass
        self.finished = True

    def _message(self) -> tuple[dict[str, Any], np.ndarray | None]:
        head = bytearray(HEADER.size)
        self._fill(memoryview(head))
        length, size = HEADER.unpack(head)
        if length > MAX_TEXT:
            raise self._lost("said what no decoder says")
        text = bytearray(length)
        self._fill(memoryview(text))
        try:
            message = dict(json.loads(text))
            array = empty_array(message, size) if size else None
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise self._lost("said what no decoder says") from error
        if array is not None:
            self._fill(bytes_of(array))
        return message, array

    def _fill(self, view: memoryview) -> None:
        while view:
            self._wait()
            count = self.output.readinto(view)
            if not count:
                raise self._lost(self._how_it_ended())
            view = view[count:]

    def _wait(self) -> None:
        if not hasattr(select, "poll"):
            return
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        left = min(self.signs_until, self.results_until) - time.monotonic()
        if not poll.poll(max(0.0, left) * 1000):
            raise MediaError(
                f"`{self.shown}` gave no picture or sound for a long time, and reading it was ended. It is damaged, or its "
                "disk does not answer; copy it to this machine, or re-encode it."
            )

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        code = self.process.returncode
        if code is None or code >= 0:
            return "stopped"
        if -code == getattr(signal, "SIGXCPU", None):
            return "computed for minutes without any result"
        if -code == getattr(signal, "SIGKILL", None):
            return "was killed, perhaps because memory ran out"
        return f"crashed ({signal.Signals(-code).name})"

    def _lost(self, how: str) -> MediaError:
        return MediaError(
            f"`{self.shown}` cannot be read: the decoder {how}. The file is damaged or made to do harm; re-encode it elsewhere."
        )

    def _failure(self, what: str, trace: str) -> MediaError:
        if what == "memory":
            return MediaError(
                f"`{self.shown}` needs more memory than decoding may take ({MEMORY / 2**30:.0f} GB). It is damaged, or its "
                "pictures have to be scaled down first."
            )
        error = MediaError(f"`{self.shown}` cannot be decoded ({what}). It is damaged; copy it again or re-encode it.")
        error.add_note(trace)
        return error


def _borrow() -> _Worker:
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.process.poll() is None:
                return worker
            worker.end()
    return _Worker()


def _give_back(worker: _Worker, usable: bool) -> None:
    with _lock:
        if usable and len(_idle) < IDLE:
            _idle.append(worker)
            return
    worker.end()


@atexit.register
def _end_all() -> None:
    with _lock:
        while _idle:
            _idle.pop().end()


def _forget() -> None:
    """In a forked copy of this process: the workers belong to the original, and end when nobody else holds their input."""
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

"""Long passes over a film in stretches: what a finished stretch gave stays on disk until the Capture is complete.

Killed at any moment and started again, a pass goes on behind its last finished stretch, and the Capture comes out as if nothing
had happened.

Letters: n frames of one stretch, or whatever else a pass counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from .. import __version__
from ..errors import ConfigError, Talk3DError
from ..partials import is_running, write_whole
from ..video.clock import FPS
from ..video.source import Pictures

STRETCH = 60 * FPS
"""Frames: a minute of film is seconds of work, and no more is lost."""
OWNER = "owner.json"
LAST = "last"


class Stretches:
    """What the passes over one film have given so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, work: str, arrays: Mapping[str, np.ndarray], last: bool) -> None:
        """Keep what the next stretch of the pass `work` gave: whole or not at all.

        Args:
            work: the pass.
            arrays: by name, the same in each stretch; one row for each thing counted.
            last: nothing comes after it.
        """
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_whole(self._name(work, self.count(work)), save(whole, {LAST: str(int(last))}))

    def count(self, work: str) -> int:
        """How many stretches of a pass are done."""
        return len(self._done(work))

    def complete(self, work: str) -> bool:
        """Whether a pass has nothing left to do."""
        done = self._done(work)
        if not done:
            return False
        with safe_open(done[-1], "numpy") as file:
            return file.metadata()[LAST] == "1"

    def rows(self, work: str, name: str) -> int:
        """How many rows of an array there are in all stretches together."""
        return sum(shape[0] for shape in self._shapes(work, name))

    def joined(self, work: str, name: str) -> np.ndarray:
        """An array of all stretches, one after the other. Memory holds it once."""
        shapes, at = self._shapes(work, name), 0
        whole: np.ndarray | None = None
        for piece in self.pieces(work, name):
            if len(shapes) == 1:
                return piece
            if whole is None:
                whole = np.empty((sum(shape[0] for shape in shapes), *piece.shape[1:]), piece.dtype)
            whole[at : at + len(piece)] = piece
            at += len(piece)
        assert whole is not None, "asked for what no stretch has given"
        return whole

    def pieces(self, work: str, name: str) -> Iterator[np.ndarray]:
        """An array of each stretch, one after the other; memory holds one of them."""
        for path in self._done(work):
            with safe_open(path, "numpy") as file:
                yield file.get_tensor(name)

    def newest(self, work: str, name: str) -> np.ndarray:
        """An array of the newest stretch."""
        with safe_open(self._done(work)[-1], "numpy") as file:
            return file.get_tensor(name)

    def media(self, work: str, suffix: str, number: int) -> Path:
        """Where a film of stretch `number` lies that is too large for an array. It counts once the stretch is kept."""
        return self._folder / f"{work}-{number:04d}{suffix}"

    def _name(self, work: str, number: int) -> Path:
        return self.media(work, ".safetensors", number)

    def _done(self, work: str) -> list[Path]:
        return sorted(self._folder.glob(f"{work}-*.safetensors"))

    def _shapes(self, work: str, name: str) -> list[tuple[int, ...]]:
        shapes = []
        for path in self._done(work):
            with safe_open(path, "numpy") as file:
                shapes.append(tuple(file.get_slice(name).get_shape()))
        return shapes


def stretches_folder(output: Path) -> Path:
    """Where the unfinished work on a Capture lies: beside it."""
    return output.with_name(output.name + ".preparing")


@contextmanager
def keeping(output: Path, about: Mapping[str, Any]) -> Iterator[Stretches]:
    """The stretches of the Capture `output`: those of an interrupted run if it was about the same, else none.

    They are removed when the work is done, and when it turned out that it cannot be done; an interruption leaves them.

    Args:
        output: folder of the Capture.
        about: everything that what the passes give depends on; JSON.

    Raises:
        ConfigError: another process is preparing this output.
    """
    folder = stretches_folder(output)
    identity = json.dumps({"version": __version__, "about": about}, sort_keys=True, default=str)
    digest = hashlib.sha256(identity.encode()).hexdigest()
    then: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        then = json.loads((folder / OWNER).read_text())
    owner = then.get("process")
    # Windows does not tell whether a process lives; there it is better to go on than never to go on again.
    if isinstance(owner, int) and owner != os.getpid() and os.name == "posix" and is_running(owner):
        raise ConfigError(
            f"`{output}` is being prepared by another process (number {owner}). Wait for it, end it, or choose another output; "
            f"if that process is something else, delete `{folder}`."
        )
    if then.get("about") != digest:
        shutil.rmtree(folder, ignore_errors=True)
    write_whole(folder / OWNER, json.dumps({"process": os.getpid(), "about": digest}).encode())
    try:
        yield Stretches(folder)
    except BaseException as error:
        if isinstance(error, Talk3DError) or not any(folder.glob("*.safetensors")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def identity_of(source: Path | Pictures) -> dict[str, Any]:
    """By what a film, or a folder of pictures, is known to be the same as before, without reading it."""
    if isinstance(source, Pictures):
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(source.folder.iterdir())]
        return {"path": os.path.abspath(source.folder), "fps": source.fps, "files": files}
    stat = source.stat()
    return {"path": os.path.abspath(source), "size": stat.st_size, "changed": stat.st_mtime_ns}

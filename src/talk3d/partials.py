"""Outputs in the making: none replaces another silently, and unfinished ones lie hidden beside their final name, say whose they
are, and are removed once their owner is gone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError, OutputExistsError


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse an output that is taken and may not be replaced, or that cannot be made. Call before any expensive work.

    Raises:
        OutputExistsError: it exists, or a file is where it needs a folder.
        ConfigError: its folder may not be written to.
    """
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise OutputExistsError(f"`{path}` cannot be made: `{above}` is a file, no folder. Choose another output.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"`{path}` cannot be made: you may not write to `{above}`. Choose another output.")
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"`{path}` already exists and nothing is overwritten silently. Choose another output, or pass `--overwrite`."
        )


def partial_path(path: Path, what: str = "") -> Path:
    """Where this process prepares the output `path`; `what` tells several partials of one output apart."""
    return path.with_name(".".join(["", path.name, str(os.getpid()), *filter(None, [what]), "partial"]))


def remove_stale_partials(path: Path) -> None:
    """Remove what killed runs left of the output `path`; a partial whose process still lives is left alone."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        owner = partial.name.removeprefix(f".{path.name}.").split(".")[0]
        if owner.isdigit() and not is_running(int(owner)):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole or not at all; makes its folder, replaces an earlier file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(path)
    partial = partial_path(path)
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def writing_folder(output: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `output` when all of it is there; an earlier `output` is replaced."""
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(output)
    staging = partial_path(output)
    staging.mkdir()
    try:
        yield staging
        if output.exists():
            shutil.rmtree(output)
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def is_running(process: int) -> bool:
    """Whether a process lives, as far as the system tells. One that was killed, but whose parent has not noticed, does not."""
    if os.name == "nt":  # there is no harmless way to ask; better to leave a partial than to break a running command
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{process}/stat")  # where the system has one
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return True

"""What can be read as a film: a file, or a folder of numbered pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .clock import FPS


@dataclass(frozen=True)
class Pictures:
    """A folder of PNG, JPEG or WEBP pictures of one size, a film in the natural order of their names (2 before 10).

    Raises:
        ConfigError: a rate that no film has.
    """

    folder: Path
    fps: float | int = FPS
    """Pictures per second."""

    def __post_init__(self) -> None:
        if not 1 <= self.fps <= 1000:
            raise ConfigError(f"No film has {self.fps} pictures a second. Give the rate at which they were taken, 1 to 1000.")

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def name(self) -> str:
        return self.folder.name


Source = Path | str | Pictures
"""Whatever the readers take. The path of a folder is that of pictures taken at 25 a second."""


def film_or_pictures(path: Path, fps: float | int | None) -> Path | Pictures:
    """What a person means by a path and perhaps a rate.

    Raises:
        ConfigError: a rate was given, but the path is that of a film, which has its own; or no film has that rate.
    """
    if fps is None:
        return path
    if not path.is_dir():
        raise ConfigError(f"`{path}` is no folder of pictures: a film knows its own rate. Leave out `--fps`.")
    return Pictures(path, fps)


def described(source: Source) -> dict[str, Any]:
    """A source in words that travel to another process: `shown` as the user wrote it, `path` absolute."""
    path, fps = (source.folder, source.fps) if isinstance(source, Pictures) else (Path(source), FPS)
    return {"shown": str(path), "path": os.path.abspath(path), "fps": fps}

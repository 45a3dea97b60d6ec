"""The sheet that personalising shows of itself: the chosen frames as filmed, and what is drawn of them so far."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..capture.frames import Views
from ..pictures import as_image, captioned, in_rows, write_png
from ..prior.generator import Generator, composite
from ..runs import Every

SECONDS = 30.0
"""From one sheet to the next."""


def preview_of(output: Path) -> Path:
    """Where the sheet of a Subject lies: beside it, and it stays there."""
    return output.with_name(output.name + ".preview.png")


class Preview:
    """Writes the sheet now and then.

    Args:
        path: the PNG file.
        views: the chosen frames.
    """

    def __init__(self, path: Path, views: Views) -> None:
        self._path, self._views, self._every = path, views, Every(SECONDS)

    def due(self) -> bool:
        """Whether it is time for the next sheet."""
        return self._every.due()

    @torch.no_grad()
    def write(
        self,
        generator: Generator,
        ws: Float[Tensor, "frames layers w"],
        yaw: Float[Tensor, " frames"],
        pitch: Float[Tensor, " frames"],
        caption: str,
    ) -> None:
        """Draw the frames (yaw and pitch in radians) and replace the earlier sheet."""
        orbit, views = generator.profile.orbit, self._views
        drawn = generator(ws, orbit.pose(yaw, pitch), orbit.intrinsics().expand(len(ws), 3, 3)).image
        rows = torch.cat([composite(picture, views.background) for picture in (views.target, drawn)])
        write_png(self._path, captioned(in_rows([as_image(picture) for picture in rows], columns=len(ws)), caption))

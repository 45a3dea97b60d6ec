"""Pictures for people: tensors as images, images in rows, PNG files that are whole or absent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from .errors import ConfigError
from .partials import write_whole

Image = UInt8[np.ndarray, "height width 3"]


def as_image(picture: Float[Tensor, "3 height width"]) -> Image:
    """A picture in -1..1 as 8-bit RGB."""
    return ((picture.detach().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def in_rows(images: Sequence[Image], columns: int) -> UInt8[np.ndarray, "rows_height row_width 3"]:
    """Images of one size side by side, row by row; the last row is filled up with white if there are several."""
    filled = list(images)
    if len(filled) > columns:
        filled += [np.full_like(filled[0], 255)] * (-len(filled) % columns)
    return np.concatenate([np.concatenate(filled[i : i + columns], 1) for i in range(0, len(filled), columns)])


def captioned(image: Image, text: str) -> UInt8[np.ndarray, "taller width 3"]:
    """An image with a line of text beneath it; what is wider than the image is cut off."""
    strip = np.full((20, image.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([image, strip])


def require_png(path: Path) -> None:
    """Raises ConfigError if the name of an output does not say that it is a PNG. Call before any expensive work."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"`{path}` will hold a PNG picture; give it a name that ends in .png.")


def write_png(path: Path, image: Image) -> None:
    """Write a PNG file, whole or not at all; makes its folder, replaces an earlier file."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    assert done, "OpenCV encodes every 8-bit image"
    write_whole(path, data.tobytes())

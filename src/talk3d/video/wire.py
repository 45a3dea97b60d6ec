"""What travels between this process and the one that decodes: a JSON object, and perhaps an array behind it.

Nothing is pickled: whoever decodes hostile files may be lying, and all that a lie can do here is to be refused.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np

HEADER = struct.Struct("<IQ")
"""Bytes of JSON, bytes of the array."""

MAX_PIXELS = 1 << 26
"""Of a picture as it is displayed, 67 million: twice 8K. Beyond are mistakes and attacks on memory."""
MAX_SIDE = 1 << 15

MAX_TEXT = 1 << 24
"""Bytes of JSON; what `VideoWriter` stored as metadata is the longest there is."""


def packed(message: dict[str, Any], array: np.ndarray | None = None) -> tuple[bytes, memoryview]:
    """The two pieces to send."""
    body = memoryview(b"") if array is None else bytes_of(np.ascontiguousarray(array))
    if array is not None:
        message = message | {"shape": list(array.shape), "dtype": array.dtype.name}
    text = json.dumps(message).encode()
    return HEADER.pack(len(text), len(body)) + text, body


def bytes_of(array: np.ndarray) -> memoryview:
    """The memory of an array, to send it or to fill it."""
    return array.data.cast("B")


def empty_array(message: dict[str, Any], size: int) -> np.ndarray:
    """Where to put an array of `size` bytes that was announced.

    Raises:
        KeyError, ValueError: no frame or sound looks like that.
    """
    shape, dtype = message["shape"], message["dtype"]
    whole = isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape)
    frame = whole and dtype == "uint8" and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3))
    sound = whole and dtype == "float32" and len(shape) == 1
    if not (frame or sound) or math.prod(shape) > 3 * MAX_PIXELS or math.prod(shape) * np.dtype(dtype).itemsize != size:
        raise ValueError(f"an array of {dtype} {shape} in {size} bytes was announced")
    return np.empty(shape, dtype)

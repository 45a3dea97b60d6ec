"""Is it the same person, and does the picture hold still? HeadNet's judgement of heads, and flicker.

HeadNet (judges/headnet.py) is our own network; its numbers compare with each other only.

Letters: F frames.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..capture.detect import warp
from ..judges.headnet import SIZE, load_headnet

FACE_HEIGHT, FACE_MIDDLE = 0.63, 0.58
"""How high a face's landmarks are, and where their middle lies from the top, in the pictures that HeadNet was trained on."""


@torch.no_grad()
def likeness(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    landmarks: Float[np.ndarray, "frames 468 2"],
    true_landmarks: Float[np.ndarray, "frames 468 2"],
) -> dict[str, Float[np.ndarray, "frames"]]:
    """HeadNet's judgement of each frame: NaN where a face is not found.

    Args:
        pairs: (result, truth), uint8 RGB [H, W, 3].
        landmarks: the face in the result, pixels.
        true_landmarks: the face in the truth.

    Returns:
        `distance`: perceptual distance of the heads, both cut out where the true one is; 0 for equal pictures, at most 2.
        `identity`: cosine of the persons' embeddings, each cut out where it is; 1 for the same picture.
    """
    network = load_headnet()
    values = {name: np.full(len(pairs), np.nan) for name in ("distance", "identity")}
    seen = [i for i, points in enumerate(true_landmarks) if np.isfinite(points).all()]
    if seen:
        mine, true = (_heads([pairs[i][side] for i in seen], true_landmarks[seen]) for side in (0, 1))
        values["distance"][seen] = network.distance(mine, true).numpy()
    both = [i for i in seen if np.isfinite(landmarks[i]).all()]
    if both:
        mine = network(_heads([pairs[i][0] for i in both], landmarks[both])).embedding
        true = network(_heads([pairs[i][1] for i in both], true_landmarks[both])).embedding
        values["identity"][both] = (mine * true).sum(1).numpy()
    return values


def _heads(frames: Sequence[np.ndarray], landmarks: Float[np.ndarray, "frames 468 2"]) -> Float[Tensor, "frames 3 128 128"]:
    """Heads as HeadNet was trained to see them: upright as the frame is, at one size, beyond the frame its border continued."""
    cut = []
    for frame, points in zip(frames, landmarks.astype(np.float64), strict=True):
        top, bottom = points.min(axis=0), points.max(axis=0)
        scale = SIZE * FACE_HEIGHT / (bottom[1] - top[1])
        middle = (top + bottom) / 2
        corner = middle * scale - SIZE * np.array([0.5, FACE_MIDDLE])
        cut.append(warp(frame, np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]]), (SIZE, SIZE), replicate=True))
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 127.5 - 1


class Flicker:
    """How restless a film is beside the true one: the mean size of the second difference over time, divided by the truth's.

    A steady change, such as a moving head, has none; what comes and goes from frame to frame has much. 1 is as calm as the
    truth, more flickers, less is frozen or smeared. Frames are given one after another.
    """

    def __init__(self) -> None:
        self._last: list[tuple[np.ndarray, np.ndarray]] = []
        self._totals = np.zeros(2)
        self.frames = 0
        """Frames that had two before them."""

    def add(self, frame: UInt8[np.ndarray, "height width 3"], truth: UInt8[np.ndarray, "height width 3"]) -> None:
        """The next frame of both films."""
        now = (frame.astype(np.float32), truth.astype(np.float32))
        if len(self._last) == 2:
            before, last = self._last
            self._totals += [np.abs(x - 2 * y + z).mean() for x, y, z in zip(before, last, now, strict=True)]
            self.frames += 1
        self._last = [*self._last[-1:], now]

    @property
    def value(self) -> float | None:
        """The ratio; None for fewer than three frames or a true film that stands still."""
        mine, true = self._totals
        return float(mine / true) if true > 0 else None

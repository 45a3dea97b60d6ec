"""Reading lips: the shape of one person's mouth from its picture, and whether it belongs to the sound.

A tracker's landmarks carry no gradient to a picture. So a small network learns, on the training frames and in seconds, to see
what the tracker says of this one mouth; from then on it judges drawn mouths.

Letters: F frames, B pictures, K numbers of a lip shape.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from ..judges.sync import MouthHabit, SyncExpert, load_sync, mouth_motion, sound_features

SIDE = 32
"""Side of the mouth pictures that are read, pixels."""
REACH = 0.125
"""Half the side of what they show, in sides of the whole picture."""
FINE = 128
"""Side of whole pictures, pixels, at the scale at which mouths are cut."""
AROUND = 5
"""Frames before and after a frame that the expert's vector of it knows of, with one more for the velocity at the ends."""
BATCH = 64


@dataclass(frozen=True)
class LipSpace:
    """The shapes that one person's lips take: principal components of `judges.sync.lips_in_face`."""

    mean: Float[Tensor, 80]
    directions: Float[Tensor, "shapes 80"]
    """Orthonormal."""
    unit: float
    """Deviation along the first direction; shapes are given in it."""

    @classmethod
    def of(cls, lips: Float[np.ndarray, "frames 80"], count: int) -> LipSpace:
        """The `count` directions that lips move along most."""
        points = torch.from_numpy(lips).float()
        mean = points.mean(0)
        _, values, directions = torch.linalg.svd(points - mean, full_matrices=False)
        return cls(mean, directions[:count], float(values[0]) / math.sqrt(len(points)))

    def shapes(self, lips: Float[Tensor, "*frames 80"]) -> Float[Tensor, "*frames shapes"]:
        """Lips to shapes."""
        return (lips - self.mean.to(lips)) @ self.directions.to(lips).mT / self.unit

    def lips(self, shapes: Float[Tensor, "*frames shapes"]) -> Float[Tensor, "*frames 80"]:
        """Shapes to lips, without what the directions leave out."""
        return shapes @ self.directions.to(shapes) * self.unit + self.mean.to(shapes)


def cut_mouths(
    pictures: Float[Tensor, "batch 3 height width"], centres: Float[Tensor, "batch 2"], reach: float
) -> tuple[Float[Tensor, "batch 3 side side"], Bool[Tensor, " batch"]]:
    """Squares around mouths, and whether they lie wholly in their pictures.

    Args:
        pictures: about as fine as the squares, or they alias.
        centres: x and y, 0..1 of the picture.
        reach: half the square's side, 0..1 of the picture.
    """
    frame = torch.zeros(len(pictures), 2, 3).to(pictures)
    frame[:, 0, 0] = frame[:, 1, 1] = 2 * reach
    frame[:, :, 2] = 2 * centres - 1
    grid = F.affine_grid(frame, [len(pictures), 3, SIDE, SIDE], align_corners=False)
    inside = ((centres >= reach) & (centres <= 1 - reach)).all(1)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False), inside


def shrink(pictures: Float[Tensor, "batch channels size size"], size: int) -> Float[Tensor, "batch channels small small"]:
    """Pictures, or parts of them, that are `size` pixels wide, at the scale at which mouths are cut and HeadNet looks."""
    k = max(1, size // FINE)
    return F.avg_pool2d(pictures, k) if k > 1 else pictures


def filmed_mouths(
    pictures: UInt8[np.ndarray, "frames size size 3"], centres: Float[np.ndarray, "frames 2"]
) -> UInt8[Tensor, "frames 3 side side"]:
    """Every frame's mouth, cut out of its picture.

    Args:
        pictures: on disk; few are in memory at a time.
        centres: x and y, 0..1 of the picture.
    """
    size = pictures.shape[1]
    mouths = torch.zeros(len(pictures), 3, SIDE, SIDE, dtype=torch.uint8)
    for block in torch.arange(len(pictures)).split(BATCH):
        some = torch.from_numpy(pictures[block.numpy()]).permute(0, 3, 1, 2).float()
        cut, _ = cut_mouths(shrink(some, size), torch.from_numpy(centres[block.numpy()]).float(), REACH)
        mouths[block] = cut.round().byte()
    return mouths


class LipReader(nn.Module):
    """Pictures of a mouth to lip shapes."""

    def __init__(self, shapes: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 48, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(48 * (SIDE // 8) ** 2, 64), nn.ReLU(), nn.Linear(64, shapes),
        )  # fmt: skip

    def forward(self, mouths: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch shapes"]:
        """Lip shapes of mouths, -1..1, cut by `cut_mouths`."""
        return self.network(mouths)


def learn_to_read(
    mouths: UInt8[Tensor, "frames 3 side side"],
    shapes: Float[Tensor, "frames shapes"],
    steps: int,
    seed: int,
    progress: Callable[[float, str], None],
) -> LipReader:
    """A reader of one person's mouth, frozen.

    Args:
        mouths: of all training frames.
        shapes: what the tracker says of them.
        steps: to take.
        seed: of everything random.
        progress: called with (0, a line of numbers).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = LipReader(shapes.shape[1])
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=1e-2)
    for step in range(steps):
        rng = np.random.default_rng([seed, 6, step])
        optimizer.param_groups[0]["lr"] = 2e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        index = torch.from_numpy(rng.integers(0, len(mouths), BATCH))
        loss = F.mse_loss(reader(_as_drawn(mouths[index], rng)), shapes[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 25 == 0:
            progress(0.0, f"reading lips {step + 1}/{steps} error {float(loss.detach()):.3f}")
    return reader.eval().requires_grad_(False)


def _as_drawn(mouths: UInt8[Tensor, "batch 3 side side"], rng: np.random.Generator) -> Float[Tensor, "batch 3 side side"]:
    """As a half-trained avatar may draw them: softer, a little off, in slightly other colours."""
    pictures = mouths.float() / 127.5 - 1
    blur = torch.from_numpy(rng.random(len(pictures)) < 0.5)[:, None, None, None]
    pictures = torch.where(blur, F.avg_pool2d(F.pad(pictures, [1] * 4, mode="replicate"), 3, 1), pictures)
    centres = 0.5 + torch.from_numpy(rng.uniform(-1.5, 1.5, (len(pictures), 2))).float() / SIDE
    colour = torch.from_numpy(rng.normal(0, 0.06, (len(pictures), 3, 1, 1))).float()
    return cut_mouths(pictures, centres, 0.5)[0] + colour


class SyncJudge(nn.Module):
    """The lip-sync expert on single drawn frames of a clip: the frames around are the filmed ones (method 7.1).

    Args:
        lips: of `judges.sync.lips_in_face`, all training frames.
        sound: mono, 16 kHz, begins with the first of them.
        expert: the shipped one unless told otherwise.
    """

    rest: Tensor
    lips: Tensor
    heard: Tensor

    def __init__(
        self,
        lips: Float[np.ndarray, "frames 80"],
        sound: Float[np.ndarray, " samples"],
        expert: SyncExpert | None = None,
    ) -> None:
        super().__init__()
        self.expert = expert or copy.deepcopy(load_sync())
        habit = MouthHabit.of(lips)
        self.spread = habit.spread
        self.register_buffer("rest", torch.from_numpy(habit.rest).float())
        self.register_buffer("lips", torch.from_numpy(lips).float())
        with torch.no_grad():
            self.register_buffer("heard", self.expert.sound(sound_features(sound, len(lips))[None])[0])  # [F, D]

    def forward(
        self, index: Tensor, lips: Float[Tensor, "batch 80"]
    ) -> tuple[Float[Tensor, "batch size"], Float[Tensor, "batch size"]]:
        """Vectors of lips and of sound.

        Args:
            index: of the frames [B], counted from the first training frame.
            lips: to put into their place; carry gradients.
        """
        around = index[:, None] + torch.arange(-AROUND, AROUND + 1, device=index.device)
        film = self.lips[around.clamp(0, len(self.lips) - 1)]  # [B, 2 AROUND + 1, 80]
        film = torch.cat([film[:, :AROUND], lips[:, None], film[:, AROUND + 1 :]], 1)
        seen = self.expert.lips(mouth_motion((film - self.rest) / self.spread))
        return seen[:, AROUND], self.heard[index]

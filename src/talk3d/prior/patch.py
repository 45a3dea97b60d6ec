"""Windows of a picture: training renders a square of rays and compares it, raw and enlarged, with that part of a frame.

Letters: N pictures, R side of the raw picture, P side of a window in raw pixels, k the enlargement (final over raw size).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..losses import l1, structure
from ..render.rays import Rays, rays_through
from .fast import enlarge, march
from .generator import Generator, composite
from .superres import BORDER


@dataclass(frozen=True)
class Windows:
    """One window per picture: `top` and `left` [N] in raw pixels, `side` P, of raw pictures `size` R pixels wide."""

    top: Int[np.ndarray, " pictures"]
    left: Int[np.ndarray, " pictures"]
    side: int
    size: int

    @classmethod
    def random(cls, count: int, size: int, rng: np.random.Generator) -> Windows:
        """Half as wide as the picture and anywhere in it, so that its middle is in all of them."""
        side = size // 2
        top, left = rng.integers(0, size - side + 1, (2, count))
        return cls(top, left, side, size)

    @classmethod
    def around(cls, centres: Float[np.ndarray, "pictures 2"], size: int, rng: np.random.Generator) -> Windows:
        """Half as wide as the picture, around points (x, y in 0..1) but for a small random shift, kept inside it."""
        side = size // 2
        shift = rng.uniform(-side / 8, side / 8, centres.shape)
        corner = np.clip(np.round(centres * size - side / 2 + shift), 0, size - side).astype(np.int64)
        return cls(corner[:, 1], corner[:, 0], side, size)

    def above(self, lines: Float[np.ndarray, " pictures"]) -> Windows:
        """Moved up, as far as pictures reach, until they end above lines (y in 0..1)."""
        lowest = np.floor(lines * self.size).astype(np.int64) - self.side
        return Windows(np.minimum(self.top, np.maximum(lowest, 0)), self.left, self.side, self.size)

    def where(self, mine: Bool[np.ndarray, " pictures"], other: Windows) -> Windows:
        """These windows for some pictures, the other ones for the rest."""
        return Windows(np.where(mine, self.top, other.top), np.where(mine, self.left, other.left), self.side, self.size)

    def repeat(self, times: int) -> Windows:
        """Each window so many times in a row."""
        return Windows(self.top.repeat(times), self.left.repeat(times), self.side, self.size)

    def __getitem__(self, chosen: slice) -> Windows:
        return Windows(self.top[chosen], self.left[chosen], self.side, self.size)

    def positions(self) -> Float[Tensor, "pictures rays 2"]:
        """Centres of the windows' pixels, (x, y) in 0..1, row by row."""
        steps = np.arange(self.side) + 0.5
        shape = (len(self.top), self.side, self.side)
        rows = np.broadcast_to((self.top[:, None, None] + steps[:, None]) / self.size, shape)
        columns = np.broadcast_to((self.left[:, None, None] + steps[None, :]) / self.size, shape)
        return torch.from_numpy(np.stack([columns, rows], -1).reshape(len(self.top), -1, 2)).float()

    def cut(self, images: Float[Tensor, "pictures channels height width"], margin: int = 0) -> Tensor:
        """That part of pictures of any multiple of the raw size, less `margin` raw pixels on each side."""
        k = images.shape[-1] // self.size
        side = (self.side - 2 * margin) * k
        corners = zip((self.top + margin) * k, (self.left + margin) * k, strict=True)
        return torch.stack([image[:, t : t + side, x : x + side] for image, (t, x) in zip(images, corners, strict=True)])


@dataclass(frozen=True)
class Patch:
    """A rendered window."""

    raw: Float[Tensor, "pictures 4 side side"]
    """Premultiplied colour and alpha * 2 - 1."""
    depth: Float[Tensor, "pictures 1 side side"]
    final: Float[Tensor, "pictures channels large large"] | None
    """Enlarged, without its border; None if not asked for."""


def render_patch(
    generator: Generator,
    planes: Float[Tensor, "pictures 3 channels height width"],
    ws: Float[Tensor, "people layers w"],
    cam2world: Float[Tensor, "pictures 4 4"],
    windows: Windows,
    rng: np.random.Generator,
    *,
    superres: bool = True,
    dtype: torch.dtype = torch.float32,
    batch: int | None = None,
    first: int = 0,
) -> Patch:
    """Render windows with randomly placed samples along the rays (seeded by `rng`) and enlarge them.

    Args:
        generator: who draws.
        planes: of each picture.
        ws: of the one person in all pictures, or of each picture.
        cam2world: of each picture, OpenCV axes, scene units.
        windows: where to look.
        rng: one number is drawn from it.
        superres: also enlarge.
        dtype: enlarge in this precision.
        batch: of how many pictures these are a part; each then gets the samples that it would get among all of them.
        first: the place of the first of these pictures among them.
    """
    intrinsics = generator.profile.orbit.intrinsics().to(cam2world).expand(len(cam2world), 3, 3)
    rays: Rays = rays_through(cam2world, intrinsics, windows.positions().to(cam2world))
    jitter = torch.Generator(cam2world.device).manual_seed(int(rng.integers(2**62)))
    options, count = generator.profile.render, len(planes)

    def places(samples: int) -> Float[Tensor, "pictures rays samples"]:
        drawn = torch.rand(batch or count, windows.side**2, samples, generator=jitter, device=jitter.device)
        return drawn[first : first + count]

    coarse, fine = places(options.samples_coarse), places(options.samples_fine)
    seen = march(generator, planes, rays, coarse, fine)
    square = (windows.side, windows.side)
    features, depth, alpha = (value.mT.unflatten(2, square) for value in (seen.features, seen.depth, seen.alpha))
    final = None
    if superres:
        final = enlarge(generator, features, alpha, ws, dtype)
        margin = BORDER * final.shape[-1] // windows.side
        final = final[..., margin:-margin, margin:-margin]
    return Patch(torch.cat([features[:, :3], 2 * alpha - 1], 1), depth, final)


def picture_losses(
    patch: Patch,
    target: Float[Tensor, "pictures 4 height width"],
    background: Float[Tensor, "pictures 3 height width"],
    windows: Windows,
    structure_weight: float,
    known: Float[Tensor, "pictures 1 height width"] | None = None,
    picture_weight: float = 1.0,
) -> dict[str, Float[Tensor, " pictures"]]:
    """Compare a patch with its window of the target: L1 and weights-free perceptual distance, raw and final.

    Args:
        target: premultiplied colour and alpha * 2 - 1 at the final size.
        background: what to composite both over before the perceptual comparison, at the final size.
        windows: where the patch lies.
        structure_weight: of the perceptual distance; a half of it for the raw picture.
        known: 1 where the target says something, 0 where the picture may be anything (beyond the filmed frame).
        picture_weight: of L1.
    """
    k = target.shape[-1] // windows.size
    small = windows.cut(F.avg_pool2d(target, k))
    small_background = windows.cut(F.avg_pool2d(background, k))
    if known is not None:
        raw_known, final_known = windows.cut(F.avg_pool2d(known, k)), windows.cut(known, BORDER)
        small = torch.lerp(patch.raw.detach(), small, raw_known)
    terms = {
        "raw": picture_weight * l1(patch.raw, small),
        "raw_structure": 0.5
        * structure_weight
        * structure(composite(patch.raw, small_background), composite(small, small_background)),
    }
    if patch.final is not None:
        large, behind = windows.cut(target, BORDER), windows.cut(background, BORDER)
        if known is not None:
            large = torch.lerp(patch.final.detach(), large, final_known)
        terms["final"] = picture_weight * l1(patch.final, large)
        terms["final_structure"] = structure_weight * structure(composite(patch.final, behind), composite(large, behind))
    return terms

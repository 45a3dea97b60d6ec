"""A prior for people: what it is and costs, a sheet of samples, and a film that turns and changes them.

Letters: N samples, S side of the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..errors import ConfigError
from ..partials import refuse_existing
from ..pictures import as_image, in_rows, write_png
from ..video.clock import FPS
from ..video.provenance import provenance
from ..video.write import VideoWriter
from .generator import Generator, LoadedPrior, composite

COLUMNS = 8
GREY = 0.2
"""What pictures with alpha are shown over, -1..1."""
SWING_YAW, SWING_PITCH = math.radians(35), math.radians(12)
"""How far the film's camera goes to the sides, and up and down."""


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of one picture, two per multiply-add, as torch counts them (convolutions, products)."""

    planes: int
    """Once per person."""
    rendering: int
    """Without the lookups in the planes, which torch does not count."""
    superresolution: int


@torch.no_grad()
def cost(generator: Generator) -> Cost:
    """Count the operations of one picture."""
    profile = generator.profile
    ws = generator.map(torch.zeros(1, profile.z_dim), generator.frontal_label(1))
    camera, intrinsics = profile.orbit.pose(torch.zeros(1), torch.zeros(1)), profile.orbit.intrinsics()[None]
    with FlopCounterMode(display=False) as making:
        planes = generator.planes(ws)
    with FlopCounterMode(display=False) as rendering:
        raw = generator.render(planes, camera, intrinsics, deterministic=True)
    with FlopCounterMode(display=False) as enlarging:
        generator.superresolve(raw.features, raw.rgb, raw.alpha, ws)
    return Cost(making.get_total_flops(), rendering.get_total_flops(), enlarging.get_total_flops())


def describe(prior: LoadedPrior) -> str:
    """What `talk3d prior inspect` prints."""
    profile, generator, manifest = prior.profile, prior.generator, prior.artifact.manifest
    options, spent = profile.render, cost(generator)
    weights = sum(parameter.numel() for parameter in generator.parameters())
    size = sum(path.stat().st_size for path in prior.artifact.root.rglob("*") if path.is_file())
    parts = ("backbone", "superresolution", "decoder")
    each = ", ".join(f"{name} {sum(p.numel() for p in getattr(generator, name).parameters()):,}" for name in parts)
    near, far = ("box" if limit is None else f"{limit:g}" for limit in (options.near, options.far))
    lines = {
        "prior": f"{profile.name}, {size / 1e6:.1f} MB",
        "pictures": f"{profile.image_resolution} pixels, {'RGB and alpha' if profile.alpha else 'RGB with its own background'}",
        "raw pictures": f"{profile.neural_resolution} pixels, {options.samples_coarse} + {options.samples_fine} samples "
        f"per ray, from {near} to {far}",
        "planes": f"3 x {profile.plane_channels} channels, {profile.plane_resolution} pixels, axes {options.plane_axes}",
        "latent": f"z {profile.z_dim}, w {profile.w_dim} x {profile.num_ws}"
        + (f", conditioned on {profile.c_dim} camera numbers" if profile.c_dim else ""),
        "camera": f"radius {profile.orbit.radius:g}, pivot {profile.orbit.pivot}, focal {profile.orbit.focal:g}",
        "weights": f"{weights:,} ({each})",
        "operations": f"planes {spent.planes / 1e9:.2f} GFLOP once, rendering {spent.rendering / 1e9:.2f} and "
        f"super-resolution {spent.superresolution / 1e9:.2f} GFLOP a picture",
        "expressions": ", ".join(sorted(prior.expressions)) or "none known",
        "licence": str(manifest.get("licence") or "not stated"),
        "hash": prior.hash,
    }
    return "\n".join(f"{name:14} {text}" for name, text in lines.items())


def sample(
    prior: LoadedPrior,
    output: Path,
    count: int,
    seed: int,
    truncation: float,
    overwrite: bool,
    progress: Callable[[float, str], None],
) -> None:
    """Draw random people: `samples.png` from the front and both sides, `samples.mp4` with turning and changing ones.

    Args:
        prior: whose samples.
        output: folder for both files.
        count: how many people on the sheet, at least 1.
        seed: of the latents.
        truncation: 1 for the prior's full variety, 0 for its average only.
        overwrite: replace existing files.
        progress: called with (part done 0..1, what is done).

    Raises:
        ConfigError: no samples asked for, or a truncation outside 0..1.
        OutputExistsError: one of the files exists.
    """
    if count < 1 or not 0 <= truncation <= 1:
        raise ConfigError(f"{count} samples at truncation {truncation:g}: ask for at least one, and for a truncation in 0..1.")
    sheet, film = output / "samples.png", output / "samples.mp4"
    for path in (sheet, film):
        refuse_existing(path, overwrite)
    output.mkdir(parents=True, exist_ok=True)
    generator = prior.generator
    ws = random_people(generator, count, seed, truncation)
    frames = 4 * 2 * FPS
    cells = []
    for number in range(count):
        yaw = math.radians((0, -30, 30, 0, 15, -15, 45, -45)[number % COLUMNS])
        cells.append(as_image(draw_from(generator, ws[number : number + 1], yaw, 0.0)))
        progress((number + 1) / (count + frames), "drawing samples")
    write_png(sheet, in_rows(cells, COLUMNS))
    size = generator.profile.image_resolution
    note = provenance("synthetic", {"prior": prior.hash})
    with VideoWriter(film, (size, size), metadata=note, overwrite=overwrite) as writer:
        for index, picture in enumerate(interpolation(generator, ws[:4], frames)):
            writer.write(picture)
            progress((count + index + 1) / (count + frames), "filming")


@torch.no_grad()
def random_people(generator: Generator, count: int, seed: int, truncation: float) -> Float[Tensor, "count layers w"]:
    """Style vectors of random latents."""
    return generator.map(generator.random_latents(count, seed), generator.frontal_label(count), truncation=truncation)


@torch.no_grad()
def draw_from(generator: Generator, ws: Float[Tensor, "1 layers w"], yaw: float, pitch: float) -> Float[Tensor, "3 size size"]:
    """One picture from the prior's orbit (radians), -1..1, over grey if it has alpha."""
    orbit = generator.profile.orbit
    camera = orbit.pose(torch.tensor([yaw]).float(), torch.tensor([pitch]).float())
    image = generator(ws, camera, orbit.intrinsics()[None]).image
    if generator.profile.alpha:
        image = composite(image, torch.full_like(image[:, :3], GREY))
    return image[0].clamp(-1, 1)


def interpolation(
    generator: Generator, ws: Float[Tensor, "people layers w"], frames: int
) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
    """Frames of a closed tour through the people while the camera swings around them."""
    people = len(ws)
    for frame in range(frames):
        position = frame / frames * people
        here, part = int(position), position - int(position)
        part = part * part * (3 - 2 * part)  # rest at each person
        between = torch.lerp(ws[here : here + 1], ws[(here + 1) % people : (here + 1) % people + 1], part)
        angle = 2 * math.pi * frame / frames * 2
        yield as_image(draw_from(generator, between, SWING_YAW * math.sin(angle), SWING_PITCH * math.sin(angle / 2)))

"""A gallery of random heads, to be looked at by people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from ..camera import Orbit
from ..errors import ConfigError
from ..partials import refuse_existing
from ..pictures import Image, in_rows, require_png, write_png
from .latent import LATENT_SIZE, is_female, parameters_from_latent, tone_of
from .model import Array, HeadPack, HeadParameters
from .raster import LABELS, HeadPicture, draw_background, landmarks68, project, render_flow, render_head

SIZE = 192
COLUMNS = 8


def write_sheet(
    pack: HeadPack, output: Path, count: int, seed: int, overwrite: bool, progress: Callable[[float, str], None]
) -> None:
    """Draw `count` random heads, and one head's picture, alpha, depth, labels, landmarks and motion, into a PNG file.

    Args:
        pack: the head pack.
        output: the file to write.
        count: how many heads, at least 1.
        seed: of the random heads.
        overwrite: replace an existing file.
        progress: called with (part done 0..1, what is done).

    Raises:
        ConfigError: no heads were asked for, or the name is no PNG's.
        OutputExistsError: the file exists.
    """
    if count < 1:
        raise ConfigError(f"A sheet of {count} heads shows nothing. Ask for at least one with `--count`.")
    require_png(output)
    refuse_existing(output, overwrite)
    rng = np.random.default_rng(seed)
    cells: list[Image] = []
    for index in range(count):
        parameters = parameters_from_latent(rng.standard_normal(LATENT_SIZE).astype(np.float32), pack)
        yaw, pitch = rng.uniform(-1, 1, 2) * [0.6, 0.25]
        picture, _ = _film(parameters, pack, yaw, pitch)
        sex = "woman" if is_female(parameters) else "man"
        cells.append(_write(_over(picture, draw_background(rng, SIZE)), f"{sex}, {tone_of(parameters, pack)}"))
        progress((index + 1) / (count + 1), "drawing heads")
    cells += [np.full((SIZE, SIZE, 3), 255, np.uint8)] * (-count % COLUMNS)
    cells += _truths(parameters_from_latent(rng.standard_normal(LATENT_SIZE).astype(np.float32), pack), pack)
    write_png(output, in_rows(cells, COLUMNS))
    progress(1.0, "drawing heads")


def _truths(parameters: HeadParameters, pack: HeadPack) -> list[Image]:
    """One row: the picture and everything exact that comes with it."""
    neutral = replace(parameters, expression={}, gaze=(0.0, 0.0))
    speaking = replace(neutral, expression={"jawOpen": 0.6, "mouthSmile": 0.4, "browInnerUp": 0.5})
    (before, camera), (after, turned) = _film(neutral, pack, 0.0, 0.0), _film(speaking, pack, 0.12, 0.05)
    grey = np.full((SIZE, SIZE, 3), 90, np.uint8)
    alpha = np.repeat(before.alpha[..., None], 3, 2)
    known = np.isfinite(before.depth)
    near, far = before.depth[known].min(), before.depth[known].max()
    depth = np.where(known, 255 * (1 - 0.8 * (before.depth - near) / (far - near + 1e-6)), 0).astype(np.uint8)
    hues = np.array([[179 * i // len(LABELS), 160, 230 * (i > 0)] for i in range(len(LABELS))], np.uint8)
    labels = cv2.cvtColor(hues[None], cv2.COLOR_HSV2RGB)[0][before.labels]
    marked = _over(before, grey)
    intrinsics = Orbit().intrinsics().numpy()
    for x, y in project(landmarks68(pack.build(neutral), pack), camera, intrinsics) * SIZE:
        cv2.circle(marked, (int(x), int(y)), 1, (0, 255, 0), -1)
    heads = pack.build(neutral), pack.build(speaking)
    flow = render_flow(heads, pack, (camera, turned), (intrinsics, intrinsics), SIZE)
    angle, length = np.arctan2(flow.shift[..., 1], flow.shift[..., 0]), np.linalg.norm(flow.shift, axis=-1)
    wheel = np.stack([(angle + np.pi) / np.pi * 89, np.full_like(angle, 220), np.clip(length / 12, 0, 1) * 255], -1)
    motion = cv2.cvtColor(wheel.astype(np.uint8), cv2.COLOR_HSV2RGB) * flow.seen[..., None]
    hidden = np.where((flow.seen & ~flow.visible)[..., None], np.uint8(255), motion)
    names = ("picture", "alpha", "depth", "labels", "landmarks", "turned, speaking", "motion to it", "hidden there: white")
    images = (_over(before, grey), alpha, np.repeat(depth[..., None], 3, 2), labels, marked, _over(after, grey), motion, hidden)
    return [_write(image, name) for image, name in zip(images, names, strict=True)]


def _film(parameters: HeadParameters, pack: HeadPack, yaw: float, pitch: float) -> tuple[HeadPicture, Array]:
    orbit = Orbit()
    camera = orbit.pose(torch.tensor([yaw]).float(), torch.tensor([pitch]).float())[0].numpy()
    return render_head(pack.build(parameters), pack, camera, orbit.intrinsics().numpy(), SIZE), camera


def _over(picture: HeadPicture, background: Image) -> Image:
    cover = picture.alpha[..., None].astype(np.float32) / 255
    return np.clip(picture.rgb + (1 - cover) * background + 0.5, 0, 255).astype(np.uint8)


def _write(image: Image, text: str) -> Image:
    image = np.ascontiguousarray(image)
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(image, text, (4, SIZE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, width, cv2.LINE_AA)
    return image

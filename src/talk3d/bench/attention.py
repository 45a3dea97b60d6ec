"""Where does an avatar attend to each of its tokens? Maps over the three planes, and laid over the face.

The planes' maps are what `AttentionUNet.attention` gives. Over the face, each pixel is taken to its point of the surface, and
the maps are looked up there as the renderer looks up the planes themselves.

Where shapes say it: `side` is that of the U-Net's bottom, `raw` that of the pictures before super-resolution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..pictures import Image
from ..prior.generator import Picture
from ..render.rays import generate_rays
from ..render.reference import PLANE_AXES, PlaneAxes, RenderOptions, lookup_planes
from ..talker.drive import Motion
from ..talker.speak import BATCH, Speaker

AXES = "xyz"
CELL, LABEL, BAR, HEADER = 208, 120, 96, 44
"""Of the sheet, pixels: side of a cell, width of a row's name, width of its colour scale, height of the head."""
OPAQUE = 0.85
"""How much the heat map covers of the frame beneath."""


@dataclass(frozen=True)
class Moment:
    """Attention over the face of one frame."""

    title: str
    picture: Image
    heat: Float[np.ndarray, "tokens raw raw"]
    """Shares, 0..1."""
    alpha: Float[np.ndarray, "raw raw"]
    """Where there is a surface, 0..1."""


@dataclass(frozen=True)
class Attention:
    """How attention is shared out among the tokens of an avatar."""

    tokens: tuple[str, ...]
    planes: Float[np.ndarray, "tokens 3 side side"]
    """Shares, 0..1, which sum to one over the tokens; means over heads, blocks and frames. Rows grow with a plane's height."""
    axes: PlaneAxes
    """How the planes lie in the world."""
    moments: Sequence[Moment]


def plane_names(axes: PlaneAxes) -> list[str]:
    """The planes by the world axes along their width and height: `xy` for x to the right, y up."""
    return [AXES[across] + AXES[up] for across, up in PLANE_AXES[axes]]


@torch.inference_mode()
def token_shares(
    speaker: Speaker, audio: Float[Tensor, "batch windows channels columns"], motion: Motion
) -> Float[Tensor, "batch 3 tokens side side"]:
    """Shares of attention, means over heads and blocks; of several null tokens the sum."""
    network = speaker.network
    shares = network.unet.attention(speaker.trunk, network.encoder(speaker.conditions(audio, motion))).mean(0)
    config = network.config.tokens
    vectors = [config.null_tokens if name == "null" else 1 for name in config.tokens]
    return torch.stack([some.sum(2) for some in shares.split(vectors, 2)], 2)


def over_face(
    maps: Float[Tensor, "3 tokens side side"],
    depth: Float[Tensor, "raw raw"],
    cam2world: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    options: RenderOptions,
) -> Float[Tensor, "tokens raw raw"]:
    """Maps over the planes as seen on a surface: the mean of the three planes' lookups at each pixel's point.

    Args:
        maps: anything with one value at each position of each plane.
        depth: distance along the ray through each pixel, scene units.
        cam2world: OpenCV axes, scene units.
        intrinsics: divided by the picture's size.
        options: of the renderer, for how the planes lie.
    """
    rays = generate_rays(cam2world[None], intrinsics[None], len(depth))
    points = rays.origins + depth.reshape(1, -1, 1) * rays.directions
    return lookup_planes(maps[None], points, options.plane_axes, options.box_warp).mean(1)[0].unflatten(1, depth.shape)


def attend(
    speaker: Speaker,
    heard: Float[Tensor, "frames windows channels columns"],
    motion: Motion,
    chosen: Sequence[tuple[str, int, float | None]],
    progress: Callable[[float], None],
) -> Attention:
    """Attention over all frames, and over the face in some.

    Args:
        speaker: the avatar.
        heard: what is heard around each frame.
        motion: how the head moves in them.
        chosen: title and number of each frame to show, and the blink it is to be drawn with if not with its own.
        progress: called with the part done.
    """
    total = torch.zeros(())
    for index in torch.arange(len(motion)).split(BATCH):
        total = total + token_shares(speaker, heard[index], motion[index]).sum(0)
        progress(float(index[-1] + 1) / len(motion))
    moments = []
    for title, number, blink in chosen:
        one = torch.tensor([number])
        moving = motion[one]
        if blink is not None:
            moving = dataclasses.replace(moving, blink=torch.full_like(moving.blink, blink))
        picture = speaker.look(speaker.move(heard[one], moving), moving.yaw, moving.pitch)
        frame = speaker.finish(picture, moving)[0]
        moments.append(_moment(title, frame, picture, token_shares(speaker, heard[one], moving)[0], moving, speaker))
    planes = (total / len(motion)).transpose(0, 1).numpy()
    return Attention(speaker.network.config.tokens.tokens, planes, speaker.profile.render.plane_axes, moments)


def _moment(title: str, frame: Image, picture: Picture, maps: Tensor, motion: Motion, speaker: Speaker) -> Moment:
    orbit = speaker.profile.orbit
    camera = orbit.pose(motion.yaw, motion.pitch)[0]
    heat = over_face(maps, picture.raw.depth[0, 0], camera, orbit.intrinsics(), speaker.profile.render)
    return Moment(title, frame, heat.numpy(), picture.raw.alpha[0, 0].clamp(0, 1).numpy())


# ---------------------------------------------------------------------------------------------------------- the sheet


def attention_sheet(attention: Attention) -> Image:
    """A row for each token: over the planes and over the faces, each with the scale of its colours."""
    planes = [(f"plane {name}", f"{name[0]} to the right, {name[1]} up") for name in plane_names(attention.axes)]
    faces = [("over the face", moment.title) for moment in attention.moments]
    scale = _strip(BAR, "share of", "the attention")
    rows = [np.hstack([_strip(LABEL, "token", ""), *_strips(planes), scale, *_strips(faces), scale])]
    for number, name in enumerate(attention.tokens):
        maps, heats = attention.planes[number], [moment.heat[number] for moment in attention.moments]
        # A mean of three planes spreads less than they do, so that the two have scales of their own.
        over_planes = _ends(maps)
        seen = [heat[moment.alpha > 0.5] for heat, moment in zip(heats, attention.moments, strict=True)]
        over_faces = _ends(np.concatenate(seen)) if any(map(len, seen)) else over_planes
        drawn = [_coloured(np.flipud(plane), over_planes, cv2.INTER_NEAREST) for plane in maps]  # up is up
        worn = [_overlaid(moment, heat, over_faces) for heat, moment in zip(heats, attention.moments, strict=True)]
        label = np.full((CELL, LABEL, 3), 255, np.uint8)
        _write(label, name, (8, CELL // 2 - 6), 0.55)
        _write(label, f"{100 * float(maps.mean()):.1f} % on average", (8, CELL // 2 + 14), 0.33)
        row = [label, *map(_framed, drawn), _scale(over_planes), *map(_framed, worn), _scale(over_faces)]
        rows.append(np.hstack(row))
    return np.ascontiguousarray(np.vstack(rows))


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Of a scale: outliers, as where the surface leaves the planes, must not take all other differences."""
    low, high = np.percentile(values, [1, 99])
    return float(low), float(high)


def _coloured(values: np.ndarray, ends: tuple[float, float], interpolation: int) -> Image:
    """Values [n, n] as a cell of colours."""
    low, high = ends
    part = np.clip((values - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    large = cv2.resize(part, (CELL, CELL), interpolation=interpolation)
    return np.ascontiguousarray(cv2.applyColorMap((255 * large).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1])


def _overlaid(moment: Moment, heat: np.ndarray, ends: tuple[float, float]) -> Image:
    """The frame without its colours under the heat map, where there is a surface."""
    frame = cv2.resize(moment.picture, (CELL, CELL), interpolation=cv2.INTER_AREA)
    grey = np.repeat(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None], 3, 2).astype(np.float32)
    alpha = cv2.resize(moment.alpha.astype(np.float32), (CELL, CELL), interpolation=cv2.INTER_LINEAR)[..., None]
    # Light and shade of the face show in the colours, but not so much that dark hair looks like little attention.
    colours = _coloured(heat, ends, cv2.INTER_LINEAR) * (0.8 + grey / 255 * 0.25)
    return np.clip(grey + OPAQUE * alpha * (colours - grey), 0, 255).round().astype(np.uint8)


def _scale(ends: tuple[float, float]) -> Image:
    """Colours with their shares, percent."""
    low, high = ends
    bar = np.full((CELL, BAR, 3), 255, np.uint8)
    ramp = np.linspace(1, 0, CELL - 40, dtype=np.float32)[:, None]
    shades = cv2.applyColorMap((255 * ramp).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    bar[20:-20, 8:24] = shades
    for part in (0.0, 0.5, 1.0):
        y = round(CELL - 20 - part * (CELL - 40))
        _write(bar, f"{100 * (low + part * (high - low)):.1f} %", (30, y + 4), 0.38)
    return bar


def _framed(cell: Image) -> Image:
    return cv2.rectangle(cell, (0, 0), (CELL - 1, CELL - 1), (255, 255, 255), 2)


def _strips(titles: Sequence[tuple[str, str]]) -> list[Image]:
    return [_strip(CELL, *title) for title in titles]


def _strip(width: int, first: str, second: str) -> Image:
    strip = np.full((HEADER, width, 3), 255, np.uint8)
    _write(strip, first, (8, 18), 0.45)
    return _write(strip, second, (8, 36), 0.38)


def _write(image: Image, text: str, at: tuple[int, int], size: float) -> Image:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (20, 20, 20), 1, cv2.LINE_AA)
    return image

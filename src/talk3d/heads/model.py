"""Parametric heads: parameters become a mesh with materials.

Letters: V vertices, F triangles, K expression shapes. Positions are centimetres in the pack's frame (+Y up, +Z the face's
forward, +X the subject's left); `to_world` maps them to scene units, p = 0.030 (v - [0, 1, 3]).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Array = NDArray[np.float32]

SCALE = 0.030
"""Scene units per centimetre."""
CENTRE = np.array([0.0, 1.0, 3.0], np.float32)
"""The point, in centimetres, that is the world's origin."""

GAMMA = 2.2
IDENTITY_MODES = 57
EYE_CENTRE = np.array([3.10, 3.60, 7.88], np.float32)
"""Rotation centre of the subject's left eyeball; the right one is its mirror image in x."""

IRIS_RADIUS = 64
"""Of the iris in the eye textures, texels of 512."""

# Textures that no training head ever wears, so that "unseen head" means unseen.
HELD_OUT = frozenset(
    {"old_darkskinned_male", "young_lightskinned_female3", "short04", "braid01", "green", "ice"}
    | {"eyebrow004", "eyebrow008", "eyebrow011"}
)

# Colours of a black body in sRGB at these temperatures in kelvin (Charity's table, CIE 1964, D65 white), between 2800 and 8000.
_KELVIN = np.array([2800, 3400, 4000, 5000, 6500, 8000], np.float64)
_BLACK_BODY = np.array([[255, 173, 94], [255, 193, 132], [255, 209, 163], [255, 228, 206], [255, 249, 253], [227, 233, 255]])
WHITE = 5000.0
"""The temperature, in kelvin, that the camera takes for white."""
_ADAPTATION = 0.7
"""Share of a light's tint that the camera's white balance removes."""


@dataclass(frozen=True)
class Light:
    """A key light, a fill light from the other side, a hemisphere of ambient light and a rim."""

    azimuth: float = 0.5
    """Of the key light around the head, radians; positive is the subject's left."""
    elevation: float = 0.6
    """Of the key light, radians."""
    key: float = 0.75
    ambient: float = 0.55
    rim: float = 0.1
    fill: float = 0.0
    temperature: float = WHITE
    """Of the key light, kelvin, 2800 .. 8000; the rim has the complementary tint."""

    def directions(self) -> tuple[Array, Array]:
        """Unit vectors [3] towards the key light and towards the fill light, which stands lower on the other side."""
        return _direction(self.azimuth, self.elevation), _direction(-self.azimuth, 0.3 * self.elevation)

    def tint(self) -> Array:
        """[3] colour of the key light after the camera's white balance, linear light, green = 1."""
        colours = (_BLACK_BODY / 255) ** GAMMA
        mired, table = 1e6 / np.clip([self.temperature, WHITE], _KELVIN[0], _KELVIN[-1]), 1e6 / _KELVIN
        own, white = (np.array([np.interp(m, table[::-1], c[::-1]) for c in colours.T]) for m in mired)
        tint = (own / white) ** (1 - _ADAPTATION)
        return np.asarray(tint / tint[1], np.float32)


@dataclass(frozen=True)
class HeadParameters:
    """Everything that makes one picture of one head, apart from the camera."""

    identity: Array
    """[57] coefficients of the identity modes, N(0, 1)."""
    expression: dict[str, float] = field(default_factory=dict)
    """Weights in 0..1 by shape name; a name without `_L`/`_R` drives both sides."""
    gaze: tuple[float, float] = (0.0, 0.0)
    """Yaw (positive: to the subject's left) and pitch (positive: up) of both eyes, radians."""
    skin: str = "young_lightskinned_male"
    second_skin: str | None = None
    """Another skin that is blended in."""
    blend: float = 0.0
    """Its share, 0..1."""
    melanin: float = 0.0
    """Extra absorption along the melanin axis, -0.2 .. 1.2."""
    haemoglobin: float = 0.0
    """-1 .. 1: less or more red."""
    mottle: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """How much of three patterns of lighter and darker skin, a few centimetres wide, -1..1; together at most 4 %."""
    lip_tint: float = 0.3
    """0..1."""
    freckles: float = 0.0
    """0..1: how many and how dark."""
    makeup: float = 0.0
    """0..1, of the eyelids."""
    hair: str | None = "short01"
    """A style of the pack, or None for a shaved head."""
    hair_mirrored: bool = False
    hair_colour: tuple[float, float, float] = (0.2, 0.13, 0.08)
    """sRGB 0..1."""
    brow: str = "eyebrow001"
    eye: str = "brown"
    eye_hue: float = 0.0
    """-1..1: the iris turned by up to 20 degrees of hue."""
    eye_value: float = 0.0
    """-1..1: the iris up to 30 % darker or lighter."""
    shirt: tuple[float, float, float] = (0.2, 0.25, 0.4)
    """sRGB 0..1."""
    beard: float = 0.0
    """0..1, opacity of the stubble."""
    light: Light = Light()


@dataclass(frozen=True)
class Head:
    """A posed mesh with its materials, ready to be drawn from any camera."""

    vertices: Array
    """[V, 3] cm."""
    rest: Array
    """[V, 3] cm: the mean head's positions, in which the neckline is defined."""
    skin: Array
    """[512, 1024, 3] linear-light albedo atlas."""
    eye: Array
    """[512, 512, 3] linear light."""
    mottle: Array
    """[3] amplitudes of the skin's patches, share of the albedo."""
    shirt: Array
    """[3] linear light."""
    hair: tuple[Array, Array, NDArray[np.uint16], Array] | None
    """Vertices [H, 3] cm, uv [H, 2], triangles [G, 3], and texture [S, S, 4] (linear tinted colour, alpha)."""
    light: Light
    lip_depth: float
    """Largest z of the lips, cm: what lies behind it inside the mouth gets darker."""


class HeadPack:
    """The head model's files, read once.

    Args:
        root: the pack's folder; default is the environment variable `TALK3D_HEADS`.

    Raises:
        ConfigError: no folder given, or it lacks the pack's files.
    """

    def __init__(self, root: Path | str | None = None):
        root = root or os.environ.get("TALK3D_HEADS")
        if not root or not (Path(root) / "ict_head.npz").is_file():
            raise ConfigError(
                f"No head pack at `{root or '(nothing given)'}`: it must hold ict_head.npz and its siblings. "
                "Pass `--heads DIR` or set TALK3D_HEADS."
            )
        self.root = Path(root)
        head = np.load(self.root / "ict_head.npz")
        self.mean: Array = head["v_mean"]
        self.faces = head["faces"].astype(np.int32)
        self.uv: Array = head["uv"]
        self.faces_uv = head["faces_uv"].astype(np.int32)
        self.face_part = head["face_part"]
        self.part_names = [str(name) for name in head["part_names"]]
        self.lm68 = head["lm68"]
        modes = np.load(self.root / "ict_identity.npz")["I"][:IDENTITY_MODES].astype(np.float32)
        self.identity_modes: Array = modes.reshape(IDENTITY_MODES, -1)
        shapes = np.load(self.root / "ict_expression.npz")
        pointers = shapes["ptr"]
        self.expressions = {
            str(name): (shapes["idx"][a:b], shapes["delta"][a:b].astype(np.float32))
            for name, a, b in zip(shapes["names"], pointers[:-1], pointers[1:], strict=True)
        }
        self.visemes = json.loads((self.root / "visemes.json").read_text())
        self._hair = np.load(self.root / "hair.npz")
        self.cache: dict[str, Any] = {}
        """What is derived from the pack's files and worth keeping, by name."""

    @cached_property
    def styles(self) -> dict[str, list[str]]:
        """Names of the textures and hairstyles by kind: skin, brows, eyes, hair."""
        kinds = ("skin", "brows", "eyes", "hair")
        return {kind: sorted(p.stem for p in (self.root / kind).iterdir() if p.suffix in (".png", ".webp")) for kind in kinds}

    def training(self, kind: str) -> list[str]:
        """The names of one kind that training heads may wear."""
        return [name for name in self.styles[kind] if name not in HELD_OUT]

    def held_out(self, kind: str) -> list[str]:
        """The names of one kind that training heads never wear."""
        return [name for name in self.styles[kind] if name in HELD_OUT]

    @property
    def digest(self) -> str:
        """Tells this pack from others by the names and sizes of its files."""
        files = sorted(path for path in self.root.rglob("*") if path.suffix in (".npz", ".webp", ".png", ".json"))
        listing = "".join(f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}\n" for path in files)
        return hashlib.sha256(listing.encode()).hexdigest()

    def vertices_of(self, *parts: str) -> NDArray[np.int32]:
        wanted = [self.part_names.index(part) for part in parts]
        return np.unique(self.faces[np.isin(self.face_part, wanted)])

    def texture(self, member: str, size: tuple[int, int]) -> Array:
        """An image of the pack as [height, width, channels] float32 in 0..1, resized to (width, height), cached."""
        key = f"{member}@{size}"
        if key not in self.cache:
            image = cv2.imread(str(self.root / member), cv2.IMREAD_UNCHANGED)
            if image is None:
                raise ConfigError(f"The head pack at `{self.root}` lacks `{member}`. Restore the pack.")
            if image.ndim == 3:
                image = np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            self.cache[key] = np.ascontiguousarray(image, np.float32) / 255
        return self.cache[key]

    def displacement(self, weights: dict[str, float]) -> Array:
        """[V, 3] cm: the sum of the expression shapes; a name without `_L`/`_R` drives both sides."""
        total = np.zeros_like(self.mean)
        for name, weight in weights.items():
            if weight == 0.0:
                continue
            sides = [name] if name in self.expressions else [f"{name}_L", f"{name}_R"]
            for side in sides:
                if side not in self.expressions:
                    raise ConfigError(f"The head pack has no expression `{name}`.")
                indices, delta = self.expressions[side]
                total[indices] += np.float32(weight) * delta
        return total

    def build(self, parameters: HeadParameters) -> Head:
        """Shape and paint one head."""
        neutral = self.mean + (parameters.identity.astype(np.float32) @ self.identity_modes).reshape(-1, 3)
        yaw, pitch = parameters.gaze
        weights = dict(parameters.expression)
        # The lids follow the eyeballs; a full shape corresponds to 25 degrees.
        reach = math.radians(25)
        for side, sign in (("L", 1.0), ("R", -1.0)):
            outward = sign * yaw / reach
            weights[f"eyeLookOut_{side}"] = max(0.0, outward)
            weights[f"eyeLookIn_{side}"] = max(0.0, -outward)
            weights[f"eyeLookUp_{side}"] = max(0.0, pitch / reach)
            weights[f"eyeLookDown_{side}"] = max(0.0, -pitch / reach)
        vertices = neutral + self.displacement(weights)
        for part, sign in (("eye_l", 1.0), ("eye_r", -1.0)):
            ball = self._eyeballs[part]
            centre = EYE_CENTRE * [sign, 1, 1] + (neutral[ball] - self.mean[ball]).mean(0)
            vertices[ball] = ((vertices[ball] - centre) @ _rotation(yaw, pitch).T + centre).astype(np.float32)
        return Head(
            vertices=np.ascontiguousarray(vertices, np.float32),
            rest=self.mean,
            skin=self._paint(parameters),
            eye=self._iris(parameters),
            mottle=(0.04 / 3) * np.array(parameters.mottle, np.float32),
            shirt=linear_light(np.array(parameters.shirt, np.float32)),
            hair=self._grow(parameters, neutral),
            light=parameters.light,
            lip_depth=float(vertices[self.lm68[48:68], 2].max()),
        )

    @cached_property
    def _eyeballs(self) -> dict[str, NDArray[np.int32]]:
        return {part: self.vertices_of(part) for part in ("eye_l", "eye_r")}

    def _paint(self, parameters: HeadParameters) -> Array:
        size = (1024, 512)
        albedo = self._albedo(parameters.skin)
        if parameters.second_skin is not None and parameters.blend > 0:
            albedo = albedo + np.float32(parameters.blend) * (self._albedo(parameters.second_skin) - albedo)
        albedo = absorbed(albedo, parameters)
        if parameters.freckles > 0:
            spots = np.clip(self._freckle_ranks + parameters.freckles - 1, 0, 1)[..., None] * 0.8
            albedo *= 1 - spots * np.array([0.25, 0.45, 0.55], np.float32)
        lips = self.texture("masks/lips.png", size)[..., None] * (0.5 * parameters.lip_tint)
        albedo *= 1 - lips * np.array([0.25, 0.7, 0.6], np.float32)
        if parameters.makeup > 0:
            lids = self.texture("masks/eyelids.png", size)[..., None] * (0.6 * parameters.makeup)
            albedo *= 1 - lids * np.array([0.75, 0.85, 0.7], np.float32)
        hair = linear_light(np.array(parameters.hair_colour, np.float32))
        cover = np.zeros((512, 1024, 1), np.float32)
        cover[:, :512, 0] = self.texture(f"brows/{parameters.brow}.png", (512, 512)) * 0.9
        if parameters.beard > 0:
            cover = np.maximum(cover, self.texture("masks/beard.png", size)[..., None] * self._stubble * parameters.beard)
        if parameters.hair:
            # Scalp under the cards takes the hair's colour, so that gaps between cards do not show skin.
            cover = np.maximum(cover, self.texture("masks/scalp.png", size)[..., None] * 0.8)
        # Roots are darker than the lengths.
        return np.ascontiguousarray(albedo + cover * (0.6 * hair - albedo), np.float32)

    def _albedo(self, skin: str) -> Array:
        key = f"linear {skin}"
        if key not in self.cache:
            self.cache[key] = linear_light(self.texture(f"skin/{skin}.webp", (1024, 512)))
        return self.cache[key]

    @cached_property
    def _freckle_ranks(self) -> Array:
        """[512, 1024] spots over nose and cheeks; a spot's height in 0..1 is the share of freckles at which it appears."""
        rng = np.random.default_rng(7)
        ranks = np.zeros((512, 1024), np.float32)
        # Spots of one to two texels on a jittered grid, which keeps them apart; denser towards the middle of the face.
        for row in range(150, 340, 6):
            for column in range(90, 430, 6):
                x, y = column + rng.uniform(-2.5, 2.5), row + rng.uniform(-2.5, 2.5)
                rank = rng.uniform() * math.exp(-(((x - 256) / 120) ** 2) - ((y - 245) / 70) ** 2)
                spread = rng.uniform(0.7, 1.5)
                i, j = np.mgrid[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5]
                spot = rank * np.exp(-((i - y) ** 2 + (j - x) ** 2) / (2 * spread**2))
                ranks[i, j] = np.maximum(ranks[i, j], spot)
        return ranks / ranks.max()

    @cached_property
    def _stubble(self) -> Array:
        """[512, 1024, 1] in 0.5..1: hairs of a beard, coarse and fine."""
        rng = np.random.default_rng(11)
        fine = rng.random((512, 1024), np.float32)
        coarse = cv2.resize(rng.random((64, 128), np.float32), (1024, 512), interpolation=cv2.INTER_LINEAR)
        return 0.5 + 0.25 * (fine + coarse)[..., None]

    def _iris(self, parameters: HeadParameters) -> Array:
        """[512, 512, 3] linear light: the eye texture with its iris turned in hue and value."""
        image = self.texture(f"eyes/{parameters.eye}.webp", (512, 512))
        if parameters.eye_hue or parameters.eye_value:
            # Red-green-blue is turned about the grey axis (Rodrigues).
            angle = math.radians(20) * parameters.eye_hue
            grey = np.full((3, 3), 1 / 3)
            cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
            turn = math.cos(angle) * np.eye(3) + (1 - math.cos(angle)) * grey + math.sin(angle) * cross
            y, x = np.mgrid[0:512, 0:512] - 255.5
            iris = np.clip((IRIS_RADIUS - np.hypot(x, y)) / 4, 0, 1)[..., None].astype(np.float32)
            changed = (image @ turn.T.astype(np.float32)) * np.float32(1 + 0.3 * parameters.eye_value)
            image = np.clip(image + iris * (changed - image), 0, 1)
        return linear_light(image)

    def _grow(self, parameters: HeadParameters, neutral: Array) -> tuple[Array, Array, NDArray[np.uint16], Array] | None:
        style = parameters.hair
        if style is None:
            return None
        if f"{style}_v" not in self._hair:
            raise ConfigError(f"The head pack has no hairstyle `{style}`; it has {', '.join(self.styles['hair'])}.")
        key = f"hair {style}"
        if key not in self.cache:
            for part in ("v", "uv", "f", "bind_i", "bind_w"):
                self.cache[f"{key} {part}"] = self._hair[f"{style}_{part}"]
            image = self.texture(f"hair/{style}.webp", (512, 512)).copy()
            grey = image[..., :3].mean(2)
            opaque = image[..., 3] > 0.5
            image[..., :3] = (grey / grey[opaque].mean())[..., None]
            self.cache[key] = image
        v, uv, f, bind_i, bind_w = (self.cache[f"{key} {part}"] for part in ("v", "uv", "f", "bind_i", "bind_w"))
        # A mirrored style is bound as it is and then turned over: exact for symmetric heads, close for the others.
        shift = neutral - self.mean
        moved = v + np.einsum("nk,nkc->nc", bind_w.astype(np.float32), shift[bind_i])
        if parameters.hair_mirrored:
            moved = moved * np.array([-1, 1, 1], np.float32)
        texture = self.cache[key].copy()
        texture[..., :3] *= linear_light(np.array(parameters.hair_colour, np.float32))
        return np.ascontiguousarray(moved, np.float32), uv, f, texture


def to_world(positions: Array) -> Array:
    """Centimetres [*, 3] to scene units."""
    return SCALE * (positions - CENTRE)


def absorbed(albedo: Array, parameters: HeadParameters) -> Array:
    """Linear-light albedo [..., 3] behind more melanin and haemoglobin."""
    absorption = np.exp(-max(-0.2, parameters.melanin) * np.array([0.45, 0.75, 1.1], np.float32))
    blood = 1 - 0.08 * parameters.haemoglobin * np.array([0, 1, 1], np.float32)
    return albedo * (absorption * blood)


def linear_light(srgb: Array) -> Array:
    """sRGB 0..1 to linear light, by the renderer's plain power law."""
    return np.asarray(srgb, np.float32) ** np.float32(GAMMA)


def _direction(azimuth: float, elevation: float) -> Array:
    level = math.cos(elevation)
    return np.array([level * math.sin(azimuth), math.sin(elevation), level * math.cos(azimuth)], np.float32)


def _rotation(yaw: float, pitch: float) -> Array:
    """Turn +Z towards +X by `yaw` and towards +Y by `pitch`."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return (about_y @ about_x).astype(np.float32)

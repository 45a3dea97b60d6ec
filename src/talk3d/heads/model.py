"""Parametric heads: a latent vector becomes parameters, parameters become a mesh with materials.

Letters: V vertices, F triangles, K expression shapes. Positions are centimetres in the pack's frame (+Y up, +Z the face's
forward, +X the subject's left); `to_world` maps them to scene units, p = 0.030 (v - [0, 1, 3]).
"""

from __future__ import annotations

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

IDENTITY_MODES = 57
EYE_CENTRE = np.array([3.10, 3.60, 7.88], np.float32)
"""Rotation centre of the subject's left eyeball; the right one is its mirror image in x."""

# Textures that no training head ever wears, so that "unseen head" means unseen.
HELD_OUT = frozenset(
    {"old_darkskinned_male", "young_lightskinned_female3", "short04", "braid01", "green", "ice"}
    | {"eyebrow004", "eyebrow008", "eyebrow011"}
)

HAIR_MELANIN = np.array([[0.06, 0.05, 0.04], [0.20, 0.13, 0.08], [0.36, 0.24, 0.13], [0.62, 0.48, 0.28]], np.float32)
HAIR_RED = np.array([0.42, 0.16, 0.07], np.float32)
HAIR_GREY = np.array([0.55, 0.55, 0.55], np.float32)

# The sliders of the latent: (name for positive values, name for negative values or None, largest weight).
# A name without _L/_R drives both sides.
SLIDERS: tuple[tuple[str, str | None, float], ...] = (
    ("jawOpen", None, 0.8),
    ("mouthPucker", None, 0.8),
    ("mouthFunnel", None, 0.7),
    ("mouthSmile", "mouthFrown", 0.8),
    ("mouthStretch", None, 0.6),
    ("mouthUpperUp", None, 0.6),
    ("mouthLowerDown", None, 0.7),
    ("mouthRollUpper", None, 0.5),
    ("mouthRollLower", None, 0.6),
    ("mouthPress", None, 0.7),
    ("eyeBlink", None, 1.0),
    ("eyeBlink_L", "eyeBlink_R", 1.0),
    ("browInnerUp", None, 0.8),
    ("browOuterUp", "browDown", 0.8),
    ("eyeWide", "eyeSquint", 0.5),
    ("cheekPuff", "mouthDimple", 0.6),
    ("jawRight", "jawLeft", 0.4),
    ("mouthRight", "mouthLeft", 0.4),
    ("mouthShrugLower", "mouthShrugUpper", 0.5),
    ("noseSneer", None, 0.5),
)


@dataclass(frozen=True)
class Light:
    """One key light, a hemisphere of ambient light and a rim; directions are angles around the head, radians."""

    azimuth: float = 0.5
    elevation: float = 0.6
    key: float = 0.75
    ambient: float = 0.55
    rim: float = 0.1
    warmth: float = 0.0
    """-1 (cold) .. 1 (warm)."""


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
    melanin: float = 0.0
    """Extra absorption along the melanin axis, -0.2 .. 1.2."""
    haemoglobin: float = 0.0
    """-1 .. 1: less or more red."""
    lip_tint: float = 0.3
    hair: str | None = "short01"
    """A style of the pack, or None for a shaved head."""
    hair_mirrored: bool = False
    hair_colour: tuple[float, float, float] = (0.2, 0.13, 0.08)
    """sRGB 0..1."""
    brow: str = "eyebrow001"
    eye: str = "brown"
    shirt: tuple[float, float, float] = (0.2, 0.25, 0.4)
    """sRGB 0..1."""
    beard: float = 0.0
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
        self._textures: dict[str, Any] = {}

    @cached_property
    def styles(self) -> dict[str, list[str]]:
        """Names of the textures and hairstyles by kind: skin, brows, eyes, hair."""
        kinds = {kind: sorted(p.stem for p in (self.root / kind).iterdir()) for kind in ("skin", "brows", "eyes", "hair")}
        return kinds

    def training(self, kind: str) -> list[str]:
        """The names of one kind that training heads may wear."""
        return [name for name in self.styles[kind] if name not in HELD_OUT]

    def vertices_of(self, *parts: str) -> NDArray[np.int32]:
        wanted = [self.part_names.index(part) for part in parts]
        return np.unique(self.faces[np.isin(self.face_part, wanted)])

    def texture(self, member: str, size: tuple[int, int]) -> Array:
        """An image of the pack as [height, width, channels] float32 in 0..1, resized to (width, height), cached."""
        key = f"{member}@{size}"
        if key not in self._textures:
            image = cv2.imread(str(self.root / member), cv2.IMREAD_UNCHANGED)
            if image is None:
                raise ConfigError(f"The head pack at `{self.root}` lacks `{member}`. Restore the pack.")
            if image.ndim == 3:
                image = np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            self._textures[key] = np.ascontiguousarray(image, np.float32) / 255
        return self._textures[key]

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
            eye=_linear(self.texture(f"eyes/{parameters.eye}.webp", (512, 512))),
            shirt=_linear(np.array(parameters.shirt, np.float32)),
            hair=self._grow(parameters, neutral),
            light=parameters.light,
            lip_depth=float(vertices[self.lm68[48:68], 2].max()),
        )

    @cached_property
    def _eyeballs(self) -> dict[str, NDArray[np.int32]]:
        return {part: self.vertices_of(part) for part in ("eye_l", "eye_r")}

    def _paint(self, parameters: HeadParameters) -> Array:
        size = (1024, 512)
        key = f"linear {parameters.skin}"
        if key not in self._textures:
            self._textures[key] = _linear(self.texture(f"skin/{parameters.skin}.webp", size))
        albedo = _absorbed(self._textures[key], parameters)
        lips = self.texture("masks/lips.png", size)[..., None] * (0.5 * parameters.lip_tint)
        albedo *= 1 - lips * np.array([0.25, 0.7, 0.6], np.float32)
        hair = _linear(np.array(parameters.hair_colour, np.float32))
        cover = np.zeros((512, 1024, 1), np.float32)
        cover[:, :512, 0] = self.texture(f"brows/{parameters.brow}.png", (512, 512)) * 0.9
        if parameters.beard > 0:
            cover = np.maximum(cover, self.texture("masks/beard.png", size)[..., None] * parameters.beard)
        if parameters.hair:
            # Scalp under the cards takes the hair's colour, so that gaps between cards do not show skin.
            cover = np.maximum(cover, self.texture("masks/scalp.png", size)[..., None] * 0.8)
        # Roots are darker than the lengths.
        return np.ascontiguousarray(albedo + cover * (0.6 * hair - albedo), np.float32)

    def _grow(self, parameters: HeadParameters, neutral: Array) -> tuple[Array, Array, NDArray[np.uint16], Array] | None:
        style = parameters.hair
        if style is None:
            return None
        if f"{style}_v" not in self._hair:
            raise ConfigError(f"The head pack has no hairstyle `{style}`; it has {', '.join(self.styles['hair'])}.")
        key = f"hair {style}"
        if key not in self._textures:
            for part in ("v", "uv", "f", "bind_i", "bind_w"):
                self._textures[f"{key} {part}"] = self._hair[f"{style}_{part}"]
            image = self.texture(f"hair/{style}.webp", (512, 512)).copy()
            grey = image[..., :3].mean(2)
            opaque = image[..., 3] > 0.5
            image[..., :3] = (grey / grey[opaque].mean())[..., None]
            self._textures[key] = image
        v, uv, f, bind_i, bind_w = (self._textures[f"{key} {part}"] for part in ("v", "uv", "f", "bind_i", "bind_w"))
        # A mirrored style is bound as it is and then turned over: exact for symmetric heads, close for the others.
        shift = neutral - self.mean
        moved = v + np.einsum("nk,nkc->nc", bind_w.astype(np.float32), shift[bind_i])
        if parameters.hair_mirrored:
            moved = moved * np.array([-1, 1, 1], np.float32)
        texture = self._textures[key].copy()
        texture[..., :3] *= _linear(np.array(parameters.hair_colour, np.float32))
        return np.ascontiguousarray(moved, np.float32), uv, f, texture


LATENT_SIZE = 128


def parameters_from_latent(z: Array, pack: HeadPack) -> HeadParameters:
    """Decode a latent drawn from N(0, I) into head parameters.

    Every choice is a fixed function of Gaussian numbers (a category is the largest of its components, weighted where balance
    asks for it), so a plain normal sample is always a valid head, and identity and expression occupy known, separate
    subspaces.

    Args:
        z: [128].
    """
    numbers = np.asarray(z, np.float64)
    cursor = 0

    def take(count: int) -> NDArray[np.float64]:
        nonlocal cursor
        cursor += count
        return numbers[cursor - count : cursor]

    def choose(names: list[str], slots: int, odds: list[float] | None = None) -> str:
        """A name, drawn with the given odds (the largest of log-odds with Gumbel noise made of the Gaussian numbers)."""
        uniform = np.clip(_normal_cdf_array(take(slots)[: len(names)]), 1e-12, 1 - 1e-12)
        return names[int(np.argmax(np.log(odds or [1.0] * len(names)) - np.log(-np.log(uniform))))]

    identity = np.clip(take(IDENTITY_MODES), -2.5, 2.5) * 0.8
    expression: dict[str, float] = {}
    for value, (positive, negative, largest) in zip(take(len(SLIDERS)), SLIDERS, strict=True):
        amount = 2 * _normal_cdf(value) - 1
        if amount > 0:
            expression[positive] = expression.get(positive, 0.0) + amount * largest
        elif negative:
            expression[negative] = expression.get(negative, 0.0) - amount * largest
    _tame(expression)
    gaze = np.clip(take(2), -2, 2) * [0.18, 0.09]
    skin = choose(pack.training("skin"), 9, _balance(pack.training("skin")))
    melanin, haemoglobin, lips = take(3)
    hair = choose([*pack.training("hair"), ""], 7) or None
    colour, red, grey = take(3)
    mirrored = take(1)[0] > 0
    brow = choose(pack.training("brows"), 9)
    eye = choose(pack.training("eyes"), 7)
    shirt = 0.08 + 0.8 * _normal_cdf_array(take(3))
    beard = take(1)[0]
    light = take(LATENT_SIZE - cursor)
    dark, female = "dark" in skin, "female" in skin
    # The pack has no dark female texture, so pigment makes up for it.
    pigment = 0.1 if dark else 0.9 if female else 0.6
    return HeadParameters(
        identity=identity.astype(np.float32),
        expression=expression,
        gaze=(float(gaze[0]), float(gaze[1])),
        skin=skin,
        melanin=float(pigment * max(0.0, melanin) - 0.1),
        haemoglobin=float(np.clip(haemoglobin, -1.5, 1.5)) / 1.5,
        lip_tint=_normal_cdf(lips),
        hair=hair,
        hair_mirrored=bool(mirrored),
        hair_colour=_hair_colour(_normal_cdf(colour), max(0.0, red - 1.0), max(0.0, grey - 1.0)),
        brow=brow,
        eye=eye,
        shirt=(float(shirt[0]), float(shirt[1]), float(shirt[2])),
        beard=float(np.clip(beard - 0.5, 0, 0.7)) if not female else 0.0,
        light=Light(
            azimuth=float(np.clip(light[0], -2, 2) * math.radians(35)),
            elevation=math.radians(30) + float(np.clip(light[1], -2, 2) * math.radians(15)),
            key=0.45 + 0.5 * _normal_cdf(light[2]),
            ambient=0.4 + 0.35 * _normal_cdf(light[3]),
            rim=0.2 * _normal_cdf(light[4]),
            warmth=2 * _normal_cdf(light[5]) - 1,
        ),
    )


def _balance(skins: list[str]) -> list[float]:
    """Odds that make the two sexes equally frequent, and dark skins two in five of the men."""
    groups = [("female" in name, "dark" in name) for name in skins]
    shares = {(True, False): 0.5, (False, True): 0.2, (False, False): 0.3}
    return [shares[group] / groups.count(group) for group in groups]


class HeadEmbedding:
    """Head parameters as a vector that a network can read: everything in it acts on the picture nearly linearly.

    Categories are one-hot, a mirrored hairstyle is a style of its own, colours are colours, the light is a vector. Each
    component is whitened to zero mean and unit deviation over random heads, so that N(0, I) has the same first two moments.
    """

    def __init__(self, pack: HeadPack):
        self._pack = pack
        self._shapes = sorted({name for positive, negative, _ in SLIDERS for name in (positive, negative) if name})
        self._tones = {skin: _mean_tone(pack, skin) for skin in pack.training("skin")}
        sample = np.random.default_rng(2024).standard_normal((2000, LATENT_SIZE)).astype(np.float32)
        raw = np.stack([self._raw(parameters_from_latent(z, pack)) for z in sample])
        self._mean, self._deviation = raw.mean(0), raw.std(0) + 1e-6

    @property
    def size(self) -> int:
        return len(self._mean)

    def __call__(self, parameters: HeadParameters) -> Array:
        """[size] float32."""
        return (self._raw(parameters) - self._mean) / self._deviation

    def expressions(self) -> dict[str, Array]:
        """For each expression shape, the direction [size] that plays it as far as it ever was in training."""
        largest = {name: weight for *names, weight in SLIDERS for name in names if name}
        directions = {}
        for place, name in enumerate(self._shapes, start=IDENTITY_MODES):
            directions[name] = np.zeros(self.size, np.float32)
            directions[name][place] = largest[name] / self._deviation[place]
        return directions

    def _raw(self, parameters: HeadParameters) -> Array:
        pack, light = self._pack, parameters.light
        style = (parameters.hair or "", parameters.hair_mirrored and parameters.hair is not None)
        styles = [("", False), *((name, mirrored) for name in pack.training("hair") for mirrored in (False, True))]
        cos_e = math.cos(light.elevation)
        towards = [cos_e * math.sin(light.azimuth), math.sin(light.elevation), cos_e * math.cos(light.azimuth)]
        tone = _absorbed(self._tones[parameters.skin], parameters) ** (1 / 2.2)
        return np.concatenate(
            [
                parameters.identity,
                [parameters.expression.get(name, 0.0) for name in self._shapes],
                parameters.gaze,
                [parameters.skin == name for name in pack.training("skin")],
                tone,
                [parameters.lip_tint, parameters.beard],
                [style == one for one in styles],
                parameters.hair_colour,
                [parameters.brow == name for name in pack.training("brows")],
                [parameters.eye == name for name in pack.training("eyes")],
                parameters.shirt,
                [light.key * component for component in towards],
                [light.key, light.ambient, light.rim, light.warmth],
            ]
        ).astype(np.float32)


def to_world(positions: Array) -> Array:
    """Centimetres [*, 3] to scene units."""
    return SCALE * (positions - CENTRE)


def _tame(expression: dict[str, float]) -> None:
    """Keep combinations that the shapes were not made for apart."""
    rounding = expression.get("mouthPucker", 0) + expression.get("mouthFunnel", 0)
    if rounding > 1:
        for name in ("mouthPucker", "mouthFunnel"):
            expression[name] /= rounding
    # Sealed-lip shapes fade as the jaw opens; stretching fades as the lips round.
    closed = 1 - min(1.0, expression.get("jawOpen", 0) / 0.3)
    for name in ("mouthPress", "mouthRollUpper", "mouthRollLower", "cheekPuff"):
        if name in expression:
            expression[name] *= closed
    for name in ("mouthStretch", "mouthSmile"):
        if name in expression:
            expression[name] *= 1 - 0.7 * min(1.0, rounding)
    # Most faces look at us: only the upper half of the blink slider's positive range closes the eyes, and winks are rare.
    expression["eyeBlink"] = max(0.0, 2 * expression.get("eyeBlink", 0) - 1)
    for side in ("L", "R"):
        wink = max(0.0, 2.5 * expression.get(f"eyeBlink_{side}", 0) - 1.5)
        expression[f"eyeBlink_{side}"] = min(wink, 1 - expression["eyeBlink"])


def _hair_colour(melanin: float, red: float, grey: float) -> tuple[float, float, float]:
    position = (1 - melanin) * (len(HAIR_MELANIN) - 1)
    low = min(int(position), len(HAIR_MELANIN) - 2)
    colour = HAIR_MELANIN[low] + (position - low) * (HAIR_MELANIN[low + 1] - HAIR_MELANIN[low])
    colour = colour + min(1.0, red) * (HAIR_RED - colour)
    colour = colour + min(1.0, grey) * (HAIR_GREY - colour)
    return float(colour[0]), float(colour[1]), float(colour[2])


def _absorbed(albedo: Array, parameters: HeadParameters) -> Array:
    """Linear-light albedo [..., 3] behind more melanin and haemoglobin."""
    absorption = np.exp(-max(-0.2, parameters.melanin) * np.array([0.45, 0.75, 1.1], np.float32))
    blood = 1 - 0.08 * parameters.haemoglobin * np.array([0, 1, 1], np.float32)
    return albedo * (absorption * blood)


def _mean_tone(pack: HeadPack, skin: str) -> Array:
    """[3] mean linear-light albedo of a skin's face."""
    face = _linear(pack.texture(f"skin/{skin}.webp", (1024, 512)))[:, :512]
    return np.asarray(face[120:400, 130:380].mean((0, 1)), np.float32)


def _rotation(yaw: float, pitch: float) -> Array:
    """Turn +Z towards +X by `yaw` and towards +Y by `pitch`."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return (about_y @ about_x).astype(np.float32)


def _linear(srgb: Array) -> Array:
    return np.asarray(srgb, np.float32) ** np.float32(2.2)


def _normal_cdf(value: float) -> float:
    return 0.5 * (1 + math.erf(value / math.sqrt(2)))


def _normal_cdf_array(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([_normal_cdf(value) for value in values])

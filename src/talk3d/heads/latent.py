"""Heads drawn from a normal distribution, and heads as vectors that a network can read.

`parameters_from_latent` decodes N(0, I) into a head; `HeadEmbedding` turns a head's parameters into a whitened vector in
which everything acts on the picture nearly linearly. Sexes are equally frequent and skin tones evenly spread.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .model import IDENTITY_MODES, Array, HeadPack, HeadParameters, Light, absorbed, linear_light

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


LATENT_SIZE = 149

TONE_RANGE = (-0.75, -3.0)
"""Log of the linear-light luminance of the lightest and the darkest skin; drawn tones are spread evenly between them."""
TONES = ("light", "medium", "dark")
"""Names of the three equal parts of that range."""
MELANIN_RANGE = (-0.2, 1.2)
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_MELANIN_ON_LUMINANCE = 0.70
"""Log luminance lost per unit of melanin, about (`model.absorbed` has the colour channels' own rates)."""
_DARK_TEXTURES_FROM = -1.4
"""Below this log luminance light textures are blended with dark ones: melanin alone would look like a tint."""


def parameters_from_latent(z: Array, pack: HeadPack, *, held_out: bool = False) -> HeadParameters:
    """Decode a latent drawn from N(0, I) into head parameters.

    Every choice is a fixed function of Gaussian numbers (a category is the largest of its components, weighted where balance
    asks for it), so a plain normal sample is always a valid head, and identity and expression occupy known, separate
    subspaces.

    Args:
        z: [149].
        pack: the head pack, for the names of its textures.
        held_out: wear only the textures that no training head ever wears.
    """
    numbers = np.asarray(z, np.float64)
    names = pack.held_out if held_out else pack.training
    cursor = 0

    def take(count: int) -> NDArray[np.float64]:
        nonlocal cursor
        cursor += count
        return numbers[cursor - count : cursor]

    def choose(names: list[str], slots: int) -> str:
        return names[int(np.argmax(take(slots)[: len(names)]))]

    identity = np.clip(take(IDENTITY_MODES), -2.5, 2.5) * 0.8
    expression = _expression(take(len(SLIDERS)))
    gaze = np.clip(take(2), -2, 2) * [0.2, 0.12]
    female = bool(take(1)[0] > 0)
    skin, second_skin, blend, melanin = _skin(
        pack, names("skin"), female, float(take(1)[0]), take(9), take(9), float(take(1)[0])
    )
    haemoglobin, lips, freckles, makeup, beard = take(5)
    mottle = np.clip(take(3), -2, 2) / 2
    hair = choose([*names("hair"), ""], 7) or None
    mirrored = take(1)[0] > 0
    colour, red, grey = take(3)
    brow = choose(names("brows"), 9)
    # Brown eyes are the most common ones: three tickets.
    eye = choose(names("eyes") if held_out else [*names("eyes"), "brown", "brown"], 9)
    eye_hue, eye_value = np.clip(take(2), -2, 2) / 2
    shirt = 0.08 + 0.8 * _normal_cdf_array(take(3))
    light = take(7)
    return HeadParameters(
        identity=identity.astype(np.float32),
        expression=expression,
        gaze=(float(gaze[0]), float(gaze[1])),
        skin=skin,
        second_skin=second_skin,
        blend=blend,
        melanin=melanin,
        haemoglobin=float(np.clip(haemoglobin, -1.5, 1.5)) / 1.5,
        mottle=(float(mottle[0]), float(mottle[1]), float(mottle[2])),
        lip_tint=_normal_cdf(lips),
        # One head in five has freckles, one in three of the women eye make-up, one in three of the men a beard.
        freckles=float(np.clip(freckles - 0.8, 0, 1)),
        makeup=float(np.clip(makeup - 0.4, 0, 1)) if female else 0.0,
        beard=float(np.clip(beard - 0.4, 0, 0.7)) if not female else 0.0,
        hair=hair,
        hair_mirrored=bool(mirrored),
        hair_colour=_hair_colour(_normal_cdf(colour), max(0.0, red - 1.0), max(0.0, grey - 1.0)),
        brow=brow,
        eye=eye,
        eye_hue=float(eye_hue),
        eye_value=float(eye_value),
        shirt=(float(shirt[0]), float(shirt[1]), float(shirt[2])),
        light=Light(
            azimuth=float(np.clip(light[0], -2, 2) * math.radians(35)),
            elevation=math.radians(30) + float(np.clip(light[1], -2, 2) * math.radians(15)),
            key=0.45 + 0.5 * _normal_cdf(light[2]),
            ambient=0.35 + 0.35 * _normal_cdf(light[3]),
            rim=0.2 * _normal_cdf(light[4]),
            fill=0.25 * _normal_cdf(light[5]),
            temperature=1e6 / (125 + 232 * _normal_cdf(light[6])),
        ),
    )


def is_female(parameters: HeadParameters) -> bool:
    """Whether the head wears a woman's skin."""
    return "female" in parameters.skin


def tone_of(parameters: HeadParameters, pack: HeadPack) -> str:
    """One of `TONES`, by the luminance of the face's skin."""
    light, dark = TONE_RANGE
    position = (_log_luminance(skin_tone(parameters, pack)) - light) / (dark - light)
    return TONES[int(np.clip(position * len(TONES), 0, len(TONES) - 1))]


def skin_tone(parameters: HeadParameters, pack: HeadPack) -> Array:
    """[3] mean linear-light albedo of the face."""
    tone = _mean_tone(pack, parameters.skin)
    if parameters.second_skin is not None:
        tone = tone + parameters.blend * (_mean_tone(pack, parameters.second_skin) - tone)
    return absorbed(tone, parameters)


def _skin(
    pack: HeadPack,
    names: list[str],
    female: bool,
    tone: float,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    share: float,
) -> tuple[str, str, float, float]:
    """Skin, second skin, the second's share and melanin, such that tones are spread evenly for both sexes."""
    target = TONE_RANGE[0] + (TONE_RANGE[1] - TONE_RANGE[0]) * _normal_cdf(tone)
    dark = [name for name in names if "dark" in name]
    light = [name for name in names if "dark" not in name and ("female" in name) == female] or dark
    # The pack has no dark woman: blended with a dark man's skin, a woman's keeps her features.
    mix = target < _DARK_TEXTURES_FROM
    own = dark if mix and not female and target < _DARK_TEXTURES_FROM - 0.85 else light
    other = dark if mix else light
    skin = own[int(np.argmax(first[: len(own)]))]
    second_skin = other[int(np.argmax(second[: len(other)]))]
    blend = 0.5 * _normal_cdf(share)
    if own is light and other is dark:
        depth = (_DARK_TEXTURES_FROM - target) / (_DARK_TEXTURES_FROM - TONE_RANGE[1])
        blend = min(0.9, 0.3 + 0.55 * depth + 0.2 * (_normal_cdf(share) - 0.5))
    tones = _mean_tone(pack, skin), _mean_tone(pack, second_skin)
    untouched = _log_luminance(tones[0] + blend * (tones[1] - tones[0]))
    melanin = float(np.clip((untouched - target) / _MELANIN_ON_LUMINANCE, *MELANIN_RANGE))
    return skin, second_skin, float(blend), melanin


def _log_luminance(tone: Array) -> float:
    return float(np.log(_LUMINANCE @ tone))


class HeadEmbedding:
    """Head parameters as a vector that a network can read: everything in it acts on the picture nearly linearly.

    Categories are one-hot, a mirrored hairstyle is a style of its own, colours are colours, the light is a vector. Each
    component is whitened to zero mean and unit deviation over random heads, so that N(0, I) has the same first two moments.
    """

    def __init__(self, pack: HeadPack):
        self._pack = pack
        self._shapes = sorted({name for positive, negative, _ in SLIDERS for name in (positive, negative) if name})
        raw = self._random(2000, 2024)
        self._mean, self._deviation = raw.mean(0), raw.std(0) + 1e-6

    @property
    def size(self) -> int:
        return len(self._mean)

    def __call__(self, parameters: HeadParameters) -> Array:
        """[size] float32."""
        return (self._raw(parameters) - self._mean) / self._deviation

    def random(self, count: int, seed: int) -> Array:
        """[count, size] of random heads."""
        return (self._random(count, seed) - self._mean) / self._deviation

    def expressions(self) -> dict[str, Array]:
        """For each expression shape, the direction [size] that plays it as far as it ever was in training."""
        largest = {name: weight for *names, weight in SLIDERS for name in names if name}
        directions = {}
        for place, name in enumerate(self._shapes, start=IDENTITY_MODES):
            directions[name] = np.zeros(self.size, np.float32)
            directions[name][place] = largest[name] / self._deviation[place]
        return directions

    def _random(self, count: int, seed: int) -> Array:
        latents = np.random.default_rng(seed).standard_normal((count, LATENT_SIZE)).astype(np.float32)
        return np.stack([self._raw(parameters_from_latent(z, self._pack)) for z in latents])

    def _raw(self, parameters: HeadParameters) -> Array:
        pack, light = self._pack, parameters.light
        style = (parameters.hair or "", parameters.hair_mirrored and parameters.hair is not None)
        styles = [("", False), *((name, mirrored) for name in pack.training("hair") for mirrored in (False, True))]
        towards, filling = light.directions()
        tone = skin_tone(parameters, pack) ** (1 / 2.2)
        skins = [float(parameters.skin == name) for name in pack.training("skin")]
        if parameters.second_skin is not None:
            second = [float(parameters.second_skin == name) for name in pack.training("skin")]
            skins = [a + parameters.blend * (b - a) for a, b in zip(skins, second, strict=True)]
        return np.concatenate(
            [
                parameters.identity,
                [parameters.expression.get(name, 0.0) for name in self._shapes],
                parameters.gaze,
                skins,
                tone,
                [parameters.lip_tint, parameters.beard],
                [style == one for one in styles],
                parameters.hair_colour,
                [parameters.brow == name for name in pack.training("brows")],
                [parameters.eye == name for name in pack.training("eyes")],
                parameters.shirt,
                [light.key * component for component in towards],
                [light.key, light.ambient, light.rim, 1e6 / light.temperature],
                [light.fill * component for component in filling],
                [light.fill],
                parameters.mottle,
                [parameters.freckles, parameters.makeup, parameters.eye_hue, parameters.eye_value],
            ]
        ).astype(np.float32)


def _expression(sliders: NDArray[np.float64]) -> dict[str, float]:
    """Expression weights of N(0, 1) sliders."""
    expression: dict[str, float] = {}
    for value, (positive, negative, largest) in zip(sliders, SLIDERS, strict=True):
        amount = 2 * _normal_cdf(value) - 1
        if amount > 0:
            expression[positive] = expression.get(positive, 0.0) + amount * largest
        elif negative:
            expression[negative] = expression.get(negative, 0.0) - amount * largest
    _tame(expression)
    return expression


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


def _mean_tone(pack: HeadPack, skin: str) -> Array:
    """[3] mean linear-light albedo of a skin texture's face."""
    key = f"tone {skin}"
    if key not in pack.cache:
        face = linear_light(pack.texture(f"skin/{skin}.webp", (1024, 512)))[:, :512]
        pack.cache[key] = np.asarray(face[120:400, 130:380].mean((0, 1)), np.float32)
    return pack.cache[key]


def _normal_cdf(value: float) -> float:
    return 0.5 * (1 + math.erf(value / math.sqrt(2)))


def _normal_cdf_array(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([_normal_cdf(value) for value in values])

"""Latents to heads, and heads to vectors: any normal sample is a valid head, and the population is balanced."""

import math
from dataclasses import replace

import numpy as np
import pytest

from talk3d.heads.latent import (
    LATENT_SIZE,
    SLIDERS,
    TONES,
    HeadEmbedding,
    is_female,
    parameters_from_latent,
    skin_tone,
    tone_of,
)
from talk3d.heads.model import HELD_OUT, IDENTITY_MODES, HeadPack, HeadParameters


@pytest.fixture(scope="module")
def decoded(pack: HeadPack) -> list[HeadParameters]:
    """500 heads from N(0, I)."""
    rng = np.random.default_rng(1)
    return [parameters_from_latent(z, pack) for z in rng.standard_normal((500, LATENT_SIZE), np.float32)]


@pytest.fixture(scope="module")
def embedding(pack: HeadPack) -> HeadEmbedding:
    return HeadEmbedding(pack)


def check_valid(parameters: HeadParameters, pack: HeadPack) -> None:
    assert parameters.identity.shape == (IDENTITY_MODES,)
    assert np.abs(parameters.identity).max() <= 2.0
    limits: dict[str, float] = {}
    for positive, negative, largest in SLIDERS:
        for name in (positive, negative):
            if name:
                limits[name] = max(limits.get(name, 0.0), largest)
    for name, weight in parameters.expression.items():
        assert 0 <= weight <= limits[name] + 1e-9, name
        assert name in pack.expressions or f"{name}_L" in pack.expressions
    expression = parameters.expression
    # What the shapes were not made for does not come together.
    assert expression.get("mouthPucker", 0) + expression.get("mouthFunnel", 0) <= 1 + 1e-9
    for side in ("L", "R"):
        assert expression["eyeBlink"] + expression[f"eyeBlink_{side}"] <= 1 + 1e-9
    if expression.get("jawOpen", 0) >= 0.3:
        assert expression.get("mouthPress", 0) == 0
    assert abs(parameters.gaze[0]) <= math.radians(25)
    assert abs(parameters.gaze[1]) <= math.radians(15)
    assert -0.2 <= parameters.melanin <= 1.2
    assert 0 <= parameters.blend <= 1
    assert np.abs(parameters.mottle).max() <= 1
    assert 0 <= min(parameters.freckles, parameters.makeup) <= max(parameters.freckles, parameters.makeup) <= 1
    assert parameters.makeup == 0 or "female" in parameters.skin
    assert max(abs(parameters.eye_hue), abs(parameters.eye_value)) <= 1
    for colour in (parameters.hair_colour, parameters.shirt):
        assert all(0 <= value <= 1 for value in colour)
    assert 0 <= parameters.beard <= 0.7
    assert parameters.beard == 0 or "female" not in parameters.skin
    assert -1 <= parameters.haemoglobin <= 1
    assert 0 <= parameters.lip_tint <= 1
    light = parameters.light
    assert 0 <= light.elevation <= math.radians(60)
    assert abs(light.azimuth) <= math.radians(70)
    assert min(light.key, light.ambient) > 0 <= light.rim
    assert 0 <= light.fill <= 0.25
    assert 2800 <= light.temperature <= 8000


def test_every_normal_sample_is_a_valid_head(decoded: list[HeadParameters], pack: HeadPack) -> None:
    for parameters in decoded:
        check_valid(parameters, pack)


@pytest.mark.parametrize("value", [-12.0, 0.0, 12.0])
def test_extreme_latents_are_valid_too(value: float, pack: HeadPack) -> None:
    latent = np.full(LATENT_SIZE, value, np.float32)
    check_valid(parameters_from_latent(latent, pack), pack)
    latent *= np.random.default_rng(2).choice([-1, 1], LATENT_SIZE)
    check_valid(parameters_from_latent(latent, pack), pack)


def test_held_out_textures_never_appear(decoded: list[HeadParameters], pack: HeadPack) -> None:
    used = {name for p in decoded for name in (p.skin, p.second_skin, p.hair, p.brow, p.eye)}
    assert used.isdisjoint(HELD_OUT)
    # They exist, so their absence means something: two skins, two hairstyles, two eyes and three brows.
    styles = pack.styles
    assert [len(HELD_OUT & set(styles[kind])) for kind in ("skin", "hair", "eyes", "brows")] == [2, 2, 2, 3]


def test_held_out_heads_wear_nothing_else(pack: HeadPack) -> None:
    latents = np.random.default_rng(4).standard_normal((100, LATENT_SIZE), np.float32)
    heads = [parameters_from_latent(z, pack, held_out=True) for z in latents]
    used = {name for p in heads for name in (p.skin, p.second_skin, p.hair, p.brow, p.eye)} - {None}
    assert used == HELD_OUT
    for parameters in heads:
        check_valid(parameters, pack)


def test_everything_else_appears(decoded: list[HeadParameters], pack: HeadPack) -> None:
    for kind, seen in (
        ("skin", {p.skin for p in decoded}),
        ("hair", {p.hair for p in decoded} - {None}),
        ("brows", {p.brow for p in decoded}),
        ("eyes", {p.eye for p in decoded}),
    ):
        assert seen == set(pack.training(kind))
    assert any(p.hair is None for p in decoded)
    assert {p.hair_mirrored for p in decoded} == {False, True}
    assert 0.02 < np.mean([p.expression["eyeBlink"] > 0.5 for p in decoded]) < 0.3


def test_identity_and_expression_are_separate_parts_of_the_latent(pack: HeadPack) -> None:
    rng = np.random.default_rng(3)
    z, other = rng.standard_normal((2, LATENT_SIZE), np.float32)
    shape, face = slice(0, IDENTITY_MODES), slice(IDENTITY_MODES, IDENTITY_MODES + len(SLIDERS) + 2)
    one = parameters_from_latent(z, pack)
    changed = z.copy()
    changed[shape] = other[shape]
    moved = parameters_from_latent(changed, pack)
    assert moved.expression == one.expression
    assert not np.array_equal(moved.identity, one.identity)
    assert (moved.skin, moved.hair, moved.light) == (one.skin, one.hair, one.light)
    changed = z.copy()
    changed[face] = other[face]
    moved = parameters_from_latent(changed, pack)
    assert np.array_equal(moved.identity, one.identity)
    assert moved.expression != one.expression


def test_sexes_and_skin_tones_are_in_balance(decoded: list[HeadParameters], pack: HeadPack) -> None:
    women = [is_female(head) for head in decoded]
    # Three standard errors of 500 draws, and of the 250 of each sex.
    assert abs(np.mean(women) - 0.5) < 0.07
    for sex in (True, False):
        tones = [tone_of(head, pack) for head, is_woman in zip(decoded, women, strict=True) if is_woman == sex]
        for tone in TONES:
            assert abs(tones.count(tone) / len(tones) - 1 / 3) < 0.1, (sex, tone)


def test_tones_are_those_of_the_painted_faces(decoded: list[HeadParameters], pack: HeadPack) -> None:
    """The tone that is reckoned from the textures' means is the one that the painted atlas shows."""
    for parameters in decoded[:12]:
        bare = replace(parameters, hair=None, beard=0.0, freckles=0.0, makeup=0.0, lip_tint=0.0)
        painted = pack.build(bare).skin[150:250, 190:320].mean((0, 1))  # nose and cheeks
        np.testing.assert_allclose(painted, skin_tone(parameters, pack), rtol=0.35)


def test_the_embedding_is_white_over_random_heads(embedding: HeadEmbedding, decoded: list[HeadParameters]) -> None:
    codes = np.stack([embedding(parameters) for parameters in decoded])
    assert codes.dtype == np.float32
    assert codes.shape == (500, embedding.size)
    assert np.isfinite(codes).all()
    assert np.abs(codes.mean(0)).max() < 0.3
    assert 0.7 < np.quantile(codes.std(0), 0.05) <= np.quantile(codes.std(0), 0.95) < 1.4


@pytest.mark.parametrize("name", ["jawOpen", "mouthSmile", "eyeBlink"])
def test_expression_directions_play_the_expression(embedding: HeadEmbedding, decoded: list[HeadParameters], name: str) -> None:
    largest = next(weight for *names, weight in SLIDERS if name in names)
    resting = replace(decoded[0], expression={})
    played = replace(decoded[0], expression={name: largest})
    np.testing.assert_allclose(embedding(played) - embedding(resting), embedding.expressions()[name], atol=1e-5)


def test_the_embedding_tells_heads_apart_and_nothing_else(
    embedding: HeadEmbedding, pack: HeadPack, decoded: list[HeadParameters]
) -> None:
    one = next(p for p in decoded if p.hair)
    code = embedding(one)
    np.testing.assert_array_equal(HeadEmbedding(pack)(replace(one)), code)
    eye = next(name for name in pack.training("eyes") if name != one.eye)
    for changes in (
        {"eye": eye},
        {"hair_mirrored": not one.hair_mirrored},
        {"melanin": one.melanin + 0.3},
        {"hair": None},
        {"freckles": one.freckles + 0.3},
        {"makeup": one.makeup + 0.3},
        {"eye_hue": one.eye_hue + 0.3},
        {"mottle": (0.9, -0.9, 0.9)},
        {"blend": one.blend + 0.2},
        {"light": replace(one.light, fill=one.light.fill + 0.1)},
        {"light": replace(one.light, temperature=3000.0 if one.light.temperature > 5000 else 7000.0)},
    ):
        assert np.abs(embedding(replace(one, **changes)) - code).max() > 0.1, changes
    # Turning no hair over changes nothing, so the code does not change either.
    bald = replace(one, hair=None)
    other = replace(bald, hair_mirrored=not bald.hair_mirrored)
    np.testing.assert_array_equal(embedding(bald), embedding(other))

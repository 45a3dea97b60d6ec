"""Latents to parameters to meshes: any normal sample is a valid head, and the head obeys its symmetries."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from talk3d.errors import ConfigError
from talk3d.heads.model import (
    EYE_CENTRE,
    HELD_OUT,
    IDENTITY_MODES,
    LATENT_SIZE,
    SLIDERS,
    Array,
    Head,
    HeadEmbedding,
    HeadPack,
    HeadParameters,
    parameters_from_latent,
    to_world,
)

MIRROR = np.array([-1, 1, 1], np.float32)
NEUTRAL = HeadParameters(identity=np.zeros(IDENTITY_MODES, np.float32))


@pytest.fixture(scope="module")
def decoded(pack: HeadPack) -> list[HeadParameters]:
    """500 heads from N(0, I)."""
    rng = np.random.default_rng(1)
    return [parameters_from_latent(z, pack) for z in rng.standard_normal((500, LATENT_SIZE), np.float32)]


@pytest.fixture(scope="module")
def twin(pack: HeadPack) -> np.ndarray:
    """[V] of each vertex, the one on the other side; a few in the mouth have none and get a near one."""
    distance, index = cKDTree(pack.mean).query(pack.mean * MIRROR)
    assert distance.max() < 0.05
    return index


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
    assert parameters.melanin >= -0.2
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
    assert abs(light.warmth) <= 1


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
    used = {name for p in decoded for name in (p.skin, p.hair, p.brow, p.eye)}
    assert used.isdisjoint(HELD_OUT)
    # They exist, so their absence means something: two skins, two hairstyles, two eyes and three brows.
    styles = pack.styles
    assert [len(HELD_OUT & set(styles[kind])) for kind in ("skin", "hair", "eyes", "brows")] == [2, 2, 2, 3]


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


def test_expressions_act_on_both_sides_and_add_up(pack: HeadPack) -> None:
    left, right = pack.displacement({"eyeBlink_L": 1.0}), pack.displacement({"eyeBlink_R": 1.0})
    assert np.abs(left).max() > 0.5
    np.testing.assert_allclose(pack.displacement({"eyeBlink": 1.0}), left + right, atol=1e-6)
    np.testing.assert_allclose(pack.displacement({"eyeBlink_L": 0.25}), 0.25 * left, atol=1e-6)
    both = pack.displacement({"jawOpen": 0.5, "mouthSmile": 0.3})
    np.testing.assert_allclose(both, pack.displacement({"jawOpen": 0.5}) + pack.displacement({"mouthSmile": 0.3}), atol=1e-5)
    with pytest.raises(ConfigError, match="no expression `wiggleEars`"):
        pack.displacement({"wiggleEars": 1.0})


def test_names_mean_the_subjects_sides_and_directions(pack: HeadPack) -> None:
    assert pack.displacement({"eyeBlink_L": 1.0})[pack.mean[:, 0] < -1].max() < 0.05
    jaw = pack.displacement({"jawOpen": 1.0})
    chin = pack.lm68[8]
    assert jaw[chin, 1] < -1  # opening moves the chin down
    corner = pack.lm68[54]  # the subject's left corner of the mouth
    assert pack.mean[corner, 0] > 0
    assert pack.displacement({"mouthStretch_L": 1.0})[corner, 0] > 0.1
    assert pack.displacement({"mouthSmile_L": 1.0})[corner, 1] > 0.1


@pytest.mark.parametrize("name", ["eyeBlink", "mouthSmile", "browDown", "mouthStretch", "cheekPuff", "noseSneer"])
def test_left_and_right_shapes_mirror_each_other(pack: HeadPack, twin: np.ndarray, name: str) -> None:
    left, right = pack.displacement({f"{name}_L": 1.0}), pack.displacement({f"{name}_R": 1.0})
    difference = np.linalg.norm(left[twin] * MIRROR - right, axis=1)
    # The shapes were sculpted: not exact, but far below what they move.
    assert np.quantile(difference, 0.99) < 0.1 * np.linalg.norm(right, axis=1).max()


def test_the_mean_head_is_symmetric_and_fits_the_box(pack: HeadPack) -> None:
    head = pack.build(NEUTRAL)
    assert head.vertices.dtype == np.float32
    np.testing.assert_allclose(head.vertices, pack.mean, atol=1e-4)
    assert np.abs(to_world(head.vertices[pack.lm68])).max() < 0.4
    assert to_world(head.vertices)[:, 1].max() < 0.5  # the crown; the shoulders are cut off
    nose = to_world(head.vertices[pack.lm68[30]])
    assert nose[2] > 0.25
    assert abs(nose[0]) < 0.01


def iris(head: Head, pack: HeadPack, side: str) -> Array:
    """The foremost point of an eyeball, cm."""
    rest = pack.mean[pack.vertices_of(f"eye_{side}")]
    return head.vertices[pack.vertices_of(f"eye_{side}")][rest[:, 2].argmax()]


def test_eyes_turn_about_their_centres(pack: HeadPack) -> None:
    ahead = pack.build(NEUTRAL)
    for gaze, axis in (((0.3, 0.0), 0), ((0.0, 0.15), 1)):
        turned = pack.build(replace(NEUTRAL, gaze=gaze))
        opposite = pack.build(replace(NEUTRAL, gaze=(-gaze[0], -gaze[1])))
        for side, sign in (("l", 1.0), ("r", -1.0)):
            # To the subject's left is +x for both eyes, and up is +y.
            assert iris(turned, pack, side)[axis] - iris(ahead, pack, side)[axis] > 0.15
            assert iris(opposite, pack, side)[axis] - iris(ahead, pack, side)[axis] < -0.15
            ball = pack.vertices_of(f"eye_{side}")
            centre = EYE_CENTRE * [sign, 1, 1]
            before = np.linalg.norm(ahead.vertices[ball] - centre, axis=1)
            np.testing.assert_allclose(np.linalg.norm(turned.vertices[ball] - centre, axis=1), before, atol=1e-3)


def test_lids_follow_the_eyes(pack: HeadPack) -> None:
    level, down = pack.build(NEUTRAL), pack.build(replace(NEUTRAL, gaze=(0.0, -0.2)))
    lid = pack.lm68[[37, 38, 43, 44]]
    assert (down.vertices[lid, 1] < level.vertices[lid, 1] - 0.05).all()


def test_a_head_without_hair_or_with_unknown_hair(pack: HeadPack) -> None:
    assert pack.build(replace(NEUTRAL, hair=None)).hair is None
    with pytest.raises(ConfigError, match="no hairstyle `mohawk`; it has bob02"):
        pack.build(replace(NEUTRAL, hair="mohawk"))


def hair_of(parameters: HeadParameters, pack: HeadPack) -> Array:
    hair = pack.build(parameters).hair
    assert hair is not None
    return hair[0]


def test_hair_lies_on_the_mean_head_and_follows_the_identity(pack: HeadPack) -> None:
    rest = hair_of(NEUTRAL, pack)
    assert rest[:, 1].max() > 14  # above the skull
    identity = NEUTRAL.identity.copy()
    identity[0] = 1.5
    moved = hair_of(replace(NEUTRAL, identity=identity), pack)
    shift = np.linalg.norm(1.5 * pack.identity_modes[0].reshape(-1, 3), axis=1).max()
    assert 0.05 < np.linalg.norm(moved - rest, axis=1).max() <= 1.01 * shift
    # Faces make no difference to hair.
    np.testing.assert_array_equal(hair_of(replace(NEUTRAL, expression={"browInnerUp": 1.0}), pack), rest)


def test_mirrored_hair_on_the_mean_head_is_the_mirror_image(pack: HeadPack) -> None:
    rest = hair_of(NEUTRAL, pack)
    np.testing.assert_allclose(hair_of(replace(NEUTRAL, hair_mirrored=True), pack), rest * MIRROR, atol=1e-5)


def test_mirrored_hair_follows_a_symmetric_identity(pack: HeadPack, twin: np.ndarray) -> None:
    """On a head whose shape is symmetric, mirrored hair is the mirror image of the hair."""
    modes = pack.identity_modes.reshape(IDENTITY_MODES, -1, 3)
    widest = max(
        (mode for mode in range(IDENTITY_MODES) if np.abs(modes[mode][twin] * MIRROR - modes[mode]).max() < 0.02),
        key=lambda mode: np.abs(modes[mode][:, 0]).max(),
    )
    identity = NEUTRAL.identity.copy()
    identity[widest] = 2.0
    plain = replace(NEUTRAL, identity=identity)
    mirrored = hair_of(replace(plain, hair_mirrored=True), pack)
    np.testing.assert_allclose(mirrored, hair_of(plain, pack) * MIRROR, atol=0.05)


def test_paint_follows_its_settings(pack: HeadPack) -> None:
    def skin(**changes: object) -> Array:
        return pack.build(replace(NEUTRAL, hair=None, **changes)).skin

    plain = skin()
    assert plain.shape == (512, 1024, 3)
    assert plain.min() >= 0
    dark = skin(melanin=1.0)
    assert (dark <= plain + 1e-6).all()
    ratio = dark.mean((0, 1)) / plain.mean((0, 1))
    assert ratio[0] > ratio[1] > ratio[2]  # melanin absorbs blue most
    red = skin(haemoglobin=1.0).mean((0, 1)) / plain.mean((0, 1))
    assert red[0] == pytest.approx(1, abs=1e-3)
    assert red[1] < 0.96
    assert not np.allclose(skin(beard=0.7), plain)
    assert not np.allclose(skin(lip_tint=1.0), plain)
    # Painting one head leaves the shared textures alone.
    np.testing.assert_array_equal(skin(), plain)


def test_building_is_a_pure_function(pack: HeadPack, decoded: list[HeadParameters]) -> None:
    first = pack.build(decoded[7])
    pack.build(decoded[8])
    again = pack.build(decoded[7])
    np.testing.assert_array_equal(first.vertices, again.vertices)
    np.testing.assert_array_equal(first.skin, again.skin)
    assert first.hair is not None
    assert again.hair is not None
    for a, b in zip(first.hair, again.hair, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sexes_and_skins_are_in_balance(decoded: list[HeadParameters]) -> None:
    women = np.mean(["female" in head.skin for head in decoded])
    dark = np.mean(["dark" in head.skin for head in decoded if "female" not in head.skin])
    # Three standard errors of 500 (and 250) draws.
    assert abs(women - 0.5) < 0.07
    assert abs(dark - 0.4) < 0.1


def test_the_embedding_is_white_over_random_heads(pack: HeadPack, decoded: list[HeadParameters]) -> None:
    embedding = HeadEmbedding(pack)
    codes = np.stack([embedding(parameters) for parameters in decoded])
    assert codes.dtype == np.float32
    assert codes.shape == (500, embedding.size)
    assert np.isfinite(codes).all()
    assert np.abs(codes.mean(0)).max() < 0.3
    assert 0.7 < np.quantile(codes.std(0), 0.05) <= np.quantile(codes.std(0), 0.95) < 1.4


@pytest.mark.parametrize("name", ["jawOpen", "mouthSmile", "eyeBlink"])
def test_expression_directions_play_the_expression(pack: HeadPack, decoded: list[HeadParameters], name: str) -> None:
    embedding = HeadEmbedding(pack)
    largest = next(weight for *names, weight in SLIDERS if name in names)
    resting = replace(decoded[0], expression={})
    played = replace(decoded[0], expression={name: largest})
    np.testing.assert_allclose(embedding(played) - embedding(resting), embedding.expressions()[name], atol=1e-5)


def test_the_embedding_tells_heads_apart_and_nothing_else(pack: HeadPack, decoded: list[HeadParameters]) -> None:
    embedding = HeadEmbedding(pack)
    one = next(p for p in decoded if p.hair)
    code = embedding(one)
    np.testing.assert_array_equal(HeadEmbedding(pack)(replace(one)), code)
    eye = next(name for name in pack.training("eyes") if name != one.eye)
    for changes in (
        {"eye": eye},
        {"hair_mirrored": not one.hair_mirrored},
        {"melanin": one.melanin + 0.3},
        {"hair": None},
    ):
        assert np.abs(embedding(replace(one, **changes)) - code).max() > 0.1, changes
    # Turning no hair over changes nothing, so the code does not change either.
    bald = replace(one, hair=None)
    other = replace(bald, hair_mirrored=not bald.hair_mirrored)
    np.testing.assert_array_equal(embedding(bald), embedding(other))


@pytest.mark.parametrize("given", [True, False])
def test_a_missing_pack_says_how_to_give_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    monkeypatch.delenv("TALK3D_HEADS", raising=False)
    with pytest.raises(ConfigError, match=r"No head pack.*`--heads DIR` or set TALK3D_HEADS"):
        HeadPack(tmp_path if given else None)


def test_the_environment_names_the_pack(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALK3D_HEADS", str(shared / "heads"))
    assert HeadPack().root == shared / "heads"


def test_a_missing_texture_is_named(pack: HeadPack) -> None:
    with pytest.raises(ConfigError, match=r"lacks `skin/green\.webp`"):
        pack.texture("skin/green.webp", (8, 8))

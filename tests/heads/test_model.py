"""Parameters to meshes and materials: the head obeys its symmetries, and every setting does what it says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from talk3d.errors import ConfigError
from talk3d.heads.model import EYE_CENTRE, IDENTITY_MODES, WHITE, Array, Head, HeadPack, HeadParameters, Light, to_world

MIRROR = np.array([-1, 1, 1], np.float32)
NEUTRAL = HeadParameters(identity=np.zeros(IDENTITY_MODES, np.float32))


@pytest.fixture(scope="module")
def twin(pack: HeadPack) -> np.ndarray:
    """[V] of each vertex, the one on the other side; a few in the mouth have none and get a near one."""
    distance, index = cKDTree(pack.mean).query(pack.mean * MIRROR)
    assert distance.max() < 0.05
    return index


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


def test_skins_blend_in_linear_light(pack: HeadPack) -> None:
    def skin(**changes: object) -> Array:
        return pack.build(replace(NEUTRAL, hair=None, lip_tint=0.0, **changes)).skin

    one, two = "young_lightskinned_male", "young_darkskinned_male"
    ends = skin(skin=one), skin(skin=two)
    third = skin(skin=one, second_skin=two, blend=0.3)
    np.testing.assert_allclose(third, ends[0] + 0.3 * (ends[1] - ends[0]), atol=1e-5)
    np.testing.assert_array_equal(skin(skin=one, second_skin=two, blend=0.0), ends[0])


def test_freckles_and_makeup_darken_the_right_places(pack: HeadPack) -> None:
    plain = pack.build(NEUTRAL).skin
    few, many = (pack.build(replace(NEUTRAL, freckles=amount)).skin for amount in (0.4, 1.0))
    touched = [(plain - skin).max(2) > 0.004 for skin in (few, many)]
    assert 0 < touched[0].sum() < 0.5 * touched[1].sum()
    assert (many <= few + 1e-6).all()
    assert (few <= plain + 1e-6).all()
    assert not touched[1][:, 512:].any()  # the face's half of the atlas only
    lids = plain - pack.build(replace(NEUTRAL, makeup=1.0)).skin
    mask = pack.texture("masks/eyelids.png", (1024, 512))
    assert lids[mask > 0.9].mean() > 0.03
    assert lids.min() >= 0
    assert np.abs(lids[mask == 0]).max() == 0


@pytest.mark.parametrize("colour", ["brown", "blue", "green"])
def test_eyes_keep_their_white_when_the_iris_changes(pack: HeadPack, colour: str) -> None:
    plain, turned, bright = (
        pack.build(replace(NEUTRAL, eye=colour, **changes)).eye for changes in ({}, {"eye_hue": 1.0}, {"eye_value": 1.0})
    )
    inner, white = slice(215, 297), slice(0, 150)
    assert np.abs(turned - plain)[inner, inner].mean() > 0.002
    assert bright[inner, inner].sum() > 1.3 * plain[inner, inner].sum()
    for changed in (turned, bright):
        np.testing.assert_allclose(changed[white], plain[white], atol=1e-6)


def test_a_lights_tint_follows_its_temperature() -> None:
    tints = np.stack([Light(temperature=t).tint() for t in (2800.0, 4000.0, WHITE, 6500.0, 8000.0)])
    np.testing.assert_allclose(tints[2], 1, atol=1e-6)  # the camera's white
    assert (np.diff(tints[:, 0]) < 0).all()
    assert (np.diff(tints[:, 2]) > 0).all()
    np.testing.assert_allclose(tints[:, 1], 1, atol=1e-6)
    # Outside the table the nearest end counts.
    np.testing.assert_array_equal(Light(temperature=1000.0).tint(), Light(temperature=2800.0).tint())


def test_the_fill_light_stands_across_from_the_key_light() -> None:
    towards, filling = Light(azimuth=0.7, elevation=0.5).directions()
    np.testing.assert_allclose([np.linalg.norm(towards), np.linalg.norm(filling)], 1, atol=1e-6)
    assert towards[0] > 0 > filling[0]
    assert towards[1] > filling[1] > 0
    assert min(towards[2], filling[2]) > 0


def test_building_is_a_pure_function(pack: HeadPack) -> None:
    one = replace(NEUTRAL, freckles=0.7, makeup=0.5, beard=0.4, second_skin="old_darkskinned_male", blend=0.2, eye_hue=0.5)
    first = pack.build(one)
    pack.build(replace(one, freckles=0.1, melanin=0.5, hair="bob02"))
    again = pack.build(one)
    np.testing.assert_array_equal(first.vertices, again.vertices)
    np.testing.assert_array_equal(first.skin, again.skin)
    assert first.hair is not None
    assert again.hair is not None
    for a, b in zip(first.hair, again.hair, strict=True):
        np.testing.assert_array_equal(a, b)


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

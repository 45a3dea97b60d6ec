"""Pictures of heads against geometry: a ball has known depth, outline and shading; a head has known points."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from talk3d.camera import Orbit
from talk3d.heads.model import (
    CENTRE,
    IDENTITY_MODES,
    SCALE,
    WHITE,
    Array,
    Head,
    HeadPack,
    HeadParameters,
    Light,
    to_world,
)
from talk3d.heads.raster import LABELS, HeadPicture, draw_background, landmarks68, project, render_flow, render_head
from talk3d.render.rays import generate_rays

SIZE = 64
SKIN, EYE, MOUTH, SHIRT = (LABELS.index(name) for name in ("skin", "eye", "mouth", "shirt"))
PARTS = ["face", "eye_l", "tongue"]
NEUTRAL = HeadParameters(identity=np.zeros(IDENTITY_MODES, np.float32), hair=None)


def camera(yaw: float = 0.0, pitch: float = 0.0) -> tuple[Array, Array]:
    orbit = Orbit()
    return orbit.pose(torch.tensor([yaw]), torch.tensor([pitch]))[0].numpy(), orbit.intrinsics().numpy()


def rays(yaw: float, pitch: float, size: int) -> tuple[Array, Array]:
    """Origin [3] and directions [size, size, 3] of the pixels' centres."""
    pose, intrinsics = camera(yaw, pitch)
    found = generate_rays(torch.from_numpy(pose)[None], torch.from_numpy(intrinsics)[None], size)
    return found.origins[0, 0].numpy(), found.directions[0].reshape(size, size, 3).numpy()


def ball(centre: tuple[float, float, float], radius: float, steps: int = 96) -> tuple[Array, NDArray[np.int32]]:
    """A sphere in scene units, its triangles counter-clockwise from outside."""
    polar, around = np.linspace(0, np.pi, steps + 1)[:, None], np.linspace(0, 2 * np.pi, 2 * steps + 1)[None, :-1]
    directions = [np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around, np.sin(polar) * np.cos(around)]
    vertices = (np.array(centre) + radius * np.stack(directions, -1)).reshape(-1, 3).astype(np.float32)
    row, column = np.mgrid[0:steps, 0 : 2 * steps]
    turn = (column + 1) % (2 * steps)
    a, b = row * 2 * steps + column, row * 2 * steps + turn
    c, d = a + 2 * steps, b + 2 * steps
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    return vertices, faces.astype(np.int32)


def made_of(*balls: tuple[str, tuple[float, float, float], float]) -> tuple[Head, HeadPack]:
    """A "head" of balls (part, centre, radius in scene units), and the pack with its topology; no files are read."""
    pack = HeadPack.__new__(HeadPack)
    meshes = [ball(centre, radius) for _, centre, radius in balls]
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    pack.part_names = PARTS
    pack.faces = np.concatenate([faces + start for (_, faces), start in zip(meshes, starts[:-1], strict=True)])
    pack.face_part = np.concatenate(
        [np.full(len(faces), PARTS.index(part)) for (part, _, _), (_, faces) in zip(balls, meshes, strict=True)]
    )
    pack.uv = np.full((1, 2), 0.5, np.float32)
    pack.faces_uv = np.zeros_like(pack.faces)
    pack.cache = {name: np.zeros((512, 1024), np.float32) for name in ("lashes/alpha.png@(1024, 512)",)}
    pack.cache["masks/lips.png@(1024, 512)"] = np.zeros((512, 1024), np.float32)
    vertices = (np.concatenate([vertices for vertices, _ in meshes]) / SCALE + CENTRE).astype(np.float32)
    head = Head(
        vertices=vertices,
        rest=np.zeros_like(vertices),
        skin=np.full((512, 1024, 3), 0.5, np.float32),
        eye=np.full((512, 512, 3), 0.2, np.float32),
        mottle=np.zeros(3, np.float32),
        shirt=np.array([0.1, 0.2, 0.3], np.float32),
        hair=None,
        light=Light(azimuth=0.0, elevation=0.0, rim=0.0),
        lip_depth=20.0,
    )
    return head, pack


def hit(origin: Array, directions: Array, centre: tuple[float, float, float], radius: float) -> Array:
    """Distance to a sphere along unit rays; NaN where they miss."""
    towards = np.array(centre) - origin
    along = directions @ towards
    under = radius**2 - (towards @ towards - along**2)
    with np.errstate(invalid="ignore"):
        return along - np.sqrt(under)


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (0.6, 0.0), (-1.2, 0.3), (0.2, -0.5)])
def test_depth_of_a_ball_is_the_distance_along_the_ray(yaw: float, pitch: float) -> None:
    centre, radius = (0.05, -0.04, 0.1), 0.22
    head, pack = made_of(("face", centre, radius))
    picture = render_head(head, pack, *camera(yaw, pitch), SIZE)
    truth = hit(*rays(yaw, pitch, SIZE), centre, radius)
    # At the outline a pixel averages over what it covers; well inside, depth is smooth.
    inside = hit(*rays(yaw, pitch, SIZE), centre, 0.9 * radius)
    inside = np.isfinite(inside)
    assert inside.sum() > 300
    assert np.abs(picture.depth - truth)[inside].max() < 1e-3
    # A pixel that is not there at all is infinitely far.
    outside = ~np.isfinite(hit(*rays(yaw, pitch, SIZE), centre, 1.1 * radius))
    assert np.isinf(picture.depth[outside]).all()


def test_alpha_is_the_covered_part_of_each_pixel() -> None:
    centre, radius = (0.03, 0.02, 0.0), 0.2
    head, pack = made_of(("face", centre, radius))
    picture = render_head(head, pack, *camera(), SIZE)
    fine = np.isfinite(hit(*rays(0.0, 0.0, 8 * SIZE), centre, radius)).reshape(SIZE, 8, SIZE, 8).mean((1, 3))
    alpha = picture.alpha / 255
    assert abs(alpha.mean() - fine.mean()) < 2e-4
    assert np.abs(alpha - fine).max() <= 0.5  # four samples per pixel
    assert set(np.unique(picture.alpha)) <= {0, 64, 128, 191, 255}
    assert (alpha[fine == 1] == 1).all()
    assert (alpha[fine == 0] == 0).all()


def test_the_nearer_of_two_balls_is_seen() -> None:
    back, front = ("face", (0.0, 0.0, -0.1), 0.25), ("eye_l", (0.1, 0.0, 0.3), 0.08)
    for order in ([back, front], [front, back]):
        picture = render_head(*made_of(*order), *camera(), SIZE)
        near = hit(*rays(0.0, 0.0, SIZE), front[1], 0.9 * front[2])
        covered = np.isfinite(near)
        assert (picture.labels[covered] == EYE).all()
        row, column = SIZE // 2, int(SIZE * 0.35)
        assert picture.labels[row, column] == SKIN
        # From behind, the small one is hidden.
        assert (render_head(*made_of(*order), *camera(math.pi), SIZE).labels != EYE).all()


def test_what_lies_outside_the_box_is_cut_away() -> None:
    head, pack = made_of(("face", (0.35, 0.0, 0.0), 0.3))
    pose, intrinsics = camera()
    intrinsics[[0, 1], [0, 1]] = 1.6  # a wider view than usual, in which the whole ball would be seen
    picture = render_head(head, pack, pose, intrinsics, 128)
    found = np.argwhere(picture.alpha > 0)[:, 1].max() / 128
    # The cut circle at x = 1/2 reaches from z = -0.26 to 0.26; its near edge is furthest out.
    assert found == pytest.approx(0.5 + 1.6 * 0.5 / (2.7 - 0.26), abs=0.02)
    assert found + 0.03 < 0.5 + 1.6 * 0.62 / 2.7  # where the whole ball would end, at least


def test_back_faces_are_not_drawn() -> None:
    head, pack = made_of(("face", (0.0, 0.0, 0.0), 0.2))
    pack.faces = pack.faces[:, ::-1].copy()
    picture = render_head(head, pack, *camera(), SIZE)
    truth = hit(*rays(0.0, 0.0, SIZE), (0.0, 0.0, 0.0), 0.2)
    # Turned inside out, only its far side faces the camera.
    middle = SIZE // 2
    assert picture.depth[middle, middle] > truth[middle, middle] + 0.35


def test_light_comes_from_where_it_is_said_to() -> None:
    head, pack = made_of(("face", (0.0, 0.04, 0.2), 0.25))

    def brightness(**changes: float) -> tuple[float, float, float, float]:
        """Of the left, right, upper and lower half of the ball."""
        lit = replace(head, light=replace(head.light, **changes))
        rgb = render_head(lit, pack, *camera(), SIZE).rgb.astype(float).mean(2)
        half = SIZE // 2
        return rgb[:, :half].sum(), rgb[:, half:].sum(), rgb[:half].sum(), rgb[half:].sum()

    left, right, _, _ = brightness()
    assert left == pytest.approx(right, rel=0.01)
    left, right, _, _ = brightness(azimuth=0.8)  # from the subject's left: the picture's right
    assert right > 1.15 * left
    _, _, above, below = brightness(elevation=0.9)
    assert above > 1.15 * below
    assert sum(brightness(key=0.2)) < sum(brightness(key=0.6))
    assert sum(brightness(ambient=0.2)) < sum(brightness(ambient=0.6))
    assert sum(brightness(rim=0.0)) < sum(brightness(rim=0.5))
    # The fill light brightens the side that the key light leaves dark.
    plain, filled = brightness(azimuth=0.9), brightness(azimuth=0.9, fill=0.3)
    assert filled[0] / plain[0] > 1.1 * filled[1] / plain[1]


def test_warm_light_is_redder() -> None:
    head, pack = made_of(("face", (0.0, 0.0, 0.1), 0.25))

    def ratio(temperature: float) -> float:
        rgb = render_head(replace(head, light=replace(head.light, temperature=temperature)), pack, *camera(), SIZE).rgb
        return float(rgb[..., 0].sum() / rgb[..., 2].sum())

    assert ratio(8000.0) < ratio(WHITE) < ratio(2800.0)
    assert ratio(WHITE) == pytest.approx(1, abs=0.01)


def test_a_flat_lit_ball_has_its_albedo() -> None:
    """Ambient light alone, seen head-on: sRGB of albedo * ambient * 3/4 (the sky's share at a horizontal normal)."""
    head, pack = made_of(("face", (0.0, 0.0, 0.0), 0.2))
    head = replace(head, light=Light(key=0.0, ambient=0.8, rim=0.0))
    pixel = render_head(head, pack, *camera(), SIZE).rgb[SIZE // 2, SIZE // 2]
    # The pivot lies above the origin, so the middle pixel sees the ball's middle nearly head-on.
    expected = 255 * (0.5 * 0.8 * 0.75) ** (1 / 2.2)
    assert np.abs(pixel - expected).max() < 6


# The real head.


@pytest.fixture(scope="module")
def heads(pack: HeadPack) -> list[Head]:
    shaved = pack.build(NEUTRAL)
    styles = [replace(NEUTRAL, hair=name) for name in ("short01", "long01")]
    return [shaved, *(pack.build(style) for style in styles)]


def consistent(picture: HeadPicture) -> None:
    """What the four images of one picture must agree on."""
    covered = np.isfinite(picture.depth)
    assert (picture.depth[covered] > 1.8).all()
    assert (picture.depth[covered] < 3.6).all()
    assert (picture.alpha[covered] > 0).all()
    assert (picture.alpha[picture.labels > 0] > 0).all()
    nothing = picture.alpha == 0
    assert not picture.rgb[nothing].any()
    assert np.isinf(picture.depth[nothing]).all()
    # Premultiplied: no colour exceeds its alpha, but for rounding.
    assert (picture.rgb <= picture.alpha[..., None].astype(int) + 1).all()
    assert picture.labels.max() < len(LABELS)


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (0.9, 0.2), (-0.5, -0.4)])
def test_colour_alpha_depth_and_labels_agree(heads: list[Head], pack: HeadPack, index: int, yaw: float, pitch: float) -> None:
    consistent(render_head(heads[index], pack, *camera(yaw, pitch), 96))


def test_all_parts_are_labelled(pack: HeadPack) -> None:
    open_mouth = pack.build(replace(NEUTRAL, hair="short01", expression={"jawOpen": 0.8}))
    picture = render_head(open_mouth, pack, *camera(), 128)
    assert set(np.unique(picture.labels)) == set(range(len(LABELS)))
    rows = {name: np.argwhere(picture.labels == LABELS.index(name))[:, 0].mean() for name in LABELS}
    assert rows["hair"] < rows["eye"] < rows["lips"] < rows["shirt"]
    assert 0.3 < (picture.alpha > 0).mean() < 0.9


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (0.5, 0.1), (-0.5, -0.2)])
def test_depth_at_known_points_is_their_distance(heads: list[Head], pack: HeadPack, yaw: float, pitch: float) -> None:
    """Vertices that face the camera: what is drawn at their place is they themselves, or something nearer."""
    size = 256
    pose, intrinsics = camera(yaw, pitch)
    picture = render_head(heads[0], pack, pose, intrinsics, size)
    world = to_world(heads[0].vertices)
    a, b, c = (world[pack.faces[:, corner]] for corner in range(3))
    normals = np.zeros_like(world)
    for corner in range(3):
        np.add.at(normals, pack.faces[:, corner], np.cross(b - a, c - a))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    towards = pose[:3, 3] - world
    distance = np.linalg.norm(towards, axis=1)
    facing = (normals * towards).sum(1) / distance > 0.6
    chosen = np.intersect1d(pack.vertices_of("face"), np.flatnonzero(facing))
    uv = Orbit().project(torch.from_numpy(world[chosen]), torch.tensor([yaw]), torch.tensor([pitch]))[0].numpy()
    inside = (np.abs(uv - 0.5) < 0.49).all(1)
    column, row = (uv[inside] * size).astype(int).T
    difference = picture.depth[row, column] - distance[chosen][inside]
    assert len(difference) > 1000
    assert np.quantile(difference, 0.995) < 0.005  # nothing shines through; half a pixel of slope is allowed for
    visible = difference > -0.01
    assert visible.mean() > 0.8
    assert np.median(np.abs(difference[visible])) < 1e-3


def test_mirrored_cameras_see_mirrored_shapes(heads: list[Head], pack: HeadPack) -> None:
    left = render_head(heads[0], pack, *camera(0.6, 0.1), 128)
    right = render_head(heads[0], pack, *camera(-0.6, 0.1), 128)
    difference = np.abs(left.alpha.astype(int) - right.alpha[:, ::-1])
    assert difference.mean() < 1.0
    flipped = right.depth[:, ::-1]
    both = np.isfinite(left.depth) & np.isfinite(flipped)
    assert np.quantile(np.abs(left.depth[both] - flipped[both]), 0.99) < 5e-3
    # Seen from the subject's left, the nose points to the left of the picture.
    points = project(landmarks68(heads[0], pack), *camera(0.6))
    assert points[30, 0] < points[[0, 16], 0].mean()


def test_landmarks_are_where_the_orbit_projects_them(heads: list[Head], pack: HeadPack) -> None:
    found = project(landmarks68(heads[0], pack), *camera(0.3, -0.1))
    points = torch.from_numpy(to_world(heads[0].vertices[pack.lm68]))
    expected = Orbit().project(points, torch.tensor([0.3]), torch.tensor([-0.1]))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pictures_of_two_sizes_agree(heads: list[Head], pack: HeadPack) -> None:
    """No shift of half a pixel anywhere: the large picture, averaged, is the small one."""
    small = render_head(heads[0], pack, *camera(0.2), 64)
    large = render_head(heads[0], pack, *camera(0.2), 256)
    averaged = large.alpha.reshape(64, 4, 64, 4).mean((1, 3))
    assert abs(averaged.mean() - small.alpha.mean()) < 0.3

    def centre(alpha: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[0 : len(alpha), 0 : len(alpha)] + 0.5
        return np.array([(x * alpha).sum(), (y * alpha).sum()]) / alpha.sum() / len(alpha)

    np.testing.assert_allclose(centre(small.alpha.astype(float)), centre(large.alpha.astype(float)), atol=5e-4)


def test_rendering_twice_gives_the_same_bits(heads: list[Head], pack: HeadPack) -> None:
    first, second = (render_head(heads[2], pack, *camera(0.4), 96) for _ in range(2))
    for name in ("rgb", "alpha", "depth", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_head_that_does_not_move_has_no_flow(heads: list[Head], pack: HeadPack) -> None:
    view = camera(0.2)
    flow = render_flow((heads[0], heads[0]), pack, (view[0], view[0]), (view[1], view[1]), 96)
    assert np.abs(flow.shift).max() < 1e-3
    np.testing.assert_array_equal(flow.visible, flow.seen)
    covered = render_head(heads[0], pack, *view, 96).alpha > 127
    assert (flow.seen == covered).mean() > 0.99


@pytest.mark.parametrize("hair", [None, "bob02"])
def test_flow_carries_one_picture_into_the_other(pack: HeadPack, hair: str | None) -> None:
    """The depth that the second picture shows where the flow points is the distance of the moved surface."""
    still = HeadParameters(identity=np.zeros(IDENTITY_MODES, np.float32), hair=hair)
    pair = pack.build(still), pack.build(replace(still, expression={"jawOpen": 0.7}, gaze=(0.2, 0.0)))
    (first, K), (second, _) = camera(0.0), camera(0.25, 0.1)
    flow = render_flow(pair, pack, (first, second), (K, K), 128)
    assert 0.6 < flow.visible.sum() / flow.seen.sum() < 0.999
    before, after = render_head(pair[0], pack, first, K, 128), render_head(pair[1], pack, second, K, 128)
    y, x = np.nonzero(flow.visible)
    target = np.floor(np.stack([x, y], 1) + 0.5 + flow.shift[y, x]).astype(int)
    same = before.labels[y, x] == after.labels[target[:, 1], target[:, 0]]
    assert same.mean() > 0.97  # a lip is a lip in both, but for edges and hair's half-open texture
    # The chin's landmark moves as the flow at its pixel says.
    points = [project(landmarks68(h, pack), c, K)[[8, 30, 57]] * 128 for h, c in zip(pair, (first, second), strict=True)]
    for start, end in zip(*points, strict=True):
        found = flow.shift[int(start[1]), int(start[0])]
        np.testing.assert_allclose(found, end - start, atol=1.0)


def test_what_turns_away_is_not_visible(heads: list[Head], pack: HeadPack) -> None:
    (front, K), (side, _) = camera(0.0), camera(1.2)
    flow = render_flow((heads[0], heads[0]), pack, (front, side), (K, K), 96)
    # The camera moves to the subject's left (the picture's right), so the picture's left half is lost.
    halves = [flow.visible[:, part].sum() / flow.seen[:, part].sum() for part in (slice(48), slice(48, None))]
    assert halves[0] < 0.5 * halves[1]


def test_backgrounds_are_of_every_kind_and_belong_to_the_seed() -> None:
    drawn = [draw_background(np.random.default_rng(seed), 64) for seed in range(60)]
    np.testing.assert_array_equal(drawn[3], draw_background(np.random.default_rng(3), 64))
    flat = [image.std((0, 1)).max() == 0 for image in drawn]
    rough = [np.abs(np.diff(image.astype(float), 2, axis=1)).mean() > 1.5 for image in drawn]
    assert 10 <= sum(flat) <= 30
    assert 10 <= sum(rough) <= 30
    assert 60 - sum(flat) - sum(rough) >= 10

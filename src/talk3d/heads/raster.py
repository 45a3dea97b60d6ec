"""A z-buffer renderer for `Head` meshes: opaque triangles first, then hair and lashes blended back to front.

It draws at twice the size and box-filters in linear light. Needs numba.
Letters: S size of the supersampled image, V vertices, F triangles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .model import GAMMA, Array, Head, HeadPack, to_world

try:
    import numba
except ModuleNotFoundError as error:
    raise ConfigError("Drawing heads needs numba, which is not installed. Run `pip install numba`.") from error

SUPERSAMPLING = 2
LABELS = ("background", "skin", "lips", "eye", "mouth", "hair", "shirt")
"""Names of the part labels, by value."""

# Wave vectors of the skin's patches, radians per centimetre: wavelengths of 6 to 9 cm.
_WAVES = np.array([[0.9, 0.4, 0.2], [-0.5, 0.6, 0.6], [0.3, -0.7, 0.3]], np.float32)
_HIDDEN = ("iris_inner_l", "iris_inner_r", "lacrimal", "eye_blend", "eye_occlusion", "lash_l", "lash_r")
_SRGB = {
    "mouth_socket": (0.35, 0.10, 0.10),
    "gums_tongue": (0.62, 0.28, 0.28),
    "teeth_upper": (0.86, 0.83, 0.76),
    "teeth_lower": (0.86, 0.83, 0.76),
    "tongue": (0.66, 0.30, 0.31),
    "eye_socket": (0.50, 0.25, 0.22),
}


@dataclass(frozen=True)
class HeadPicture:
    """One drawn head. Pixel (0, 0) has its centre at (0.5, 0.5); H = W = size."""

    rgb: NDArray[np.uint8]
    """[H, W, 3] sRGB, premultiplied by alpha (black where there is nothing)."""
    alpha: NDArray[np.uint8]
    """[H, W]."""
    depth: Array
    """[H, W] distance along the ray in scene units, inf where there is nothing."""
    labels: NDArray[np.uint8]
    """[H, W] index into `LABELS`."""


def render_head(head: Head, pack: HeadPack, cam2world: Array, intrinsics: Array, size: int) -> HeadPicture:
    """Draw a head.

    Args:
        head: the posed, painted mesh.
        pack: the pack it was built from (topology).
        cam2world: [4, 4] OpenCV axes, scene units.
        intrinsics: [3, 3] divided by the image size.
        size: side of the square image, pixels.
    """
    drawn = _draw(head, pack, cam2world, intrinsics, size * SUPERSAMPLING)
    return HeadPicture(*_downsample(drawn.colour, drawn.alpha, drawn.distance, drawn.labels))


@dataclass(frozen=True)
class Flow:
    """Where the surface points that one picture's pixels see are in another picture; H = W = size."""

    shift: Array
    """[H, W, 2] pixels to the right and down, from the first picture's pixel centre; 0 where nothing is seen."""
    seen: NDArray[np.bool_]
    """[H, W] the first picture shows the head here."""
    visible: NDArray[np.bool_]
    """[H, W] it does, and the second picture shows the same point: not hidden, not outside."""


def render_flow(
    heads: tuple[Head, Head],
    pack: HeadPack,
    cam2world: tuple[Array, Array],
    intrinsics: tuple[Array, Array],
    size: int,
) -> Flow:
    """Exact motion of the surface from one picture to another: expression, gaze, camera.

    The two heads must be of one person (the same identity and hair), as hair has no expression and moves with the camera only.

    Args:
        heads: the person in the first and in the second picture.
        pack: the pack they were built from.
        cam2world: [4, 4] of both cameras, OpenCV axes, scene units.
        intrinsics: [3, 3] of both, divided by the image size.
        size: side of the pictures, pixels.
    """
    mesh = _Mesh.of(pack)
    first, second = (_draw(h, pack, c, k, size) for h, c, k in zip(heads, cam2world, intrinsics, strict=True))
    seen = np.isfinite(first.distance)
    centres = np.stack(np.meshgrid(*[np.arange(size, dtype=np.float32) + 0.5] * 2), -1)
    # Hair: the point on the pixel's ray at the distance that was drawn, which the second camera sees from elsewhere.
    image = np.concatenate([centres / size, np.ones((size, size, 1), np.float32)], -1)
    rays = image @ np.linalg.inv(intrinsics[0]).T @ cam2world[0][:3, :3].T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    points = cam2world[0][:3, 3] + np.where(seen, first.distance, 1)[..., None] * rays
    # Everything else: the same place on the same triangle of the second head.
    on_mesh = seen & (first.labels != LABELS.index("hair"))
    corners = to_world(heads[1].vertices)[mesh.faces[first.face_id[on_mesh]]]
    points[on_mesh] = (first.barycentric[on_mesh][..., None] * corners).sum(1)
    target = _project(points.reshape(-1, 3).astype(np.float32), cam2world[1], intrinsics[1], size).reshape(size, size, 3)
    x, y = (np.floor(target[..., k]).astype(np.int64) for k in (0, 1))
    inside = seen & (x >= 0) & (x < size) & (y >= 0) & (y < size)
    there = second.distance[np.clip(y, 0, size - 1), np.clip(x, 0, size - 1)]
    reach = np.linalg.norm(points - cam2world[1][:3, 3], axis=-1)
    # The second picture's pixel centre lies up to half a pixel away, so a slanted surface is a little nearer or further.
    visible = inside & (np.abs(there - reach) < 0.02)
    return Flow(np.where(seen[..., None], target[..., :2] - centres, 0).astype(np.float32), seen, visible)


@dataclass(frozen=True)
class _Drawing:
    """A drawn head before it is made smaller; S = size of the drawing."""

    face_id: NDArray[np.int64]
    """[S, S] nearest opaque triangle, -1 for none."""
    barycentric: Array
    """[S, S, 3]"""
    colour: Array
    """[S, S, 3] linear light, premultiplied."""
    alpha: Array
    """[S, S]"""
    distance: Array
    """[S, S] along the ray, inf for nothing."""
    labels: NDArray[np.uint8]
    """[S, S]"""


def _draw(head: Head, pack: HeadPack, cam2world: Array, intrinsics: Array, S: int) -> _Drawing:
    mesh = _Mesh.of(pack)
    world = to_world(head.vertices)
    normals = _vertex_normals(world, mesh.faces)
    screen = _project(world, cam2world, intrinsics, S)
    face_id, barycentric, inverse_depth = _rasterise(screen, world, mesh.faces, S)

    eye_position = np.ascontiguousarray(cam2world[:3, 3], np.float32)
    light = _light_table(head)
    colour, alpha, distance, labels = _shade(
        face_id, barycentric, world, normals, head.vertices, head.rest, mesh.faces, mesh.faces_uv, mesh.uv,
        mesh.material, mesh.flat, head.skin, mesh.lips, head.eye, head.mottle, head.shirt, np.float32(head.lip_depth),
        light, eye_position,
    )  # fmt: skip
    cards: list[tuple[Array, Array, NDArray[Any], Array, bool]] = [
        (head.vertices[mesh.lash_vertices], mesh.lash_uv, mesh.lash_faces, mesh.lash_texture, False)
    ]
    if head.hair is not None:
        cards.append((*head.hair, True))
    for vertices, uv, faces, texture, is_hair in cards:
        card_world = to_world(vertices)
        card_screen = _project(card_world, cam2world, intrinsics, S)
        order = np.argsort(-card_screen[faces, 2].mean(1)).astype(np.int64)
        _blend_cards(
            card_screen, card_world, np.asarray(faces, np.int64)[order], np.asarray(uv, np.float32), texture,
            light, eye_position, inverse_depth, colour, alpha, distance, labels, is_hair,
        )  # fmt: skip
    return _Drawing(face_id, barycentric, colour, alpha, distance, labels)


@dataclass(frozen=True)
class _Mesh:
    """The pack's topology in the form the kernels want, made once per pack."""

    faces: NDArray[np.int64]
    faces_uv: NDArray[np.int64]
    uv: Array
    material: NDArray[np.int64]
    """Per face: 0 skin, 1 eye, 2 flat colour, 3 flat colour inside the mouth."""
    flat: Array
    """[F, 3] linear colour of flat faces."""
    lips: Array
    """[512, 1024] mask on the skin atlas."""
    lash_vertices: NDArray[np.int64]
    lash_uv: Array
    lash_faces: NDArray[np.int64]
    lash_texture: Array

    @classmethod
    def of(cls, pack: HeadPack) -> _Mesh:
        mesh = pack.__dict__.get("_mesh")
        if mesh is None:
            mesh = pack.__dict__["_mesh"] = cls._make(pack)
        return mesh

    @classmethod
    def _make(cls, pack: HeadPack) -> _Mesh:
        names = np.array(pack.part_names)[pack.face_part]
        keep = ~np.isin(names, _HIDDEN)
        material = np.zeros(len(names), np.int64)
        material[np.isin(names, ("eye_l", "eye_r"))] = 1
        flat = np.zeros((len(names), 3), np.float32)
        for part, srgb in _SRGB.items():
            flat[names == part] = np.array(srgb, np.float32) ** GAMMA
            material[names == part] = 2 if part == "eye_socket" else 3
        lash = np.isin(names, ("lash_l", "lash_r"))
        # Lashes: one vertex per uv corner, so that positions and uv share an index.
        corners_uv, inverse = np.unique(pack.faces_uv[lash], return_inverse=True)
        position_of = np.zeros(len(corners_uv), np.int64)
        position_of[inverse.ravel()] = pack.faces[lash].ravel()
        black = np.zeros((512, 1024, 4), np.float32)
        black[..., 3] = 0.85 * pack.texture("lashes/alpha.png", (1024, 512))
        return cls(
            faces=pack.faces[keep].astype(np.int64),
            faces_uv=pack.faces_uv[keep].astype(np.int64),
            uv=pack.uv,
            material=material[keep],
            flat=np.ascontiguousarray(flat[keep]),
            lips=pack.texture("masks/lips.png", (1024, 512)),
            lash_vertices=position_of,
            lash_uv=np.ascontiguousarray(pack.uv[corners_uv] - [6.0, 0.0], np.float32),
            lash_faces=inverse.reshape(-1, 3).astype(np.int64),
            lash_texture=black,
        )


def _light_table(head: Head) -> Array:
    """[6, 3]: key direction, key colour, ambient colour, rim colour, fill direction, fill colour; linear light."""
    light, tint = head.light, head.light.tint()
    towards, filling = light.directions()
    rows = [towards, light.key * tint, [light.ambient] * 3, light.rim * (2 - tint), filling, [light.fill] * 3]
    return np.array(rows, np.float32)


def _project(world: Array, cam2world: Array, intrinsics: Array, size: int) -> Array:
    """[V, 3]: pixel x, pixel y, depth along the optical axis."""
    camera = (world - cam2world[:3, 3]) @ cam2world[:3, :3]
    image = camera @ intrinsics.T
    return np.concatenate([image[:, :2] / image[:, 2:] * size, camera[:, 2:]], axis=1).astype(np.float32)


@numba.njit(cache=True)
def _vertex_normals(vertices, faces):
    normals = np.zeros_like(vertices)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            normals[k, 0] += nx
            normals[k, 1] += ny
            normals[k, 2] += nz
    for k in range(normals.shape[0]):
        length = math.sqrt(normals[k, 0] ** 2 + normals[k, 1] ** 2 + normals[k, 2] ** 2) + 1e-12
        normals[k] /= length
    return normals


@numba.njit(cache=True)
def _rasterise(screen, world, faces, S):
    """Nearest front face per pixel with perspective-correct barycentric coordinates; outside the unit box is cut away."""
    face_id = np.full((S, S), -1, np.int64)
    barycentric = np.zeros((S, S, 3), np.float32)
    nearest = np.zeros((S, S), np.float32)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        # Counter-clockwise in a y-up world is clockwise on a y-down screen: front faces have negative area.
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0 or screen[a, 2] <= 0.1:
            continue
        x0, x1 = max(0, int(min(ax, bx, cx) - 0.5)), min(S - 1, int(max(ax, bx, cx) + 0.5))
        y0, y1 = max(0, int(min(ay, by, cy) - 0.5)), min(S - 1, int(max(ay, by, cy) + 0.5))
        wa, wb, wc = 1 / screen[a, 2], 1 / screen[b, 2], 1 / screen[c, 2]
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                px, py = x + 0.5, y + 0.5
                u = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
                v = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
                t = 1 - u - v
                if u < 0 or v < 0 or t < 0:
                    continue
                w = u * wa + v * wb + t * wc
                if w <= nearest[y, x]:
                    continue
                u, v, t = u * wa / w, v * wb / w, t * wc / w
                inside = True
                for k in range(3):
                    inside = inside and abs(u * world[a, k] + v * world[b, k] + t * world[c, k]) <= 0.5
                if inside:
                    nearest[y, x] = w
                    face_id[y, x] = f
                    barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2] = u, v, t
    return face_id, barycentric, nearest


@numba.njit(cache=True, inline="always")
def _bilinear(texture, u, v, channel):
    """Texture value at (u, v), v up, edges clamped."""
    height, width = texture.shape[0], texture.shape[1]
    x = min(max(u * width - 0.5, 0.0), width - 1.001)
    y = min(max((1 - v) * height - 0.5, 0.0), height - 1.001)
    i, j = int(y), int(x)
    fy, fx = y - i, x - j
    top = texture[i, j, channel] * (1 - fx) + texture[i, j + 1, channel] * fx
    bottom = texture[i + 1, j, channel] * (1 - fx) + texture[i + 1, j + 1, channel] * fx
    return top * (1 - fy) + bottom * fy


@numba.njit(cache=True)
def _shade(
    face_id, barycentric, world, normals, vertices, rest, faces, faces_uv, uv, material, flat, skin, lips, eye_texture,
    mottle, shirt, lip_depth, light, eye_position,
):  # fmt: skip
    S = face_id.shape[0]
    colour = np.zeros((S, S, 3), np.float32)
    alpha = np.zeros((S, S), np.float32)
    distance = np.full((S, S), np.inf, np.float32)
    labels = np.zeros((S, S), np.uint8)
    n, view, p, r = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    base = np.zeros(3)
    for y in range(S):
        for x in range(S):
            f = face_id[y, x]
            if f < 0:
                continue
            tu = tv = z = 0.0
            for k in range(3):
                n[k] = p[k] = r[k] = 0.0
            for corner in range(3):
                weight, vertex, texel = barycentric[y, x, corner], faces[f, corner], faces_uv[f, corner]
                tu += weight * uv[texel, 0]
                tv += weight * uv[texel, 1]
                z += weight * vertices[vertex, 2]
                for k in range(3):
                    n[k] += weight * normals[vertex, k]
                    p[k] += weight * world[vertex, k]
                    r[k] += weight * rest[vertex, k]
            length = math.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + 1e-12
            reach = 0.0
            for k in range(3):
                n[k] /= length
                view[k] = eye_position[k] - p[k]
                reach += view[k] ** 2
            reach = math.sqrt(reach)
            kind = material[f]
            specular, exponent, occlusion = 0.08, 24.0, 1.0
            label = 1
            if kind == 0:
                for k in range(3):
                    base[k] = _bilinear(skin, tu * 0.5, tv, k)
                if lips[min(511, int((1 - tv) * 512)), min(1023, int(tu * 512))] > 0.5:
                    label, specular = 2, 0.16
                # Patches a few centimetres wide: waves through the resting head in three directions.
                patches = 1.0
                for k in range(3):
                    patches += mottle[k] * math.cos(_WAVES[k, 0] * r[0] + _WAVES[k, 1] * r[1] + _WAVES[k, 2] * r[2] + k)
                for k in range(3):
                    base[k] *= patches
                # A round neckline: the shirt starts lower at the throat than at the sides.
                neckline = -10.2 - 2.6 * math.exp(-((r[0] / 4.5) ** 2)) * (1.0 if r[2] > 0 else 0.3)
                cloth = min(1.0, max(0.0, (neckline - r[1]) * 3.0))
                if cloth > 0:
                    weave = 1 + 0.06 * math.sin(r[0] * 9.0) * math.sin(r[1] * 9.0)
                    for k in range(3):
                        base[k] += cloth * (shirt[k] * weave - base[k])
                    if cloth > 0.5:
                        label, specular = 6, 0.02
            elif kind == 1:
                label, specular, exponent = 3, 0.5, 120.0
                for k in range(3):
                    base[k] = _bilinear(eye_texture, tu, tv, k)
                # Lids shade the top of the eyeball.
                occlusion = 0.75
            else:
                for k in range(3):
                    base[k] = flat[f, k]
                if kind == 3:
                    label = 4
                    occlusion = min(1.0, max(0.04, 1 - (lip_depth - z) / 4.5)) ** 1.3
                    specular = 0.1 * occlusion
            facing = towards = half = filling = 0.0
            half_length = 0.0
            for k in range(3):
                view[k] /= reach
                towards += n[k] * light[0, k]
                filling += n[k] * light[4, k]
                facing += n[k] * view[k]
                half_length += (view[k] + light[0, k]) ** 2
            for k in range(3):
                half += n[k] * (view[k] + light[0, k])
            half = max(0.0, half / (math.sqrt(half_length) + 1e-12))
            diffuse = max(0.0, (towards + 0.15) / 1.15)
            filled = max(0.0, (filling + 0.15) / 1.15)
            sky = 0.75 + 0.25 * n[1]
            edge = (1 - max(0.0, facing)) ** 3
            shine = specular * half**exponent if towards > 0 else 0.0
            for k in range(3):
                lit = light[1, k] * diffuse + light[2, k] * sky + light[3, k] * edge + light[5, k] * filled
                colour[y, x, k] = occlusion * (base[k] * lit + shine * light[1, k])
            alpha[y, x] = 1.0
            distance[y, x] = reach
            labels[y, x] = label
    return colour, alpha, distance, labels


@numba.njit(cache=True)
def _blend_cards(screen, world, faces, uv, texture, light, eye_position, nearest, colour, alpha, distance, labels, is_hair):
    """Blend textured, two-sided triangles, given back to front, over what is there and in front of what is opaque."""
    S = alpha.shape[0]
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-6 or screen[a, 2] <= 0.1:
            continue
        x0, x1 = max(0, int(min(ax, bx, cx) - 0.5)), min(S - 1, int(max(ax, bx, cx) + 0.5))
        y0, y1 = max(0, int(min(ay, by, cy) - 0.5)), min(S - 1, int(max(ay, by, cy) + 0.5))
        wa, wb, wc = 1 / screen[a, 2], 1 / screen[b, 2], 1 / screen[c, 2]
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                px, py = x + 0.5, y + 0.5
                u = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
                v = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
                t = 1 - u - v
                if u < 0 or v < 0 or t < 0:
                    continue
                w = u * wa + v * wb + t * wc
                if w <= nearest[y, x]:
                    continue
                u, v, t = u * wa / w, v * wb / w, t * wc / w
                tu = u * uv[a, 0] + v * uv[b, 0] + t * uv[c, 0]
                tv = u * uv[a, 1] + v * uv[b, 1] + t * uv[c, 1]
                cover = _bilinear(texture, tu, tv, 3)
                if cover < 0.02:
                    continue
                x3 = u * world[a, 0] + v * world[b, 0] + t * world[c, 0]
                y3 = u * world[a, 1] + v * world[b, 1] + t * world[c, 1]
                z3 = u * world[a, 2] + v * world[b, 2] + t * world[c, 2]
                if abs(x3) > 0.5 or abs(y3) > 0.5 or abs(z3) > 0.5:
                    continue
                # Cards have no thickness: light them as if they lay on a ball around the head's centre.
                rx, ry, rz = x3, y3 - 0.12, z3 + 0.1
                radius = math.sqrt(rx * rx + ry * ry + rz * rz) + 1e-9
                towards = (rx * light[0, 0] + ry * light[0, 1] + rz * light[0, 2]) / radius
                diffuse = max(0.0, (towards + 0.4) / 1.4)
                filled = max(0.0, ((rx * light[4, 0] + ry * light[4, 1] + rz * light[4, 2]) / radius + 0.4) / 1.4)
                sky = 0.75 + 0.25 * ry / radius
                for k in range(3):
                    lit = light[1, k] * diffuse + light[2, k] * sky + light[5, k] * filled
                    colour[y, x, k] += cover * (_bilinear(texture, tu, tv, k) * lit - colour[y, x, k])
                dx, dy, dz = x3 - eye_position[0], y3 - eye_position[1], z3 - eye_position[2]
                if is_hair and cover > 0.5:
                    labels[y, x] = 5
                    distance[y, x] = math.sqrt(dx * dx + dy * dy + dz * dz)
                alpha[y, x] += cover * (1 - alpha[y, x])


@numba.njit(cache=True)
def _downsample(colour, alpha, distance, labels):
    """2 x 2 box filter in linear light, then sRGB premultiplied by alpha."""
    size = alpha.shape[0] // 2
    rgb = np.zeros((size, size, 3), np.uint8)
    cover = np.zeros((size, size), np.uint8)
    depth = np.full((size, size), np.inf, np.float32)
    part = np.zeros((size, size), np.uint8)
    for y in range(size):
        for x in range(size):
            a = total = hits = 0.0
            for i in range(2):
                for j in range(2):
                    a += alpha[2 * y + i, 2 * x + j] * 0.25
                    d = distance[2 * y + i, 2 * x + j]
                    if d < 1e9:
                        total += d
                        hits += 1
            if hits > 0:
                depth[y, x] = total / hits
            cover[y, x] = int(a * 255 + 0.5)
            part[y, x] = labels[2 * y + 1, 2 * x + 1]
            if a <= 0.002:
                continue
            for k in range(3):
                light = 0.0
                for i in range(2):
                    for j in range(2):
                        # `colour` of a blended card over nothing is already premultiplied: it started from black.
                        light += colour[2 * y + i, 2 * x + j, k] * 0.25
                straight = min(1.0, light / a) ** (1 / 2.2)
                rgb[y, x, k] = int(straight * a * 255 + 0.5)
    return rgb, cover, depth, part


def landmarks68(head: Head, pack: HeadPack) -> Array:
    """[68, 3] Multi-PIE points in scene units, whether visible or not."""
    return to_world(head.vertices[pack.lm68])


def project(points: Array, cam2world: Array, intrinsics: Array) -> Array:
    """World points [P, 3] to normalised image coordinates [P, 2] (0..1 inside the picture)."""
    return _project(points, cam2world, intrinsics, 1)[:, :2]


def draw_background(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A random background [size, size, 3] sRGB: one colour, a gradient, or 1/f noise in one to three colours."""
    kind = rng.integers(3)
    a, b = rng.uniform(0.05, 0.95, (2, 3))
    if kind == 0:
        mix = np.zeros((size, size, 1))
    elif kind == 1:
        angle = rng.uniform(0, 2 * math.pi)
        y, x = np.mgrid[0:size, 0:size] / size - 0.5
        mix = (0.5 + (x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2))[..., None]
    else:
        channels = int(rng.choice([1, 3]))
        frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
        spectrum = np.fft.rfft2(rng.standard_normal((channels, size, size))) / np.maximum(frequencies, 1.0) ** rng.uniform(
            1.0, 2.0
        )
        noise = np.fft.irfft2(spectrum, (size, size)).transpose(1, 2, 0)
        mix = 0.5 + 0.25 * (noise - noise.mean((0, 1))) / (noise.std((0, 1)) + 1e-9)
    return (np.clip(a + mix * (b - a), 0, 1) * 255 + 0.5).astype(np.uint8)

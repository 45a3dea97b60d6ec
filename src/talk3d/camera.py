"""Cameras and frames: one convention for the whole package.

World: right-handed, y up, the face looks along +z; a head measured in centimetres maps to scene units by
``p = 0.030 * (cm - [0, 1, 3])``. Cameras are OpenCV cameras (+x right, +y down, +z forward) given as ``cam2world``
matrices [*, 4, 4]; intrinsics [*, 3, 3] are divided by the image size, so the principal point is (0.5, 0.5) and image
coordinates run from 0 to 1 (the centre of the first of N pixels is 0.5 / N). Angles are radians.

``yaw > 0`` moves the camera to +x (the subject's left, the viewer's right); ``pitch > 0`` moves it up, looking down,
and is a true elevation. EG3D's labels use another pitch; it exists only in :func:`eg3d_look_at`.

Letters: N cameras, * any number of points.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def look_at(
    origin: Float[Tensor, "cameras 3"], target: Float[Tensor, "3"] | Float[Tensor, "cameras 3"]
) -> Float[Tensor, "cameras 4 4"]:
    """Upright cameras at ``origin`` whose +z axis passes through ``target`` (scene units); returns cam2world.

    The camera must not look straight up or down: the horizon would be undefined.
    """
    forward = torch.nn.functional.normalize(target - origin, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=origin.dtype, device=origin.device).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.nn.functional.normalize(torch.linalg.cross(forward, right), dim=-1)
    top = torch.cat([torch.stack([right, down, forward], dim=-1), origin[..., None]], dim=-1)  # [N, 3, 4]
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=origin.dtype, device=origin.device).expand(len(origin), 1, 4)
    return torch.cat([top, bottom], dim=-2)


@dataclass(frozen=True)
class Orbit:
    """The camera of a prior: it moves on a sphere about the world's origin and looks at a fixed pivot."""

    radius: float = 2.7
    """Distance of the camera from the world's origin (not from the pivot), scene units."""
    pivot: tuple[float, float, float] = (0.0, 0.04, 0.2)
    """The point in the middle of the picture, scene units."""
    focal: float = 3.2
    """Focal length divided by the image size."""

    def pose(self, yaw: Float[Tensor, " cameras"], pitch: Float[Tensor, " cameras"]) -> Float[Tensor, "cameras 4 4"]:
        """Cameras at the given angles (radians; pitch is a true elevation); returns cam2world."""
        origin = self.radius * torch.stack([pitch.cos() * yaw.sin(), pitch.sin(), pitch.cos() * yaw.cos()], dim=-1)
        return look_at(origin, torch.tensor(self.pivot, dtype=yaw.dtype, device=yaw.device))

    def intrinsics(self) -> Float[Tensor, "3 3"]:
        """Normalised intrinsics (float32, CPU)."""
        return torch.tensor([[self.focal, 0.0, 0.5], [0.0, self.focal, 0.5], [0.0, 0.0, 1.0]])

    def project(
        self, points: Float[Tensor, "*points 3"], yaw: Float[Tensor, " cameras"], pitch: Float[Tensor, " cameras"]
    ) -> Float[Tensor, "cameras *points 2"]:
        """Where world points (scene units) appear: x to the right, y down, 0..1 across the image."""
        cam2world = self.pose(yaw, pitch)
        rotation, origin = cam2world[:, :3, :3], cam2world[:, :3, 3]
        flat = points.reshape(1, -1, 3) - origin[:, None]  # [N, P, 3]
        local = flat @ rotation  # rows times R is the same as R^T times columns: world to camera
        image = 0.5 + self.focal * local[..., :2] / local[..., 2:]
        return image.reshape(len(yaw), *points.shape[:-1], 2)


@dataclass(frozen=True)
class ViewCone:
    """Angles of an `Orbit` camera between which something holds; degrees, the ends belong to it."""

    yaw: tuple[float, float]
    """From the subject's right to the left."""
    pitch: tuple[float, float]
    """From below to above."""

    def contains(self, yaw: float | int, pitch: float | int) -> bool:
        """Whether a camera (degrees) looks from within; half a degree beyond is no difference that anyone sees."""
        pairs = ((self.yaw, yaw), (self.pitch, pitch))
        return all(low - 0.5 <= angle <= high + 0.5 for (low, high), angle in pairs)

    def __str__(self) -> str:
        return f"yaw {self.yaw[0]:+g} to {self.yaw[1]:+g}, pitch {self.pitch[0]:+g} to {self.pitch[1]:+g} degrees"


def eg3d_look_at(
    yaw: Float[Tensor, " cameras"],
    pitch: Float[Tensor, " cameras"],
    pivot: Float[Tensor, "3"] | Float[Tensor, "cameras 3"],
    radius: float | Float[Tensor, " cameras"] = 2.7,
) -> Float[Tensor, "cameras 4 4"]:
    """EG3D's look-at sampler, for checkpoints trained on its labels; returns cam2world.

    Two of its habits differ from :class:`Orbit` (docs/quirks.md): positive pitch puts the camera *below* the head, and
    pitch is warped: the polar angle is ``arccos(1 - 2 v / pi)`` with ``v = pi/2 + pitch``, so a nominal 20 degrees is a
    true elevation of 12.84 degrees.
    """
    v = (math.pi / 2 + pitch).clamp(1e-5, math.pi - 1e-5)
    polar = torch.arccos(1 - 2 * v / math.pi)
    direction = torch.stack([polar.sin() * yaw.sin(), polar.cos(), polar.sin() * yaw.cos()], dim=-1)
    scale = radius[:, None] if isinstance(radius, Tensor) else radius
    return look_at(scale * direction, pivot)


def eg3d_elevation(pitch: Float[Tensor, " cameras"]) -> Float[Tensor, " cameras"]:
    """EG3D's pitch as the true elevation (radians) that every other function wants: the inverse of its warp, and its sign.

    With it ``Orbit.pose`` gives what :func:`eg3d_look_at` gives.
    """
    return -torch.arcsin((2 * pitch / math.pi).clamp(-1, 1))


def fov_to_intrinsics(fov_degrees: float) -> Float[Tensor, "3 3"]:
    """EG3D's helper: intrinsics from a nominal field of view in degrees (its constants are 1.414 and 3.14159)."""
    focal = 1 / (math.tan(fov_degrees * 3.14159 / 360) * 1.414)
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])


def camera_label(
    cam2world: Float[Tensor, "cameras 4 4"], intrinsics: Float[Tensor, "3 3"] | Float[Tensor, "cameras 3 3"]
) -> Float[Tensor, "cameras 25"]:
    """EG3D's 25-number label: row-major cam2world followed by row-major intrinsics."""
    return torch.cat([cam2world.flatten(1), intrinsics.expand(len(cam2world), 3, 3).flatten(1)], dim=1)


def camera_from_label(
    label: Float[Tensor, "cameras 25"],
) -> tuple[Float[Tensor, "cameras 4 4"], Float[Tensor, "cameras 3 3"]]:
    """The inverse of :func:`camera_label`: cam2world and intrinsics."""
    return label[:, :16].unflatten(1, (4, 4)), label[:, 16:].unflatten(1, (3, 3))

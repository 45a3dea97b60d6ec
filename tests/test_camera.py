"""Cameras against published numbers, plain linear algebra, and the symmetries of the scene."""

import math

import pytest
import torch

from talk3d.camera import (
    Orbit,
    ViewCone,
    camera_from_label,
    camera_label,
    eg3d_elevation,
    eg3d_look_at,
    fov_to_intrinsics,
    look_at,
)


def angles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_frontal_camera_is_the_documented_matrix() -> None:
    orbit = Orbit(pivot=(0.0, 0.0, 0.2))
    expected = torch.tensor([[[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]]])
    torch.testing.assert_close(orbit.pose(torch.zeros(1), torch.zeros(1)), expected)
    pivot = torch.tensor([0.0, 0.0, 0.2])
    torch.testing.assert_close(eg3d_look_at(torch.zeros(1), torch.zeros(1), pivot), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("yaw", "pitch", "origin", "forward"),
    [
        (0.3, 0.0, (0.79790, 0.0, 2.57941), (-0.31787, 0.01992, -0.94792)),
        (0.0, math.radians(20), (0.0, -0.6, 2.63249), (0.0, 0.25816, -0.96610)),
        (0.0, -0.1, (0.0, 0.17189, 2.69452), None),
    ],
)
def test_eg3d_cameras_have_the_documented_numbers(
    yaw: float, pitch: float, origin: tuple[float, ...], forward: tuple[float, ...] | None
) -> None:
    pose = eg3d_look_at(angles(yaw), angles(pitch), torch.tensor([0.0, 0.05, 0.2], dtype=torch.float64))[0]
    torch.testing.assert_close(pose[:3, 3], angles(*origin), atol=1e-5, rtol=0)
    if forward is not None:
        torch.testing.assert_close(pose[:3, 2], angles(*forward), atol=1e-5, rtol=0)


def test_eg3d_pitch_is_warped_and_points_the_other_way() -> None:
    """A nominal 20 degrees is a true elevation of -12.84 degrees; yaw is exact."""
    orbit, pivot = Orbit(pivot=(0.0, 0.05, 0.2)), torch.tensor([0.0, 0.05, 0.2], dtype=torch.float64)
    yaw, pitch = angles(-0.4, 0.0, 0.7), angles(0.2, -0.3, math.radians(20))
    true = -torch.arcsin(2 * pitch / math.pi)
    torch.testing.assert_close(eg3d_look_at(yaw, pitch, pivot), orbit.pose(yaw, true))
    assert math.degrees(true[2]) == pytest.approx(-12.84, abs=5e-3)


def test_positive_angles_move_the_camera_right_and_up() -> None:
    orbit = Orbit()
    right, up = orbit.pose(angles(0.3, 0.0), angles(0.0, 0.3))
    assert right[0, 3] > 0
    assert up[1, 3] == pytest.approx(2.7 * math.sin(0.3))  # a true elevation
    assert up[1, 2] < 0, "a raised camera looks down"


def test_poses_are_upright_rotations_about_the_origin() -> None:
    orbit = Orbit()
    pose = orbit.pose(angles(-0.9, 0.1, 0.8), angles(0.4, -0.5, 0.2))
    rotation, origin = pose[:, :3, :3], pose[:, :3, 3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(origin.norm(dim=-1), torch.full((3,), 2.7, dtype=torch.float64))
    assert (rotation[:, 1, 0].abs() < 1e-12).all(), "the picture's horizontal stays level"
    assert (rotation[:, 1, 1] < 0).all(), "down in the picture is down in the world"


def test_projection_is_the_inverse_matrix_and_a_division() -> None:
    orbit = Orbit()
    points = torch.randn(4, 5, 3, dtype=torch.float64) * 0.3
    yaw, pitch = angles(0.4, -0.2), angles(-0.1, 0.3)
    homogeneous = torch.cat([points, torch.ones(4, 5, 1, dtype=torch.float64)], dim=-1)
    for n in range(2):
        world2cam = torch.linalg.inv(orbit.pose(yaw, pitch)[n])
        image = (homogeneous @ world2cam.T)[..., :3] @ orbit.intrinsics().double().T
        torch.testing.assert_close(orbit.project(points, yaw, pitch)[n], image[..., :2] / image[..., 2:], atol=1e-7, rtol=0)


def test_pivot_is_in_the_middle_and_axes_point_the_documented_way() -> None:
    orbit = Orbit()
    yaw, pitch = angles(0.0, 0.5, -0.3), angles(0.0, 0.2, -0.2)
    pivot = torch.tensor(orbit.pivot, dtype=torch.float64)
    torch.testing.assert_close(orbit.project(pivot, yaw, pitch), torch.full((3, 2), 0.5, dtype=torch.float64))
    x, y = orbit.project(pivot + angles(0.1, 0.1, 0.0), yaw[:1], pitch[:1])[0]
    assert x > 0.5, "the subject's left is on the viewer's right"
    assert y < 0.5, "image y points down"


def test_mirrored_scene_and_yaw_give_a_mirrored_picture() -> None:
    orbit, mirror = Orbit(), angles(-1, 1, 1)
    points = torch.randn(7, 3, dtype=torch.float64) * 0.3
    yaw, pitch = angles(0.6, -0.2), angles(0.1, 0.3)
    here, there = orbit.project(points, yaw, pitch), orbit.project(points * mirror, -yaw, pitch)
    torch.testing.assert_close(there, torch.stack([1 - here[..., 0], here[..., 1]], dim=-1))


def test_projection_has_correct_gradients() -> None:
    orbit = Orbit()
    points = (torch.randn(3, 3, dtype=torch.float64) * 0.3).requires_grad_()
    yaw, pitch = angles(0.3, -0.4).requires_grad_(), angles(0.2, 0.1).requires_grad_()
    assert torch.autograd.gradcheck(orbit.project, (points, yaw, pitch))


def test_look_at_takes_one_target_or_one_per_camera() -> None:
    origin = torch.randn(4, 3, dtype=torch.float64) + 3
    target = torch.randn(4, 3, dtype=torch.float64)
    pose = look_at(origin, target)
    torch.testing.assert_close(pose[:, :3, 2], torch.nn.functional.normalize(target - origin, dim=-1))
    torch.testing.assert_close(look_at(origin, target[0])[0], pose[0])


def test_eg3ds_pitch_as_elevation_gives_the_same_cameras() -> None:
    yaw, pitch = torch.meshgrid(torch.linspace(-1.2, 1.2, 9), torch.linspace(-1.2, 1.2, 9), indexing="ij")
    yaw, pitch = yaw.flatten(), pitch.flatten()
    orbit = Orbit(2.5, (0.0, 0.05, 0.2), 3.6)
    theirs = eg3d_look_at(yaw, pitch, torch.tensor(orbit.pivot), orbit.radius)
    torch.testing.assert_close(orbit.pose(yaw, eg3d_elevation(pitch)), theirs, atol=1e-5, rtol=0)
    twenty = torch.tensor([math.radians(20)])
    torch.testing.assert_close(eg3d_elevation(twenty).rad2deg(), torch.tensor([-12.84]), atol=0.01, rtol=0)


def test_field_of_view_helper() -> None:
    assert float(fov_to_intrinsics(18.837)[0, 0]) == pytest.approx(4.2634, abs=1e-4)


def test_labels_hold_row_major_matrices_and_come_back() -> None:
    orbit = Orbit()
    pose, intrinsics = orbit.pose(torch.tensor([0.3, -0.1]), torch.tensor([0.1, 0.2])), orbit.intrinsics()
    label = camera_label(pose, intrinsics)
    assert label.shape == (2, 25)
    assert float(label[1, 7]) == float(pose[1, 1, 3])
    assert label[0, 16:].tolist() == pytest.approx([3.2, 0, 0.5, 0, 3.2, 0.5, 0, 0, 1])
    back, same = camera_from_label(label)
    assert torch.equal(back, pose)
    assert torch.equal(same, intrinsics.expand(2, 3, 3))


def test_a_cone_contains_its_ends_and_nothing_beyond() -> None:
    cone = ViewCone((-30.0, 45.0), (-20.0, 10.0))
    assert all(cone.contains(*view) for view in [(0, 0), (-30, -20), (45, 10), (45.4, 0)])
    assert not any(cone.contains(*view) for view in [(-31, 0), (46, 0), (0, -21), (0, 11), (46, 11)])
    assert str(cone) == "yaw -30 to +45, pitch -20 to +10 degrees"

"""Rays and depths against projection (their inverse), analytic box crossings and published numbers."""

import pytest
import torch

from talk3d.camera import Orbit
from talk3d.render.rays import (
    Rays,
    box_limits,
    generate_rays,
    importance_depths,
    pixel_centres,
    ray_limits,
    rays_through,
    stratified_depths,
)

F64 = torch.float64


def test_two_by_two_rays_have_the_documented_numbers() -> None:
    orbit = Orbit(pivot=(0.0, 0.0, 0.2), focal=4.2647)
    rays = generate_rays(orbit.pose(torch.zeros(1), torch.zeros(1)), orbit.intrinsics()[None], 2)
    a, b = 0.05842, 0.99658
    expected = torch.tensor([[-a, a, -b], [a, a, -b], [-a, -a, -b], [a, -a, -b]])
    torch.testing.assert_close(rays.directions[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(rays.origins[0], torch.tensor([[0.0, 0.0, 2.7]]).expand(4, 3))


def test_pixel_centres_are_half_pixels_row_by_row() -> None:
    centres = pixel_centres(2, dtype=F64, device=torch.device("cpu"))
    assert centres.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_points_on_a_ray_project_to_its_pixel() -> None:
    orbit = Orbit()
    yaw, pitch = torch.tensor([0.4, -0.7], dtype=F64), torch.tensor([-0.2, 0.3], dtype=F64)
    uv = torch.rand(2, 9, 2, dtype=F64)
    rays = rays_through(orbit.pose(yaw, pitch), orbit.intrinsics().double().expand(2, 3, 3), uv)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(2, 9, dtype=F64))
    for n in range(2):
        points = rays.origins[n] + 2.3 * rays.directions[n]
        seen = orbit.project(points, yaw[n, None], pitch[n, None])[0]
        torch.testing.assert_close(seen, uv[n], atol=1e-7, rtol=0)


def test_skewed_intrinsics_are_inverted() -> None:
    intrinsics = torch.tensor([[[3.0, 0.2, 0.45], [0.0, 2.0, 0.6], [0.0, 0.0, 1.0]]], dtype=F64)
    uv = torch.rand(1, 6, 2, dtype=F64)
    rays = rays_through(torch.eye(4, dtype=F64)[None], intrinsics, uv)
    local = torch.linalg.solve(intrinsics[0], torch.cat([uv[0], torch.ones(6, 1, dtype=F64)], dim=-1).T).T
    torch.testing.assert_close(rays.directions[0], torch.nn.functional.normalize(local, dim=-1))


def test_box_is_crossed_where_geometry_says() -> None:
    origins = torch.tensor([[[0.0, 0.0, 2.7], [0.0, 0.0, 2.7], [0.1, 0.2, 0.0]]], dtype=F64)
    aim = torch.tensor([[[0.0, 0.0, -1.0], [1.0, 0.0, -1.0], [0.0, 0.0, 1.0]]], dtype=F64)
    rays = Rays(origins, torch.nn.functional.normalize(aim, dim=-1))
    entry, leave, hit = box_limits(rays, 1.0)
    assert hit.flatten().tolist() == [True, False, True]
    torch.testing.assert_close(entry[0, [0, 2], 0], torch.tensor([2.2, -0.5], dtype=F64))
    torch.testing.assert_close(leave[0, [0, 2], 0], torch.tensor([3.2, 0.5], dtype=F64))


def test_rays_that_miss_get_the_documented_odd_limits() -> None:
    """Start: the smallest valid start. End: the largest valid *start* (a slip of the reference, kept)."""
    target = torch.tensor([[[0.0, 0.0, -2.7], [0.3, 0.1, -2.3], [3.0, 0.0, -1.0]]])
    origins = torch.tensor([0.0, 0.0, 2.7]).expand(1, 3, 3)
    rays = Rays(origins, torch.nn.functional.normalize(target, dim=-1))
    near, far = ray_limits(rays, 1.0)
    assert float(near[0, 2, 0]) == float(near[0, :2, 0].min())
    assert float(far[0, 2, 0]) == float(near[0, :2, 0].max())


def test_when_no_ray_hits_the_box_limits_stay_finite_in_depth() -> None:
    rays = Rays(torch.tensor([[[0.0, 0.0, 2.7]]]), torch.tensor([[[0.6, 0.0, 0.8]]]))
    near, far = ray_limits(rays, 1.0)
    assert near.shape == far.shape == (1, 1, 1)


def test_stratified_depths_span_the_range_and_move_by_their_jitter() -> None:
    zero = torch.zeros(1, 2, 5, dtype=F64)
    torch.testing.assert_close(stratified_depths(2.0, 3.0, zero)[0, 0], torch.linspace(2, 3, 5, dtype=F64))
    torch.testing.assert_close(stratified_depths(2.0, 3.0, zero + 0.5)[0, 1], torch.linspace(2, 3, 5, dtype=F64) + 0.125)
    per_ray = stratified_depths(torch.full((1, 2, 1), 2.0, dtype=F64), torch.full((1, 2, 1), 3.0, dtype=F64), zero)
    torch.testing.assert_close(per_ray, stratified_depths(2.0, 3.0, zero))


def test_disparity_depths_are_even_in_one_over_depth() -> None:
    depths = stratified_depths(2.0, 4.0, torch.zeros(1, 1, 6, dtype=F64), disparity=True)[0, 0]
    torch.testing.assert_close(1 / depths, torch.linspace(0.5, 0.25, 6, dtype=F64))


@pytest.mark.parametrize("peak", [3, 10, 17])
def test_fine_depths_gather_where_the_weight_is(peak: int) -> None:
    depths = torch.linspace(2, 3, 21, dtype=F64).expand(1, 1, 21)
    weights = torch.zeros(1, 1, 20, dtype=F64)
    weights[..., peak] = 1.0
    u = ((torch.arange(40, dtype=F64) + 0.5) / 40).expand(1, 1, 40)
    fine = importance_depths(depths, weights, u)[0, 0]
    assert (fine.diff() > 0).all()
    near = (fine - (depths[0, 0, peak] + depths[0, 0, peak + 1]) / 2).abs() < 0.11
    assert near.double().mean() > 0.8
    # Everything lies between the outermost mid-depths.
    assert fine.min() > depths[0, 0, 0]
    assert fine.max() < depths[0, 0, -1]


def test_fine_depths_carry_no_gradient() -> None:
    depths = torch.linspace(2, 3, 8).expand(1, 1, 8).clone().requires_grad_()
    weights = torch.rand(1, 1, 7, requires_grad=True)
    assert not importance_depths(depths, weights, torch.rand(1, 1, 4)).requires_grad

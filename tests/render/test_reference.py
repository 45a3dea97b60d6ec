"""The reference renderer against scipy, analytic scenes, and a slow path through the separately tested pieces."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from talk3d.camera import Orbit
from talk3d.render import reference
from talk3d.render.rays import Rays, generate_rays, importance_depths, stratified_depths
from talk3d.render.reference import (
    RenderOptions,
    lookup_planes,
    project_points,
    render,
    sample_planes,
)
from talk3d.render.volume import march, merge, ray_weights

F64 = torch.float64
OPTIONS = RenderOptions(samples_coarse=24, samples_fine=24, near=2.25, far=3.3)


def coordinate_planes(size: int = 64) -> Tensor:
    """Planes [1, 3, 3, size, size] whose mean lookup at (x, y, z) inside a unit box is (x, y, z) / 3.

    Bilinear lookups of ramps are exact between the outermost texel centres. x and y come from the first plane, z from
    the height of the second.
    """
    ramp = (torch.arange(size, dtype=F64) + 0.5) / size - 0.5
    planes = torch.zeros(1, 3, 3, size, size, dtype=F64)
    planes[0, 0, 0] = ramp[None, :]
    planes[0, 0, 1] = ramp[:, None]
    planes[0, 1, 2] = ramp[:, None]
    return planes


def frontal_rays(resolution: int, orbit: Orbit | None = None) -> Rays:
    orbit = orbit or Orbit(pivot=(0.0, 0.0, 0.0))
    zero = torch.zeros(1, dtype=F64)
    return generate_rays(orbit.pose(zero, zero), orbit.intrinsics().double()[None], resolution)


def random_scene(
    channels: int = 4, batch: int = 2, rays: int = 7, dtype: torch.dtype = F64
) -> tuple[Tensor, reference.Decode, Rays]:
    planes = torch.randn(batch, 3, channels, 16, 16, dtype=dtype)
    mix = torch.randn(channels, 4, dtype=dtype)

    def decoder(features: Tensor) -> tuple[Tensor, Tensor]:
        out = features @ mix
        return out[..., 1:].sigmoid(), 4 * out[..., :1]

    orbit = Orbit()
    pose = orbit.pose(torch.linspace(-0.5, 0.5, batch, dtype=dtype), torch.linspace(-0.2, 0.2, batch, dtype=dtype))
    all_rays = generate_rays(pose, orbit.intrinsics().to(dtype).expand(batch, 3, 3), 16)
    some = torch.randperm(256)[:rays]
    return planes, decoder, Rays(all_rays.origins[:, some], all_rays.directions[:, some])


def test_axes_of_both_conventions_have_the_documented_numbers() -> None:
    point = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert project_points(point, "aligned")[0, :, 0].tolist() == [[1, 2], [1, 3], [3, 2]]
    assert project_points(point, "eg3d")[0, :, 0].tolist() == [[1, 2], [1, 3], [3, 1]]


def test_the_first_coordinate_runs_along_the_width() -> None:
    planes = torch.zeros(1, 3, 1, 8, 8)
    planes[0, 2, 0, 1, 6] = 9.0  # third plane, row 1, column 6

    def texel(index: int) -> float:
        return (index + 0.5) / 8 - 0.5

    at = {"z": texel(6), "other": texel(1)}
    aligned = torch.tensor([[[0.33, at["other"], at["z"]]]])  # W = z, H = y
    eg3d = torch.tensor([[[at["other"], 0.33, at["z"]]]])  # W = z, H = x
    assert float(sample_planes(planes, aligned, "aligned", 1.0)) == pytest.approx(3.0)
    assert float(sample_planes(planes, eg3d, "eg3d", 1.0)) == pytest.approx(3.0)
    assert float(sample_planes(planes, eg3d, "aligned", 1.0)) == 0.0


@pytest.mark.parametrize("axes", ["eg3d", "aligned"])
def test_lookups_equal_scipy_interpolation_with_zeros_outside(axes: reference.PlaneAxes) -> None:
    planes = torch.randn(1, 3, 2, 10, 12, dtype=F64)
    points = (torch.rand(1, 60, 3, dtype=F64) - 0.5) * 1.3 * 0.8  # box of side 0.8, some points outside
    looked = lookup_planes(planes, points, axes, 0.8)
    at = project_points(points, axes)[0].numpy() / 0.8 + 0.5  # 0..1 across the plane
    for plane in range(3):
        where = np.stack([at[plane, :, 1] * 10 - 0.5, at[plane, :, 0] * 12 - 0.5])
        for channel in range(2):
            expected = map_coordinates(planes[0, plane, channel].numpy(), where, order=1, mode="grid-constant")
            np.testing.assert_allclose(looked[0, plane, channel].numpy(), expected, atol=1e-9)


def test_planes_are_averaged() -> None:
    planes = torch.ones(1, 3, 2, 8, 8) * torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1, 1)
    torch.testing.assert_close(sample_planes(planes, torch.zeros(1, 5, 3), "aligned", 1.0), torch.full((1, 5, 2), 3.0))


def test_a_ball_is_seen_where_it_is() -> None:
    """A solid ball of radius 0.3 about the origin: silhouette, depth and colour from geometry alone."""
    radius = 0.3

    def decoder(features: Tensor) -> tuple[Tensor, Tensor]:
        position = 3 * features
        inside = position.norm(dim=-1, keepdim=True) < radius
        return position + 0.5, torch.where(inside, 1e4, -1e4).to(position)

    rays = frontal_rays(32)
    options = dataclasses.replace(OPTIONS, samples_coarse=96, samples_fine=96, near=2.35, far=3.1)
    seen = render(coordinate_planes(), decoder, rays, options, deterministic=True)
    along = -(rays.origins * rays.directions).sum(-1)  # depth of the point nearest the centre
    miss = (rays.origins.square().sum(-1) - along.square()).clamp(min=0).sqrt()
    clear = (miss - radius).abs() > 0.02
    hit = miss < radius
    assert torch.equal(seen.alpha[..., 0][clear] > 0.5, hit[clear])
    sure = hit & clear
    depth = (along - (radius**2 - miss.square()).clamp(min=0).sqrt())[sure]
    torch.testing.assert_close(seen.depth[..., 0][sure], depth, atol=0.02, rtol=0)
    surface = rays.origins[sure] + depth[:, None] * rays.directions[sure]
    torch.testing.assert_close((seen.features[sure] + 1) / 2, surface + 0.5, atol=0.03, rtol=0)
    assert (seen.features[~hit & clear] < -0.999).all(), "nothing is -1, not grey"


def test_fog_thickness_follows_beer_and_lambert() -> None:
    options = dataclasses.replace(OPTIONS, near=2.3, far=3.1)

    def fog(features: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(features[..., :2], 0.25), torch.full_like(features[..., :1], 2.0)

    seen = render(coordinate_planes(), fog, frontal_rays(3), options, deterministic=True)
    # Mid-bin samples all lie half a step deeper, so the sampled length is still far - near.
    alpha = 1 - np.exp(-np.log1p(np.exp(1.0)) * 0.8)
    torch.testing.assert_close(seen.alpha, torch.full_like(seen.alpha, alpha))
    torch.testing.assert_close(seen.features, torch.full_like(seen.features, 2 * 0.25 * alpha - 1))


def test_value_and_gradient_equal_the_slow_path() -> None:
    """Decode everything, sort the samples themselves, march: no folded weights, no shared code with `render`."""
    planes, decoder, rays = random_scene()
    planes.requires_grad_()
    seen = render(planes, decoder, rays, OPTIONS, deterministic=True)
    cotangent = torch.randn_like(seen.features), torch.randn_like(seen.alpha), torch.randn_like(seen.depth)
    values = (seen.features, seen.alpha, seen.depth)
    (gradient,) = torch.autograd.grad(values, planes, cotangent)

    def decode(depths: Tensor) -> tuple[Tensor, Tensor]:
        points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]
        colour, sigma = decoder(sample_planes(planes, points.flatten(1, 2), "aligned", 1.0))
        return colour.reshape(*depths.shape, -1), sigma.reshape(depths.shape)

    coarse = stratified_depths(2.25, 3.3, torch.full((2, 7, 24), 0.5, dtype=F64))
    colour, sigma = decode(coarse)
    u = ((torch.arange(24, dtype=F64) + 0.5) / 24).expand(2, 7, 24)
    fine = importance_depths(coarse, ray_weights(sigma, coarse), u)
    colour_fine, sigma_fine = decode(fine)
    depths, colours, sigmas = merge(coarse, colour, sigma, fine, colour_fine, sigma_fine)
    features, depth, weights = march(colours, sigmas, depths)
    expected = (features, weights.sum(-1, keepdim=True), depth[..., None])
    for a, b in zip(values, expected, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, planes, cotangent)[0])


def test_gradients_are_correct_for_planes_decoder_and_rays() -> None:
    """Against finite differences, in double precision; coarse samples only, because depths carry no gradient."""
    planes, _, rays = random_scene(channels=2, batch=1, rays=3)
    options = dataclasses.replace(OPTIONS, samples_coarse=6, samples_fine=0)
    mix = torch.randn(2, 3, dtype=F64)

    def run(planes: Tensor, mix: Tensor, origins: Tensor) -> tuple[Tensor, ...]:
        def decoder(features: Tensor) -> tuple[Tensor, Tensor]:
            out = features @ mix
            return out[..., 1:].sigmoid(), out[..., :1]

        seen = render(planes, decoder, Rays(origins, rays.directions), options, deterministic=True)
        return seen.features, seen.alpha, seen.depth

    inputs = (planes.requires_grad_(), mix.requires_grad_(), rays.origins.contiguous().requires_grad_())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_camera_angles_receive_gradients_through_fine_samples() -> None:
    planes, decoder, _ = random_scene(batch=1)
    orbit = Orbit()
    yaw, pitch = (torch.tensor([0.1], dtype=F64, requires_grad=True) for _ in range(2))
    rays = generate_rays(orbit.pose(yaw, pitch), orbit.intrinsics().double()[None], 4)
    render(planes, decoder, rays, OPTIONS, deterministic=True).features.square().sum().backward()
    for angle in (yaw, pitch):
        assert angle.grad is not None
        assert torch.isfinite(angle.grad).all()
        assert angle.grad.abs() > 0


def test_pieces_without_gradients_equal_one_piece_with(monkeypatch: pytest.MonkeyPatch) -> None:
    planes, decoder, rays = random_scene(rays=11)
    whole = render(planes, decoder, rays, OPTIONS, deterministic=True)
    monkeypatch.setattr(reference, "_LOOKUPS_AT_ONCE", 2 * 24 * 12 * 3)  # three rays at a time
    with torch.no_grad():
        pieces = render(planes, decoder, rays, OPTIONS, deterministic=True)
    for field in ("features", "depth", "alpha"):
        torch.testing.assert_close(getattr(pieces, field), getattr(whole, field))


def test_random_samples_repeat_with_the_seed_and_differ_without() -> None:
    planes, decoder, rays = random_scene(dtype=torch.float32)

    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return render(planes, decoder, rays, OPTIONS, deterministic=False, generator=generator).features

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_deterministic_samples_do_not_depend_on_the_batch() -> None:
    planes, decoder, rays = random_scene()
    both = render(planes, decoder, rays, OPTIONS, deterministic=True)
    second = render(planes[1:], decoder, Rays(rays.origins[1:], rays.directions[1:]), OPTIONS, deterministic=True)
    torch.testing.assert_close(both.features[1:], second.features)
    torch.testing.assert_close(both.depth[1:], second.depth)


def test_a_single_ray_without_fine_samples_renders() -> None:
    planes, decoder, rays = random_scene(batch=1, rays=1)
    for fine in (0, 3):
        seen = render(planes, decoder, rays, dataclasses.replace(OPTIONS, samples_fine=fine), deterministic=True)
        assert seen.features.shape == (1, 1, 3)
        assert seen.depth.shape == seen.alpha.shape == (1, 1, 1)


def test_limits_from_the_box_see_only_what_is_inside() -> None:
    options = dataclasses.replace(OPTIONS, near=None, far=None, samples_coarse=40, samples_fine=0)

    def fog(features: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(features[..., :1], 0.5), torch.full_like(features[..., :1], 2.0)

    seen = render(coordinate_planes(), fog, frontal_rays(1), options, deterministic=True)
    assert float(seen.alpha) == pytest.approx(1 - np.exp(-np.log1p(np.exp(1.0)) * 1.0), abs=1e-9)
    assert float(seen.depth) < 2.7, "the near half hides part of the far half"

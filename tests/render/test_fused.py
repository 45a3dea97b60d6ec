"""The compiled renderer against the reference, over all ways rays are sampled and planes are read."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from talk3d.camera import Orbit
from talk3d.prior.generator import Decoder

fused = pytest.importorskip("talk3d.render.fused", reason="numba is not installed")

from talk3d.render import compiled  # noqa: E402
from talk3d.render.rays import Rays, generate_rays  # noqa: E402
from talk3d.render.reference import Rendering, RenderOptions, render  # noqa: E402

OPTIONS = RenderOptions(samples_coarse=16, samples_fine=16, near=2.25, far=3.2)


def scene(
    batch: int = 2, channels: int = 5, features: int = 3, gain: float = 20.0, resolution: int = 9
) -> tuple[Tensor, Decoder, Rays]:
    """Planes higher than wide, a decoder whose sizes fill no vector, and cameras all around."""
    torch.manual_seed(1)
    planes = 4 * torch.randn(batch, 3, channels, 14, 11)
    decoder = Decoder(channels, 11, features, density_gain=gain).requires_grad_(False)
    # Raw densities of this deviation about zero: surfaces where the gain is high, fog where it is low.
    raw = decoder(2.3 * torch.randn(1, 999, channels))[1] / gain
    decoder.net[2].weight.data[0] *= 0.7 / raw.std()
    decoder.net[2].bias.data[0] = -0.7 * raw.mean() / raw.std() - 0.3
    orbit = Orbit()
    pose = orbit.pose(torch.linspace(-0.6, 0.5, batch), torch.linspace(-0.2, 0.3, batch))
    return planes, decoder, generate_rays(pose, orbit.intrinsics().expand(batch, 3, 3), resolution)


def both(planes: Tensor, decoder: Decoder, rays: Rays, options: RenderOptions) -> tuple[Rendering, Rendering]:
    with torch.no_grad():
        plain = render(planes, decoder, rays, options, deterministic=True)
    return fused.render_fused(planes, fused.TwoLayers.of(decoder.layers()), rays, options), plain


def assert_same(fast: Rendering, plain: Rendering, atol: float = 2e-4) -> None:
    for field in ("features", "depth", "alpha"):
        torch.testing.assert_close(getattr(fast, field), getattr(plain, field), atol=atol, rtol=1e-4)


@pytest.mark.parametrize(
    ("axes", "limits", "counts", "white_back", "disparity"),
    list(
        itertools.product(
            ["eg3d", "aligned"],
            [(2.25, 3.2), (None, None), (2.0, None)],
            [(16, 16), (12, 0), (5, 7)],
            [False, True],
            [False, True],
        )
    ),
)
def test_pictures_equal_the_references(
    axes: str, limits: tuple[float | None, float | None], counts: tuple[int, int], white_back: bool, disparity: bool
) -> None:
    planes, decoder, rays = scene()
    options = RenderOptions(*counts, *limits, 0.9, axes, white_back, disparity)  # type: ignore[arg-type]
    # At some camera angles all rays meet the box; the widest here do not, and get the reference's odd limits.
    assert fused.are_ordered(rays, options)
    fast, plain = both(planes, decoder, rays, options)
    assert 0.05 < float(plain.alpha.mean()) < 0.95
    assert_same(fast, plain)


def test_sizes_and_fog_of_the_full_profile() -> None:
    """More samples than a tile holds of one ray's neighbours, and nothing opaque: every sample is decoded to colours."""
    planes, decoder, rays = scene(channels=32, features=32, gain=1.0, resolution=5)
    options = dataclasses.replace(OPTIONS, samples_coarse=48, samples_fine=48)
    assert_same(*both(planes, decoder, rays, options), atol=2e-5)
    fast, plain = both(planes, decoder, rays, dataclasses.replace(OPTIONS, samples_coarse=300, samples_fine=20))
    assert_same(fast, plain, atol=2e-5)


def test_a_hair_that_only_one_sample_meets_is_drawn() -> None:
    """A sheet a texel thick, dense enough to hide all behind it where a sample hits it."""
    planes = torch.full((1, 3, 1, 64, 64), -1.0)
    planes[0, 0, 0, :, 31] = 30.0  # the first plane's column: a wall along y and z
    planes[0, 1, 0, 40, :] = 30.0  # the second plane's row: a wall along x and y
    decoder = Decoder(1, 8, 2, density_gain=50.0).requires_grad_(False)
    for layer in (decoder.net[0], decoder.net[2]):
        layer.weight.data.fill_(1.0)
        layer.bias.data.zero_()
    decoder.net[2].bias.data[0] = -8.0
    rays = generate_rays(Orbit().pose(torch.zeros(1), torch.zeros(1)), Orbit().intrinsics()[None], 48)
    fast, plain = both(planes, decoder, rays, OPTIONS)
    seen = plain.alpha > 0.5
    assert 0 < int(seen.sum()) < seen.numel()
    assert_same(fast, plain, atol=2e-2)  # the last bit of a place on a wall of density 1,500 shows


def test_how_planes_lie_in_memory_changes_nothing() -> None:
    planes, decoder, rays = scene()
    texels = fused.texel_planes(*planes.shape[:1], *planes.shape[2:]).copy_(planes)
    together = planes.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    layers = fused.TwoLayers.of(decoder.layers())
    pictures = [fused.render_fused(x, layers, rays, OPTIONS).features for x in (planes, texels, together, planes.double())]
    assert all(torch.equal(picture, pictures[0]) for picture in pictures)


def test_neither_batch_nor_threads_change_a_picture() -> None:
    planes, decoder, rays = scene(batch=2, resolution=33)
    layers, threads = fused.TwoLayers.of(decoder.layers()), torch.get_num_threads()
    together = fused.render_fused(planes, layers, rays, OPTIONS)
    alone = fused.render_fused(planes[1:], layers, Rays(rays.origins[1:], rays.directions[1:]), OPTIONS)
    assert torch.equal(together.features[1:], alone.features)
    try:
        torch.set_num_threads(3)
        shared = fused.render_fused(planes, layers, rays, OPTIONS)
    finally:
        torch.set_num_threads(threads)
    for field in ("features", "depth", "alpha"):
        assert torch.equal(getattr(shared, field), getattr(together, field))


def test_a_second_picture_leaves_the_first_alone() -> None:
    planes, decoder, rays = scene()
    layers = fused.TwoLayers.of(decoder.layers())
    first = fused.render_fused(planes, layers, rays, OPTIONS)
    kept = first.features.clone()
    fused.render_fused(-planes, layers, rays, OPTIONS)
    assert torch.equal(first.features, kept)


def test_what_needs_the_reference_is_said() -> None:
    assert fused.why_not(OPTIONS) is None
    assert fused.why_not(dataclasses.replace(OPTIONS, samples_coarse=3, samples_fine=0)) is None
    assert "at least 4" in (fused.why_not(dataclasses.replace(OPTIONS, samples_coarse=3)) or "")


def test_rays_that_meet_nothing_are_not_ordered() -> None:
    directions = torch.nn.functional.normalize(torch.tensor([[[1.0, 0.01, -0.01]]]), dim=-1)
    away = Rays(torch.full((1, 1, 3), 9.0), directions)
    auto = dataclasses.replace(OPTIONS, near=None, far=None)
    assert fused.are_ordered(away, OPTIONS)
    assert not fused.are_ordered(away, auto)


def test_polynomials_are_as_exact_as_said() -> None:
    x = np.concatenate([np.linspace(-90, 90, 20001), np.linspace(-1, 1, 2001)]).astype(np.float32)
    exact = x.astype(np.float64)
    for value in np.random.default_rng(0).choice(len(x), 500, replace=False):
        assert abs(compiled._softplus(x[value]) - np.logaddexp(0, exact[value])) < 5e-7 + 1e-7 * abs(exact[value])
        negative = -abs(exact[value])
        assert abs(compiled.exp(np.float32(negative)) - np.exp(negative)) < 2e-7

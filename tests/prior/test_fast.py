"""Whole pictures by the fast twins: generators of all kinds, the shipped one among them."""

import dataclasses
from pathlib import Path

import pytest
import torch

import talk3d
from talk3d.prior import fast
from talk3d.prior.generator import MINI, Generator, Profile, load_prior
from talk3d.prior.superres import SuperResolutionConfig

pytest.importorskip("talk3d.render.fused", reason="numba is not installed")

TINY = dataclasses.replace(
    MINI,
    z_dim=6,
    w_dim=8,
    mapping_features=8,
    plane_resolution=16,
    plane_channels=4,
    channel_base=64,
    channel_max=8,
    decoder_hidden=10,
    decoder_features=5,
    neural_resolution=12,
    superres=SuperResolutionConfig(input_resolution=12, widths=(6, 4), first_up=True, clamp=None, border=3),
)


def generator(profile: Profile) -> Generator:
    torch.manual_seed(0)
    return Generator(profile).eval().requires_grad_(False)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(4 / (a - b).square().mean()))


@pytest.mark.parametrize("alpha", [True, False])
@pytest.mark.parametrize("axes", ["aligned", "eg3d"])
@pytest.mark.parametrize("near", [2.25, None])
def test_pictures_equal_the_plain_generators(alpha: bool, axes: str, near: float | None) -> None:
    render = dataclasses.replace(TINY.render, plane_axes=axes, near=near, far=None if near is None else 3.2)
    model = generator(dataclasses.replace(TINY, alpha=alpha, render=render))
    ws = model.map(torch.randn(1, 6))
    planes = 3 * model.planes(ws).expand(2, -1, -1, -1, -1)
    orbit = TINY.orbit
    camera = orbit.pose(torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.0])), orbit.intrinsics().expand(2, 3, 3)
    assert fast.why_not(model) is None
    picture = fast.FastPainter(model, ws, torch.float32)(planes, *camera)
    raw = model.render(planes, *camera, deterministic=True)
    image = model.superresolve(raw.features, raw.rgb, raw.alpha, ws.expand(2, -1, -1))
    for name in ("features", "rgb", "depth", "alpha"):
        torch.testing.assert_close(getattr(picture.raw, name), getattr(raw, name), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(picture.image, image, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("alpha", [True, False])
def test_what_draws_on_other_devices_draws_the_same(alpha: bool) -> None:
    """On the CPU with plain rendering; whole batches are enlarged at once."""
    model = generator(dataclasses.replace(TINY, alpha=alpha))
    ws = model.map(torch.randn(1, 6))
    planes = 3 * model.planes(ws).expand(2, -1, -1, -1, -1)
    orbit = TINY.orbit
    camera = orbit.pose(torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.0])), orbit.intrinsics().expand(2, 3, 3)
    picture = fast.DevicePainter(model, ws, torch.float32)(planes, *camera)
    raw = model.render(planes, *camera, deterministic=True)
    image = model.superresolve(raw.features, raw.rgb, raw.alpha, ws.expand(2, -1, -1))
    assert torch.equal(picture.raw.features, raw.features)
    torch.testing.assert_close(picture.image, image, atol=1e-4, rtol=1e-4)
    coarse = fast.DevicePainter(model, ws, torch.bfloat16)(planes, *camera)
    assert 30 < psnr(coarse.image, image) < 90


def test_people_of_the_shipped_prior() -> None:
    model = load_prior(Path(talk3d.__file__).parent / "assets" / "prior").generator
    ws = model.map(model.random_latents(2, seed=4))
    orbit = model.profile.orbit
    camera = orbit.pose(torch.tensor([0.25]), torch.tensor([-0.1])), orbit.intrinsics()[None]
    with torch.no_grad():
        for w in ws.split(1):
            planes = model.planes(w)
            raw = model.render(planes, *camera, deterministic=True)
            plain = model.superresolve(raw.features, raw.rgb, raw.alpha, w)
            assert psnr(fast.FastPainter(model, w, torch.float32)(planes, *camera).image, plain) > 70
            assert psnr(fast.FastPainter(model, w, torch.bfloat16)(planes, *camera).image, plain) > 55


def test_a_camera_that_looks_past_everything_gets_the_plain_picture() -> None:
    """With limits from the box and no ray that meets it, samples are in no order; only the reference draws that."""
    model = generator(dataclasses.replace(TINY, render=dataclasses.replace(TINY.render, near=None, far=None)))
    ws = model.map(torch.randn(1, 6))
    pose = TINY.orbit.pose(torch.zeros(1), torch.zeros(1))
    pose[:, :3, 3] = torch.tensor([9.0, 0.0, 3.0])
    planes, intrinsics = model.planes(ws), TINY.orbit.intrinsics()[None]
    picture = fast.FastPainter(model, ws, torch.float32)(planes, pose, intrinsics)
    raw = model.render(planes, pose, intrinsics, deterministic=True)
    torch.testing.assert_close(picture.raw.features, raw.features, equal_nan=True)  # 0 / 0 along such rays


def test_what_needs_the_plain_path_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    few = dataclasses.replace(TINY, render=dataclasses.replace(TINY.render, samples_coarse=3))
    assert "coarse samples" in (fast.why_not(generator(few)) or "")
    monkeypatch.setattr(fast, "fused", None)
    assert "numba" in (fast.why_not(generator(TINY)) or "")

"""The compiled renderer that learns against the reference: values, and gradients of everything that can learn."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from talk3d.camera import Orbit
from talk3d.prior.generator import Decoder

learnt = pytest.importorskip("talk3d.render.learnt", reason="numba is not installed")

from talk3d.render.rays import Rays, generate_rays  # noqa: E402
from talk3d.render.reference import Rendering, RenderOptions, render  # noqa: E402

OPTIONS = RenderOptions(samples_coarse=16, samples_fine=16, near=2.25, far=3.2)
NAMES = ("features", "depth", "alpha")


def scene(gain: float = 4.0, channels: int = 5, features: int = 3) -> tuple[Tensor, Decoder, Rays, Tensor, Tensor]:
    """Smooth planes higher than wide, a decoder whose sizes fill no vector, cameras from two sides, random samples."""
    torch.manual_seed(2)
    planes = torch.nn.functional.interpolate(4 * torch.randn(6, channels, 7, 5), (14, 11), mode="bilinear").unflatten(0, (2, 3))
    decoder = Decoder(channels, 11, features, density_gain=gain)
    for parameter in decoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    orbit = Orbit()
    rays = generate_rays(
        orbit.pose(torch.tensor([-0.6, 0.5]), torch.tensor([-0.2, 0.3])), orbit.intrinsics().expand(2, 3, 3), 7
    )
    return planes, decoder, rays, torch.rand(2, 49, 16), torch.rand(2, 49, 16)


def differentiate(
    planes: Tensor, decoder: Decoder, rays: Rays, jitter: Tensor, u: Tensor, options: RenderOptions, wanted: dict[str, Tensor],
    fast: bool,
) -> tuple[Rendering, dict[str, Tensor]]:  # fmt: skip
    """What rays see, and the gradients of a random weighing of it."""
    asked = {"planes": planes, "origins": rays.origins, "directions": rays.directions}
    asked = {name: value.clone().requires_grad_() for name, value in asked.items()}
    moved = Rays(asked["origins"], asked["directions"])
    asked |= dict(decoder.named_parameters())
    jitter, u = jitter[..., : options.samples_coarse], u[..., : options.samples_fine]
    if fast:
        seen = learnt.render_learnt(asked["planes"], decoder.layers(), moved, options, jitter, u)
    else:
        seen = render(asked["planes"], decoder, moved, options, deterministic=False, jitter=jitter, u=u)
    total = torch.stack([(wanted[name] * getattr(seen, name)).sum() for name in wanted]).sum()
    return seen, dict(zip(asked, torch.autograd.grad(total, list(asked.values())), strict=True))


def assert_near(fast: dict[str, Tensor], plain: dict[str, Tensor], bound: float = 2e-3) -> None:
    for name, expected in plain.items():
        assert expected.norm() > 0, name
        assert (fast[name] - expected).norm() < bound * expected.norm(), name


@pytest.mark.parametrize(
    ("axes", "counts", "white_back", "disparity"),
    list(itertools.product(["eg3d", "aligned"], [(16, 16), (12, 0), (5, 7)], [False, True], [False, True])),
)
def test_values_and_gradients_equal_the_references(
    axes: str, counts: tuple[int, int], white_back: bool, disparity: bool
) -> None:
    planes, decoder, rays, jitter, u = scene()
    options = RenderOptions(*counts, 2.25, 3.2, 0.9, axes, white_back, disparity)  # type: ignore[arg-type]
    wanted = {"features": torch.randn(2, 49, 3), "depth": torch.randn(2, 49, 1), "alpha": torch.randn(2, 49, 1)}
    plain, slopes = differentiate(planes, decoder, rays, jitter, u, options, wanted, fast=False)
    fast, found = differentiate(planes, decoder, rays, jitter, u, options, wanted, fast=True)
    assert 0.05 < float(plain.alpha.mean()) < 0.95
    for name in NAMES:
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), atol=2e-4, rtol=1e-4)
    assert_near(found, slopes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gain", [0.5, 60.0])
def test_each_output_by_itself_in_fog_and_at_surfaces(name: str, gain: float) -> None:
    planes, decoder, rays, jitter, u = scene(gain, channels=16, features=16)
    with torch.no_grad():
        shape = getattr(render(planes, decoder, rays, OPTIONS, deterministic=False, jitter=jitter, u=u), name).shape
    wanted = {name: torch.randn(shape)}
    _, slopes = differentiate(planes, decoder, rays, jitter, u, OPTIONS, wanted, fast=False)
    _, found = differentiate(planes, decoder, rays, jitter, u, OPTIONS, wanted, fast=True)
    # Depth and opacity say nothing of colours; the reference's gradient there is exactly nothing.
    asked = {key: value for key, value in slopes.items() if value.norm() > 0}
    assert_near({key: found[key] for key in asked}, asked, 5e-3)


def test_threads_and_shared_planes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    planes, decoder, rays, jitter, u = scene()
    wanted = {"features": torch.randn(2, 49, 3)}
    shared = planes[:1].expand(2, -1, -1, -1, -1)
    _, alone = differentiate(shared, decoder, rays, jitter, u, OPTIONS, wanted, fast=True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    _, together = differentiate(shared, decoder, rays, jitter, u, OPTIONS, wanted, fast=True)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0.0, atol=0.0)
    one = shared[:1].clone().requires_grad_()
    seen = learnt.render_learnt(one.expand(2, -1, -1, -1, -1), decoder.layers(), rays, OPTIONS, jitter, u)
    (slope,) = torch.autograd.grad((wanted["features"] * seen.features).sum(), one)
    torch.testing.assert_close(slope[0], alone["planes"].sum(0), rtol=1e-4, atol=1e-5)


def test_planes_are_read_however_they_lie() -> None:
    planes, decoder, rays, jitter, u = scene()
    by_pixels = planes.flatten(1, 2).contiguous(memory_format=torch.channels_last).unflatten(1, (3, -1))
    assert by_pixels.stride(2) == 1
    for lying in (planes, by_pixels):
        seen = learnt.render_learnt(lying, decoder.layers(), rays, OPTIONS, jitter, u)
        plain = render(planes, decoder, rays, OPTIONS, deterministic=False, jitter=jitter, u=u)
        torch.testing.assert_close(seen.features, plain.features, atol=2e-4, rtol=1e-4)


def test_it_says_what_needs_the_reference() -> None:
    planes = torch.zeros(1, 3, 4, 8, 8)
    assert learnt.why_not(OPTIONS, planes) is None
    assert "single precision" in str(learnt.why_not(OPTIONS, planes.double()))
    assert "box" in str(learnt.why_not(RenderOptions(near=None), planes))
    assert "coarse" in str(learnt.why_not(RenderOptions(samples_coarse=3, samples_fine=2), planes))
    assert "near to far" in str(learnt.why_not(RenderOptions(near=4.0), planes))


def test_the_process_that_compiles_computes_what_later_ones_do(tmp_path: Path) -> None:
    """Bit for bit, or a training that was killed on the day of its installation would go on along another course."""
    script = (
        "import hashlib, torch\n"
        "from talk3d.prior.generator import Decoder\n"
        "from talk3d.render.learnt import render_learnt\n"
        "from talk3d.render.rays import Rays\n"
        "from talk3d.render.reference import RenderOptions\n"
        "torch.manual_seed(0)\n"
        "planes = (3 * torch.randn(1, 3, 16, 32, 32)).requires_grad_()\n"
        "origins = torch.tensor([0.0, 0.0, 2.7]) + 0.01 * torch.randn(1, 200, 3)\n"
        "directions = torch.nn.functional.normalize(torch.tensor([0.0, 0.0, -1.0]) + 0.1 * torch.randn(1, 200, 3), dim=-1)\n"
        "options = RenderOptions(samples_coarse=16, samples_fine=16, near=2.25, far=3.2)\n"
        "seen = render_learnt(planes, Decoder(16, 32, 16, density_gain=20.0).layers(), Rays(origins, directions), options)\n"
        "(slope,) = torch.autograd.grad(seen.features.square().sum(), planes)\n"
        "for value in (seen.features, slope):\n"
        "    print(hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest())\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    )
    assert len(first.split()) == 2
    assert list(tmp_path.rglob("*.nbi")), "the second one read what the first one compiled"
    assert first == second

"""Kernels that compute something else, or nothing at all, are found out before they draw; right ones are not accused."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from talk3d.camera import Orbit
from talk3d.prior.generator import MINI, Generator
from talk3d.render import gpu, selfcheck
from talk3d.render.layers import Layers
from talk3d.render.rays import Rays, rays_through
from talk3d.render.reference import Rendering, RenderOptions, render

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPTIONS = RenderOptions(samples_coarse=4, samples_fine=2, near=2.25, far=3.2)


def scene(gradients: bool = True) -> tuple[Tensor, Layers, Rays]:
    torch.manual_seed(1)
    sizes = [(1, 3, 4, 8, 8), (6, 4), (6,), (4, 6), (4,)]
    planes, *layers = (torch.randn(size, device=DEVICE).requires_grad_(gradients) for size in sizes)
    rays = rays_through(Orbit().pose(torch.zeros(1), torch.zeros(1)), Orbit().intrinsics()[None], torch.rand(1, 9, 2))
    return planes, Layers(*layers), Rays(rays.origins.contiguous().to(DEVICE), rays.directions.to(DEVICE))


def faulty(fault: Callable[[Tensor], Tensor]) -> Callable[..., Rendering]:
    """The reference, with something done to its features."""

    def drawn(planes: Tensor, layers: Layers, *arguments: Any, **places: Any) -> Rendering:
        seen = render(planes, layers.decode, *arguments, **places)
        return dataclasses.replace(seen, features=fault(seen.features))

    return drawn


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "_verdicts", {})


def test_the_kernels_pass() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert selfcheck.is_trusted(*scene(), OPTIONS)
    with torch.inference_mode():
        assert selfcheck.disagreement(*scene(gradients=False), OPTIONS) is None


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda x: x + 0.01, "features differ"),
        (lambda x: x * torch.nan, "features differ by nan|features differ .* nan"),
        (lambda x: x + (x - x.detach()), "gradients differ"),  # the same value with twice the slope
    ],
)
def test_wrong_values_and_wrong_gradients_are_noticed(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[Tensor], Tensor], said: str
) -> None:
    monkeypatch.setattr(selfcheck, "render_gpu", faulty(lambda x: x))
    assert selfcheck.disagreement(*scene(), OPTIONS) is None
    monkeypatch.setattr(selfcheck, "render_gpu", faulty(fault))
    with pytest.warns(RuntimeWarning, match=said):
        assert not selfcheck.is_trusted(*scene(), OPTIONS)


def test_a_compiler_that_fails_is_named_once_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fail(*arguments: Any, **places: Any) -> Rendering:
        asked.append(1)
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(selfcheck, "render_gpu", fail)
    with pytest.warns(RuntimeWarning, match="out of resource: shared memory"):
        assert not selfcheck.is_trusted(*scene(), OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not selfcheck.is_trusted(*scene(), OPTIONS)
    assert len(asked) == 1


def test_gradients_are_checked_when_they_are_first_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing and training need different kernels: one verdict does not do for both."""
    monkeypatch.setattr(selfcheck, "render_gpu", faulty(lambda x: x + (x - x.detach())))
    with torch.no_grad():
        assert selfcheck.is_trusted(*scene(), OPTIONS)
    with pytest.warns(RuntimeWarning, match="gradients"):
        assert not selfcheck.is_trusted(*scene(), OPTIONS)


def test_a_generator_draws_with_kernels_that_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = dataclasses.replace(
        MINI, plane_channels=4, decoder_hidden=6, decoder_features=3, render=OPTIONS, channel_base=512, channel_max=4,
    )  # fmt: skip
    generator, (planes, _, rays) = Generator(profile).to(DEVICE), scene()
    plain = generator.render_rays(planes, rays, deterministic=True) if DEVICE.type == "cpu" else None
    monkeypatch.setattr(gpu, "why_not", gpu.not_covered)
    seen = generator.render_rays(planes, rays, deterministic=True)
    assert "_MarchBackward" in str(seen.alpha.grad_fn.next_functions)
    seen.features.sum().backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in generator.decoder.parameters())
    if plain is not None:
        torch.testing.assert_close(seen.features, plain.features, atol=2e-5, rtol=1e-4)
    monkeypatch.setattr(selfcheck, "_verdicts", dict.fromkeys(selfcheck._verdicts, False))
    seen = generator.render_rays(planes, rays, deterministic=True)
    assert "_MarchBackward" not in str(seen.alpha.grad_fn.next_functions)

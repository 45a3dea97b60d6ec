"""Super-resolution that learns against the plain module: values, and gradients of inputs, weights and the style."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from talk3d.prior.learnt import enlarge_learnt
from talk3d.prior.superres import SuperResolution, SuperResolutionConfig

SMALL = SuperResolutionConfig(input_resolution=16, widths=(6, 4), first_up=True, clamp=None)


def module(config: SuperResolutionConfig) -> SuperResolution:
    torch.manual_seed(3)
    network = SuperResolution(config, features=5, image_channels=4, w_dim=8)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("bias"):
                value.normal_()
    return network


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Of three windows, smaller than what whole pictures are resized to."""
    shapes = (3, 5, 12, 12), (3, 4, 12, 12), (1, 3, 8)
    features, skip, ws = (torch.randn(shape).requires_grad_() for shape in shapes)
    return features, skip, ws


def slopes(image: Tensor, network: SuperResolution, given: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Of a random weighing of the picture."""
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(7))
    named = dict(network.named_parameters()) | dict(zip(("features", "skip", "ws"), given, strict=True))
    found = torch.autograd.grad((weights * image).sum(), list(named.values()), allow_unused=True)
    return {name: value for name, value in zip(named, found, strict=True) if value is not None}


@pytest.mark.parametrize("first_up", [True, False])
@pytest.mark.parametrize("clamp", [None, 0.5])
def test_pictures_and_gradients_equal_the_plain_modules(first_up: bool, clamp: float | None) -> None:
    network, given = module(dataclasses.replace(SMALL, first_up=first_up, clamp=clamp)), inputs()
    features, skip, ws = given
    plain = network(features, skip, ws.expand(3, -1, -1), patch=True)
    fast = enlarge_learnt(network, features, skip, ws)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    expected, found = slopes(plain, network, given), slopes(fast, network, given)
    assert set(found) == set(expected)
    assert set(found) > {"features", "skip", "ws", "block1.conv0.bias", "block0.conv1.affine.weight", "block0.torgb.weight"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5 * float(value.abs().max()), rtol=1e-3, msg=name)


def test_half_precision_is_stays_near() -> None:
    network, given = module(SMALL), inputs()
    features, skip, ws = given
    exact = network(features, skip, ws.expand(3, -1, -1), patch=True)
    half = enlarge_learnt(network, features, skip, ws, torch.bfloat16)
    assert half.dtype == torch.float32
    assert 0 < float((half - exact).detach().std()) < 0.02 * float(exact.detach().std())
    expected, found = slopes(exact, network, given), slopes(half, network, given)
    assert all(value.dtype == torch.float32 for value in found.values())
    for name in ("features", "ws", "block0.conv0.weight", "block1.conv1.bias"):
        assert float((found[name] - expected[name]).norm()) < 0.1 * float(expected[name].norm()), name


def test_a_fixed_module_passes_gradients_on() -> None:
    """Super-resolution begins to learn late; what is before it learns through it from the start."""
    network, (features, skip, ws) = module(SMALL).requires_grad_(False), inputs()
    enlarge_learnt(network, features, skip, ws.detach()).square().sum().backward()
    assert features.grad is not None
    assert float(features.grad.abs().min(1).values.max()) > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_little_is_kept_for_the_way_back() -> None:
    """What each layer gives, in half precision."""
    network, (features, skip, ws) = module(SMALL), inputs()

    def kept(image: Callable[[], Tensor]) -> int:
        sizes: dict[int, int] = {}

        def keep(value: Tensor) -> Tensor:
            sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            image()
        return sum(sizes.values())

    small = kept(lambda: enlarge_learnt(network, features, skip, ws, torch.bfloat16))
    large = kept(lambda: network(features, skip, ws.expand(3, -1, -1), patch=True))
    assert 4 * small < large

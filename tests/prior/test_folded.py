"""Folded super-resolution against the plain module, over all layouts."""

import dataclasses

import pytest
import torch
from torch import Tensor

from talk3d.prior.folded import FoldedSuperResolution, faster_precision
from talk3d.prior.superres import SuperResolution, SuperResolutionConfig

SMALL = SuperResolutionConfig(input_resolution=16, widths=(6, 4), first_up=True, clamp=None)


def module(config: SuperResolutionConfig) -> SuperResolution:
    torch.manual_seed(3)
    network = SuperResolution(config, features=5, image_channels=4, w_dim=8).requires_grad_(False)
    for name, value in network.named_parameters():
        if name.endswith("bias"):
            value.normal_()
    return network


def inputs(size: int = 16, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(batch, 5, size, size) * 2 - 1, torch.rand(batch, 4, size, size) * 2 - 1, torch.randn(1, 3, 8)


@pytest.mark.parametrize("first_up", [True, False])
@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("size", [16, 12, 20])
def test_pictures_equal_the_plain_modules(first_up: bool, clamp: float | None, border: int, size: int) -> None:
    config = dataclasses.replace(SMALL, first_up=first_up, clamp=clamp, border=border, resize_larger=size != 20)
    network, (features, skip, ws) = module(config), inputs(size, batch=2)
    fast = FoldedSuperResolution(network, ws, torch.float32)(features, skip)
    torch.testing.assert_close(fast, network(features, skip, ws.expand(2, -1, -1)), atol=1e-5, rtol=1e-5)


def test_half_precision_differs_by_two_hundredths_at_most() -> None:
    network, (features, skip, ws) = module(SMALL), inputs()
    fast = FoldedSuperResolution(network, ws, torch.bfloat16)(features, skip)
    plain = network(features, skip, ws)
    assert fast.dtype == torch.float32
    assert 0 < float((fast - plain).square().mean()) < 0.02**2 * float(plain.square().mean())


def test_weights_are_copied_and_inputs_left_alone() -> None:
    network, (features, skip, ws) = module(SMALL), inputs()
    fast = FoldedSuperResolution(network, ws, torch.float32)
    kept = features.clone(), skip.clone()
    first = fast(features, skip)
    held = first.clone()
    network.block1.conv1.weight.zero_()
    assert torch.equal(fast(features, skip), held)
    fast(-features, -skip)
    assert torch.equal(first, held)
    assert torch.equal(features, kept[0])
    assert torch.equal(skip, kept[1])


@pytest.mark.parametrize(
    ("names", "dtype"), [((), torch.float32), (("avx512_bf16",), torch.bfloat16), (("amx_tile",), torch.bfloat16)]
)
def test_half_precision_is_for_processors_that_have_it(
    names: tuple[str, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in names, raising=False)
    assert faster_precision() == dtype
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")  # an older torch
    assert faster_precision() in (dtype, torch.float32)

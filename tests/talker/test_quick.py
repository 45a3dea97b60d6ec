"""The U-Net that learns against the plain one: values, and gradients of every weight."""

import dataclasses

import pytest
import torch
from torch import Tensor

from talk3d.talker.audio import AudioConfig
from talk3d.talker.delta import DeltaConfig, DeltaNetwork
from talk3d.talker.folded import why_not
from talk3d.talker.quick import QuickDelta, delta_of
from talk3d.talker.tokens import Conditions, TokenConfig
from talk3d.talker.unet import OFFICIAL, UNetConfig

SMALL = UNetConfig(plane_channels=4, plane_size=32, down=(4, 6, 8), up=(6, 4, 4), heads=2, token_width=16)


def network(config: UNetConfig, expressions: tuple[str, ...] = ("jawOpen", "eyeBlink")) -> DeltaNetwork:
    torch.manual_seed(3)
    model = DeltaNetwork(DeltaConfig(AudioConfig(), TokenConfig(width=16), config, expressions)).eval()
    unet = model.unet
    assert unet.out.bias is not None
    with torch.no_grad():
        for value in (unet.out.weight, unet.out.bias, unet.constant, model.modes.planes, model.modes.sound):
            value.normal_()
        unet.scale.fill_(1.7)
    return model


def told(batch: int = 3) -> Conditions:
    torch.manual_seed(5)
    return Conditions(torch.randn(batch, 16), torch.rand(batch), 0.3 * torch.randn(batch, 2), torch.randn(batch, 4))


def slopes(model: DeltaNetwork, delta: Tensor) -> dict[str, Tensor]:
    """Of a random weighing of the delta planes."""
    weights = torch.randn(delta.shape, generator=torch.Generator().manual_seed(7))
    named = dict(model.named_parameters())
    found = torch.autograd.grad((weights * delta).sum(), list(named.values()), allow_unused=True)
    return {name: value for name, value in zip(named, found, strict=True) if value is not None}


@pytest.mark.parametrize("rollout", ["aligned", "official"])
@pytest.mark.parametrize("expressions", [("jawOpen", "eyeBlink"), ()])
@pytest.mark.parametrize("blocks", [1, 2])
def test_deltas_and_gradients_equal_the_plain_networks(rollout: str, expressions: tuple[str, ...], blocks: int) -> None:
    model = network(dataclasses.replace(SMALL, rollout=rollout, blocks=blocks), expressions)
    planes, conditions = torch.randn(1, 3, 4, 32, 32), told()
    plain = model(model.unet.trunk(planes), conditions) / model.unet.scale
    quick = QuickDelta(model)(planes, conditions)
    assert float(plain.detach().std()) > 0.5
    torch.testing.assert_close(quick, plain, atol=1e-4, rtol=1e-4)
    expected, found = slopes(model, plain), slopes(model, quick)
    assert set(found) == set(expected)
    assert {name.split(".")[1] for name in found if name.startswith("unet.")} >= {
        "down1",
        "up1",
        "blocks",
        "constant",
        "position",
    }
    largest = max(float(value.norm()) for value in expected.values())
    for name, value in expected.items():
        # What cancels out, as a shift before a normalisation does, is rounding in both.
        assert (found[name] - value).norm() < 1e-3 * value.norm() + 1e-6 * largest, name


def test_half_precision_stays_near() -> None:
    model, planes, conditions = network(SMALL), torch.randn(1, 3, 4, 32, 32), told()
    plain = QuickDelta(model)(planes, conditions)
    half = QuickDelta(model, torch.bfloat16)(planes, conditions)
    assert half.dtype == torch.float32
    assert 0 < float((half - plain).detach().std()) < 0.01 * float(plain.detach().std())


def test_weights_are_those_of_the_moment() -> None:
    model, planes, conditions = network(SMALL), torch.randn(1, 3, 4, 32, 32), told()
    quick = QuickDelta(model)
    before = quick(planes, conditions)
    with torch.no_grad():
        model.unet.up3.conv0.weight.mul_(1.5)
    after = quick(planes, conditions)
    assert float((after - before).detach().abs().max()) > 0.1
    torch.testing.assert_close(after, model(model.unet.trunk(planes), conditions) / model.unet.scale, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("change", [{"convolution": "joint"}, {"rollout": "off"}, {"normalisation": "batch"}])
def test_other_networks_learn_as_they_are(change: dict[str, str]) -> None:
    config = dataclasses.replace(SMALL, **change)  # type: ignore[arg-type]
    assert why_not(config)
    assert why_not(OFFICIAL)
    model, planes, conditions = network(config), torch.randn(1, 3, 4, 32, 32), told()
    plain = model(model.unet.trunk(planes), conditions) / model.unet.scale
    torch.testing.assert_close(delta_of(model, torch.float32)(planes, conditions, True), plain)


def test_the_path_down_may_learn_in_some_steps_only() -> None:
    """Values and all other gradients are the same, whether it does or not."""
    model, planes, conditions = network(SMALL), torch.randn(1, 3, 4, 32, 32), told()
    quick = QuickDelta(model)
    all_of_it = slopes(model, quick(planes, conditions))
    for _ in range(2):  # made, and kept
        delta = quick(planes, conditions, False)
        torch.testing.assert_close(delta, quick(planes, conditions), atol=0, rtol=0)
        delta = quick(planes, conditions, False)
        some = slopes(model, delta)
        descent = {name for name in all_of_it if name.startswith(("unet.down", "unet.norm"))}
        assert {name for name in all_of_it if name not in some} == descent
        for name, value in some.items():
            torch.testing.assert_close(value, all_of_it[name], atol=0, rtol=0)


def test_what_the_path_down_gave_is_made_anew_once_it_has_learnt() -> None:
    model, planes, conditions = network(SMALL), torch.randn(1, 3, 4, 32, 32), told()
    quick = QuickDelta(model)
    before = quick(planes, conditions, False)
    with torch.no_grad():
        model.unet.down2.conv0.weight.mul_(2)
    torch.testing.assert_close(quick(planes, conditions, False), before, atol=0, rtol=0)
    after = quick(planes, conditions)
    assert float((after - before).detach().std()) > 0.01
    torch.testing.assert_close(quick(planes, conditions, False), after, atol=0, rtol=0)

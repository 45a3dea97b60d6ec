"""Folded planes against the plain network: value, and what may not depend on what."""

import dataclasses

import pytest
import torch

from talk3d.render.fused import texel_planes
from talk3d.talker.audio import AudioConfig
from talk3d.talker.delta import DeltaConfig, DeltaNetwork
from talk3d.talker.folded import FoldedDelta, why_not
from talk3d.talker.tokens import Conditions, TokenConfig
from talk3d.talker.unet import OFFICIAL, UNetConfig

SMALL = UNetConfig(plane_channels=4, plane_size=32, down=(4, 6, 8), up=(6, 4, 4), heads=2, token_width=16)


def network(config: UNetConfig, expressions: tuple[str, ...] = ("jawOpen", "eyeBlink")) -> DeltaNetwork:
    torch.manual_seed(2)
    model = DeltaNetwork(DeltaConfig(AudioConfig(), TokenConfig(width=16), config, expressions)).eval().requires_grad_(False)
    for value in (model.unet.out.weight, model.unet.out.bias, model.unet.constant, model.modes.planes, model.modes.sound):
        value.normal_()
    model.unet.scale.fill_(1.7)
    return model


def told(batch: int = 3) -> Conditions:
    torch.manual_seed(5)
    return Conditions(torch.randn(batch, 16), torch.rand(batch), 0.3 * torch.randn(batch, 2), torch.randn(batch, 4))


@pytest.mark.parametrize("rollout", ["aligned", "official"])
@pytest.mark.parametrize("expressions", [("jawOpen", "eyeBlink"), ()])
@pytest.mark.parametrize("blocks", [1, 2])
def test_planes_equal_the_plain_networks(rollout: str, expressions: tuple[str, ...], blocks: int) -> None:
    model = network(dataclasses.replace(SMALL, rollout=rollout, blocks=blocks), expressions)
    planes = torch.randn(1, 3, 4, 32, 32)
    trunk, conditions = model.unet.trunk(planes), told()
    moved = FoldedDelta(model, planes, trunk, torch.float32)(conditions)
    plain = planes + model(trunk, conditions)
    assert float((plain - planes).std()) > 1
    torch.testing.assert_close(moved, plain, atol=1e-4, rtol=1e-4)
    assert moved.stride() == texel_planes(3, 4, 32, 32).stride(), "as the compiled renderer reads planes"


def test_half_precision_moves_planes_by_a_hundredth_of_the_delta_at_most() -> None:
    model, planes = network(SMALL), torch.randn(1, 3, 4, 32, 32)
    trunk, conditions = model.unet.trunk(planes), told()
    delta = model(trunk, conditions)
    error = FoldedDelta(model, planes, trunk, torch.bfloat16)(conditions) - planes - delta
    assert 0 < float(error.std()) < 0.01 * float(delta.std())


def test_neither_batch_nor_a_later_call_changes_planes() -> None:
    model, planes = network(SMALL), torch.randn(1, 3, 4, 32, 32)
    fast = FoldedDelta(model, planes, model.unet.trunk(planes), torch.float32)
    conditions = told()
    together = fast(conditions)
    kept = together.clone()
    one = Conditions(*(getattr(conditions, field.name)[1:2] for field in dataclasses.fields(conditions)))
    torch.testing.assert_close(fast(one), kept[1:2], atol=1e-5, rtol=1e-5)
    assert torch.equal(together, kept)


def test_what_needs_the_plain_path_is_said() -> None:
    assert why_not(SMALL) is None
    assert "Talk3D" in (why_not(dataclasses.replace(SMALL, normalisation="batch")) or "")
    assert "Talk3D" in (why_not(OFFICIAL) or "")
    assert "roll-out" in (why_not(dataclasses.replace(SMALL, convolution="joint")) or "")
    assert "roll-out" in (why_not(dataclasses.replace(SMALL, rollout="off")) or "")

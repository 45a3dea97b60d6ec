"""Expression modes: the prior's own movements, bounded, each driven by what it belongs to."""

import copy

import pytest
import torch

from talk3d.prior.subject import Subject
from talk3d.talker.modes import LIMIT, ExpressionModes
from tests.conftest import TINY

NAMES = ("jawOpen", "eyeBlink")


@pytest.fixture
def modes() -> ExpressionModes:
    torch.manual_seed(4)
    modes = ExpressionModes(NAMES, 8, TINY.plane_channels, TINY.plane_resolution)
    torch.nn.init.normal_(modes.sound)
    torch.nn.init.normal_(modes.planes)
    return modes


def test_untrained_sound_moves_nothing_and_a_blink_closes_the_eyes() -> None:
    fresh = ExpressionModes(NAMES, 8, TINY.plane_channels, TINY.plane_resolution)
    amounts = fresh.amounts(torch.randn(3, 8), torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(amounts[:, 0], torch.zeros(3))
    assert amounts[0, 1] == 0
    assert torch.equal(amounts[:, 1], torch.tensor([0.0, 0.5, 1.0]))


def test_speech_moves_the_mouth_alone_and_a_blink_the_eyes_alone(modes: ExpressionModes) -> None:
    code, blink = torch.randn(1, 8).expand(2, -1), torch.tensor([0.0, 1.0])
    by_blink = modes.amounts(code, blink)
    assert by_blink[0, 0] == by_blink[1, 0]
    assert by_blink[0, 1] != by_blink[1, 1]
    by_sound = modes.amounts(torch.randn(2, 8), torch.ones(2))
    assert by_sound[0, 0] != by_sound[1, 0]
    assert by_sound[0, 1] == by_sound[1, 1]


def test_no_sound_plays_an_expression_beyond_the_limit(modes: ExpressionModes) -> None:
    amounts = modes.amounts(1e4 * torch.randn(16, 8), torch.ones(16))
    assert amounts.abs().max() <= LIMIT
    assert amounts[:, 0].abs().min() > 0.99 * LIMIT


def test_a_small_expression_is_what_the_generator_draws(tiny_subject: Subject) -> None:
    """The law of small movements: planes of the moved latent, to first order."""
    generator, ws = copy.deepcopy(tiny_subject.generator).double(), tiny_subject.ws.double()
    small = {name: 0.001 * direction.double() for name, direction in tiny_subject.expressions.items()}
    modes = ExpressionModes(NAMES, 8, TINY.plane_channels, TINY.plane_resolution).double()
    unit = torch.tensor(3.0)
    modes.start_from(generator, ws, small, unit)
    for index, name in enumerate(NAMES):
        with torch.no_grad():
            moved = generator.map(small[name][None]) - generator.map(torch.zeros(1, TINY.z_dim).double())
            expected = generator.planes(ws + moved)[0] - generator.planes(ws)[0]
        assert expected.abs().max() > 1e-5
        # Not element by element: a few pass a kink of an activation on the way.
        assert (modes.planes[index] * unit - expected).norm() < 0.1 * expected.norm()

"""Training losses: values worked out by hand, one number per sample, and order where order is expected."""

import math

import pytest
import torch
import torch.nn.functional as F

from talk3d.losses import (
    fooling,
    frame_difference,
    l1,
    l2,
    magnitude,
    slope,
    structure,
    unexplained_change,
    unlikeness,
)

TERMS = [l1, l2, structure]


def picture(seed: int = 0, size: int = 32, batch: int = 1) -> torch.Tensor:
    """Smooth shapes with some edges, in -1..1."""
    coarse = torch.rand(batch, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    smooth = F.interpolate(coarse, (size, size), mode="bilinear")
    return torch.where(smooth > 0.1, smooth, smooth - 0.4).clamp(-1, 1)


def blurred(x: torch.Tensor, radius: int) -> torch.Tensor:
    return F.avg_pool2d(F.pad(x, [radius] * 4, mode="reflect"), 2 * radius + 1, 1) if radius else x


def test_l1_and_l2_by_hand() -> None:
    x = torch.zeros(2, 1, 1, 4)
    y = torch.tensor([[1.0, -1.0, 0.5, 0.0], [2.0, 0.0, 0.0, 0.0]]).reshape(2, 1, 1, 4)
    assert l1(x, y).tolist() == [0.625, 0.5]
    assert l2(x, y).tolist() == [0.5625, 1.0]
    assert torch.equal(l1(x, y), l1(y, x))


def test_masked_means_by_hand() -> None:
    x = torch.zeros(1, 2, 1, 3)
    y = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 8.0]]).reshape(1, 2, 1, 3)
    mask = torch.tensor([1.0, 1.0, 0.0]).reshape(1, 1, 1, 3)
    assert l1(x, y, mask).tolist() == [1.5]  # (1 + 3 + 2 + 0) / 4
    assert l2(x, y, mask).tolist() == [3.5]  # (1 + 9 + 4 + 0) / 4
    # A full mask is no mask, and a soft one weighs.
    assert torch.equal(l1(x, y, torch.ones_like(mask)), l1(x, y))
    assert l1(x, y, torch.tensor([1.0, 0.0, 0.25]).reshape(1, 1, 1, 3)).item() == pytest.approx(7 / 2.5)


@pytest.mark.parametrize("term", [l1, l2])
def test_an_empty_mask_gives_zero_with_finite_gradients(term) -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    mask = torch.zeros(2, 1, 8, 8)
    mask[1, :, :4] = 1
    value = term(x, torch.zeros(2, 3, 8, 8), mask)
    assert value[0] == 0
    assert value[1] > 0
    value.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad[0].abs().sum() == 0
    assert x.grad[1, :, 4:].abs().sum() == 0


@pytest.mark.parametrize("term", TERMS)
def test_one_number_per_sample_whatever_the_batch(term) -> None:
    x, y = picture(1, batch=3), picture(2, batch=3)
    together = term(x, y)
    assert together.shape == (3,)
    alone = torch.cat([term(x[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("term", TERMS)
def test_equal_pictures_are_at_distance_zero(term) -> None:
    x = picture(3)
    assert term(x, x.clone()).abs().item() < 1e-6
    assert term(x, picture(4)).item() > 0.01


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("damage", ["noise", "blur", "shift"])
def test_more_damage_costs_more(term, damage: str) -> None:
    for seed in range(3):
        x = picture(seed)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        worse = {
            "noise": [x + amount * noise for amount in (0, 0.02, 0.05, 0.1, 0.2)],
            "blur": [blurred(x, radius) for radius in (0, 1, 2, 3)],
            "shift": [x.roll(pixels, -1) for pixels in (0, 1, 2, 3)],
        }[damage]
        costs = [term(y, x).item() for y in worse]
        assert costs == sorted(costs)
        assert costs[0] < 1e-6 < costs[1]


def test_structure_minds_lost_detail_more_than_wrong_values() -> None:
    """What it is there for: L1 calls a blurred picture better than a brighter one, the perceptual distance does not."""
    x = 0.5 + 0.2 * torch.sign(torch.randn(1, 3, 32, 32))
    brighter, soft = x + 0.25, blurred(x, 2)
    assert l1(brighter, x) > l1(soft, x)
    assert structure(brighter, x) < 0.5 * structure(soft, x)


def test_structure_by_hand() -> None:
    """Stripes of amplitude 1 and 1/2 around the same mean: SSIM is 2 r / (1 + r r), and each edge differs by 1."""
    stripes = torch.tensor([1.0, -1.0]).repeat(7).expand(1, 1, 14, 14)  # 14: the next octave is averaged away, to zeros
    distance = structure(stripes, 0.5 * stripes).item()
    # The box of 7 columns sees 4 stripes of one sign and 3 of the other: mean 1/7, variance 48/49.
    # Brightness is compared on a scale from 0 to 2.
    c1, c2, r, one, half, variance = 0.02**2, 0.06**2, 0.5, 1 + 1 / 7, 1 + 1 / 14, 48 / 49
    ssim = (2 * one * half + c1) / (one**2 + half**2 + c1)
    ssim *= (2 * r * variance + c2) / ((1 + r * r) * variance + c2)
    assert distance == pytest.approx((1 - ssim + 1.0) / 3, rel=1e-4)


def test_a_small_change_of_brightness_costs_little_at_mid_grey_too() -> None:
    def cost(level: float) -> float:
        grey = torch.full((1, 3, 32, 32), level)
        return structure(grey, grey + 0.1).item()

    for level in (-0.9, -0.05, 0.6):
        a, b = level + 1, level + 1.1
        assert cost(level) == pytest.approx(1 - (2 * a * b + 0.02**2) / (a * a + b * b + 0.02**2), rel=0.05)
    assert cost(-0.05) < 3 * cost(0.6)


def test_structure_skips_octaves_that_are_too_small() -> None:
    x, y = picture(6, 32), picture(7, 32)
    for size in (6, 7, 8, 13, 14, 20, 28):
        value = structure(x[..., :size, :size], y[..., :size, :size])
        assert torch.isfinite(value).all()
        assert (value.item() == 0) == (size < 7)


def test_gradients_of_structure_are_finite_everywhere() -> None:
    """Also in flat regions, where variances are zero."""
    x = torch.zeros(1, 3, 32, 32, requires_grad=True)
    structure(x, picture(8)).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


def test_magnitude_by_hand() -> None:
    delta = torch.zeros(2, 3, 1, 2, 2)
    delta[1, 0, 0, 0] = torch.tensor([3.0, -6.0])
    assert magnitude(delta).tolist() == [0.0, 0.75]


def test_magnitude_pulls_everything_towards_zero() -> None:
    delta = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    delta[0, 0] = 0.0
    weights = torch.tensor([2.0, -3.0], dtype=torch.float64)
    given = [delta.clone().requires_grad_() for _ in range(2)]
    (weights * magnitude(given[0])).sum().backward()
    (weights * given[1].abs().mean((1, 2, 3, 4))).sum().backward()
    torch.testing.assert_close(given[0].grad, given[1].grad)


def test_frame_difference_by_hand() -> None:
    """Only what changes between frames counts: a film that is wrong in the same way all the time costs nothing."""
    x, x_next = torch.full((2, 1, 1, 2), 0.5), torch.tensor([[0.5, 0.7], [0.5, 0.5]]).reshape(2, 1, 1, 2)
    y, y_next = torch.zeros(2, 1, 1, 2), torch.tensor([[0.4, 0.2], [0.0, -0.6]]).reshape(2, 1, 1, 2)
    # Changes 0 and .2 against .4 and .2; none against 0 and -.6.
    torch.testing.assert_close(frame_difference(x, x_next, y, y_next), torch.tensor([0.2, 0.3]))
    film = torch.rand(3, 2, 4, 4)
    assert frame_difference(film + 0.3, film + 0.4, film, film + 0.1).abs().max() < 1e-6


def test_unexplained_change_by_hand() -> None:
    delta, after = torch.zeros(2, 1, 1, 1, 4), torch.tensor([[1.0, 0, 0, -1], [2, 2, 2, 2]]).reshape(2, 1, 1, 1, 4)
    free = unexplained_change(delta, after, torch.zeros(2))
    torch.testing.assert_close(free, torch.tensor([0.5, 2.0]))
    forgiven = unexplained_change(delta, after, torch.tensor([1.0, 100.0]))
    torch.testing.assert_close(forgiven, torch.tensor([0.5 / math.e, 0.0]))


def test_unlikeness_by_hand() -> None:
    x = torch.tensor([[1.0, 0], [2, 0], [1, 0], [3, 4]])
    y = torch.tensor([[5.0, 0], [-1, 0], [0, 2], [4, 3]])
    torch.testing.assert_close(unlikeness(x, y), torch.tensor([0.0, 2, 1, 1 - 24 / 25]))


def test_the_logistic_game_by_hand() -> None:
    """softplus(-logit): log 2 where the discriminator does not know, falling as it is fooled."""
    torch.testing.assert_close(fooling(torch.tensor([0.0, 20, -20])), torch.tensor([math.log(2), 0, 20]), atol=1e-6, rtol=0)


def test_slope_by_hand() -> None:
    """The logit 2 a - 3 b + c^2 has the squared slope 4 + 9 + (2 c)^2."""
    image, raw = torch.zeros(2, 1, 1, 2, requires_grad=True), torch.tensor([1.0, 5.0]).reshape(2, 1, 1, 1).requires_grad_()
    logits = 2 * image[:, 0, 0, 0] - 3 * image[:, 0, 0, 1] + raw[:, 0, 0, 0].square()
    found = slope(logits, image, raw)
    assert found.tolist() == [4 + 9 + 4, 4 + 9 + 100]
    found.sum().backward()  # the discriminator learns from it: it is differentiable itself
    assert raw.grad is not None
    assert raw.grad.flatten().tolist() == [8.0, 40.0]

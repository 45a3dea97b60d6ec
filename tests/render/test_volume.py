"""Compositing against closed forms, numerical integration and a literal loop."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from talk3d.render.volume import (
    expected_depth,
    march,
    merge,
    ray_weights,
    sample_pdf,
    sample_weights,
    smooth_weights,
)

F64 = torch.float64


def inverse_density(density: torch.Tensor) -> torch.Tensor:
    """The raw value whose activation softplus(raw - 1) is the given density."""
    return torch.log(torch.expm1(density)) + 1


def march_slowly(colours: torch.Tensor, sigma: torch.Tensor, depths: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """One ray, one interval at a time, as the method's text says."""
    through, colour, weighted, total = 1.0, torch.zeros(colours.shape[-1], dtype=F64), 0.0, 0.0
    for k in range(len(depths) - 1):
        density = float(np.log1p(np.exp(float(sigma[k] + sigma[k + 1]) / 2 - 1)))
        alpha = 1 - np.exp(-density * float(depths[k + 1] - depths[k]))
        weight = through * alpha
        colour += weight * (colours[k] + colours[k + 1]) / 2
        weighted += weight * float(depths[k] + depths[k + 1]) / 2
        total += weight
        through *= 1 - alpha + 1e-10
    return 2 * colour - 1, weighted / total, total


def random_ray(samples: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    depths = torch.rand(samples, dtype=F64).sort().values + 2
    return torch.rand(samples, 4, dtype=F64), 3 * torch.randn(samples, dtype=F64), depths


def test_marching_equals_a_literal_loop() -> None:
    rays = [random_ray() for _ in range(6)]
    colours, sigma, depths = (torch.stack(parts) for parts in zip(*rays, strict=True))
    features, depth, weights = march(colours, sigma, depths)
    for i, ray in enumerate(rays):
        colour, mean, total = march_slowly(*ray)
        torch.testing.assert_close(features[i], colour, atol=1e-8, rtol=0)
        assert float(depth[i]) == pytest.approx(mean, abs=1e-8)
        assert float(weights[i].sum()) == pytest.approx(total, abs=1e-8)


def test_uniform_matter_follows_beer_and_lambert() -> None:
    density, length = 3.7, 0.8
    depths = torch.linspace(2, 2 + length, 13, dtype=F64)
    sigma = inverse_density(torch.full((13,), density, dtype=F64))
    colours = torch.tensor([0.2, 0.9], dtype=F64).expand(13, 2)
    features, _, weights = march(colours, sigma, depths)
    alpha = 1 - np.exp(-density * length)
    assert float(weights.sum()) == pytest.approx(alpha, abs=1e-12)
    torch.testing.assert_close(features, 2 * alpha * colours[0] - 1)
    white = march(colours, sigma, depths, white_back=True)[0]
    torch.testing.assert_close(white, 2 * (alpha * colours[0] + 1 - alpha) - 1)


def test_fine_marching_converges_to_the_integral_at_second_order() -> None:
    def density(t: float) -> float:
        return 4 * np.exp(-((t - 2.6) ** 2) / 0.02) + 0.3

    def colour(t: float) -> float:
        return 0.5 + 0.4 * np.sin(9 * t)

    def optical(t: float) -> float:
        return quad(density, 2.2, t)[0]

    exact = quad(lambda t: np.exp(-optical(t)) * density(t) * colour(t), 2.2, 3.1, limit=200)[0]
    errors = []
    for samples in (50, 100, 200):
        depths = torch.linspace(2.2, 3.1, samples, dtype=F64)
        sigma = inverse_density(torch.tensor([density(t) for t in depths.tolist()], dtype=F64))
        colours = torch.tensor([[colour(t)] for t in depths.tolist()], dtype=F64)
        errors.append(abs(float(march(colours, sigma, depths)[0] + 1) / 2 - exact))
    assert errors[-1] < 1e-4
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3


def test_an_opaque_surface_hides_what_is_behind_it() -> None:
    depths = torch.linspace(2, 3, 11, dtype=F64)
    sigma = torch.full((11,), -1e4, dtype=F64)
    sigma[4:] = 1e4
    colours = torch.arange(11, dtype=F64)[:, None] / 20
    features, depth, weights = march(colours, sigma, depths)
    # Averaging before the activation makes the interval that straddles the surface (1e4 - 1e4) / 2 = 0, which is nearly
    # empty, so the surface is the next one.
    first = int(weights.argmax())
    assert first == 4
    assert float(weights.sum()) == pytest.approx(1.0)
    assert float(depth) == pytest.approx(2.45, abs=5e-3)
    assert float((features[0] + 1) / 2) == pytest.approx(4.5 / 20, abs=2e-3)


def test_weights_are_shares_of_one() -> None:
    _, sigma, depths = random_ray(30)
    weights = ray_weights(sigma, depths)
    through = torch.exp(-(torch.nn.functional.softplus((sigma[1:] + sigma[:-1]) / 2 - 1) * depths.diff()).sum())
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum() + through, torch.tensor(1.0, dtype=F64))


def test_splitting_an_interval_of_uniform_matter_changes_nothing() -> None:
    sigma = torch.full((4,), 2.0, dtype=F64)
    coarse = ray_weights(sigma, torch.tensor([2.0, 2.2, 2.5, 3.0], dtype=F64))
    fine = ray_weights(torch.full((5,), 2.0, dtype=F64), torch.tensor([2.0, 2.2, 2.3, 2.5, 3.0], dtype=F64))
    torch.testing.assert_close(coarse[1], fine[1] + fine[2])
    torch.testing.assert_close(coarse[2], fine[3])


def test_sample_weights_give_the_sum_over_midpoints() -> None:
    colours, sigma, depths = random_ray()
    weights = ray_weights(sigma, depths)
    expected = (weights[:, None] * (colours[1:] + colours[:-1]) / 2).sum(0)
    torch.testing.assert_close(sample_weights(weights) @ colours, expected)


def test_marching_has_correct_gradients() -> None:
    colours, sigma, depths = random_ray(6)
    inputs = (colours[None].requires_grad_(), sigma[None].requires_grad_(), depths[None])
    assert torch.autograd.gradcheck(lambda c, s, d: march(c, s, d)[:2], inputs)


def test_an_empty_ray_is_as_far_as_anything_and_keeps_gradients_finite() -> None:
    sigma = torch.tensor([[-200.0] * 5, [2.0] * 5], requires_grad=True)
    depths = torch.stack([torch.linspace(2, 3, 5), torch.linspace(2.1, 3.4, 5)])
    features, depth, _ = march(torch.rand(2, 5, 3), sigma, depths)
    assert depth[0].item() == pytest.approx(3.4), "the farthest sample of the whole batch, not of the ray"
    assert (features[0] == -1).all()
    (features.sum() + depth.sum()).backward()
    assert sigma.grad is not None
    assert torch.isfinite(sigma.grad).all()


def test_depth_is_clamped_to_the_limits() -> None:
    weights, depths = torch.tensor([[0.5, 0.5]]), torch.tensor([[2.0, 2.5, 3.0]])
    assert float(expected_depth(weights, depths, 2.6, 3.0)) == pytest.approx(2.6)


def test_smoothing_equals_pooling() -> None:
    weights = torch.rand(7, 12, dtype=F64)
    pooled = torch.nn.functional.max_pool1d(weights[:, None], 2, stride=1, padding=1)
    expected = torch.nn.functional.avg_pool1d(pooled, 2, stride=1)[:, 0] + 0.01
    torch.testing.assert_close(smooth_weights(weights), expected)


def test_inverse_cdf_equals_interpolation_of_the_cdf() -> None:
    edges = torch.rand(5, 9, dtype=F64).sort(-1).values
    weights, u = torch.rand(5, 8, dtype=F64), torch.rand(5, 20, dtype=F64)
    drawn = sample_pdf(edges, weights, u)
    for row in range(5):
        pdf = weights[row].numpy() + 1e-5
        cdf = np.concatenate([[0], np.cumsum(pdf / pdf.sum())])
        np.testing.assert_allclose(drawn[row].numpy(), np.interp(u[row].numpy(), cdf, edges[row].numpy()), atol=1e-9)


def test_many_draws_follow_the_histogram() -> None:
    edges = torch.linspace(0, 1, 6, dtype=F64)
    weights = torch.tensor([1.0, 0.0, 3.0, 4.0, 2.0], dtype=F64)
    drawn = sample_pdf(edges, weights, torch.rand(200_000, dtype=F64))
    counts = torch.histc(drawn, 5, 0, 1) / 200_000
    torch.testing.assert_close(counts, weights / weights.sum(), atol=5e-3, rtol=0)


def test_merging_sorts_and_keeps_samples_together() -> None:
    depths = [torch.rand(2, 3, n, dtype=F64) for n in (4, 6)]
    # Colour and density are functions of the depth, so a sample torn apart would show.
    parts = [(d, torch.stack([d, 2 * d], dim=-1), 3 * d) for d in depths]
    merged, colours, sigma = merge(*parts[0], *parts[1])
    torch.testing.assert_close(merged, torch.cat(depths, dim=-1).sort(-1).values)
    torch.testing.assert_close(colours, torch.stack([merged, 2 * merged], dim=-1))
    torch.testing.assert_close(sigma, 3 * merged)

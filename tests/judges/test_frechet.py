"""The Fréchet distance: zero for equal sets, and what it is for known Gaussians."""

import numpy as np
import pytest
import torch

from talk3d.judges import frechet
from talk3d.judges.frechet import FeatureStatistics


def statistics(rows: np.ndarray, pieces: int = 3) -> FeatureStatistics:
    gathered = FeatureStatistics(rows.shape[1])
    for piece in np.array_split(rows, pieces):
        gathered.add(torch.from_numpy(piece.copy()))
    return gathered


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    return frechet.frechet_distance(statistics(one), statistics(other))


def test_statistics_are_those_of_all_pieces_together() -> None:
    rows = np.random.default_rng(3).normal(size=(50, 4)) * [1, 2, 3, 4] + 5
    gathered = statistics(rows, 7)
    assert np.allclose(gathered.mean.numpy(), rows.mean(0))
    assert np.allclose(gathered.covariance.numpy(), np.cov(rows, rowvar=False))


def test_agreement_with_scipys_root() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(4)
    one, other = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 1
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_equal_sets_have_no_distance_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(500, 6)), rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + 1
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-9)


def test_gaussians_have_the_distance_of_the_formula() -> None:
    """Independent components: the sum of squared differences of means and of deviations."""
    rng = np.random.default_rng(1)
    white = rng.normal(size=(2000, 3))
    white = (white - white.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T
    one, other = white * [1, 2, 3] + [0, 1, 0], white * [2, 2, 1] + [0.5, 1, 4]
    expected = 0.5**2 + 4**2 + 1 + 0 + 4
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_a_turned_cloud_is_further_than_one_like_it() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=(3000, 2)) * [3, 0.5] for _ in range(2))
    assert frechet_distance(a, b) < 0.05
    assert frechet_distance(a, b[:, ::-1]) > 5

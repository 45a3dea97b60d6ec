"""The Fréchet distance of two sets of features: how far apart the Gaussians are that have their means and covariances.

Letters: B pictures at a time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class FeatureStatistics:
    """Mean and covariance of features, gathered piece by piece."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._sum = torch.zeros(size, dtype=torch.float64)
        self._squares = torch.zeros(size, size, dtype=torch.float64)

    def add(self, features: Float[Tensor, "batch size"]) -> None:
        """Some more pictures' features."""
        features = features.double()
        self.count += len(features)
        self._sum += features.sum(0)
        self._squares += features.T @ features

    @property
    def mean(self) -> Float[Tensor, " size"]:
        return self._sum / self.count

    @property
    def covariance(self) -> Float[Tensor, "size size"]:
        return (self._squares - self.count * torch.outer(self.mean, self.mean)) / (self.count - 1)


def frechet_distance(one: FeatureStatistics, other: FeatureStatistics) -> float:
    """Distance of the two Gaussians (Dowson and Landau, 1982); there must be two pictures on either side."""
    assert min(one.count, other.count) >= 2, "a covariance needs two pictures"
    values, vectors = torch.linalg.eigh(one.covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    # The trace of the root of a product, from a symmetric matrix with the same eigenvalues.
    cross = torch.linalg.eigvalsh(root @ other.covariance @ root).clamp_min(0).sqrt().sum()
    apart = (one.mean - other.mean).square().sum()
    return float(apart + one.covariance.trace() + other.covariance.trace() - 2 * cross)

"""Volume rendering arithmetic along rays: weights, compositing, inverse-CDF sampling, merging.

Letters: * any leading axes (batch, rays), N samples along a ray, F colour features. Samples are in order of depth.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def ray_weights(
    sigma_raw: Float[Tensor, "*rays samples"], depths: Float[Tensor, "*rays samples"]
) -> Float[Tensor, "*rays samples-1"]:
    """How much each interval between neighbouring samples contributes to its ray's colour (each 0..1, sum at most 1).

    EG3D's mid-point rule: neighbouring raw densities are averaged *before* the activation ``softplus(sigma - 1)``.
    """
    step = depths[..., 1:] - depths[..., :-1]
    middle = 0.5 * (sigma_raw[..., 1:] + sigma_raw[..., :-1])
    optical = torch.nn.functional.softplus(middle - 1) * step
    # exp of a running sum equals the reference's running product of (1 - alpha + 1e-10) within 1e-10, and its
    # gradient stays cheap and finite when an interval is opaque. `1 - exp` is kept (rather than expm1) because
    # "empty" means that it rounds to exactly zero; see the depth of an empty ray in `expected_depth`.
    before = torch.cumsum(optical, dim=-1) - optical
    return torch.exp(-before) * (1 - torch.exp(-optical))


def sample_weights(weights: Float[Tensor, "*rays intervals"]) -> Float[Tensor, "*rays intervals+1"]:
    """Weights of the samples themselves: each interval's weight goes half to either end.

    ``sum_k w_k (c_k + c_k+1) / 2`` is the same sum as ``sum_k v_k c_k`` with these v, without building averaged
    colours.
    """
    half = 0.5 * weights
    return torch.nn.functional.pad(half, (0, 1)) + torch.nn.functional.pad(half, (1, 0))


def expected_depth(
    weights: Float[Tensor, "*rays intervals"],
    depths: Float[Tensor, "*rays samples"],
    nearest: float | Float[Tensor, ""],
    farthest: float | Float[Tensor, ""],
) -> Float[Tensor, "*rays"]:
    """Weighted mean depth of each ray, clamped to the given limits; a ray without any weight gets ``farthest``.

    The reference clamps to the least and greatest sample of the whole batch (docs/quirks.md).
    """
    total = weights.sum(-1)
    middle = 0.5 * (depths[..., 1:] + depths[..., :-1])
    empty = total <= 0
    # The division is made safe before it happens: 0/0 selected away afterwards would still poison the gradient.
    mean = (weights * middle).sum(-1) / torch.where(empty, 1.0, total)
    return torch.where(empty, farthest, mean).clamp(nearest, farthest)  # type: ignore[arg-type]


def march(
    colours: Float[Tensor, "*rays samples features"],
    sigma_raw: Float[Tensor, "*rays samples"],
    depths: Float[Tensor, "*rays samples"],
    *,
    white_back: bool = False,
) -> tuple[Float[Tensor, "*rays features"], Float[Tensor, "*rays"], Float[Tensor, "*rays samples-1"]]:
    """Composite sorted samples; returns features (EG3D's range: sum w c, times 2 minus 1), depth, interval weights."""
    weights = ray_weights(sigma_raw, depths)
    features = torch.einsum("...s,...sf->...f", sample_weights(weights), colours)
    depth = expected_depth(weights, depths, depths.detach().amin(), depths.detach().amax())
    return finish_features(features, weights.sum(-1), white_back), depth, weights


def finish_features(
    features: Float[Tensor, "*rays features"], alpha: Float[Tensor, "*rays"], white_back: bool
) -> Float[Tensor, "*rays features"]:
    """Optionally fill with white, then map composited features to EG3D's range: 0..1 becomes -1..1, nothing is -1."""
    if white_back:
        features = features + (1 - alpha[..., None])
    return 2 * features - 1


def smooth_weights(weights: Float[Tensor, "*rays intervals"]) -> Float[Tensor, "*rays intervals"]:
    """Blur coarse weights before importance sampling: maximum of neighbours, mean of neighbours, plus 0.01."""
    padded = torch.nn.functional.pad(weights, (1, 1), value=-torch.inf)
    highest = torch.maximum(padded[..., 1:], padded[..., :-1])  # max-pool of 2, padded by 1: one longer than the input
    return 0.5 * (highest[..., 1:] + highest[..., :-1]) + 0.01


def sample_pdf(
    edges: Float[Tensor, "*rays edges"], weights: Float[Tensor, "*rays bins"], u: Float[Tensor, "*rays samples"]
) -> Float[Tensor, "*rays samples"]:
    """Inverse-CDF samples of a piecewise-constant density: bin edges, unnormalised weights, quantiles u (0..1).

    There is one edge more than there are weights.
    """
    pdf = weights + 1e-5
    cdf = torch.cumsum(pdf / pdf.sum(-1, keepdim=True), dim=-1)
    cdf = torch.nn.functional.pad(cdf, (1, 0))
    last = weights.shape[-1]
    index = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (index - 1).clamp(min=0), index.clamp(max=last)
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    edge_below, edge_above = edges.gather(-1, below), edges.gather(-1, above)
    width = cdf_above - cdf_below
    # A bin without probability has no inside; EG3D divides by one there.
    width = torch.where(width < 1e-5, torch.ones_like(width), width)
    return edge_below + (u - cdf_below) / width * (edge_above - edge_below)


def merge(
    depths_a: Float[Tensor, "*rays a"],
    colours_a: Float[Tensor, "*rays a features"],
    sigma_a: Float[Tensor, "*rays a"],
    depths_b: Float[Tensor, "*rays b"],
    colours_b: Float[Tensor, "*rays b features"],
    sigma_b: Float[Tensor, "*rays b"],
) -> tuple[Float[Tensor, "*rays a+b"], Float[Tensor, "*rays a+b features"], Float[Tensor, "*rays a+b"]]:
    """Two sets of samples of the same rays as one, sorted by depth: depths, colours, raw densities."""
    depths, order = torch.sort(torch.cat([depths_a, depths_b], dim=-1), dim=-1)
    colours = torch.cat([colours_a, colours_b], dim=-2)
    sigma = torch.cat([sigma_a, sigma_b], dim=-1)
    return depths, colours.gather(-2, order[..., None].expand_as(colours)), sigma.gather(-1, order)

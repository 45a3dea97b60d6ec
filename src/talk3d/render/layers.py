"""A decoder's weights as fast renderers take them, all gains included."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Layers(NamedTuple):
    """A decoder ``last @ softplus(first @ x + first_bias) + last_bias`` as it is used, for the mean x of the planes' lookups.

    The first output is raw density, the others are colour features before their sigmoid. Gradients reach all four.
    """

    first: Float[Tensor, "hidden channels"]
    first_bias: Float[Tensor, " hidden"]
    last: Float[Tensor, "outputs hidden"]
    last_bias: Float[Tensor, " outputs"]

    def decode(
        self, x: Float[Tensor, "batch points channels"]
    ) -> tuple[Float[Tensor, "batch points features"], Float[Tensor, "batch points 1"]]:
        """The plain form, which is what `reference.render` takes for a decoder."""
        hidden = torch.nn.functional.softplus(torch.nn.functional.linear(x, self.first, self.first_bias))
        out = torch.nn.functional.linear(hidden, self.last, self.last_bias)
        return out[..., 1:].sigmoid() * 1.002 - 0.001, out[..., :1]

"""Whether this machine's card computes what the reference does: a few rays are drawn both ways before the kernels are used.

Kernels are compiled on the user's machine, by a compiler and for a card that nobody may have tried them with.
"""

import dataclasses
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from talk3d.render.gpu import render_gpu
from talk3d.render.layers import Layers
from talk3d.render.rays import Rays
from talk3d.render.reference import Rendering, RenderOptions, render

# Rays that are compared.
_RAYS = 256
# Of features, depths and opacities: their mean difference. Single samples may differ more, where a bin of depths has no width.
_VALUES = 1e-3
# Of gradients: the length of their difference, of their own.
_GRADIENTS = 1e-2

_verdicts: dict[tuple[object, ...], bool] = {}


def is_trusted(
    planes: Float[Tensor, "batch 3 channels height width"], layers: Layers, rays: Rays, options: RenderOptions
) -> bool:
    """Whether the kernels may draw this; the first time in a process that a kind of picture is asked for, they are tried.

    Where they differ from the reference or cannot be compiled, a warning says so once, and the answer stays no.
    """
    wanted = _wants_gradients(planes, layers, rays)
    key = (planes.device, planes.shape[2:], layers.last.shape, options, tuple(wanted))
    if key not in _verdicts:
        reason = disagreement(planes, layers, rays, options)
        _verdicts[key] = reason is None
        if reason is not None:
            warnings.warn(
                f"The renderer's kernels are not used on {planes.device}: {reason}. Pictures are the same without them, and "
                "take longer. If the driver, PyTorch or Triton are old, newer ones may help; please report it otherwise.",
                RuntimeWarning,
                stacklevel=2,
            )
    return _verdicts[key]


def disagreement(
    planes: Float[Tensor, "batch 3 channels height width"], layers: Layers, rays: Rays, options: RenderOptions
) -> str | None:
    """What is wrong with the kernels' values, or with those gradients that the tensors ask for; None if nothing is."""
    some = torch.linspace(0, rays.origins.shape[1] - 1, min(_RAYS, rays.origins.shape[1])).long()
    wanted = _wants_gradients(planes, layers, rays)
    given = (planes[:1], rays.origins[:1, some], rays.directions[:1, some], *layers)
    copies = [x.detach().clone().requires_grad_(wants) for x, wants in zip(given, wanted, strict=True)]
    leaves = [x for x in copies if x.requires_grad]
    own_planes, own_rays, own_layers = copies[0], Rays(copies[1], copies[2]), Layers(*copies[3:])
    # Gradients at depths that both are given: importance sampling would turn a difference of the last bit into other samples.
    fixed = dataclasses.replace(options, samples_coarse=options.samples_coarse + options.samples_fine, samples_fine=0)
    try:
        with torch.no_grad():
            kernel = render_gpu(own_planes, own_layers, own_rays, options, deterministic=True)
            plain = render(own_planes, own_layers.decode, own_rays, options, deterministic=True)
        for name in ("features", "depth", "alpha"):
            mean = float((getattr(kernel, name) - getattr(plain, name)).abs().mean())
            if not mean <= _VALUES:
                return f"their {name} differ from the plain code's by {mean:.2g}"
        if leaves:
            kernel = render_gpu(own_planes, own_layers, own_rays, fixed, deterministic=True)
            plain = render(own_planes, own_layers.decode, own_rays, fixed, deterministic=True)
            for ours, theirs in zip(_gradients(kernel, leaves), _gradients(plain, leaves), strict=True):
                part = float((ours - theirs).norm() / (theirs.norm() + 1e-12))
                if not part <= _GRADIENTS:
                    return f"their gradients differ from the plain code's by {100 * part:.2g} %"
    except Exception as error:  # of a compiler or driver: whatever it is, the plain code needs neither
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'}"
    return None


def _wants_gradients(planes: Tensor, layers: Layers, rays: Rays) -> list[bool]:
    """Of planes, origins, directions and layers, in this order."""
    tensors = (planes, rays.origins, rays.directions, *layers)
    return [torch.is_grad_enabled() and x.requires_grad for x in tensors]


def _gradients(seen: Rendering, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a sum in which everything that was seen has another weight."""
    values = torch.cat([seen.features, seen.depth, seen.alpha], dim=-1)
    weights = torch.linspace(-1, 2, values.numel(), device=values.device)
    return torch.autograd.grad((weights * values.flatten()).sum(), leaves)

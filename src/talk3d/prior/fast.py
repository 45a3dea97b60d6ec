"""Pictures of one person, fast: a fast renderer and folded super-resolution behind one call, for a CPU and for other devices.

`FastPainter` and `DevicePainter` are twins of `Generator.render` with deterministic samples and `Generator.superresolve`,
without gradients. `march` and `enlarge` choose one that has them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from talk3d.prior.folded import FoldedSuperResolution, faster_precision
from talk3d.prior.generator import Generator, Picture, RawPicture
from talk3d.prior.learnt import enlarge_learnt
from talk3d.render.rays import Rays, generate_rays
from talk3d.render.reference import Rendering

try:
    from talk3d.render import fused, learnt
except (ImportError, RuntimeError):
    # Numba has no release for every new Python at once, and refuses to work where it can write what it compiled to no folder.
    fused = learnt = None  # type: ignore[assignment]


def why_not(generator: Generator) -> str | None:
    """Why a generator's pictures need the plain path; None if they do not."""
    if fused is None:
        return "numba is not installed, or has no folder to write to (NUMBA_CACHE_DIR)"
    return fused.why_not(generator.profile.render)


class FastPainter:
    """Draws one person on the CPU: build it once, call it for every frame.

    Args:
        generator: with trained weights, which are copied; on the CPU.
        ws: the person.
        dtype: what super-resolution computes in; None for what is faster on this processor.
    """

    def __init__(self, generator: Generator, ws: Float[Tensor, "1 layers w"], dtype: torch.dtype | None = None) -> None:
        assert why_not(generator) is None
        self.generator, self.profile = generator, generator.profile
        self.dtype = dtype or faster_precision()
        self.decoder = fused.TwoLayers.of(generator.decoder.layers())
        self.enlarge = FoldedSuperResolution(generator.superresolution, ws, self.dtype)

    @torch.inference_mode()
    def __call__(
        self,
        planes: Float[Tensor, "batch 3 channels height width"],
        cam2world: Float[Tensor, "batch 4 4"],
        intrinsics: Float[Tensor, "batch 3 3"],
    ) -> Picture:
        """Finished pictures. Each is enlarged by itself, so that what is worked on stays small whatever the batch."""
        raw = self.render(planes, cam2world, intrinsics)
        skip = self.generator.skip_image(raw.rgb, raw.alpha)
        image = torch.cat([self.enlarge(*one) for one in zip(raw.features.split(1), skip.split(1), strict=True)])
        return Picture(image=image, raw=raw)

    @torch.inference_mode()
    def render(
        self,
        planes: Float[Tensor, "batch 3 channels height width"],
        cam2world: Float[Tensor, "batch 4 4"],
        intrinsics: Float[Tensor, "batch 3 3"],
    ) -> RawPicture:
        """What `Generator.render` gives at the profile's resolution."""
        size = self.profile.neural_resolution
        rays = generate_rays(cam2world, intrinsics, size)
        if fused.are_ordered(rays, self.profile.render):
            seen = fused.render_fused(planes, self.decoder, rays, self.profile.render)
        else:
            seen = self.generator.render_rays(planes, rays, deterministic=True)
        features, depth, alpha = (value.mT.unflatten(2, (size, size)) for value in (seen.features, seen.depth, seen.alpha))
        return RawPicture(features=features, rgb=features[:, :3], depth=depth, alpha=alpha)


class DevicePainter:
    """Draws one person where the generator's weights are, such as on a GPU: build it once, call it for every frame.

    There the kernels render. All pictures of a batch are enlarged together, and nothing waits for the device, so that the call
    can be captured in a CUDA graph where the profile's own depths limit rays.

    Args:
        generator: with trained weights, those of super-resolution are copied.
        ws: the person; there too.
        dtype: what super-resolution computes in; None for what is faster there.
    """

    def __init__(self, generator: Generator, ws: Float[Tensor, "1 layers w"], dtype: torch.dtype | None = None) -> None:
        self.generator = generator
        self.dtype = dtype or faster_precision(ws.device)
        self.enlarge = FoldedSuperResolution(generator.superresolution, ws, self.dtype)

    @torch.inference_mode()
    def __call__(
        self,
        planes: Float[Tensor, "batch 3 channels height width"],
        cam2world: Float[Tensor, "batch 4 4"],
        intrinsics: Float[Tensor, "batch 3 3"],
    ) -> Picture:
        """Finished pictures, on the device."""
        raw = self.generator.render(planes, cam2world, intrinsics, deterministic=True)
        return Picture(image=self.enlarge(raw.features, self.generator.skip_image(raw.rgb, raw.alpha)), raw=raw)


def march(
    generator: Generator,
    planes: Float[Tensor, "batch 3 channels height width"],
    rays: Rays,
    jitter: Float[Tensor, "batch rays coarse"] | None = None,
    u: Float[Tensor, "batch rays fine"] | None = None,
) -> Rendering:
    """What `Generator.render_rays` gives for these random numbers, with gradients, by whichever twin is faster.

    Without random numbers samples are where they are in films.
    """
    if learnt is not None and learnt.why_not(generator.profile.render, planes) is None:
        return learnt.render_learnt(planes, generator.decoder.layers(), rays, generator.profile.render, jitter, u)
    return generator.render_rays(planes, rays, deterministic=True, jitter=jitter, u=u)


def enlarge(
    generator: Generator,
    features: Float[Tensor, "batch features height width"],
    alpha: Float[Tensor, "batch 1 height width"],
    ws: Float[Tensor, "people layers w"],
    dtype: torch.dtype,
) -> Float[Tensor, "batch channels size size"]:
    """What `Generator.superresolve` gives for windows of pictures, with gradients.

    Args:
        generator: whose super-resolution it is.
        features: of the windows, their colours first.
        alpha: 0..1, likewise.
        ws: of the one person in all of them, for whom there is a faster twin, or of each.
        dtype: what convolutions compute in.
    """
    if len(ws) == 1:
        skip = generator.skip_image(features[:, :3], alpha)
        return enlarge_learnt(generator.superresolution, features, skip, ws, dtype)
    with torch.autocast(features.device.type, dtype, enabled=dtype != torch.float32):
        return generator.superresolve(features, features[:, :3], alpha, ws, patch=True).float()

"""The prior: latent to style vectors to tri-planes, and planes and a camera to a picture.

Everything that has a size reads it from the :class:`Profile` stored beside the weights. Module names are those of
EG3D's generator, so official weights load by name. Letters: B batch, L style vectors, W their width, C channels of
one plane, F decoder features, h rendered resolution, H final resolution.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from talk3d.artifacts import Prior, creating
from talk3d.camera import Orbit, camera_label
from talk3d.errors import ArtifactError, CheckpointError, ConfigError
from talk3d.prior.superres import EG3D_8XDC, SuperResolution, SuperResolutionConfig, eg3d_superresolution
from talk3d.prior.synthesis import EqualizedLinear, MappingNetwork, NoiseMode, SynthesisNetwork
from talk3d.render import gpu
from talk3d.render.layers import Layers
from talk3d.render.rays import Rays, generate_rays
from talk3d.render.reference import PlaneAxes, Rendering, RenderOptions, render, sample_planes
from talk3d.render.selfcheck import is_trusted


@dataclass(frozen=True)
class Profile:
    """Every size of a generator and the conventions its weights were trained with."""

    name: str
    """For people; nothing depends on it."""
    z_dim: int
    """Width of the latent z."""
    c_dim: int
    """Width of the camera label that conditions the mapping; 0 for no conditioning."""
    w_dim: int
    """Width of a style vector."""
    mapping_layers: int
    """Dense layers of the mapping network."""
    mapping_features: int
    """Width of its inner layers."""
    mapping_embed: int
    """Width to which the camera label is embedded (unused without one)."""
    mapping_lr_multiplier: float
    """Learning-rate multiplier of its layers."""
    normalize_latent: bool
    """Whether z is scaled to unit mean square first."""
    camera_scale: float
    """Factor on the camera label before the mapping."""
    plane_resolution: int
    """Side of a plane, texels."""
    plane_channels: int
    """Channels of one of the three planes."""
    channel_base: int
    """A backbone block at resolution r has min(channel_base / r, channel_max) channels."""
    channel_max: int
    """See channel_base."""
    backbone_clamp: float | None
    """Limit of backbone activations; None for no limit."""
    noise: NoiseMode
    """Backbone noise used unless asked otherwise."""
    noise_parameters: bool
    """Whether layers own noise patterns and strengths at all."""
    decoder_hidden: int
    """Width of the decoder's hidden layer."""
    decoder_features: int
    """Colour features per point; the first three are RGB."""
    decoder_lr_multiplier: float
    """Learning-rate multiplier of the decoder."""
    density_gain: float
    """Factor on raw density. EG3D's is 1; with more, hard surfaces (density in the hundreds) are learnt much sooner."""
    neural_resolution: int
    """Side of the rendered picture before super-resolution, pixels."""
    superres: SuperResolutionConfig
    """Layout of the super-resolution module."""
    alpha: bool
    """Whether pictures carry an alpha channel (premultiplied) to be composited over a background."""
    orbit: Orbit
    """The camera the prior is meant to be seen with."""
    render: RenderOptions
    """Ray sampling and plane axes."""

    @property
    def image_resolution(self) -> int:
        """Side of the final picture, pixels."""
        return self.superres.output_resolution

    @property
    def image_channels(self) -> int:
        """Channels of the final picture: RGB, or RGB and alpha."""
        return 4 if self.alpha else 3

    @property
    def num_ws(self) -> int:
        """Number of style vectors of the backbone: one per convolution and one for the last skip image."""
        return 2 * (self.plane_resolution.bit_length() - 2)

    def to_json(self) -> str:
        """The profile as JSON text; :meth:`from_json` reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_eg3d(
        cls,
        arguments: Mapping[str, Any],
        *,
        plane_axes: PlaneAxes,
        neural_resolution: int = 64,
        focal: float = 4.2647,
    ) -> "Profile":
        """The profile of an EG3D generator from its constructor's arguments (`init_kwargs`).

        Plane axes are not among them: the same arguments and shapes go with either convention, so they must be known
        from the checkpoint (docs/quirks.md). ``focal`` is that of the FFHQ labels. Missing settings mean what they
        mean there.
        """
        rendering: Mapping[str, Any] = arguments["rendering_kwargs"]
        mapping: Mapping[str, Any] = arguments.get("mapping_kwargs", {})
        w_dim = arguments.get("w_dim", 512)
        if rendering.get("clamp_mode", "softplus") != "softplus":
            raise ConfigError(
                f"The checkpoint activates densities with `{rendering['clamp_mode']}`; only softplus is known here."
            )
        near, far = rendering["ray_start"], rendering["ray_end"]
        unconditioned = rendering.get("c_gen_conditioning_zero", False)
        return cls(
            name="eg3d",
            z_dim=arguments.get("z_dim", 512),
            c_dim=arguments.get("c_dim", 25),
            w_dim=w_dim,
            mapping_layers=mapping.get("num_layers", 8),
            mapping_features=mapping.get("layer_features") or w_dim,
            mapping_embed=mapping.get("embed_features") or w_dim,
            mapping_lr_multiplier=mapping.get("lr_multiplier", 0.01),
            normalize_latent=True,
            camera_scale=0.0 if unconditioned else float(rendering.get("c_scale", 0)),
            plane_resolution=256,
            plane_channels=32,
            channel_base=arguments.get("channel_base", 32768),
            channel_max=arguments.get("channel_max", 512),
            backbone_clamp=arguments.get("conv_clamp", 256.0),
            noise="const",
            noise_parameters=True,
            decoder_hidden=64,
            decoder_features=32,
            decoder_lr_multiplier=rendering.get("decoder_lr_mul", 1.0),
            density_gain=1.0,
            neural_resolution=neural_resolution,
            superres=eg3d_superresolution(
                rendering.get("superresolution_module", "SuperresolutionHybrid8XDC"),
                antialias=rendering.get("sr_antialias", True),
                clamp=256.0 if arguments.get("sr_num_fp16_res", 0) > 0 else None,
            ),
            alpha=False,
            orbit=Orbit(
                radius=float(rendering.get("avg_camera_radius", 2.7)),
                pivot=tuple(float(x) for x in rendering.get("avg_camera_pivot", (0, 0, 0.2))),  # type: ignore[arg-type]
                focal=focal,
            ),
            render=RenderOptions(
                samples_coarse=rendering["depth_resolution"],
                samples_fine=rendering["depth_resolution_importance"],
                near=None if near == "auto" else float(near),
                far=None if far == "auto" else float(far),
                box_warp=float(rendering["box_warp"]),
                plane_axes=plane_axes,
                white_back=rendering.get("white_back", False),
                disparity=rendering.get("disparity_space_sampling", False),
            ),
        )

    @classmethod
    def from_json(cls, text: str) -> "Profile":
        """Read what :meth:`to_json` wrote; a missing or unknown field is an error that names it."""
        fields = dict(json.loads(text))
        superres = _build(SuperResolutionConfig, fields.pop("superres", {}))
        orbit = _build(Orbit, fields.pop("orbit", {}))
        options = _build(RenderOptions, fields.pop("render", {}))
        return _build(cls, fields | {"superres": superres, "orbit": orbit, "render": options})


_Config = TypeVar("_Config")


def _build(kind: type[_Config], fields: dict[str, Any]) -> _Config:
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown, missing = sorted(set(fields) - known), sorted(known - set(fields))
    if unknown or missing:
        raise ConfigError(
            f"The profile's {kind.__name__} does not match this version of talk3d: "
            f"unknown fields {unknown}, missing fields {missing}. "
            "It was probably written by another version; use that one, or convert the prior again."
        )
    # JSON has no tuples.
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})


MINI = Profile(
    name="mini",
    z_dim=154,
    c_dim=0,
    w_dim=256,
    mapping_layers=3,
    mapping_features=256,
    mapping_embed=0,
    mapping_lr_multiplier=0.1,
    normalize_latent=False,
    camera_scale=0.0,
    plane_resolution=128,
    plane_channels=16,
    channel_base=4096,
    channel_max=256,
    backbone_clamp=None,
    noise="none",
    noise_parameters=False,
    decoder_hidden=32,
    decoder_features=16,
    decoder_lr_multiplier=1.0,
    density_gain=20.0,
    neural_resolution=64,
    superres=SuperResolutionConfig(input_resolution=64, widths=(48, 24), first_up=True, clamp=None, border=3),
    alpha=True,
    orbit=Orbit(),
    render=RenderOptions(samples_coarse=16, samples_fine=16, near=2.25, far=3.2, box_warp=1.0, plane_axes="aligned"),
)
"""The profile of the weights we ship: small enough for one CPU core."""

FULL = Profile(
    name="eg3d-ffhq-512-128",
    z_dim=512,
    c_dim=25,
    w_dim=512,
    mapping_layers=2,
    mapping_features=512,
    mapping_embed=512,
    mapping_lr_multiplier=0.01,
    normalize_latent=True,
    camera_scale=1.0,
    plane_resolution=256,
    plane_channels=32,
    channel_base=32768,
    channel_max=512,
    backbone_clamp=None,
    noise="const",
    noise_parameters=True,
    decoder_hidden=64,
    decoder_features=32,
    decoder_lr_multiplier=1.0,
    density_gain=1.0,
    neural_resolution=128,
    superres=EG3D_8XDC,
    alpha=False,
    orbit=Orbit(radius=2.7, pivot=(0.0, 0.05, 0.2), focal=3.6),
    render=RenderOptions(samples_coarse=48, samples_fine=48, near=2.25, far=3.3, box_warp=1.0, plane_axes="aligned"),
)
"""EG3D's FFHQ 512-128 generator with corrected plane axes and the camera talking portraits are shot with."""


@dataclass(frozen=True)
class RawPicture:
    """A rendered picture before super-resolution."""

    features: Float[Tensor, "batch features height width"]
    """Composited features, -1 where there is nothing."""
    rgb: Float[Tensor, "batch 3 height width"]
    """Their first three channels: colour in [-1, 1], premultiplied where the prior has alpha."""
    depth: Float[Tensor, "batch 1 height width"]
    """Distance along the ray, scene units."""
    alpha: Float[Tensor, "batch 1 height width"]
    """Opacity, 0..1."""


@dataclass(frozen=True)
class Picture:
    """A finished picture and the rendering it was made from."""

    image: Float[Tensor, "batch channels size size"]
    """RGB in [-1, 1]; with alpha, premultiplied RGB (-1 is nothing) and alpha * 2 - 1."""
    raw: RawPicture
    """Before super-resolution."""


class Decoder(nn.Module):
    """A two-layer network from plane features to colour features and raw density; the view direction plays no part."""

    def __init__(
        self, channels: int, hidden: int, features: int, *, lr_multiplier: float = 1.0, density_gain: float = 1.0
    ) -> None:
        super().__init__()
        self.density_gain = density_gain
        first = EqualizedLinear(channels, hidden, lr_multiplier=lr_multiplier)
        last = EqualizedLinear(hidden, 1 + features, lr_multiplier=lr_multiplier)
        self.net = nn.Sequential(first, nn.Softplus(), last)
        # A gain on random weights may leave space black or empty everywhere, where nothing can be learnt: start with thin fog.
        with torch.no_grad():
            last.weight[0] /= density_gain

    def forward(
        self, features: Float[Tensor, "batch points channels"]
    ) -> tuple[Float[Tensor, "batch points features"], Float[Tensor, "batch points 1"]]:
        """Colour features in (-0.001, 1.001) and raw density, which marching activates with softplus(x - 1)."""
        out = self.net(features)
        sigma = out[..., :1] if self.density_gain == 1 else out[..., :1] * self.density_gain
        return out[..., 1:].sigmoid() * 1.002 - 0.001, sigma

    def layers(self) -> Layers:
        """The same with all gains as part of the weights, for the fast renderers; gradients reach the stored weights."""
        first, last = self.net[0], self.net[2]
        assert isinstance(first, EqualizedLinear)
        assert isinstance(last, EqualizedLinear)
        gain = last.weight.new_ones(len(last.bias))
        gain[0] = self.density_gain
        return Layers(
            first.weight * first.weight_gain,
            first.bias * first.bias_gain,
            last.weight * (gain[:, None] * last.weight_gain),
            last.bias * (gain * last.bias_gain),
        )


class Backbone(nn.Module):
    """Mapping and synthesis under EG3D's names."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(
            profile.w_dim,
            profile.plane_resolution,
            3 * profile.plane_channels,
            channel_base=profile.channel_base,
            channel_max=profile.channel_max,
            noise_parameters=profile.noise_parameters,
            clamp=profile.backbone_clamp,
        )
        self.mapping = MappingNetwork(
            profile.z_dim,
            profile.c_dim,
            profile.w_dim,
            self.synthesis.num_ws,
            layers=profile.mapping_layers,
            features=profile.mapping_features,
            embed_features=profile.mapping_embed,
            lr_multiplier=profile.mapping_lr_multiplier,
            normalize_latent=profile.normalize_latent,
        )


class Generator(nn.Module):
    """A 3D-aware portrait generator: ``map`` -> ``planes`` -> ``render`` -> ``superresolve``."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.profile = profile
        self.backbone = Backbone(profile)
        self.superresolution = SuperResolution(
            profile.superres,
            features=profile.decoder_features,
            image_channels=profile.image_channels,
            w_dim=profile.w_dim,
            noise_parameters=profile.noise_parameters,
        )
        self.decoder = Decoder(
            profile.plane_channels,
            profile.decoder_hidden,
            profile.decoder_features,
            lr_multiplier=profile.decoder_lr_multiplier,
            density_gain=profile.density_gain,
        )
        self.latents: Float[Tensor, "people z"] | None = None
        """Latents of people nobody was, drawn as those of the training were; None where any normal latent is a person."""

    def random_latents(self, count: int, seed: int) -> Float[Tensor, "count z"]:
        """Latents of random people: of the prior's own where it has them, else normal ones.

        A prior trained on heads reads their parameters, choices among them (this hairstyle or that one); a normal latent
        blends all of them into nobody, a latent of a person keeps to what was taught. None comes twice before all have come.
        """
        noise = torch.Generator().manual_seed(seed)
        if self.latents is None:
            latents = torch.randn(count, self.profile.z_dim, generator=noise)
        else:
            latents = self.latents[torch.randperm(len(self.latents), generator=noise)[torch.arange(count) % len(self.latents)]]
        return latents.to(self.backbone.mapping.w_avg.device)

    def map(
        self,
        z: Float[Tensor, "batch z"],
        c: Float[Tensor, "batch c"] | None = None,
        truncation: float = 1.0,
        cutoff: int | None = None,
    ) -> Float[Tensor, "batch layers w"]:
        """Latents (unit normal) and, where the profile has one, the conditioning camera label to style vectors."""
        if c is not None and self.profile.c_dim > 0:
            c = c * self.profile.camera_scale
        return self.backbone.mapping(z, c, truncation=truncation, cutoff=cutoff)

    def frontal_label(self, count: int) -> Float[Tensor, "batch 25"] | None:
        """What a conditioned mapping is given when no camera is meant: the profile's frontal one; None without conditioning."""
        if self.profile.c_dim == 0:
            return None
        orbit = self.profile.orbit
        return camera_label(orbit.pose(torch.zeros(1), torch.zeros(1)), orbit.intrinsics()[None]).expand(count, -1)

    def planes(
        self,
        ws: Float[Tensor, "batch layers w"],
        noise: NoiseMode | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch 3 channels size size"]:
        """Style vectors to tri-planes; ``noise`` None means the profile's."""
        mode = self.profile.noise if noise is None else noise
        image = self.backbone.synthesis(ws, noise=mode, generator=generator)
        # Lookups read one channel after another, so the layout that suited the convolutions ends here.
        return image.contiguous().unflatten(1, (3, self.profile.plane_channels))

    def render_rays(
        self,
        planes: Float[Tensor, "batch 3 channels size size"],
        rays: Rays,
        deterministic: bool | None = None,
        *,
        generator: torch.Generator | None = None,
        jitter: Float[Tensor, "batch rays coarse"] | None = None,
        u: float | Float[Tensor, "batch rays fine"] | None = None,
    ) -> Rendering:
        """Render chosen rays; ``deterministic`` None means random samples in training mode only.

        ``jitter`` and ``u`` (0..1) place the coarse samples and the fine ones; one ``u`` for all serves comparisons with
        other implementations. On a CUDA device the kernels draw, where they are found to do what the plain code does.
        """
        fixed = not self.training if deterministic is None else deterministic
        options = self.profile.render
        if gpu.why_not(planes, rays, options) is None:
            layers = self.decoder.layers()
            if is_trusted(planes, layers, rays, options):
                return gpu.render_gpu(
                    planes, layers, rays, options, deterministic=fixed, generator=generator, jitter=jitter, u=u
                )
        return render(planes, self.decoder, rays, options, deterministic=fixed, generator=generator, jitter=jitter, u=u)

    def render(
        self,
        planes: Float[Tensor, "batch 3 channels size size"],
        cam2world: Float[Tensor, "batch 4 4"],
        intrinsics: Float[Tensor, "batch 3 3"],
        resolution: int | None = None,
        deterministic: bool | None = None,
        *,
        generator: torch.Generator | None = None,
        u: float | None = None,
    ) -> RawPicture:
        """Render whole pictures at ``resolution`` (None: the profile's)."""
        size = resolution or self.profile.neural_resolution
        rays = generate_rays(cam2world, intrinsics, size)
        seen = self.render_rays(planes, rays, deterministic, generator=generator, u=u)
        features, depth, alpha = (value.mT.unflatten(2, (size, size)) for value in (seen.features, seen.depth, seen.alpha))
        return RawPicture(features=features, rgb=features[:, :3], depth=depth, alpha=alpha)

    def superresolve(
        self,
        features: Float[Tensor, "batch features height width"],
        rgb: Float[Tensor, "batch 3 height width"],
        alpha: Float[Tensor, "batch 1 height width"] | None,
        ws: Float[Tensor, "batch layers w"],
        *,
        noise: NoiseMode = "none",
        patch: bool = False,
    ) -> Float[Tensor, "batch channels size size"]:
        """The final picture from a rendered one; ``alpha`` (0..1) is needed where the profile has it, else ignored.

        ``patch`` says that the inputs are a window of a rendered picture, to be enlarged without resizing.
        """
        return self.superresolution(features, self.skip_image(rgb, alpha), ws, noise=noise, patch=patch)

    def skip_image(
        self, rgb: Float[Tensor, "batch 3 height width"], alpha: Float[Tensor, "batch 1 height width"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        """The picture that super-resolution adds to: colour, and alpha (given as 0..1) * 2 - 1 where the profile has it."""
        if not self.profile.alpha:
            return rgb
        assert alpha is not None, "this prior's pictures carry alpha"
        return torch.cat([rgb, 2 * alpha - 1], dim=1)

    def forward(
        self,
        ws: Float[Tensor, "batch layers w"],
        cam2world: Float[Tensor, "batch 4 4"],
        intrinsics: Float[Tensor, "batch 3 3"],
    ) -> Picture:
        """Style vectors and cameras to finished pictures."""
        raw = self.render(self.planes(ws), cam2world, intrinsics)
        return Picture(image=self.superresolve(raw.features, raw.rgb, raw.alpha, ws), raw=raw)

    def query(
        self, planes: Float[Tensor, "batch 3 channels size size"], points: Float[Tensor, "batch points 3"]
    ) -> tuple[Float[Tensor, "batch points features"], Float[Tensor, "batch points 1"]]:
        """Colour features and raw density at points of space (scene units)."""
        options = self.profile.render
        return self.decoder(sample_planes(planes, points, options.plane_axes, options.box_warp))


def composite(
    image: Float[Tensor, "batch 4 height width"], background: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """Put a premultiplied picture with alpha (both as -1..1, -1 is nothing) over a background in [-1, 1]."""
    alpha = ((image[:, 3:] + 1) / 2).clamp(0, 1)
    over = (image[:, :3] + 1) / 2 + (1 - alpha) * (background + 1) / 2
    return 2 * over - 1


# --- On disk --------------------------------------------------------------------------------------------------------

_WEIGHTS = "generator.safetensors"
_CANONICAL = "canonical.safetensors"
_EXPRESSIONS = "expressions.safetensors"
_LATENTS = "latents.safetensors"


@dataclass(frozen=True)
class LoadedPrior:
    """A prior read from disk."""

    generator: Generator
    """In evaluation mode, frozen, single precision, with the latents of people where the prior has them."""
    landmarks: Float[np.ndarray, "468 3"] | None
    """What `canonical_landmarks` gives; None for an imported prior whose faces were not measured."""
    expressions: Mapping[str, Float[Tensor, " z"]]
    """Directions of the latent that play one expression each, as strongly as in training; empty where none are known."""
    artifact: Prior
    """The folder it came from."""

    @property
    def profile(self) -> Profile:
        """Sizes and conventions of the generator."""
        return self.generator.profile

    @property
    def canonical_landmarks(self) -> Float[np.ndarray, "468 3"]:
        """Where the tracker's points lie on the prior's average face, scene units.

        Raises:
            ArtifactError: they were not measured.
        """
        if self.landmarks is None:
            raise ArtifactError(
                f"It is not known where the faces of the prior `{self.artifact.root}` have their landmarks, so no video can be "
                "posed with it. If it was imported, do that again with `--measure-landmarks`; if it was trained, the tracker "
                "saw no face in its pictures yet: train it longer."
            )
        return self.landmarks

    @property
    def hash(self) -> str:
        """The identity by which captures and subjects name this prior."""
        return self.artifact.hash


def save_prior(
    path: Path,
    generator: Generator,
    canonical_landmarks: Float[np.ndarray, "468 3"] | None,
    *,
    expressions: Mapping[str, Float[Tensor, " z"]] | None = None,
    half: bool = False,
    config: Mapping[str, Any] | None = None,
    licence: str = "",
    overwrite: bool = False,
) -> None:
    """Write a prior as an artifact folder.

    Args:
        path: the folder to make.
        generator: the weights, and the latents of people if it has them.
        canonical_landmarks: scene units; None if they were not measured, and then no video can be posed with the prior.
        expressions: directions of the latent that play one expression each, as strongly as in training, where known.
        half: store weights in half precision; they are computed with in single precision all the same.
        config: what else to record in the manifest, such as how the weights were trained.
        licence: terms of the weights.
        overwrite: replace an existing prior.

    Raises:
        OutputExistsError: ``path`` is taken.
        CheckpointError: a weight is not finite, or too large for half precision.
    """
    state = {}
    for name, value in generator.state_dict().items():
        stored = value.half() if half else value.float()
        if not bool(torch.isfinite(stored).all()):
            cause = "too large for half precision" if bool(torch.isfinite(value).all()) else "not finite"
            raise CheckpointError(
                f"The weight `{name}` is {cause}, so the prior was not saved. "
                + ("Save it in single precision." if cause.startswith("too") else "Go back to an earlier checkpoint.")
            )
        state[name] = stored
    with creating(Prior, path, overwrite=overwrite) as draft:
        draft.config = {**(config or {}), "profile": json.loads(generator.profile.to_json())}
        draft.licence = licence
        draft.write_tensors(_WEIGHTS, state)
        if canonical_landmarks is not None:
            landmarks = np.ascontiguousarray(canonical_landmarks, dtype=np.float32)
            draft.write_tensors(_CANONICAL, {"landmarks": torch.from_numpy(landmarks)})
        draft.write_tensors(_EXPRESSIONS, expressions or {})
        if generator.latents is not None:
            draft.write_tensors(_LATENTS, {"latents": generator.latents.half()})


def load_prior(path: Path | str) -> LoadedPrior:
    """Read and check a prior.

    Raises:
        ArtifactError: not a prior, damaged, or from a newer version.
        ConfigError: its profile is of another version.
        CheckpointError: the weights do not fit the profile.
    """
    artifact = Prior.open(path)
    generator = Generator(Profile.from_json(json.dumps(artifact.config["profile"])))
    load_weights(generator, artifact.tensors(_WEIGHTS), str(path))
    members = artifact.manifest["members"]
    if _LATENTS in members:
        generator.latents = artifact.tensors(_LATENTS)["latents"].float()
    canonical = artifact.tensors(_CANONICAL)["landmarks"].numpy() if _CANONICAL in members else None
    expressions = artifact.tensors(_EXPRESSIONS)
    return LoadedPrior(generator.eval().requires_grad_(False), canonical, expressions, artifact)


def load_weights(generator: Generator, state: Mapping[str, Tensor], source: str) -> None:
    """Load tensors by name, saying what is wrong if they do not fit; ``source`` names them in the message.

    Raises:
        CheckpointError: names or shapes differ from the generator's.
    """
    require_fit(generator, {name: tuple(value.shape) for name, value in state.items()}, source)
    generator.load_state_dict({name: value.float() for name, value in state.items()})


def require_fit(generator: Generator, given: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Compare names and shapes of weights with the generator's; ``source`` names them in the message.

    Raises:
        CheckpointError: they differ.
    """
    own = {name: tuple(value.shape) for name, value in generator.state_dict().items()}
    if own != given:
        missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        reshaped = [f"{n} {given[n]} instead of {own[n]}" for n in sorted(own.keys() & given.keys()) if own[n] != given[n]]
        found = "; ".join(
            f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            for what, names in [("missing", missing), ("unknown", unknown), ("of another shape", reshaped)]
            if names
        )
        raise CheckpointError(
            f"The weights in `{source}` do not fit the profile `{generator.profile.name}` ({found}). "
            "Use the profile they were trained with."
        )

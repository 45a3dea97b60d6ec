"""Compare this implementation with stored reference numbers: `python tests/golden/verify.py ROOT`.

ROOT is a folder with the layout `components/*.safetensors` and `eg3d/<set>/{config.json,state,io}.safetensors`; networks of
Talk3D lie in `talk3d/`; checkpoints of other programs in `checkpoints/*.{pkl,pt}` are imported and compared with the states
they were made of.
Nothing here knows a particular draw of numbers: sizes come from the tensors, settings from the files. Every stored
tensor must be compared; one that no check reads is a failure, so that a set cannot pass by being skipped. One line is
printed per set, and the exit status is 1 if any set fails, 2 if nothing at all could be compared.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file  # noqa: F401 (the second for the tests of this program)
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from talk3d.camera import Orbit, camera_from_label, camera_label, eg3d_elevation, eg3d_look_at, fov_to_intrinsics
from talk3d.prior.convert import Talk3DCheckpoint, read_eg3d, read_talk3d
from talk3d.prior.generator import Decoder, Generator, Profile
from talk3d.prior.synthesis import (
    EqualizedConv2d,
    EqualizedLinear,
    MappingNetwork,
    bias_act,
    downsample2d,
    fir_filter,
    modulated_conv2d,
    upfirdn2d,
    upsample2d,
)
from talk3d.render.rays import (
    Rays,
    box_limits,
    generate_rays,
    importance_depths,
    stratified_depths,
)
from talk3d.render.reference import PlaneAxes, RenderOptions, lookup_planes, project_points, render, sample_planes
from talk3d.render.volume import march, merge, sample_pdf, smooth_weights
from talk3d.talker.delta import DeltaNetwork
from talk3d.talker.official import PLANES, load_official, to_official
from talk3d.talker.tokens import Conditions
from talk3d.talker.unet import AttentionUNet, RollOut, roll_out

NETWORK = 1e-4
"""Absolute and relative tolerance of anything that went through a network."""
EXACT = 1e-5
"""The same for plain arithmetic."""
HALF = 2e-3
"""Relative tolerance of tensors stored in half precision."""


class Golden:
    """The tensors of one file, remembering which were read."""

    def __init__(self, path: Path, change: Callable[[dict[str, Tensor]], None] | None = None) -> None:
        self.tensors = load_file(path)
        with safe_open(path, "pt") as file:
            self.metadata: dict[str, str] = file.metadata() or {}
        if change is not None:
            change(self.tensors)
        self.unread = set(self.tensors)

    def __getitem__(self, name: str) -> Tensor:
        self.unread.discard(name)
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def state(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose name begins with a prefix, without it."""
        names = [name for name in self.tensors if name.startswith(prefix)]
        return {name.removeprefix(prefix): self[name] for name in names}


@dataclass
class Result:
    """How one set compared."""

    name: str
    cases: int = 0
    largest: float = 0.0
    """Largest absolute difference, over comparisons of single-precision values."""
    worst: float = 0.0
    """Largest difference as a multiple of what is allowed; above one fails."""
    failures: list[str] = field(default_factory=list)

    def close(self, name: str, actual: Tensor, expected: Tensor, tolerance: float = NETWORK) -> None:
        """Count one comparison: ``|a - b| <= tolerance + r |b|``; r is ``HALF`` for a half-precision b."""
        self.cases += 1
        if actual.shape != expected.shape:
            self.failures.append(f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
            return
        half = expected.dtype == torch.float16
        a, b = actual.detach().double(), expected.double()
        allowed = tolerance + (HALF if half else tolerance) * b.abs()
        # An infinite reference value can only be met exactly.
        error = torch.where(a == b, 0.0, (a - b).abs())
        ratio = torch.where(a == b, 0.0, error / allowed)
        if not half:
            self.largest = max(self.largest, error.max().item())
        worst = ratio.max().item()
        self.worst = max(self.worst, worst)
        if not worst <= 1:  # also catches NaN
            self.failures.append(f"{name}: off by {error.max().item():.3g}, {worst:.3g} times what is allowed")

    def stats(self, name: str, actual: Tensor, expected: Tensor) -> None:
        """Compare mean, deviation, least, greatest and sum of magnitudes over the last two axes."""
        x = actual.detach().double().flatten(-2)
        numbers = torch.stack([x.mean(-1), x.std(-1), x.amin(-1), x.amax(-1), x.abs().sum(-1)], dim=-1)
        self.close(f"{name} (mean, std, min, max)", numbers[..., :4].reshape(expected[..., :4].shape), expected[..., :4])
        # The sum runs over many pixels, so only its relative error means anything.
        total = expected[..., 4].clamp(min=1e-12)
        self.close(f"{name} (sum)", (numbers[..., 4].reshape(total.shape) / total), torch.ones_like(total))

    def finish(self, *files: Golden) -> "Result":
        """Fail on tensors no check read."""
        for file in files:
            if file.unread:
                self.failures.append(f"never compared: {', '.join(sorted(file.unread))}")
        return self


# --- Components -----------------------------------------------------------------------------------------------------


def cameras(g: Golden, r: Result) -> None:
    yaw, pitch, *pivot, radius = g["yaw_pitch_pivot_radius"].unbind(-1)
    for name, target in [
        ("cam2world", torch.stack(pivot, dim=-1)),
        ("cam2world_origin_lookat", torch.zeros(len(yaw), 3, dtype=yaw.dtype)),
    ]:
        expected = g[name]
        matrix = eg3d_look_at(yaw, pitch, target, radius)
        r.close(name, matrix, expected, EXACT)
        r.close(
            f"{name} in single precision",
            eg3d_look_at(yaw.float(), pitch.float(), target.float(), radius.float()),
            expected,
            EXACT,
        )
    intrinsics = torch.stack([fov_to_intrinsics(float(f)) for f in g["fov_degrees"]])
    r.close("intrinsics", intrinsics, g["intrinsics"], EXACT)
    label = camera_label(g["cam2world"][: len(intrinsics)], g["intrinsics"])
    there, back = camera_from_label(label)
    r.close("label to cam2world", there, g["cam2world"][: len(intrinsics)], 0.0)
    r.close("label to intrinsics", back, g["intrinsics"], 0.0)


def ray_sampler(g: Golden, r: Result) -> None:
    sizes = sorted(int(name.split("_r")[1]) for name in g.tensors if name.startswith("origins_r"))
    for size in sizes:
        rays = generate_rays(g["cam2world"], g["intrinsics"], size)
        r.close(f"origins {size}", rays.origins, g[f"origins_r{size}"], EXACT)
        r.close(f"directions {size}", rays.directions, g[f"directions_r{size}"], EXACT)
        if f"box_tmin_r{size}" in g:
            rays = Rays(g[f"origins_r{size}"], g[f"directions_r{size}"])
            entry, leave, hit = box_limits(rays, float(g["box_side_length"]))
            # The reference marks rays that miss with an entry of -1 and an exit of -2.
            r.close(f"box entry {size}", torch.where(hit, entry, -1.0), g[f"box_tmin_r{size}"], EXACT)
            r.close(f"box exit {size}", torch.where(hit, leave, -2.0), g[f"box_tmax_r{size}"], EXACT)


def ray_marcher(g: Golden, r: Result) -> None:
    for suffix, white in [("", False), ("_white", True)]:
        features, depth, weights = march(g["colors"], g["densities"].squeeze(-1), g["depths"].squeeze(-1), white_back=white)
        r.close(f"rgb{suffix}", features, g[f"rgb{suffix}"])
        r.close(f"depth{suffix}", depth[..., None], g[f"depth{suffix}"])
        r.close(f"weights{suffix}", weights[..., None], g[f"weights{suffix}"])


def _spread(count: int) -> Tensor:
    return (torch.arange(count) + 0.5) / count


def sample_pdf_set(g: Golden, r: Result) -> None:
    bins, weights = g["pdf_bins"], g["pdf_weights"]
    rows, count = g["pdf_det"].shape
    for name, u in {
        "pdf_det": torch.linspace(0, 1, count).expand(rows, count),
        "pdf_half": torch.full((rows, count), 0.5),
        "pdf_strat": _spread(count).expand(rows, count),
        "pdf_random_u": g["pdf_u"],
    }.items():
        r.close(name, sample_pdf(bins, weights, u), g[name])


def ray_sampling(g: Golden, r: Result) -> None:
    near, far = (float(x) for x in g["stratified_start_end"])
    shape = g["stratified"].shape[:3]
    jitter = torch.full(shape, 0.5)
    r.close("stratified", stratified_depths(near, far, jitter)[..., None], g["stratified"], EXACT)
    r.close("disparity", stratified_depths(near, far, jitter, disparity=True)[..., None], g["stratified_disparity"], EXACT)
    per_ray = stratified_depths(g["stratified_perray_start"], g["stratified_perray_end"], jitter)
    r.close("per ray", per_ray[..., None], g["stratified_perray"], EXACT)
    z, weights = g["z_vals"].squeeze(-1), g["weights"].squeeze(-1)
    r.close("smoothed weights", smooth_weights(weights.flatten(0, 1)), g["smoothed_weights"], EXACT)
    count = g["importance_half"].shape[2]
    for name, u in [("half", torch.full((count,), 0.5)), ("strat", _spread(count))]:
        fine = importance_depths(z, weights, u.expand(*z.shape[:2], count))
        r.close(f"importance {name}", fine[..., None], g[f"importance_{name}"])
    depths, colours, sigma = merge(
        g["unify_depths1"].squeeze(-1), g["unify_colors1"], g["unify_densities1"].squeeze(-1),
        g["unify_depths2"].squeeze(-1), g["unify_colors2"], g["unify_densities2"].squeeze(-1),
    )  # fmt: skip
    r.close("merged depths", depths[..., None], g["unify_depths"], EXACT)
    r.close("merged colours", colours, g["unify_colors"], EXACT)
    r.close("merged densities", sigma[..., None], g["unify_densities"], EXACT)


def plane_sampling(g: Golden, r: Result) -> None:
    planes, points, side = g["planes"], g["points"], float(g["box_warp"])
    for ours, theirs in [("eg3d", "eg3d"), ("aligned", "fixed")]:
        # Each stored matrix holds a plane's axes as columns of its inverse: first the one that runs along the width.
        inverse = torch.linalg.inv(g[f"axes_{theirs}"])
        r.close(f"matrices {theirs}", project_points(points, ours), (points[:, None] @ inverse)[..., :2], EXACT)
        projected = g[f"projected_{theirs}"]
        own = project_points(points, ours)
        r.close(
            f"projected {theirs}",
            own if torch.allclose(own, projected, atol=1e-4) else own * (2 / side),
            projected,
            EXACT,
        )
        looked = lookup_planes(planes, points, ours, side)
        r.close(f"sampled {theirs}", looked.mT, g[f"sampled_{theirs}"])
        mean = sample_planes(planes, points, ours, side)
        r.close(f"mean of three {theirs}", mean, g[f"sampled_{theirs}"].mean(1))


def decoder(g: Golden, r: Result) -> None:
    for prefix in sorted({name.split("_")[0] for name in g.tensors}):
        state = g.state(f"{prefix}_net.")
        hidden, channels = state["0.weight"].shape
        network = Decoder(channels, hidden, len(state["2.bias"]) - 1, lr_multiplier=float(prefix.removeprefix("lr")))
        network.net.load_state_dict(state)
        rgb, sigma = network(g[f"{prefix}_features"].mean(dim=1))
        r.close(f"{prefix} rgb", rgb, g[f"{prefix}_rgb"])
        r.close(f"{prefix} sigma", sigma, g[f"{prefix}_sigma"])


def options_from_eg3d(kwargs: dict[str, object], axes: str) -> RenderOptions:
    """EG3D's rendering settings as ours."""
    return Profile.from_eg3d({"rendering_kwargs": kwargs}, plane_axes=axes).render  # type: ignore[arg-type]


def renderer_small(g: Golden, r: Result) -> None:
    base, variants = json.loads(g.metadata["options"]), json.loads(g.metadata["variants"])
    state = g.state("decoder.net.")
    network = Decoder(state["0.weight"].shape[1], len(state["0.bias"]), len(state["2.bias"]) - 1)
    network.net.load_state_dict(state)
    resolution = math.isqrt(g["origins"].shape[1])
    views: dict[str, Rays] = {"": Rays(g["origins"], g["directions"])}
    made = generate_rays(g["cam2world"], g["intrinsics"], resolution)
    r.close("origins", made.origins, g["origins"], EXACT)
    r.close("directions", made.directions, g["directions"], EXACT)
    if "wide_origins" in g:
        views["wide_"] = Rays(g["wide_origins"], g["wide_directions"])
        made = generate_rays(g["cam2world"], g["wide_intrinsics"], resolution)
        r.close("wide origins", made.origins, g["wide_origins"], EXACT)
        r.close("wide directions", made.directions, g["wide_directions"], EXACT)
        hit = box_limits(views["wide_"], float(base["box_warp"]))[2]
        r.close("rays that hit the box", hit.float(), g["wide_hits_box"].float(), 0.0)
    for name in sorted(name.removesuffix("_features") for name in g.tensors if name.endswith("_features")):
        stem, axes = name.rsplit("_", 1)
        view = "wide_" if stem.startswith("wide_") else ""
        change, mode = variants[stem.removeprefix(view)]
        options = options_from_eg3d(base | change, "aligned" if axes == "fixed" else axes)
        u = 0.5 if mode == "half" else None
        with torch.no_grad():
            seen = render(g["planes"], network, views[view], options, deterministic=True, u=u)
        r.close(f"{name} features", seen.features, g[f"{name}_features"])
        r.close(f"{name} depth", seen.depth, g[f"{name}_depth"])
        r.close(f"{name} alpha", seen.alpha, g[f"{name}_weight_total"])


def _recover_filter(x: Tensor, y: Tensor, size: int) -> Tensor | None:
    """The size x size filter that turned x into y at the same size, or None; it is not stored beside the results."""
    pad = (size // 2, (size - 1) // 2) * 2
    columns = nn.functional.unfold(nn.functional.pad(x, pad).flatten(0, 1)[:, None], size).mT.reshape(-1, size * size)
    target = y.reshape(-1, 1).double()
    taps = torch.linalg.lstsq(columns.double(), target).solution
    if (columns.double() @ taps - target).abs().max() > 1e-5:
        return None
    return taps.reshape(size, size).flip([0, 1]).float()  # it was applied as a true convolution


def upfirdn(g: Golden, r: Result) -> None:
    x = g["x"]
    r.close("our filter", fir_filter(), g["filter"], EXACT)
    r.close("upsample2d", upsample2d(x, fir_filter()), g["up2_sym"], EXACT)
    r.close("downsample2d", downsample2d(x, fir_filter()), g["down2_sym"], EXACT)
    recovered = (_recover_filter(x, g["filter_asym"], size) for size in range(2, 9))
    asymmetric = next((f for f in recovered if f is not None), None)
    if asymmetric is None:
        r.failures.append("filter_asym is not a small filter applied to x")
        return
    for suffix, f in [("sym", g["filter"]), ("asym", asymmetric)]:
        size = f.shape[0]
        up = ((size + 1) // 2, (size - 2) // 2) * 2
        down = ((size - 1) // 2, (size - 2) // 2) * 2
        same = (size // 2, (size - 1) // 2) * 2
        r.close(f"up {suffix}", upfirdn2d(x, f, up=(2, 2), padding=up, gain=4.0), g[f"up2_{suffix}"], EXACT)
        r.close(f"down {suffix}", upfirdn2d(x, f, down=(2, 2), padding=down), g[f"down2_{suffix}"], EXACT)
        r.close(f"same {suffix}", upfirdn2d(x, f, padding=same), g[f"filter_{suffix}"], EXACT)
        general = upfirdn2d(x, f, up=(2, 3), down=(3, 2), padding=(2, -1, 3, 1), flip=True, gain=1.7)
        r.close(f"general {suffix}", general, g[f"general_{suffix}"], EXACT)
    for name in sorted(name for name in g.tensors if name.startswith("interp_") and not name.endswith("_x")):
        stem, mode = name.rsplit("_", 1)
        size = g[name].shape[-2:]
        # This is the resize super-resolution applies to inputs of an unexpected size.
        y = nn.functional.interpolate(
            g[f"{stem}_x"], size=size, mode="bilinear", align_corners=False, antialias=mode == "antialias"
        )
        r.close(name, y, g[name], EXACT)


def layers(g: Golden, r: Result) -> None:
    x, bias = g["bias_act_x"], g["bias_act_b"]
    for name in sorted(name for name in g.tensors if name.startswith("bias_act_")):
        activation = name.removeprefix("bias_act_")
        if activation in ("x", "b"):
            continue
        if activation == "lrelu_gain_clamp":
            # Gain and limit are not stored: the limit is the largest value, the gain shows where it was not reached.
            limit = float(g[name].abs().max())
            free = nn.functional.leaky_relu(x + bias[:, None, None], 0.2)
            inside = (g[name].abs() < limit) & (free.abs() > 0.1)
            gain = float((g[name] / free)[inside].median())
            r.close(name, bias_act(x, bias, "lrelu", gain=gain, clamp=limit), g[name], EXACT)
        else:
            r.close(name, bias_act(x, bias, activation), g[name], EXACT)  # type: ignore[arg-type]
    for name, up, down, demodulate in [
        ("up2", 2, 1, True),
        ("same", 1, 1, True),
        ("down2", 1, 2, True),
        ("torgb", 1, 1, False),
    ]:
        x, weight, styles = (g[f"modconv_{name}_{part}"] for part in ("x", "weight", "styles"))
        y = modulated_conv2d(x, weight, styles, fir_filter(), up=up, down=down, demodulate=demodulate)
        r.close(f"modconv {name}", y, g[f"modconv_{name}_y"], EXACT)
        single = [
            modulated_conv2d(x[i : i + 1], weight, styles[i : i + 1], fir_filter(), up=up, down=down, demodulate=demodulate)
            for i in range(len(x))
        ]
        r.close(f"modconv {name}, one at a time", torch.cat(single), g[f"modconv_{name}_y"], EXACT)
        if f"modconv_{name}_noise" in g:
            r.close(f"modconv {name} + noise", y + g[f"modconv_{name}_noise"], g[f"modconv_{name}_y_noise"], EXACT)
    for name, activation in [("fc_linear", "linear"), ("fc_lrelu", "lrelu")]:
        state = g.state(f"{name}.")
        r.close(name, _best_linear(state, activation, g[f"{name}_x"], g[f"{name}_y"]), g[f"{name}_y"], EXACT)
    for name, up, down, activation in [
        ("conv_up", 2, 1, "lrelu"),
        ("conv_down", 1, 2, "lrelu"),
        ("conv_1x1_down", 1, 2, "linear"),
    ]:
        state = g.state(f"{name}.")
        outputs, inputs, kernel, _ = state["weight"].shape
        layer = EqualizedConv2d(
            inputs,
            outputs,
            kernel,
            bias="bias" in state,
            activation=activation,
            up=up,
            down=down,  # type: ignore[arg-type]
        )
        layer.load_state_dict(state)
        r.close(name, layer(g[f"{name}_x"]), g[f"{name}_y"], EXACT)


def _best_linear(state: dict[str, Tensor], activation: str, x: Tensor, y: Tensor) -> Tensor:
    """The layer's output with the learning-rate multiplier that fits best, because the file does not store it."""
    outputs, inputs = state["weight"].shape
    candidates = []
    for multiplier in (1.0, 0.5, 0.1, 0.01):
        layer = EqualizedLinear(inputs, outputs, activation=activation, lr_multiplier=multiplier)  # type: ignore[arg-type]
        layer.load_state_dict(state)
        candidates.append(layer(x).detach())
    return min(candidates, key=lambda value: float((value - y).abs().max()))


def mapping(g: Golden, r: Result) -> None:
    for name in sorted({key.split(".")[0] for key in g.tensors if "." in key}):
        state = g.state(f"{name}.")
        count = sum(key.startswith("fc") and key.endswith("weight") for key in state)
        z, c, ws = g[f"{name}_z"], g[f"{name}_c"], g[f"{name}_ws"]
        network = MappingNetwork(
            z.shape[1],
            c.shape[1],
            ws.shape[2],
            ws.shape[1],
            layers=count,
            features=len(state["fc0.bias"]),
            embed_features=len(state["embed.bias"]),
        )
        network.load_state_dict(state)
        r.close(f"{name} ws", network(z, c), ws)
        r.close(f"{name} zero label", network(z, 0 * c), g[f"{name}_ws_zero_label"])
        r.close(f"{name} halved label", network(z, 0.5 * c), g[f"{name}_ws_scaled_label"])
        for key in sorted(key for key in g.tensors if key.startswith(f"{name}_ws_psi")):
            truncation, cutoff = _truncation(key)
            r.close(key.replace("_", " "), network(z, c, truncation=truncation, cutoff=cutoff), g[key])


def _truncation(name: str) -> tuple[float, int | None]:
    """What `..._psi03_cut2` says: 0.3 for the first two layers."""
    psi, _, cut = name.split("_psi")[1].partition("_cut")
    return float(psi) / 10, int(cut) if cut else None


COMPONENTS: dict[str, Callable[[Golden, Result], None]] = {
    "cameras": cameras,
    "ray_sampler": ray_sampler,
    "ray_marcher": ray_marcher,
    "sample_pdf": sample_pdf_set,
    "ray_sampling": ray_sampling,
    "plane_sampling": plane_sampling,
    "decoder": decoder,
    "renderer_small": renderer_small,
    "upfirdn2d": upfirdn,
    "layers": layers,
    "mapping": mapping,
}


# --- Whole generators -----------------------------------------------------------------------------------------------


# The configuration of a generator does not say how its planes lie. These were made by the original release, whose third
# plane reads (z, x); Talk3D renders with the corrected axes.
PLANE_AXES_OF_SETS: dict[str, PlaneAxes] = {"eg3d": "eg3d", "talk3d": "aligned"}


def load_generator(folder: Path, axes: PlaneAxes) -> Generator:
    """The generator a set describes, with its weights."""
    config = json.loads((folder / "config.json").read_text())
    profile = Profile.from_eg3d(
        config["init_kwargs"],
        plane_axes=axes,
        neural_resolution=config["neural_rendering_resolution"],
    )
    generator = Generator(profile)
    state = {name: value.float() for name, value in load_file(folder / "state.safetensors").items()}
    # The training loop registers this buffer on the generator; it belongs to the discriminator's label noise.
    state.pop("dataset_label_std", None)
    generator.load_state_dict(state)
    return generator.eval()


def _middle(x: Tensor, size: int, shift: int = 0) -> Tensor:
    half = x.shape[-1] // 2
    top, left = half - size // 2, half - size // 2 + shift
    return x[..., top : top + size, left : left + size]


@torch.no_grad()
def eg3d(g: Golden, r: Result, generator: Generator) -> None:
    z, c, ws = g["z"], g["c"], g["ws_layers"]
    r.close("ws", generator.map(z, g["c_cond"]), g["ws"])
    for name in sorted(name for name in g.tensors if name.startswith("ws_psi")):
        truncation, cutoff = _truncation(name)
        r.close(name, generator.map(z, g["c_cond"], truncation, cutoff), g[name])

    planes = generator.planes(ws, noise="const")
    flat = planes.flatten(1, 2)
    r.close("planes, every eighth", flat[:, :, 1::8, 2::8], g["planes_stride8_f16"])
    size = g["planes_crop"].shape[-1]
    r.close("planes, crop", flat[:, :, 100 : 100 + size, 90 : 90 + size], g["planes_crop"])
    size = g["planes_corner"].shape[-1]
    r.close("planes, corner", flat[:, :, :size, -size:], g["planes_corner"])
    r.stats("planes", flat, g["planes_stats"])
    size = g["planes_nonoise_crop"].shape[-1]
    silent = generator.planes(ws, noise="none").flatten(1, 2)
    r.close("planes without noise", silent[:, :, 100 : 100 + size, 90 : 90 + size], g["planes_nonoise_crop"])

    rgb, sigma = generator.query(planes, g["points"])
    r.close("colours of points", rgb, g["points_rgb"])
    r.close("densities of points", sigma, g["points_sigma"])

    poses, intrinsics = camera_from_label(c)
    for suffix, u in [("", 0.5), ("_ustrat", None)]:
        _frames(g, r, generator, planes, ws, suffix, u)

    features = g["sr64_features"].float()
    for noise in ("none", "const"):
        image = generator.superresolve(features, features[:, :3], None, ws[:1], noise=noise)  # type: ignore[arg-type]
        name = f"sr64_{noise}_image"
        r.close(f"{name} crop", _middle(image, g[f"{name}_crop"].shape[-1]), g[f"{name}_crop"])
        size = g[f"{name}_corner"].shape[-1]
        r.close(f"{name} corner", image[..., :size, -size:], g[f"{name}_corner"])
        r.stats(name, image, g[f"{name}_stats"])

    # A plain call of the reference takes all importance quantiles at a half as well, and conditions on the camera.
    truncated = generator.map(z[:1], c[:1], 0.7, generator.profile.num_ws)
    raw = generator.render(generator.planes(truncated), poses[:1], intrinsics[:1], deterministic=True, u=0.5)
    image = generator.superresolve(raw.features, raw.rgb, None, truncated)
    r.close("forward image", _middle(image, g["forward_psi07_image_crop"].shape[-1]), g["forward_psi07_image_crop"])
    r.close("forward image_raw", raw.rgb, g["forward_psi07_image_raw"])
    r.close("forward depth", raw.depth, g["forward_psi07_image_depth"])

    name = next(name for name in g.tensors if name.startswith("batch2_r") and name.endswith("_image_raw"))
    small = int(name.removeprefix("batch2_r").split("_")[0])
    raw = generator.render(planes, poses[:2], intrinsics[:2], small, deterministic=True, u=0.5)
    r.close("batch image_raw", raw.rgb, g[name])
    r.close("batch depth", raw.depth, g[name.replace("_raw", "_depth")])


def _frames(g: Golden, r: Result, generator: Generator, planes: Tensor, ws: Tensor, suffix: str, u: float | None) -> None:
    """All frames of one sampling mode, one per call: depth is clamped per batch."""
    poses, intrinsics = camera_from_label(g["c"])
    index = g["ws_index"].tolist()
    images, raws, overwritten = [], [], []
    for frame, which in enumerate(index):
        own = ws[which : which + 1]
        raw = generator.render(planes[which : which + 1], poses[frame, None], intrinsics[frame, None], deterministic=True, u=u)
        images.append(generator.superresolve(raw.features, raw.rgb, None, own))
        raws.append(raw)
        if f"image_raw_as_returned{suffix}" in g:
            styles = own[:, -1:].expand(-1, 3, -1)
            overwritten.append(generator.superresolution.block0(raw.features, raw.rgb, styles)[1])
    image = torch.cat(images)
    features = torch.cat([raw.features for raw in raws])
    r.close(f"image_raw{suffix}", features[:, :3], g[f"image_raw{suffix}"])
    r.close(f"image_depth{suffix}", torch.cat([raw.depth for raw in raws]), g[f"image_depth{suffix}"])
    r.close(f"features{suffix}", _middle(features, g[f"feature_crop{suffix}"].shape[-1]), g[f"feature_crop{suffix}"])
    r.stats(f"features{suffix}", features, g[f"feature_stats{suffix}"])
    if overwritten:
        # What the reference returns is the skip image after the first block; ours must differ from it and explain it.
        r.close(f"image_raw_as_returned{suffix}", torch.cat(overwritten), g[f"image_raw_as_returned{suffix}"])
    if f"image{suffix}" in g:
        r.close(f"image{suffix}", image, g[f"image{suffix}"])
    if f"image{suffix}_f16" in g:
        r.close(f"image{suffix} (half)", image, g[f"image{suffix}_f16"])
    if f"image{suffix}_stride2_f16" in g:
        r.close(f"image{suffix}, every second (half)", image[:, :, ::2, 1::2], g[f"image{suffix}_stride2_f16"])
    if f"image{suffix}_crop" in g:
        size = g[f"image{suffix}_crop"].shape[-1]
        r.close(f"image{suffix} crop", _middle(image, size, size // 12), g[f"image{suffix}_crop"])
    if f"image{suffix}_stats" in g:
        r.stats(f"image{suffix}", image, g[f"image{suffix}_stats"])


# --- Talk3D ---------------------------------------------------------------------------------------------------------

ROLL_OUT_OF_TALK3D: RollOut = "official"


def aware3d(g: Golden, r: Result) -> None:
    for case in sorted(name.removesuffix("_x") for name in g.tensors if name.endswith("_x")):
        rolled = roll_out(g[f"{case}_x"].unflatten(1, (3, -1)), ROLL_OUT_OF_TALK3D)
        r.close(f"{case}, joined", rolled.flatten(1, 2), g[f"{case}_y"], EXACT)
        for index, plane in enumerate(PLANES):
            r.close(f"{case}, {plane}", rolled[:, index], g[f"{case}_{plane}"], EXACT)


def load_talker(root: Path, change: Callable[[dict[str, Tensor]], None] | None = None) -> tuple[DeltaNetwork, list[Golden]]:
    """Talk3D's talker from the two states that it is stored in, and these."""
    encoders = Golden(root / "talk3d" / "encoders" / "state.safetensors", change)
    unet = Golden(root / "talk3d" / "deltaplane" / "state.safetensors", change)
    states: dict[str, dict[str, Tensor]] = {"deltaplane_predictor": unet.state("")}
    null_vector = encoders["null_vector"]
    for part in sorted({name.split("/")[0] for name in encoders.tensors if "/" in name}):
        states[part] = encoders.state(f"{part}/")
    provenance = {"file": "talk3d/*/state.safetensors"}
    return load_official(Talk3DCheckpoint(states, null_vector, 0, 0, provenance), "hf:unknown"), [encoders, unet]


@torch.no_grad()
def encoders(g: Golden, r: Result, network: DeltaNetwork) -> None:
    encoder, heard = network.encoder, g["audio_windows"]
    each = encoder.audio_net(heard.flatten(0, 1)).unflatten(0, heard.shape[:2])
    r.close("codes of windows", each, g["audio_net_out"])
    code = encoder.hear(heard)
    r.close("attended code", code[:, None], g["audio_att_out"])
    values = {"eye": g["eye"], "angle": g["angle"], "landmark": g["landmark"].flatten(1)}
    for name, layers in (("eye", encoder.blink), ("angle", encoder.rotation), ("landmark", encoder.landmark)):
        r.close(f"{name}, waves", layers.embed(values[name]), g[f"{name}_embedding"])
        r.close(f"{name}, token", layers(values[name])[:, None], g[f"{name}_out"])
    r.close("null vectors", encoder.null[None], g["null_vector"], 0.0)
    # What is 1 for closed eyes here is 2 there.
    given = Conditions(code, values["eye"][:, 0] / 2, values["angle"], values["landmark"])
    r.close("tokens", encoder(given), g["tokens"])


def formula(coefficients: Mapping[str, float], *sizes: int) -> Tensor:
    """The stored waves [sizes]: of the first, the second, and the last two axes and their product."""
    first, second, row, column = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in sizes], indexing="ij")
    k = [coefficients[f"k{i}"] for i in range(5)]
    wave = torch.sin(k[0] * first + k[1] * second + k[2] * row + k[3] * column + k[4] * row * column)
    return (coefficients["A"] * wave).float()


@torch.no_grad()
def deltaplane(g: Golden, r: Result, unet: AttentionUNet, config: Mapping[str, Any]) -> None:
    tokens = g["tokens"]
    planes = formula(config["input_coefficients"], len(tokens), config["img_channels"], *[config["plane_res"]] * 2)
    r.close("input", planes[:, :, 40:48, 200:208], g["input_crop"], EXACT)
    r.stats("input", planes, g["input_stats"])
    code = AttentionUNet(unet.config).position  # as it starts
    _rows(g, r, "pos_emb_formula", code, 29)

    # An avatar has planes of its own; here each sample has.
    samples = [_stages(unet, planes[i : i + 1].unflatten(1, (3, -1)), tokens[i : i + 1]) for i in range(len(tokens))]
    stages = {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}
    for name, value in stages.items():
        if f"{name}_rows" in g:
            _rows(g, r, name, value, 37)
        elif name != "output":
            half = value.shape[-1] // 2
            r.close(f"{name}, crop", value[..., half - 4 : half + 4, half - 6 : half + 2], g[f"{name}_crop"])
            r.close(f"{name}, corner", value[..., :4, -4:], g[f"{name}_corner"])
            r.stats(name, value, g[f"{name}_stats"])
    output = stages["output"]
    r.close("output, every fourth", output[:, :, ::4, 1::4], g["output_stride4_f16"])
    r.close("output, crop", output[:, :, 120:144, 96:120], g["output_crop"])
    r.close("output, corner", output[:, :, :12, -12:], g["output_corner"])
    r.stats("output", output, g["output_stats"])

    shares = g["scores_rows"].mean(2)  # over heads
    trunks = [unet.trunk(planes[i : i + 1].unflatten(1, (3, -1))) for i in range(len(tokens))]
    maps = torch.cat([unet.attention(trunk, tokens[i : i + 1]) for i, trunk in enumerate(trunks)], 1)
    r.close("attention", maps.flatten(4).mT.flatten(2, 3)[:, :, ::61], shares)


def _stages(unet: AttentionUNet, planes: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """What Talk3D's network has at its stages, found in ours."""
    seen: dict[str, Tensor] = {}
    block = unet.blocks[0]
    watched = {
        "norm": unet.norm, "proj_in": unet.project, "self0": block.self_attention, "ff0": block.contract,
        "up1": unet.up1, "up2": unet.up2, "up3": unet.up3,
    }  # fmt: skip

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        return module.register_forward_hook(lambda _module, _given, made: seen.update({name: made}))

    hooks = [watch(name, module) for name, module in watched.items()]
    trunk = unet.trunk(planes)
    output = unet.delta(trunk, tokens)
    for hook in hooks:
        hook.remove()
    side = trunk.bottom.shape[-1]
    stream = unet._streams(trunk, tokens)
    attended = trunk.bottom + stream[-1].mT.unflatten(3, (side, side))
    up = {name: unet._up(seen[name]) for name in ("up1", "up2", "up3")}
    return {
        "mid_down1_xy": trunk.skips[0][:, 0],
        "mid_down2_zx": trunk.skips[1][:, 2],
        "mid_down": trunk.bottom.flatten(1, 2),
        "mid_attn_norm": seen["norm"],
        "mid_attn_proj_in": seen["proj_in"],
        "mid_attn_self0": seen["self0"],
        "mid_attn_ff0": seen["ff0"],
        "mid_attn_block0": block.listen(stream[0], tokens),
        "mid_attn": attended.flatten(1, 2),
        "mid_up1_xy": up["up1"][:, 0],
        "mid_up2_yz": up["up2"][:, 1],
        "mid_up3_zx": up["up3"][:, 2],
        "output": output.flatten(1, 2),
    }


def _rows(g: Golden, r: Result, name: str, value: Tensor, step: int) -> None:
    """Some positions of a stream [B, 3, N, E], stored as [B, N, 3 E]; and statistics of all."""
    flat = value.transpose(1, 2).flatten(2)
    r.close(name, flat[:, ::step], g[f"{name}_rows"])
    r.stats(name, flat, g[f"{name}_stats"])


@torch.no_grad()
def talk3d_render(g: Golden, r: Result, generator: Generator, config: Mapping[str, Any]) -> None:
    ws, (yaw, pitch) = g["ws"], g["yaw_pitch"].unbind(-1)
    orbit = Orbit(config["radius"], tuple(map(float, config["pivot"])), config["focal_length"])
    poses = orbit.pose(yaw, eg3d_elevation(pitch)).float()
    r.close("cameras", camera_label(poses, orbit.intrinsics()), g["c"], EXACT)
    poses, intrinsics = camera_from_label(g["c"])
    planes = generator.planes(ws, noise="const").flatten(1, 2)
    delta = formula(config["delta_coefficients"], len(poses), *planes.shape[1:])
    r.close("delta", delta[:, :, 10:14, 100:104], g["delta_crop"], EXACT)
    for suffix, moved in (("_nodelta", planes.expand_as(delta)), ("", planes + delta)):
        raws = [
            generator.render(
                moved[i : i + 1].unflatten(1, (3, -1)), poses[i : i + 1], intrinsics[i : i + 1],
                config["neural_rendering_resolution"], deterministic=True,
            )
            for i in range(len(poses))
        ]  # fmt: skip
        r.close(f"image_raw{suffix}", torch.cat([raw.rgb for raw in raws]), g[f"image_raw{suffix}"])
        r.close(f"image_depth{suffix}", torch.cat([raw.depth for raw in raws]), g[f"image_depth{suffix}"])
    image = torch.cat([generator.superresolve(raw.features, raw.rgb, None, ws) for raw in raws])
    r.close("image, crop", image[:, :, 200:264, 224:288], g["image_crop"])
    r.stats("image", image, g["image_stats"])


def talk3d(root: Path, which: str, r: Result, change: Callable[[dict[str, Tensor]], None] | None) -> list[Golden]:
    """One of Talk3D's sets, by name."""
    folder = root / "talk3d" / which
    if which == "aware3d":
        files = [Golden(folder.with_suffix(".safetensors"), change)]
        aware3d(files[0], r)
        return files
    g = Golden(folder / "io.safetensors", change)
    if which == "render":
        config = json.loads((folder / "config.json").read_text())
        state = root / config["state"]
        talk3d_render(g, r, load_generator(state.parent, PLANE_AXES_OF_SETS["talk3d"]), config)
        return [g]
    network, states = load_talker(root, change)
    if which == "encoders":
        encoders(g, r, network)
    else:
        deltaplane(g, r, network.unet, json.loads((folder / "config.json").read_text()))
    return [g, *states]


TALK3D = ("aware3d", "deltaplane", "encoders", "render")


# --- Checkpoints ----------------------------------------------------------------------------------------------------


def checkpoint(root: Path, path: Path, r: Result, change: Callable[[dict[str, Tensor]], None] | None) -> list[Golden]:
    """What an import finds, bit by bit, against the states that the description beside the file names; and its pictures."""
    if path.suffix == ".pkl":
        config = json.loads(path.with_suffix(".json").read_text())
        folder = (root / config["G_ema_equals"].split()[0]).parent
        state, io = Golden(folder / "state.safetensors", change), Golden(folder / "io.safetensors")
        generator = read_eg3d(path).generator
        _same(r, "", generator.state_dict(), state, skip=("dataset_label_std",))
        eg3d(io, r, generator)
        return [state, io]
    talker = read_talk3d(path)
    _same_states(r, to_official(load_official(talker, "hf:unknown"))[0], talker.states)
    unet = Golden(root / "talk3d" / "deltaplane" / "state.safetensors", change)
    encoders = Golden(root / "talk3d" / "encoders" / "state.safetensors", change)
    _same(r, "deltaplane_predictor/", talker.states["deltaplane_predictor"], unet)
    others = {f"{part}/{name}": value for part, state in talker.states.items() for name, value in state.items()}
    names = {name: value for name, value in others.items() if not name.startswith("deltaplane_predictor/")}
    _same(r, "", names | {"null_vector": talker.null_vector}, encoders)
    return [unet, encoders]


def _same_states(r: Result, actual: Mapping[str, Mapping[str, Tensor]], expected: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Through our network and back, bit by bit."""
    if {part: sorted(state) for part, state in actual.items()} != {part: sorted(state) for part, state in expected.items()}:
        r.failures.append("our network gives back other names")
        return
    for part, state in expected.items():
        for name, value in state.items():
            r.close(f"{part}/{name}, there and back", actual[part][name], value, 0.0)


def _same(r: Result, prefix: str, actual: Mapping[str, Tensor], g: Golden, skip: tuple[str, ...] = ()) -> None:
    """The same names and the same bits; states may be stored in half precision where that is exact."""
    expected = {name: g[name] for name in sorted(g.tensors)}
    if set(actual) != set(expected) - set(skip):
        r.failures.append(f"{prefix or 'weights'}: other names, such as {sorted(set(actual) ^ set(expected))[:3]}")
    for name in sorted(set(actual) & set(expected)):
        r.close(f"{prefix}{name}", actual[name], expected[name].to(actual[name].dtype), 0.0)


# --- Running --------------------------------------------------------------------------------------------------------


def sets(root: Path) -> list[str]:
    """Names of the sets under a root that this program can compare, such as `components/decoder` or `eg3d/eg3d-128`."""
    components = [f"components/{name}" for name in COMPONENTS if (root / "components" / f"{name}.safetensors").exists()]
    generators = sorted(f"eg3d/{path.parent.name}" for path in root.glob("eg3d/*/config.json"))
    talkers = [f"talk3d/{name}" for name in TALK3D if any(root.glob(f"talk3d/{name}*"))]
    checkpoints = sorted(f"checkpoints/{path.name}" for path in root.glob("checkpoints/*.p*"))
    return components + generators + talkers + checkpoints


def not_covered(root: Path) -> list[str]:
    """What lies under a root that this program does not compare."""
    unknown = [f"components/{p.stem}" for p in (root / "components").glob("*.safetensors") if p.stem not in COMPONENTS]
    unknown += [f"eg3d/{p.name}" for p in root.glob("eg3d/*") if not (p / "config.json").exists()]
    unknown += [f"talk3d/{p.name}" for p in root.glob("talk3d/*") if p.stem not in TALK3D]
    folders = [p.name for p in root.iterdir() if p.is_dir() and p.name not in ("components", "eg3d", "talk3d", "checkpoints")]
    return sorted(unknown + folders)


def check(root: Path, name: str, change: Callable[[dict[str, Tensor]], None] | None = None) -> Result:
    """Compare one set; ``change`` may alter the stored tensors first, to see the comparison fail."""
    kind, which = name.split("/")
    result = Result(name)
    if kind == "components":
        golden = Golden(root / kind / f"{which}.safetensors", change)
        with torch.no_grad():
            COMPONENTS[which](golden, result)
        files = [golden]
    elif kind == "checkpoints":
        files = checkpoint(root, root / kind / which, result, change)
    elif kind == "talk3d":
        with torch.no_grad():
            files = talk3d(root, which, result, change)
    else:
        golden = Golden(root / kind / which / "io.safetensors", change)
        eg3d(golden, result, load_generator(root / kind / which, PLANE_AXES_OF_SETS["eg3d"]))
        files = [golden]
    return result.finish(*files)


def run(root: Path) -> Iterator[Result]:
    """Compare every set under a root, one after another."""
    for name in sets(root):
        try:
            yield check(root, name)
        except Exception as error:  # a set that cannot even be read must not hide the ones after it
            yield Result(name, failures=[f"could not be compared: {type(error).__name__}: {error}"])


def main(arguments: list[str]) -> int:
    """Print one line per set and return the exit status."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python tests/golden/verify.py ROOT   (a folder laid out like the golden vectors)")
        return 2
    root = Path(arguments[0])
    failed = compared = 0
    print(f"{'set':28}{'cases':>7}{'largest error':>16}{'of allowed':>12}")
    for result in run(root):
        compared += result.cases
        failed += bool(result.failures)
        verdict = "FAIL" if result.failures else "pass"
        print(f"{result.name:28}{result.cases:7}{result.largest:16.2e}{result.worst:12.1%}  {verdict}", flush=True)
        for failure in result.failures:
            print(f"    {failure}")
    for name in not_covered(root):
        print(f"{name:28}{'-':>7}{'-':>16}{'-':>12}  not covered")
    if not compared and not failed:
        print(f"Nothing under {root} could be compared.")
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

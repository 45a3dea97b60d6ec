"""The renderer's CUDA kernels on a card: are they right, and how long does a frame take with them and without?

    python benchmarks/cuda_frame.py check      # values and gradients against the reference
    python benchmarks/cuda_frame.py compile    # to machine code; registers and memory of each kernel
    python benchmarks/cuda_frame.py table      # times and memory of a frame and of a training step's rendering

Only `table` needs a card. Without one, `check` runs at tiny size in Triton's interpreter, which TRITON_INTERPRET=1 asks for.
`mini` is the shipped prior, `full` has random weights. Frames begin with planes that are there already. A graph is the whole of
such a frame, captured once and replayed. Convolutions in float32 take TensorFloat-32 factors, as is PyTorch's default.
"""

import argparse
import dataclasses
import functools
import itertools
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import talk3d
from talk3d.prior.fast import DevicePainter
from talk3d.prior.generator import FULL, MINI, Generator, Profile, load_prior
from talk3d.prior.patch import Windows
from talk3d.render import gpu
from talk3d.render.layers import Layers
from talk3d.render.rays import Rays, generate_rays, rays_through
from talk3d.render.reference import Rendering, render

PROFILES = {"mini": MINI, "full": FULL}
KERNELS = {
    "drawing": ("march_forward", {"COLOURS": True}),
    "coarse pass": ("march_forward", {"COLOURS": False}),
    "training a talker": ("march_backward", {"PLANES": True, "LAYERS": False, "RAYS": True}),
    "training a prior": ("march_backward", {"PLANES": True, "LAYERS": True, "RAYS": False}),
    "all gradients": ("march_backward", {"PLANES": True, "LAYERS": True, "RAYS": True}),
}
NUMBERS = {"rays", "samples", "height", "width", "next_picture", "next_plane", "next_row", "next_texel"}
VALUES, GRADIENTS = 1e-3, 1e-2
"""Mean difference of values, and length of the difference of gradients over their own: more is an error."""


def person(name: str, device: torch.device) -> tuple[Generator, Tensor, Tensor]:
    """A generator, style vectors and planes."""
    torch.manual_seed(0)
    if name == "mini":
        generator = load_prior(Path(talk3d.__file__).parent / "assets" / "prior").generator
    else:
        generator = Generator(PROFILES[name])
        with torch.no_grad():
            generator.decoder.net[2].weight[0] *= 20  # surfaces instead of the thin fog of random weights
    generator = generator.eval().requires_grad_(False).to(device)
    label = generator.frontal_label(1)
    latent = torch.zeros(1, generator.profile.z_dim, device=device)
    with torch.no_grad():
        ws = generator.map(latent, None if label is None else label.to(device))
        return generator, ws, generator.planes(ws).float()


def cameras(profile: Profile, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    orbit = profile.orbit
    pose = orbit.pose(torch.linspace(-0.5, 0.5, batch), torch.zeros(batch))
    return pose.to(device), orbit.intrinsics().expand(batch, 3, 3).to(device)


# --- Are they right? ------------------------------------------------------------------------------------------------


def check(name: str, device: torch.device) -> bool:
    """Print how far values and gradients are from the reference's; whether all are near enough."""
    generator, _, planes = person(name, device)
    options, resolution = generator.profile.render, 64
    if device.type == "cpu":
        options, resolution = dataclasses.replace(options, samples_coarse=5, samples_fine=4), 4
    seen = generate_rays(*cameras(generator.profile, 1, device), resolution)
    rays = Rays(seen.origins.clone().requires_grad_(), seen.directions.clone().requires_grad_())
    layers = Layers(*(x.detach().clone().requires_grad_() for x in generator.decoder.layers()))
    planes = planes.clone().requires_grad_()
    leaves = {"planes": planes, "origins": rays.origins, "directions": rays.directions} | layers._asdict()
    right = True

    def say(what: str, found: float, allowed: float) -> None:
        nonlocal right
        right &= found <= allowed
        print(f"{name:6}{what:36}{found:10.2g}   {'right' if found <= allowed else 'WRONG'}")

    with torch.no_grad():
        ours = gpu.render_gpu(planes, layers, rays, options, deterministic=True)
        theirs = render(planes, layers.decode, rays, options, deterministic=True)
    for field in ("features", "depth", "alpha"):
        difference = (getattr(ours, field) - getattr(theirs, field)).abs()
        say(f"mean difference of {field}", float(difference.mean()), VALUES)
    # At the same depths: importance sampling would make other samples of a difference in the last bit.
    fixed = dataclasses.replace(options, samples_coarse=options.samples_coarse + options.samples_fine, samples_fine=0)

    def gradients(seen: Rendering) -> tuple[Tensor, ...]:
        values = torch.cat([seen.features, seen.depth, seen.alpha], -1)
        weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(1)).to(device)
        return torch.autograd.grad((values * weights).sum(), list(leaves.values()))

    mine = gradients(gpu.render_gpu(planes, layers, rays, fixed, deterministic=True))
    plain = gradients(render(planes, layers.decode, rays, fixed, deterministic=True))
    for what, a, b in zip(leaves, mine, plain, strict=True):
        say(f"difference of gradients to {what}", float((a - b).norm() / b.norm()), GRADIENTS)
    return right


# --- Do they compile? -----------------------------------------------------------------------------------------------


def compile_kernel(name: str, use: str, precision: gpu.Precision, architecture: int) -> str:
    """One line about a kernel's machine code. Needs no card, but not the interpreter."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from talk3d.render import kernels

    profile = PROFILES[name]
    kernel, flags = KERNELS[use]
    function = getattr(kernels, kernel)
    sizes = gpu._Layout(Generator(profile).decoder.layers()).sizes
    constants = gpu._sides(profile.render.plane_axes) | sizes | flags
    constants |= {"R": gpu._RAYS, "COPIES": gpu._COPIES, "PRECISION": precision}
    constants = {key: value for key, value in constants.items() if key in function.arg_names}

    def kind(argument: str) -> str:
        if argument in constants:
            return "constexpr"
        return "fp32" if argument == "scale" else "i32" if argument in NUMBERS else "*fp32"

    source = ASTSource(
        function, {argument: kind(argument) for argument in function.arg_names},
        {(function.arg_names.index(key),): value for key, value in constants.items()},
        # What Triton finds out of these profiles' numbers and of memory: all are divisible by 16.
        {
            (place,): [["tt.divisibility", 16]]
            for place, argument in enumerate(function.arg_names)
            if argument != "scale" and argument not in constants
        },
    )  # fmt: skip
    warps = gpu._warps(sizes, flags)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": warps})
    return (
        f"{name:5}{precision:6}{use:20}sm_{architecture}  {warps} warps  {compiled.metadata.shared:6} bytes shared  "
        f"{_resources(compiled.asm['cubin'])}"
    )


def _resources(code: bytes) -> str:
    """Registers and local memory of machine code, as Triton's own copy of NVIDIA's tool says."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        return ""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        said = subprocess.run([str(tool), "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    found = dict(re.findall(r"(REG|STACK):(\d+)", said))
    return f"{found.get('REG', '?'):>3} registers  {found.get('STACK', '?'):>4} bytes spilled"


# --- How long does it take? -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Time:
    """Milliseconds of a call, median and half the distance between quartiles, and the most memory it held beside what was
    there, MB."""

    median: float
    spread: float
    memory: float

    @classmethod
    def of(cls, work: Callable[[], object], repeats: int) -> "Time":
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
        for start, stop in events:
            start.record()
            work()
            stop.record()
        torch.cuda.synchronize()
        times = sorted(start.elapsed_time(stop) for start, stop in events)
        quarter = repeats // 4
        spread = (times[-1 - quarter] - times[quarter]) / 2
        return cls(statistics.median(times), spread, (torch.cuda.max_memory_allocated() - before) / 1e6)


def row(name: str, batch: int, what: str, path: str, measured: Time, reference: Time) -> None:
    print(
        f"{name:5}{batch:3}  {what:18}{path:24}{measured.median / batch:9.3f}{measured.spread / batch:9.3f}"
        f"{measured.memory:10.1f}{reference.median / measured.median:8.2f}",
        flush=True,
    )


def captured(draw: Callable[[], Tensor]) -> Callable[[], None]:
    """A graph of everything that `draw` asks of the card; its inputs and outputs stay where they are."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, checks and warms up: none of that can be captured
            draw()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        draw()
    return graph.replay


def frames(name: str, batch: int, device: torch.device, repeats: int) -> None:
    """Rows of whole frames and their stages, per frame."""
    generator, ws, planes = person(name, device)
    profile = generator.profile
    planes, style = planes.expand(batch, -1, -1, -1, -1).contiguous(), ws.expand(batch, -1, -1)
    camera = cameras(profile, batch, device)
    rays = generate_rays(*camera, profile.neural_resolution)
    layers = generator.decoder.layers()

    @torch.inference_mode()
    def look(precision: gpu.Precision | None) -> Rendering:
        if precision is None:
            return render(planes, generator.decoder, rays, profile.render, deterministic=True)
        return gpu.render_gpu(planes, layers, rays, profile.render, deterministic=True, precision=precision)

    plain = Time.of(lambda: look(None), repeats)
    row(name, batch, "rendering", "reference", plain, plain)
    for precision in ("ieee", "tf32"):
        row(name, batch, "rendering", f"kernels, {precision}", Time.of(functools.partial(look, precision), repeats), plain)

    @torch.inference_mode()
    def reference() -> Tensor:
        seen = render(planes, generator.decoder, rays, profile.render, deterministic=True)
        size = (profile.neural_resolution,) * 2
        features, alpha = (value.mT.unflatten(2, size) for value in (seen.features, seen.alpha))
        return generator.superresolve(features, features[:, :3], alpha, style)

    plain = Time.of(reference, repeats)
    row(name, batch, "frame", "reference", plain, plain)
    for dtype in (torch.float32, torch.bfloat16):
        painter, text = DevicePainter(generator, ws, dtype), str(dtype).removeprefix("torch.")

        def draw(painter: DevicePainter = painter) -> Tensor:
            return painter(planes, *camera).image

        row(name, batch, "frame", f"kernels, {text}", Time.of(draw, repeats), plain)
        try:
            replay = captured(draw)
        except RuntimeError as error:  # a table without this row is better than none
            print(f"{name:5}{batch:3}  frame             graph, {text}: {str(error).splitlines()[0]}")
            continue
        row(name, batch, "frame", f"graph, {text}", Time.of(replay, repeats), plain)


def training(name: str, device: torch.device, repeats: int) -> None:
    """Rows of a training step's rendering, forwards and backwards: windows of four pictures, random samples, moving cameras."""
    generator, _, planes = person(name, device)
    profile, batch = generator.profile, 4
    planes = planes.expand(batch, -1, -1, -1, -1).clone().requires_grad_()
    pose, intrinsics = cameras(profile, batch, device)
    pose.requires_grad_()
    windows = Windows.random(batch, profile.neural_resolution, np.random.default_rng(0))
    positions, layers = windows.positions().to(device), generator.decoder.layers()

    def step(kernels: bool) -> None:
        rays = rays_through(pose, intrinsics, positions)
        seen = (
            gpu.render_gpu(planes, layers, rays, profile.render, deterministic=False)
            if kernels
            else render(planes, generator.decoder, rays, profile.render, deterministic=False)
        )
        torch.autograd.grad(seen.features.square().mean() + seen.alpha.mean(), [planes, pose])

    plain = Time.of(lambda: step(False), repeats)
    row(name, batch, "training, windows", "reference", plain, plain)
    row(name, batch, "training, windows", "kernels, ieee", Time.of(lambda: step(True), repeats), plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "compile", "table"])
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), default=list(PROFILES))
    parser.add_argument("--architecture", type=int, nargs="+", default=[80, 90], help="80 is Ampere, 90 Hopper")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rays", type=int, default=gpu._RAYS, help="of a program")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    gpu._RAYS = options.rays
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.what == "compile":
        for name, architecture, use in itertools.product(options.profiles, options.architecture, KERNELS):
            print(compile_kernel(name, use, "ieee", architecture), flush=True)
    elif options.what == "check":
        results = [check(name, device) for name in options.profiles]  # all of them, also after a wrong one
        if not all(results):
            sys.exit(1)
    else:
        if device.type == "cpu":
            sys.exit("cuda_frame.py: there is no CUDA device here; `check` and `compile` work without one.")
        card = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
        print(f"{card}, medians of {options.repeats}, {options.rays} rays a tile")
        print(f"{'':5}{'batch':5}{'':18}{'':22}{'ms/frame':>9}{'spread':>9}{'MB':>10}{'ratio':>8}")
        for name in options.profiles:
            for batch in options.batches:
                frames(name, batch, device, options.repeats)
            training(name, device, options.repeats)


if __name__ == "__main__":
    main()

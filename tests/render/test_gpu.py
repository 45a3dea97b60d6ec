"""The CUDA kernels against the reference, in values and gradients: on a card, or else in Triton's interpreter."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from talk3d.camera import Orbit
from talk3d.prior.generator import Decoder
from talk3d.render import gpu
from talk3d.render.layers import Layers
from talk3d.render.rays import Rays, rays_through
from talk3d.render.reference import Rendering, RenderOptions, render

ROOT = Path(__file__).parents[2]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPTIONS = RenderOptions(samples_coarse=5, samples_fine=3, near=2.25, far=3.2, box_warp=0.9)
LEAVES = ("planes", "origins", "directions", "first", "first_bias", "last", "last_bias")


@dataclasses.dataclass
class Scene:
    """Planes higher than wide, a decoder whose sizes are no powers of two, and rays that fill no tile, some beside the box."""

    planes: Tensor
    decoder: Decoder
    rays: Rays

    @classmethod
    def random(cls, batch: int = 1, rays: int = 13, channels: int = 5, hidden: int = 11, gain: float = 3.0) -> "Scene":
        torch.manual_seed(1)
        planes = (2 * torch.randn(batch, 3, channels, 14, 11)).to(DEVICE)
        decoder = Decoder(channels, hidden, 3, density_gain=gain).to(DEVICE)
        decoder.net[2].weight.data *= 2  # surfaces, and fog before them; colours that are not all grey
        orbit = Orbit()
        pose = orbit.pose(torch.linspace(-0.6, 0.5, batch), torch.linspace(-0.2, 0.3, batch))
        seen = rays_through(pose, orbit.intrinsics().expand(batch, 3, 3), torch.rand(batch, rays, 2) * 1.2 - 0.1)
        return cls(planes, decoder, Rays(seen.origins.contiguous().to(DEVICE), seen.directions.to(DEVICE)))

    def leaves(self) -> dict[str, Tensor]:
        """Everything that has gradients, by name."""
        values = (self.planes, self.rays.origins, self.rays.directions, *self.decoder.layers())
        return {name: value.detach().clone() for name, value in zip(LEAVES, values, strict=True)}


def drawn(way: str, leaves: dict[str, Tensor], options: RenderOptions, **places: Tensor | float) -> Rendering:
    """Seen by the kernels, or by the reference; where the samples lie is given, or else in the middle."""
    layers, rays = Layers(*(leaves[name] for name in LEAVES[3:])), Rays(leaves["origins"], leaves["directions"])
    if way == "kernels":
        return gpu.render_gpu(leaves["planes"], layers, rays, options, deterministic=not places, **places)
    return render(leaves["planes"], layers.decode, rays, options, deterministic=not places, **places)


def gradients(seen: Rendering, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    torch.manual_seed(2)
    total = sum((torch.randn_like(value) * value).sum() for value in (seen.features, seen.depth, seen.alpha))
    return torch.autograd.grad(total, leaves)


def assert_same(ours: Rendering, theirs: Rendering, atol: float = 2e-5) -> None:
    for field in ("features", "depth", "alpha"):
        torch.testing.assert_close(getattr(ours, field), getattr(theirs, field), atol=atol, rtol=1e-5)


def assert_same_gradients(leaves: dict[str, Tensor], options: RenderOptions, wanted: tuple[str, ...], **places: Tensor) -> None:
    for name in LEAVES:
        leaves[name].requires_grad_(name in wanted)
    chosen = [leaves[name] for name in wanted]
    ours, theirs = drawn("kernels", leaves, options, **places), drawn("reference", leaves, options, **places)
    assert_same(ours, theirs)
    assert 0.05 < float(theirs.alpha.detach().mean()) < 0.95
    for name, mine, plain in zip(wanted, gradients(ours, chosen), gradients(theirs, chosen), strict=True):
        assert float(plain.norm()) > 0, name
        assert float((mine - plain).norm() / plain.norm()) < 1e-3, name


@pytest.mark.parametrize("axes", ["eg3d", "aligned"])
def test_values_and_all_gradients_equal_the_references(axes: str) -> None:
    """Of two pictures, with random samples."""
    scene = Scene.random(batch=2, rays=9)
    options = dataclasses.replace(OPTIONS, samples_coarse=4, plane_axes=axes)
    places = {"jitter": torch.rand(2, 9, 4, device=DEVICE), "u": torch.rand(2, 9, 3, device=DEVICE)}
    assert_same_gradients(scene.leaves(), options, LEAVES, **places)


@pytest.mark.parametrize("wanted", [("planes",), LEAVES[:3], LEAVES[3:], ("planes", *LEAVES[3:]), ("origins",)])
def test_only_what_is_asked_for_gets_gradients(wanted: tuple[str, ...]) -> None:
    assert_same_gradients(Scene.random().leaves(), OPTIONS, wanted)


@pytest.mark.parametrize(
    ("limits", "counts", "white_back", "disparity"),
    [
        ((None, None), (5, 3), False, False),
        ((None, 3.2), (5, 3), True, False),
        ((2.0, None), (4, 0), False, False),
        ((2.25, 3.2), (7, 0), True, True),
        ((2.25, 3.2), (4, 5), False, True),
        ((None, None), (4, 2), True, True),
    ],
)
def test_values_and_gradients_for_all_options(
    limits: tuple[float | None, float | None], counts: tuple[int, int], white_back: bool, disparity: bool
) -> None:
    options = RenderOptions(*counts, *limits, 0.9, "aligned", white_back, disparity)
    # One ray more than a tile holds where samples are few, else exactly as many.
    assert_same_gradients(Scene.random(rays=16 if counts[1] else 17).leaves(), options, ("planes", *LEAVES[3:]))


def test_sizes_of_the_shipped_profile() -> None:
    """Sizes that need no filling up, and surfaces as hard as a trained prior's."""
    scene = Scene.random(channels=16, hidden=32, gain=20.0)
    assert_same_gradients(scene.leaves(), OPTIONS, ("planes",))


def test_gradients_are_slopes() -> None:
    """Of the kernels' own values, without the reference: fog without texture, moved a little along the gradient."""
    leaves = Scene.random(gain=1.0).leaves()
    options = dataclasses.replace(OPTIONS, samples_coarse=4, samples_fine=0)
    leaves["planes"] *= 0.3
    for name in ("planes", "last"):
        leaves[name].requires_grad_()

        def total() -> Tensor:
            seen = drawn("kernels", leaves, options)
            return seen.features.square().sum() + (seen.depth * seen.alpha).sum()

        value = total()
        (slope,) = torch.autograd.grad(value, leaves[name])
        leaves[name].requires_grad_(False)
        step = 1e-2 * slope / slope.norm()
        still = leaves[name].clone()
        ends = [float(total()) for leaves[name] in (still + step, still - step)]
        leaves[name] = still
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(float(slope.norm()), rel=2e-2)


def test_a_ray_that_meets_nothing_is_empty_and_as_far_as_can_be() -> None:
    scene = Scene.random(rays=3)
    leaves = scene.leaves()
    leaves["last"][0], leaves["last_bias"][0] = 0.0, -30.0
    leaves["planes"].requires_grad_()
    ours, theirs = drawn("kernels", leaves, OPTIONS), drawn("reference", leaves, OPTIONS)
    assert_same(ours, theirs, atol=0)
    assert bool((ours.alpha == 0).all())
    assert bool(torch.isfinite(gradients(ours, [leaves["planes"]])[0]).all())


def test_a_wall_hides_what_is_behind_it_from_gradients_too() -> None:
    leaves = Scene.random(rays=5).leaves()
    leaves["last_bias"][0] = 1e4
    leaves["planes"].requires_grad_()
    ours, theirs = drawn("kernels", leaves, OPTIONS), drawn("reference", leaves, OPTIONS)
    assert_same(ours, theirs)
    assert bool((ours.alpha > 0.999).all())
    mine, plain = gradients(ours, [leaves["planes"]])[0], gradients(theirs, [leaves["planes"]])[0]
    torch.testing.assert_close(mine, plain, atol=1e-5 * float(plain.abs().max()), rtol=1e-3)


def test_how_planes_lie_in_memory_changes_nothing() -> None:
    leaves = Scene.random(rays=4).leaves()
    planes = leaves["planes"]
    options = dataclasses.replace(OPTIONS, samples_coarse=3, samples_fine=0)
    seen = drawn("kernels", leaves, options).features
    leaves["planes"] = planes.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    assert torch.equal(drawn("kernels", leaves, options).features, seen)


def test_layers_are_the_decoder_and_pass_gradients_on() -> None:
    decoder, x = Scene.random(gain=7.0).decoder, torch.randn(2, 9, 5, device=DEVICE)
    for ours, theirs in zip(decoder.layers().decode(x), decoder(x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    parameters = list(decoder.parameters())
    mine = torch.autograd.grad(sum(y.sum() for y in decoder.layers().decode(x)), parameters)
    plain = torch.autograd.grad(sum(y.sum() for y in decoder(x)), parameters)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_what_needs_the_reference_is_said() -> None:
    scene = Scene.random()
    planes, rays = scene.planes, scene.rays
    assert gpu.not_covered(planes, rays, OPTIONS) is None
    assert "single precision" in (gpu.not_covered(planes.double(), rays, OPTIONS) or "")
    assert "no rays" in (gpu.not_covered(planes, Rays(rays.origins[:, :0], rays.directions[:, :0]), OPTIONS) or "")
    moving = Rays(rays.origins.clone().requires_grad_(), rays.directions)
    box = dataclasses.replace(OPTIONS, near=None)
    assert gpu.not_covered(planes, moving, OPTIONS) is None
    assert "through depths" in (gpu.not_covered(planes, moving, box) or "")
    with torch.no_grad():
        assert gpu.not_covered(planes, moving, box) is None
    assert "CUDA" in (gpu.why_not(planes.cpu(), rays, OPTIONS) or "")


def test_kernels_compile_without_a_card(tmp_path: Path) -> None:
    """To machine code of NVIDIA's Ampere, at the shipped profile's sizes: more than the interpreter can say."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(ROOT / "benchmarks" / "cuda_frame.py"), "compile", "--profiles", "mini"]
    done = subprocess.run([*command, "--architecture", "80"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("registers") == 5


def test_pictures_on_the_cpu_do_not_import_triton() -> None:
    program = (
        "import sys, torch; from talk3d.prior.generator import MINI, Generator; g = Generator(MINI).eval(); "
        "o = MINI.orbit; z = torch.zeros(1); p = torch.zeros(1, 3, 16, 8, 8); "
        "g.render(p, o.pose(z, z), o.intrinsics()[None], resolution=4); assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})

"""The generator as a whole: official names and counts, the small profile's budget, pictures with alpha, files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from talk3d.artifacts import Prior
from talk3d.camera import Orbit, camera_label
from talk3d.errors import ArtifactError, CheckpointError, ConfigError, OutputExistsError
from talk3d.prior.generator import (
    FULL,
    MINI,
    Decoder,
    Generator,
    Picture,
    Profile,
    composite,
    load_prior,
    load_weights,
    save_prior,
)
from talk3d.prior.superres import SuperResolutionConfig
from talk3d.render.rays import generate_rays

TINY = dataclasses.replace(
    MINI,
    name="tiny",
    z_dim=6,
    w_dim=12,
    mapping_features=12,
    plane_resolution=16,
    plane_channels=4,
    channel_base=128,
    channel_max=8,
    decoder_hidden=8,
    decoder_features=5,
    neural_resolution=8,
    superres=SuperResolutionConfig(input_resolution=8, widths=(6, 4), first_up=True, clamp=None),
    render=dataclasses.replace(MINI.render, samples_coarse=6, samples_fine=5),
)
CANONICAL = np.linspace(-0.3, 0.3, 468 * 3, dtype=np.float32).reshape(468, 3)
EXPRESSIONS = {"jawOpen": torch.linspace(0, 1, TINY.z_dim)}


def cameras(count: int, profile: Profile = TINY) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.linspace(-0.3, 0.3, count)
    return profile.orbit.pose(angles, 0.5 * angles), profile.orbit.intrinsics().expand(count, 3, 3)


def official_state() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official FFHQ 512-128 generator, written out from the method's description."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, inputs: int, outputs: int, resolution: int) -> None:
        shapes.update({
            f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.noise_strength": (), f"{name}.bias": (outputs,),
            f"{name}.resample_filter": (4, 4), f"{name}.noise_const": (resolution, resolution),
            f"{name}.affine.weight": (inputs, 512), f"{name}.affine.bias": (inputs,),
        })  # fmt: skip

    def block(name: str, inputs: int, outputs: int, resolution: int, image: int) -> None:
        shapes[f"{name}.resample_filter"] = (4, 4)
        if inputs:
            layer(f"{name}.conv0", inputs, outputs, resolution)
        layer(f"{name}.conv1", outputs, outputs, resolution)
        shapes.update({
            f"{name}.torgb.weight": (image, outputs, 1, 1), f"{name}.torgb.bias": (image,),
            f"{name}.torgb.affine.weight": (outputs, 512), f"{name}.torgb.affine.bias": (outputs,),
        })  # fmt: skip

    channels = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128}
    shapes["backbone.synthesis.b4.const"] = (512, 4, 4)
    for r, c in channels.items():
        block(f"backbone.synthesis.b{r}", channels.get(r // 2, 0), c, r, 96)
    for name, inputs, outputs in [("embed", 25, 512), ("fc0", 1024, 512), ("fc1", 512, 512)]:
        shapes |= {f"backbone.mapping.{name}.weight": (outputs, inputs), f"backbone.mapping.{name}.bias": (outputs,)}
    shapes["backbone.mapping.w_avg"] = (512,)
    block("superresolution.block0", 32, 256, 256, 3)
    block("superresolution.block1", 256, 128, 512, 3)
    shapes |= {"decoder.net.0.weight": (64, 32), "decoder.net.0.bias": (64,)}
    return shapes | {"decoder.net.2.weight": (33, 64), "decoder.net.2.bias": (33,)}


def test_full_profile_has_the_official_names_shapes_and_counts() -> None:
    with torch.device("meta"):
        generator = Generator(FULL)
    state = {name: tuple(value.shape) for name, value in generator.state_dict().items()}
    assert state == official_state()
    assert len(state) == 176

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    parts = (generator.backbone, generator.superresolution, generator.decoder)
    assert [count(part) for part in parts] == [29_008_301, 1_649_578, 4_257]
    assert count(generator) == 30_662_136
    assert sum(b.numel() for b in generator.buffers()) == 831_024
    assert FULL.num_ws == generator.backbone.mapping.num_ws == 14
    assert FULL.image_resolution == 512


def test_official_settings_give_the_full_profile() -> None:
    rendering = {
        "depth_resolution": 48, "depth_resolution_importance": 48, "ray_start": 2.25, "ray_end": 3.3, "box_warp": 1,
        "disparity_space_sampling": False, "clamp_mode": "softplus", "sr_antialias": True, "c_scale": 1.0,
        "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC", "decoder_lr_mul": 1.0,
        "c_gen_conditioning_zero": False, "avg_camera_radius": 2.7, "avg_camera_pivot": [0, 0, 0.2],
    }  # fmt: skip
    arguments = {
        "z_dim": 512, "c_dim": 25, "w_dim": 512, "img_resolution": 512, "mapping_kwargs": {"num_layers": 2},
        "channel_base": 32768, "channel_max": 512, "conv_clamp": None, "sr_num_fp16_res": 4,
        "rendering_kwargs": rendering,
    }  # fmt: skip
    profile = Profile.from_eg3d(arguments, plane_axes="aligned", neural_resolution=128)
    assert dataclasses.replace(profile, name=FULL.name, orbit=FULL.orbit) == FULL
    assert profile.orbit == Orbit(radius=2.7, pivot=(0.0, 0.0, 0.2), focal=4.2647)
    # A missing c_scale means zero: no conditioning.
    del rendering["c_scale"]
    assert Profile.from_eg3d(arguments, plane_axes="eg3d").camera_scale == 0
    rendering |= {"ray_start": "auto", "ray_end": "auto"}
    automatic = Profile.from_eg3d(arguments, plane_axes="eg3d").render
    assert automatic.near is None
    assert automatic.far is None
    rendering["clamp_mode"] = "relu"
    with pytest.raises(ConfigError, match="relu"):
        Profile.from_eg3d(arguments, plane_axes="eg3d")


def test_mini_profile_shapes_and_size() -> None:
    generator = Generator(MINI).eval()
    assert MINI.num_ws == 12
    with torch.no_grad():
        ws = generator.map(torch.randn(1, MINI.z_dim))
        assert ws.shape == (1, 12, 256)
        assert generator.planes(ws).shape == (1, 3, 16, 128, 128)
        picture = generator(ws, *cameras(1, MINI))
    assert picture.image.shape == (1, 4, 256, 256)
    assert picture.raw.features.shape == (1, 16, 64, 64)
    assert picture.raw.rgb.shape == (1, 3, 64, 64)
    assert picture.raw.depth.shape == picture.raw.alpha.shape == (1, 1, 64, 64)
    assert not any("noise" in name for name in generator.state_dict())
    assert 2 * sum(v.numel() for v in generator.state_dict().values()) <= 16 * 2**20, "half-precision weights"


def lookup_and_elementwise_flops(profile: Profile) -> int:
    """What the operation counter does not see, per picture: bilinear lookups and pointwise functions of each sample."""
    samples = profile.neural_resolution**2 * (profile.render.samples_coarse + profile.render.samples_fine)
    lookups = 3 * (profile.plane_channels * 7 + 20) + 3 * profile.plane_channels  # 4 products, 3 sums; indices; mean
    pointwise = 8 * (profile.decoder_hidden + profile.decoder_features)  # an exponential counted as about eight
    marching = 40
    return samples * (lookups + pointwise + marching)


def test_mini_profile_keeps_its_budget() -> None:
    """Costs are fixed once weights ship: at most 1 GFLOP to render a picture and 4 to enlarge it."""
    generator = Generator(MINI).eval().requires_grad_(False)
    ws = generator.map(torch.randn(1, MINI.z_dim))
    planes = generator.planes(ws)
    with FlopCounterMode(display=False) as rendering:
        raw = generator.render(planes, *cameras(1, MINI))
    with FlopCounterMode(display=False) as enlarging:
        generator.superresolve(raw.features, raw.rgb, raw.alpha, ws)
    counted = rendering.get_total_flops()
    # The counter must have seen the decoder at every sample, or the budget would hold for want of counting.
    samples = 64 * 64 * 32
    assert counted >= samples * 2 * (16 * 32 + 32 * 17)
    assert counted + lookup_and_elementwise_flops(MINI) <= 1e9
    assert 1e9 <= enlarging.get_total_flops() <= 4e9


def test_every_parameter_learns() -> None:
    generator = Generator(TINY)
    ws = generator.map(torch.randn(2, 6))
    raw = generator.render(generator.planes(ws), *cameras(2))
    image = generator.superresolve(raw.features, raw.rgb, raw.alpha, ws)
    (image.square().mean() + raw.depth.mean()).backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_training_samples_at_random_and_evaluation_does_not() -> None:
    generator = Generator(TINY)
    planes = generator.planes(generator.map(torch.randn(1, 6))).detach()

    def draw() -> torch.Tensor:
        return generator.render(planes, *cameras(1)).features

    assert not torch.equal(draw(), draw())
    generator.eval()
    assert torch.equal(draw(), draw())


def test_chosen_rays_equal_the_pixels_of_a_picture() -> None:
    generator = Generator(TINY).eval()
    planes = generator.planes(generator.map(torch.randn(2, 6)))
    pose, intrinsics = cameras(2)
    picture = generator.render(planes, pose, intrinsics, resolution=8)
    rays = generate_rays(pose, intrinsics, 8)
    seen = generator.render_rays(planes, rays)
    pixel = 8 * 3 + 5  # row 3, column 5
    torch.testing.assert_close(picture.features[..., 3, 5], seen.features[:, pixel])
    torch.testing.assert_close(picture.alpha[..., 3, 5], seen.alpha[:, pixel])
    torch.testing.assert_close(picture.rgb, picture.features[:, :3])


def test_forward_is_the_composition_of_its_parts() -> None:
    generator = Generator(TINY).eval()
    ws = generator.map(torch.randn(2, 6))
    picture = generator(ws, *cameras(2))
    assert isinstance(picture, Picture)
    raw = generator.render(generator.planes(ws), *cameras(2))
    torch.testing.assert_close(picture.image, generator.superresolve(raw.features, raw.rgb, raw.alpha, ws))


def test_camera_conditioning_is_scaled() -> None:
    conditioned = dataclasses.replace(TINY, c_dim=25, mapping_embed=6)
    for scale, matters in [(1.0, True), (0.0, False)]:
        generator = Generator(dataclasses.replace(conditioned, camera_scale=scale))
        z, (pose, intrinsics) = torch.randn(1, 6).expand(2, 6), cameras(2)
        ws = generator.map(z, camera_label(pose, intrinsics))
        assert torch.allclose(ws[0], ws[1]) != matters


def test_truncation_reaches_the_average_that_was_tracked() -> None:
    generator = Generator(TINY)
    ws = generator.map(torch.randn(64, 6))
    generator.backbone.mapping.track_average(ws, decay=0.0)
    torch.testing.assert_close(generator.map(torch.randn(3, 6), truncation=0.0), ws.mean(0).expand(3, -1, -1))


def test_decoder_ranges() -> None:
    colour, sigma = Decoder(4, 8, 5)(100 * torch.randn(2, 50, 4))
    assert colour.shape == (2, 50, 5)
    assert sigma.shape == (2, 50, 1)
    assert colour.min() >= -0.00101
    assert colour.max() <= 1.00101


def test_density_gain_scales_raw_density_alone() -> None:
    plain = Decoder(4, 8, 5)
    strong = Decoder(4, 8, 5, density_gain=20.0)
    strong.load_state_dict(plain.state_dict())
    features = torch.randn(2, 9, 4)
    (colour, sigma), (same, denser) = plain(features), strong(features)
    assert torch.equal(same, colour)
    torch.testing.assert_close(denser, 20 * sigma)
    assert FULL.density_gain == 1, "official weights know no gain"


def test_an_empty_scene_is_transparent_and_shows_the_background() -> None:
    generator = Generator(TINY).eval()
    with torch.no_grad():
        generator.decoder.net[2].bias[0] = -100.0
        raw = generator.render(torch.zeros(1, 3, 4, 16, 16), *cameras(1))
    assert raw.alpha.max() == 0
    assert (raw.features == -1).all()
    assert torch.isfinite(raw.depth).all()
    background = torch.rand(1, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(composite(torch.cat([raw.rgb, 2 * raw.alpha - 1], dim=1), background), background)


def test_compositing_is_premultiplied_over() -> None:
    foreground, background = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    alpha = torch.rand(2, 1, 4, 4)
    image = torch.cat([2 * foreground * alpha - 1, 2 * alpha - 1], dim=1)
    expected = foreground * alpha + background * (1 - alpha)
    torch.testing.assert_close(composite(image, 2 * background - 1), 2 * expected - 1)
    # An alpha outside 0..1, as super-resolution may give, counts as the nearest end.
    image[:, 3] = 3.0
    torch.testing.assert_close(composite(image, 2 * background - 1), image[:, :3])


def test_alpha_enters_super_resolution_only_where_the_profile_has_it() -> None:
    generator = Generator(TINY).eval()
    ws = generator.map(torch.randn(1, 6))
    raw = generator.render(generator.planes(ws), *cameras(1))
    with pytest.raises(AssertionError, match="alpha"):
        generator.superresolve(raw.features, raw.rgb, None, ws)
    opaque = Generator(dataclasses.replace(TINY, alpha=False)).eval()
    assert opaque.superresolve(raw.features, raw.rgb, None, ws).shape == (1, 3, 32, 32)


def test_points_can_be_queried() -> None:
    generator = Generator(TINY).eval()
    planes = generator.planes(generator.map(torch.randn(1, 6)))
    colour, sigma = generator.query(planes, torch.zeros(1, 7, 3))
    assert colour.shape == (1, 7, 5)
    assert sigma.shape == (1, 7, 1)


@pytest.mark.parametrize("profile", [MINI, FULL, TINY, Profile.from_json(MINI.to_json())])
def test_profiles_survive_json(profile: Profile) -> None:
    assert Profile.from_json(profile.to_json()) == profile


def test_profiles_of_another_version_are_refused_by_field() -> None:
    fields = json.loads(MINI.to_json())
    del fields["z_dim"]
    fields["render"]["warp"] = 2
    with pytest.raises(ConfigError, match="warp"):
        Profile.from_json(json.dumps(fields))
    del fields["render"]["warp"]
    with pytest.raises(ConfigError, match="z_dim"):
        Profile.from_json(json.dumps(fields))


@pytest.mark.parametrize("half", [False, True])
def test_priors_survive_the_disk(tmp_path: Path, half: bool) -> None:
    generator = Generator(TINY).eval()
    save_prior(
        tmp_path / "prior", generator, CANONICAL, half=half, config={"steps": 7}, licence="Apache-2.0", expressions=EXPRESSIONS
    )
    prior = load_prior(tmp_path / "prior")
    assert prior.profile == TINY
    assert prior.artifact.config["steps"] == 7
    assert torch.equal(prior.expressions["jawOpen"], EXPRESSIONS["jawOpen"])
    assert prior.artifact.manifest["licence"] == "Apache-2.0"
    assert prior.hash == Prior.open(tmp_path / "prior").hash
    np.testing.assert_array_equal(prior.canonical_landmarks, CANONICAL)
    assert not prior.generator.training
    assert not any(p.requires_grad for p in prior.generator.parameters())
    for name, value in prior.generator.state_dict().items():
        own = generator.state_dict()[name]
        assert value.dtype == torch.float32
        assert torch.equal(value, own.half().float() if half else own)


def test_random_latents_are_normal_without_people() -> None:
    latents = Generator(TINY).random_latents(4000, 3)
    assert latents.shape == (4000, TINY.z_dim)
    assert latents.mean(0).abs().max() < 0.1
    assert (latents.std(0) - 1).abs().max() < 0.1
    assert torch.equal(latents, Generator(TINY).random_latents(4000, 3))


def test_random_latents_are_those_of_people_each_once_before_any_twice(tmp_path: Path) -> None:
    generator = Generator(TINY)
    generator.latents = torch.arange(5).float()[:, None] + torch.zeros(TINY.z_dim)
    save_prior(tmp_path / "prior", generator, CANONICAL)
    prior = load_prior(tmp_path / "prior").generator
    first, second = prior.random_latents(10, 3)[:, 0].split(5)
    assert sorted(first.tolist()) == sorted(second.tolist()) == [0, 1, 2, 3, 4]
    assert len({tuple(prior.random_latents(5, seed)[:, 0].tolist()) for seed in range(8)}) > 4
    assert torch.equal(prior.random_latents(3, 1), generator.random_latents(3, 1))


def test_an_existing_prior_is_replaced_only_on_request(tmp_path: Path) -> None:
    save_prior(tmp_path / "prior", Generator(TINY), CANONICAL)
    with pytest.raises(OutputExistsError):
        save_prior(tmp_path / "prior", Generator(TINY), CANONICAL)
    save_prior(tmp_path / "prior", Generator(TINY), CANONICAL, overwrite=True)


def test_damaged_priors_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    save_prior(tmp_path / "prior", Generator(TINY), CANONICAL)
    weights = tmp_path / "prior" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="damaged"):
        load_prior(tmp_path / "prior")
    state = Generator(TINY).state_dict()
    state["decoder.net.0.weight"] = torch.zeros(1, 1)
    state["extra"] = state.pop("decoder.net.2.bias")
    with pytest.raises(CheckpointError, match=r"missing: decoder\.net\.2\.bias; unknown: extra; of another shape") as error:
        load_weights(Generator(TINY), state, "somewhere.safetensors")
    assert "somewhere.safetensors" in str(error.value)


@pytest.mark.parametrize(("value", "reason"), [(float("nan"), "not finite"), (1e5, "too large for half precision")])
def test_unusable_weights_are_not_saved(tmp_path: Path, value: float, reason: str) -> None:
    generator = Generator(TINY)
    with torch.no_grad():
        generator.decoder.net[0].bias[0] = value
    with pytest.raises(CheckpointError, match=reason):
        save_prior(tmp_path / "prior", generator, CANONICAL, half=True)
    assert not (tmp_path / "prior").exists()

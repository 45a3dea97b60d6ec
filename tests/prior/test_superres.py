"""Layouts of super-resolution, when inputs are resized, and what an output may depend on."""

import dataclasses

import pytest
import torch

from talk3d.errors import ConfigError
from talk3d.prior.superres import (
    BORDER,
    EG3D_2X,
    EG3D_4X,
    EG3D_8X,
    EG3D_8XDC,
    SuperResolution,
    SuperResolutionConfig,
    eg3d_superresolution,
)

SMALL = SuperResolutionConfig(input_resolution=16, widths=(6, 4), first_up=True, clamp=None)


def module(config: SuperResolutionConfig = SMALL, image_channels: int = 4) -> SuperResolution:
    return SuperResolution(config, features=5, image_channels=image_channels, w_dim=8)


@pytest.mark.parametrize(
    ("config", "output", "shapes"),
    [
        (EG3D_8XDC, 512, {"block0.conv0": (256, 32), "block1.conv0": (128, 256), "block1.conv1": (128, 128)}),
        (EG3D_8X, 512, {"block0.conv0": (128, 32), "block1.conv0": (64, 128)}),
        (EG3D_4X, 256, {"block0.conv0": (128, 32), "block1.conv0": (64, 128)}),
        (EG3D_2X, 128, {"block0.conv0": (128, 32), "block1.conv0": (64, 128)}),
    ],
)
def test_official_layouts(config: SuperResolutionConfig, output: int, shapes: dict[str, tuple[int, int]]) -> None:
    assert config.output_resolution == output
    with torch.device("meta"):
        network = SuperResolution(config, features=32, image_channels=3, w_dim=512)
    state = network.state_dict()
    for name, shape in shapes.items():
        assert tuple(state[f"{name}.weight"].shape[:2]) == shape
    assert state["block1.conv1.noise_const"].shape == (output, output)
    assert ("resample_filter" in state) == (config is not EG3D_8XDC)


def test_official_names_are_known_and_others_refused() -> None:
    found = eg3d_superresolution("training.superresolution.SuperresolutionHybrid4X", antialias=False, clamp=None)
    assert found == dataclasses.replace(EG3D_4X, antialias=False, clamp=None)
    with pytest.raises(ConfigError, match="SuperresolutionHybridDeepfp32"):
        eg3d_superresolution("training.superresolution.SuperresolutionHybridDeepfp32", antialias=True, clamp=None)


def test_unexpected_sizes_are_resized_except_larger_ones_for_4x() -> None:
    ws = torch.randn(1, 3, 8)
    for size in (8, 16, 24):
        image = module()(torch.randn(1, 5, size, size), torch.randn(1, 4, size, size), ws)
        assert image.shape == (1, 4, 64, 64)
    keep_larger = module(dataclasses.replace(SMALL, first_up=False, resize_larger=False))
    assert keep_larger(torch.randn(1, 5, 8, 8), torch.randn(1, 4, 8, 8), ws).shape == (1, 4, 32, 32)
    assert keep_larger(torch.randn(1, 5, 24, 24), torch.randn(1, 4, 24, 24), ws).shape == (1, 4, 48, 48)


def test_a_patch_equals_that_window_of_the_whole() -> None:
    network, ws = module(), torch.randn(2, 3, 8)
    features, skip = torch.randn(2, 5, 16, 16), torch.randn(2, 4, 16, 16)
    whole = network(features, skip, ws)
    patch = network(features[..., 4:14, 3:13], skip[..., 4:14, 3:13], ws, patch=True)
    assert patch.shape == (2, 4, 40, 40)
    border = 9  # convolutions nearer to the border than this miss their surroundings
    torch.testing.assert_close(
        patch[..., border:-border, border:-border],
        whole[..., 16 + border : 56 - border, 12 + border : 52 - border],
        atol=1e-5,
        rtol=1e-5,
    )


def test_only_the_last_style_counts_and_inputs_are_left_alone() -> None:
    """The reference adds into its input when the first block does not up-sample; see docs/quirks.md."""
    network = module(dataclasses.replace(SMALL, first_up=False))
    features, skip, ws = torch.randn(1, 5, 16, 16), torch.randn(1, 4, 16, 16), torch.randn(1, 3, 8)
    kept = features.clone(), skip.clone()
    image = network(features, skip, ws)
    assert torch.equal(features, kept[0])
    assert torch.equal(skip, kept[1])
    other = ws.clone()
    other[:, :-1] = 0
    assert torch.equal(network(features, skip, other), image)


def test_silent_blocks_pass_the_smoothly_enlarged_skip_image() -> None:
    network = module()
    for block in (network.block0, network.block1):
        torch.nn.init.zeros_(block.torgb.weight)
    flat = torch.full((1, 4, 16, 16), 0.3)
    image = network(torch.randn(1, 5, 16, 16), flat, torch.randn(1, 3, 8))
    torch.testing.assert_close(image[..., 8:-8, 8:-8], torch.full((1, 4, 48, 48), 0.3))


def test_whole_pictures_have_no_frame() -> None:
    """An even picture is enlarged to an even one; without a border, the zeros beyond the edge show."""
    features, skip, ws = torch.rand(1, 4, 1, 1), torch.rand(1, 3, 1, 1), torch.randn(1, 2, 8)
    spread = {}
    for border in (0, BORDER):
        torch.manual_seed(5)
        config = SuperResolutionConfig(input_resolution=16, widths=(8, 4), first_up=True, clamp=None, border=border)
        module = SuperResolution(config, features=4, image_channels=3, w_dim=8).eval()
        image = module(features.expand(-1, -1, 16, 16), skip.expand(-1, -1, 16, 16), ws)
        assert image.shape[-1] == 64
        spread[border] = float((image.amax((2, 3)) - image.amin((2, 3))).max().detach())
    assert spread[BORDER] < 1e-4 < 1e-2 < spread[0]

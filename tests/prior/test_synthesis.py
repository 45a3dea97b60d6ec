"""Filters against scipy, modulated convolutions against the textbook form, and laws of the mapping and the blocks."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor, nn

from talk3d.prior.synthesis import (
    EqualizedConv2d,
    EqualizedLinear,
    MappingNetwork,
    SynthesisLayer,
    SynthesisNetwork,
    ToRGBLayer,
    bias_act,
    conv2d_resample,
    downsample2d,
    fir_filter,
    modulated_conv2d,
    upfirdn2d,
    upsample2d,
)

F64 = torch.float64
FIR = fir_filter().double()


def scipy_resample(image: np.ndarray, taps: np.ndarray, up: int, down: int) -> np.ndarray:
    """Both axes through scipy's full up-filter-down; the first output sample is aligned with the first input sample."""
    for axis in (0, 1):
        image = scipy.signal.upfirdn(taps, image, up=up, down=down, axis=axis)
    return image


def test_filter_is_normalised_and_separable() -> None:
    torch.testing.assert_close(fir_filter() * 64, torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0])] * 2))


def test_doubling_equals_scipy() -> None:
    x = torch.randn(2, 3, 7, 6, dtype=F64)
    taps = np.array([1, 3, 3, 1]) / 8 * 2
    for b in range(2):
        for c in range(3):
            full = scipy_resample(x[b, c].numpy(), taps, up=2, down=1)  # 2 n - 1 + 3 samples
            np.testing.assert_allclose(upsample2d(x, FIR)[b, c].numpy(), full[1 : 1 + 14, 1 : 1 + 12], atol=1e-12)


def test_halving_equals_scipy() -> None:
    x = torch.randn(1, 2, 8, 6, dtype=F64)
    taps = np.array([1, 3, 3, 1]) / 8
    for c in range(2):
        full = scipy_resample(x[0, c].numpy(), taps, up=1, down=1)
        np.testing.assert_allclose(downsample2d(x, FIR)[0, c].numpy(), full[2:10:2, 2:8:2], atol=1e-12)


def test_halving_is_the_adjoint_of_doubling() -> None:
    x, y = torch.randn(1, 2, 4, 4, dtype=F64), torch.randn(1, 2, 8, 8, dtype=F64)
    torch.testing.assert_close((upsample2d(x, FIR) * y).sum(), 4 * (x * downsample2d(y, FIR)).sum())


def test_a_constant_stays_constant_away_from_the_border() -> None:
    flat = torch.full((1, 1, 8, 8), 2.5)
    torch.testing.assert_close(upsample2d(flat, fir_filter())[..., 2:-2, 2:-2], torch.full((1, 1, 12, 12), 2.5))
    torch.testing.assert_close(downsample2d(flat, fir_filter())[..., 1:-1, 1:-1], torch.full((1, 1, 2, 2), 2.5))


def test_fast_doubling_equals_stuffing_zeros() -> None:
    x = torch.randn(2, 3, 5, 6, dtype=F64)
    torch.testing.assert_close(upsample2d(x, FIR), upfirdn2d(x, FIR, up=(2, 2), padding=(2, 1, 2, 1), gain=4.0))


def test_negative_padding_crops_and_flipping_correlates() -> None:
    x = torch.randn(1, 1, 6, 7, dtype=F64)
    taps = torch.rand(3, 2, dtype=F64)
    y = upfirdn2d(x, taps, padding=(-1, 0, 2, 0), flip=True)
    inside = nn.functional.pad(x, (0, 0, 2, 0))[0, 0, :, 1:].numpy()
    np.testing.assert_allclose(y[0, 0].numpy(), scipy.signal.correlate2d(inside, taps.numpy(), mode="valid"), atol=1e-12)


def test_up_convolution_is_a_true_convolution_of_the_stuffed_signal() -> None:
    x, weight = torch.randn(1, 2, 5, 5, dtype=F64), torch.randn(3, 2, 3, 3, dtype=F64)
    stuffed = np.zeros((2, 10, 10))
    stuffed[:, ::2, ::2] = x[0].numpy()
    y = conv2d_resample(x, weight, FIR, up=2)
    for o in range(3):
        full = sum(scipy.signal.convolve2d(stuffed[i], weight[o, i].numpy()) for i in range(2))
        smooth = scipy.signal.convolve2d(full, 4 * FIR.numpy())
        # Of the 11 x 11 samples before filtering one stays on each side as padding: the filter's delay is 2.
        np.testing.assert_allclose(y[0, o].numpy(), smooth[2:12, 2:12], atol=1e-12)


@pytest.mark.parametrize(("up", "down", "kernel"), [(1, 1, 3), (2, 1, 3), (1, 2, 3), (1, 1, 1), (2, 1, 1), (1, 2, 1)])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulation_equals_scaling_each_samples_kernel(up: int, down: int, kernel: int, demodulate: bool) -> None:
    x, styles = torch.randn(3, 4, 8, 8, dtype=F64), torch.randn(3, 4, dtype=F64)
    weight = torch.randn(5, 4, kernel, kernel, dtype=F64)
    expected = []
    for n in range(3):
        own = weight * styles[n, None, :, None, None]
        if demodulate:
            own = own / (own.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected.append(conv2d_resample(x[n : n + 1], own, FIR, up=up, down=down))
    options = {"up": up, "down": down}
    many = modulated_conv2d(x, weight, styles, FIR, demodulate=demodulate, **options)
    torch.testing.assert_close(many, torch.cat(expected))
    one = modulated_conv2d(x[:1], weight, styles[:1], FIR, demodulate=demodulate, **options)
    torch.testing.assert_close(one, expected[0])


def test_demodulation_ignores_the_overall_size_of_a_style() -> None:
    x, styles, weight = torch.randn(2, 4, 6, 6), torch.rand(2, 4) + 0.5, torch.randn(5, 4, 3, 3)
    torch.testing.assert_close(
        modulated_conv2d(x, weight, 7 * styles, fir_filter()),
        modulated_conv2d(x, weight, styles, fir_filter()),
        atol=1e-5,
        rtol=1e-5,
    )


def test_demodulated_white_noise_keeps_unit_variance() -> None:
    x, weight = torch.randn(4, 32, 32, 32), torch.randn(16, 32, 3, 3)
    y = modulated_conv2d(x, weight, torch.rand(4, 32) + 0.1, fir_filter())[..., 1:-1, 1:-1]
    assert y.std().item() == pytest.approx(1, abs=0.03)


def test_leaky_layers_keep_the_mean_square() -> None:
    x = torch.randn(200_000, 1)
    # The usual gain of root 2 is exact for slope 0; with slope 0.2 the power grows by 4 %.
    assert bias_act(x, None, "lrelu").square().mean().item() == pytest.approx(1.04, abs=0.02)


@pytest.mark.parametrize("activation", ["linear", "relu", "lrelu", "swish", "softplus"])
def test_bias_activation_order_gain_and_clamp(activation: str) -> None:
    x, bias = torch.randn(2, 3, 4, dtype=F64), torch.randn(3, dtype=F64)
    functions = {
        "linear": lambda v: v,
        "relu": torch.relu,
        "lrelu": lambda v: nn.functional.leaky_relu(v, 0.2),
        "swish": nn.functional.silu,
        "softplus": nn.functional.softplus,
    }
    kept = x.clone()
    expected = (1.7 * functions[activation](x + bias[:, None])).clamp(-0.9, 0.9)
    torch.testing.assert_close(bias_act(x, bias, activation, gain=1.7, clamp=0.9), expected)  # type: ignore[arg-type]
    torch.testing.assert_close(
        bias_act(x, None, activation, gain=1.0),
        functions[activation](x),  # type: ignore[arg-type]
    )
    assert torch.equal(x, kept), "an input is never overwritten"


def test_activation_survives_second_derivatives() -> None:
    """R1 regularisation differentiates a gradient; the in-place activation must allow that."""
    x, bias = torch.randn(2, 3, 2, dtype=F64, requires_grad=True), torch.randn(3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, b: bias_act(x, b, "lrelu").square(), (x, bias))


def test_equalised_layers_scale_weights_when_used() -> None:
    layer = EqualizedLinear(9, 5, lr_multiplier=0.01, bias_init=2.0)
    x = torch.randn(4, 9)
    torch.testing.assert_close(layer(x), x @ (layer.weight * 0.01 / 3).T + 0.02)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.3)
    conv = EqualizedConv2d(4, 6, 3, activation="lrelu", down=2, clamp=1.0)
    assert conv(torch.randn(2, 4, 8, 8)).shape == (2, 6, 4, 4)
    assert conv(100 * torch.randn(2, 4, 8, 8), gain=0.5).abs().max().item() == 0.5


def mapping(**changes: object) -> MappingNetwork:
    settings: dict[str, object] = {"layers": 3, "features": 12, "embed_features": 6}
    network = MappingNetwork(8, 5, 10, 4, **(settings | changes))  # type: ignore[arg-type]
    network.w_avg.normal_()
    return network


def test_latents_are_normalised_and_labels_matter() -> None:
    network, z, c = mapping(), torch.randn(3, 8), torch.randn(3, 5)
    ws = network(z, c)
    assert ws.shape == (3, 4, 10)
    assert torch.equal(ws[:, 0], ws[:, 3])
    torch.testing.assert_close(network(5 * z, c), ws, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network(z, -c), ws)
    plain = mapping(normalize_latent=False)
    assert not torch.allclose(plain(5 * z, c), plain(z, c))


def test_truncation_pulls_towards_the_average() -> None:
    network, z, c = mapping(), torch.randn(3, 8), torch.randn(3, 5)
    ws = network(z, c)
    torch.testing.assert_close(network(z, c, truncation=0.0), network.w_avg.expand(3, 4, 10))
    half = network(z, c, truncation=0.5, cutoff=1)
    torch.testing.assert_close(half[:, 0], (ws[:, 0] + network.w_avg) / 2)
    assert torch.equal(half[:, 1:], ws[:, 1:])


def test_without_a_label_nothing_is_embedded() -> None:
    network = MappingNetwork(8, 0, 10, 4, layers=2, features=12)
    assert network(torch.randn(2, 8)).shape == (2, 4, 10)
    assert sorted(network.state_dict()) == ["fc0.bias", "fc0.weight", "fc1.bias", "fc1.weight", "w_avg"]


def test_the_average_follows_batches_only_when_asked() -> None:
    network, z, c = mapping(), torch.randn(6, 8), torch.randn(6, 5)
    before = network.w_avg.clone()
    ws = network(z, c)
    assert torch.equal(network.w_avg, before)
    network.track_average(ws.detach(), decay=0.75)
    torch.testing.assert_close(network.w_avg, 0.75 * before + 0.25 * ws[:, 0].mean(0))


def test_noise_comes_from_the_pattern_from_a_seed_or_not_at_all() -> None:
    layer = SynthesisLayer(3, 4, 6, 8)
    nn.init.constant_(layer.noise_strength, 0.5)
    x, w = torch.randn(2, 3, 8, 8), torch.randn(2, 6)
    silent, const = layer(x, w), layer(x, w, noise="const")
    assert not torch.equal(silent, const)
    assert torch.equal(const, layer(x, w, noise="const"))

    def random(seed: int) -> Tensor:
        return layer(x, w, noise="random", generator=torch.Generator().manual_seed(seed))

    assert torch.equal(random(3), random(3))
    assert not torch.equal(random(3), random(4))


def test_layers_without_noise_parameters_own_none() -> None:
    names = dict(SynthesisLayer(3, 4, 6, 8, noise_parameters=False).named_parameters())
    assert "noise_strength" not in names
    assert "noise_const" not in SynthesisLayer(3, 4, 6, 8, noise_parameters=False).state_dict()


def test_to_rgb_scales_styles_and_does_not_demodulate() -> None:
    layer = ToRGBLayer(5, 3, 6)
    x, w = torch.randn(2, 5, 4, 4), torch.randn(2, 6)
    styles = layer.affine(w) / 5**0.5
    expected = torch.einsum("oi,ni,nihw->nohw", layer.weight[:, :, 0, 0], styles, x) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x, w), expected, atol=1e-5, rtol=1e-5)


def tiny_network() -> SynthesisNetwork:
    return SynthesisNetwork(6, 16, 3, channel_base=64, channel_max=8)


def test_channels_follow_the_resolution() -> None:
    network = tiny_network()
    shapes = {r: tuple(getattr(network, f"b{r}").conv1.weight.shape[:2]) for r in (4, 8, 16)}
    assert shapes == {4: (8, 8), 8: (8, 8), 16: (4, 4)}
    assert network.num_ws == 6
    assert network(torch.randn(2, 6, 6)).shape == (2, 3, 16, 16)


def test_a_blocks_skip_image_shares_its_style_with_the_next_blocks_first_convolution() -> None:
    network = tiny_network()
    read: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, SynthesisLayer | ToRGBLayer):
            module.register_forward_hook(lambda _, args, out, name=name: read.__setitem__(name, args[1][0]))
    ws = torch.arange(6.0)[None, :, None].expand(1, 6, 6)
    network(ws)
    assert {name: int(w[0]) for name, w in read.items()} == {
        "b4.conv1": 0, "b4.torgb": 1, "b8.conv0": 1, "b8.conv1": 2, "b8.torgb": 3,
        "b16.conv0": 3, "b16.conv1": 4, "b16.torgb": 5,
    }  # fmt: skip


def test_batches_equal_single_samples() -> None:
    network, ws = tiny_network(), torch.randn(3, 6, 6)
    torch.testing.assert_close(network(ws), torch.cat([network(ws[n : n + 1]) for n in range(3)]), atol=1e-5, rtol=1e-5)

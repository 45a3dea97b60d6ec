"""The attention U-Net: zero at the start, planes kept apart until they are meant to meet, cheap per frame."""

import dataclasses
import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from talk3d.render.reference import sample_planes
from talk3d.talker.config import TrainConfig
from talk3d.talker.unet import (
    OFFICIAL,
    AttentionUNet,
    CrossAttention,
    PlaneLinear,
    PlaneNorm,
    PlaneSelfAttention,
    RollOut,
    SplitConv,
    TransformerBlock,
    UNetConfig,
    roll_out,
)

SMALL = UNetConfig(plane_channels=3, plane_size=32, down=(8, 8, 16), up=(8, 8, 6), token_width=12)
SMALL_OFFICIAL = dataclasses.replace(
    OFFICIAL, plane_channels=3, plane_size=32, down=(8, 8, 32), up=(8, 8, 3), heads=2, token_width=12
)
CHOICES = {
    "ours": SMALL,
    "official": SMALL_OFFICIAL,
    "no roll-out": dataclasses.replace(SMALL, rollout="off"),
    "joint": dataclasses.replace(SMALL, convolution="joint"),
    "joint, official": dataclasses.replace(SMALL_OFFICIAL, convolution="joint"),
    "batch normalisation": dataclasses.replace(SMALL, normalisation="batch"),
}
"""Of the config."""


@pytest.fixture
def unet() -> AttentionUNet:
    return AttentionUNet(SMALL)


@pytest.fixture
def awake(unet: AttentionUNet) -> AttentionUNet:
    """With a last layer that is not zero."""
    torch.nn.init.normal_(unet.out.weight, std=0.1)
    return unet


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 3, SMALL.plane_channels, 32, 32), torch.randn(batch, 5, SMALL.token_width)


def test_the_delta_is_exactly_zero_at_the_start(unet: AttentionUNet) -> None:
    planes, tokens = inputs()
    for training in (True, False):
        delta = unet.train(training)(planes, tokens)
        assert delta.shape == (2, 3, SMALL.plane_channels, 32, 32)
        assert delta.abs().max() == 0


def test_one_step_moves_it_a_little_and_both_ways(unet: AttentionUNet) -> None:
    """A normalisation at the end would throw it far at once; an activation would let it move one way only."""
    planes, tokens = inputs()
    target = 0.1 * torch.randn(2, 3, SMALL.plane_channels, 32, 32)
    optimizer = torch.optim.Adam(unet.parameters(), lr=5e-4)
    (unet(planes, tokens) - target).square().mean().backward()
    optimizer.step()
    delta = unet(planes, tokens)
    assert delta.min() < 0 < delta.max()
    assert 0 < delta.std() < 0.1
    assert 0.2 < (delta > 0).float().mean() < 0.8


def test_the_trunk_is_all_that_tokens_do_not_reach(awake: AttentionUNet) -> None:
    planes, tokens = inputs(3)
    trunk = awake.trunk(planes)
    assert torch.equal(awake.delta(trunk, tokens), awake(planes, tokens))
    for value in (*trunk.skips, trunk.bottom, trunk.stream):
        assert len(value) == 1
    # Using it does not wear it out.
    assert torch.equal(awake.delta(trunk, tokens), awake(planes, tokens))


def test_the_network_equals_its_description(awake: AttentionUNet) -> None:
    """Written out without the trunk's short cut: down, transformer with its residual, up with added skips."""
    planes, tokens = inputs(1)
    skips, x = [], planes
    for conv in (awake.down1, awake.down2, awake.down3):
        x = awake._down(conv(roll_out(x)))
        skips.append(x)
    normal = awake.norm(x.flatten(1, 2)).unflatten(1, (3, -1))
    stream = awake.project(normal.flatten(3).mT)
    for block in awake.blocks:
        stream = stream + awake.position  # before every block
        stream = stream + block.self_attention(block.norm1(stream))
        stream = stream + block.cross_attention(block.norm2(stream), tokens)
        value, gate = block.expand(block.norm3(stream)).chunk(2, -1)
        stream = stream + block.contract(value * torch.nn.functional.gelu(gate))
    x = x + stream.mT.unflatten(3, tuple(x.shape[-2:]))
    x = awake._up(awake.up1(roll_out(x))) + skips[1]
    x = awake._up(awake.up2(roll_out(x))) + skips[0]
    x = awake._up(awake.up3(roll_out(x)))
    expected = awake.out(x.flatten(1, 2)).unflatten(1, (3, -1))
    torch.testing.assert_close(awake(planes, tokens), expected, atol=1e-5, rtol=1e-4)


def spread_left(slope: float, rate: float) -> float:
    """How much samples still differ behind the path up after 100 steps whose targets no token tells, of how much they did."""
    torch.manual_seed(0)
    config = UNetConfig(
        plane_channels=4, plane_size=32, down=(8, 16, 24), up=(16, 8, 4), heads=2, token_width=16, slope=slope
    )  # fmt: skip
    unet, planes, target = AttentionUNet(config), torch.randn(1, 3, 4, 32, 32), torch.randn(1, 3, 4, 32, 32)
    seen = torch.randn(8, 5, 16)
    passed: list[torch.Tensor] = []
    unet.up3.register_forward_hook(lambda module, given, made: passed.append(made.detach()))

    def spread() -> float:
        unet(planes, seen)
        return float(passed[-1].std(0).mean())

    before, optimizer = spread(), torch.optim.Adam(unet.parameters(), rate, (0.9, 0.99))
    for _ in range(100):
        optimizer.zero_grad()
        (unet(planes, torch.randn(4, 5, 16)) - target - 2 * torch.randn(4, 3, 4, 32, 32)).square().mean().backward()
        optimizer.step()
    return spread() / before


def test_what_tokens_say_gets_through_even_when_training_has_nothing_to_teach() -> None:
    """Else the U-Net is asleep by the time when there is something, and no gradient wakes it. The canary did."""
    rate = TrainConfig().unet_learning_rate
    assert spread_left(UNetConfig().slope, rate) > 0.25
    assert spread_left(0.01, 2e-3) < 0.15


# The choices of the config.


@pytest.fixture(params=list(CHOICES))
def chosen(request: pytest.FixtureRequest) -> AttentionUNet:
    return AttentionUNet(CHOICES[request.param])


def wake(unet: AttentionUNet) -> None:
    """Let the last layer be other than zero."""
    last = unet.out if unet.config.ending == "plain" else unet.up3.conv1
    torch.nn.init.normal_(last.weight, std=0.1)


def test_every_choice_starts_at_exactly_zero(chosen: AttentionUNet) -> None:
    planes, tokens = inputs()
    for training in (True, False):
        assert chosen.train(training)(planes, tokens).abs().max() == 0


def test_every_choice_learns_with_all_its_weights(chosen: AttentionUNet) -> None:
    planes, tokens = inputs()
    wake(chosen)
    # Batch normalisation takes biases before it away again, and stands still itself where a batch has one sample.
    chosen.eval()(planes, tokens).square().mean().backward()
    for name, parameter in chosen.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_every_choices_trunk_is_all_that_tokens_do_not_reach(chosen: AttentionUNet) -> None:
    planes, tokens = inputs(3)
    wake(chosen.eval())
    with torch.no_grad():
        trunk = chosen.trunk(planes)
        alone = torch.cat([chosen.delta(trunk, token[None]) for token in tokens])
        torch.testing.assert_close(chosen(planes, tokens), alone, atol=1e-5, rtol=1e-4)


def test_the_published_size() -> None:
    """Of method 6."""
    with torch.device("meta"):
        unet = AttentionUNet(OFFICIAL)
        planes, tokens = torch.zeros(1, 3, 32, 256, 256), torch.zeros(2, 5, 64)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 17_512_000
    assert unet(planes, tokens).shape == (2, 3, 32, 256, 256)


def test_joint_convolutions_have_the_same_outputs_and_let_planes_mix() -> None:
    split, joint = SplitConv(4, 8), SplitConv(4, 8, convolution="joint")
    x = torch.randn(2, 3, 4, 6, 6)
    assert joint(x).shape == split(x).shape
    assert joint.conv1.weight.numel() == 3 * split.conv1.weight.numel()
    assert len(leaks(joint, x)) == 6


def test_batch_normalisation_on_the_way_down_needs_no_batch() -> None:
    """All samples begin with the same planes, so their statistics are those of one (method 1)."""
    unet = AttentionUNet(SMALL_OFFICIAL).train()
    planes, _ = inputs()
    x = planes.expand(4, -1, -1, -1, -1)
    trunk = unet.trunk(planes)
    for level, skip in ((unet.down1, trunk.skips[0]), (unet.down2, trunk.skips[1]), (unet.down3, trunk.bottom)):
        x = unet._down(level(roll_out(x, "official")))
        torch.testing.assert_close(x, skip.expand_as(x), atol=1e-5, rtol=1e-5)


def test_batch_normalisation_undoes_the_zero_and_its_activation_makes_it_one_sided() -> None:
    """Why ours ends otherwise: one small step throws it far, and nearly all of it to one side (method 11.3)."""
    planes, tokens = inputs()
    target = 0.1 * torch.randn(2, 3, SMALL.plane_channels, 32, 32)

    def after_one_step(config: UNetConfig) -> torch.Tensor:
        torch.manual_seed(1)
        unet = AttentionUNet(config).train()
        optimizer = torch.optim.Adam(unet.parameters(), lr=5e-4)
        (unet(planes, tokens) - target).square().mean().backward()
        optimizer.step()
        return unet(planes, tokens).detach()

    official, ours = after_one_step(SMALL_OFFICIAL), after_one_step(SMALL)
    assert official.std() > 0.3
    assert official.max() > 10 * -official.min()
    assert ours.std() < 0.1


def test_a_plane_without_roll_out_sees_itself_only() -> None:
    planes = torch.randn(2, 3, 4, 5, 5)
    rolled = roll_out(planes, "off").unflatten(2, (3, 4))
    assert torch.equal(rolled, planes[:, :, None].expand_as(rolled))
    # Canary: the others do see each other.
    for kind in ("aligned", "official"):
        assert not torch.equal(roll_out(planes, kind).unflatten(2, (3, 4)), rolled)


@pytest.mark.parametrize(("kind", "right"), [("aligned", 6), ("official", 2)])
def test_talk3d_puts_four_of_six_profiles_on_a_wrong_axis(kind: RollOut, right: int) -> None:
    """Against where the renderer's planes lie (method 6.1)."""
    ramp = torch.linspace(0, 1, 6) ** 2
    count = 0
    for source, target in itertools.permutations(range(3), 2):
        (shared,) = {axis_of(source, True), axis_of(source, False)} & {axis_of(target, True), axis_of(target, False)}

        def drawn(plane: int, axis: int = shared) -> torch.Tensor:
            return ramp.expand(6, 6) if axis_of(plane, True) == axis else ramp[:, None].expand(6, 6)

        planes = torch.zeros(1, 3, 1, 6, 6)
        planes[0, source, 0] = drawn(source)
        count += torch.allclose(roll_out(planes, kind)[0, target, source], drawn(target))
    assert count == right


def test_frames_of_a_batch_do_not_mix(awake: AttentionUNet) -> None:
    planes, tokens = inputs(3)
    trunk = awake.trunk(planes)
    alone = torch.cat([awake.delta(trunk, token[None]) for token in tokens])
    torch.testing.assert_close(awake.delta(trunk, tokens), alone, atol=1e-5, rtol=1e-4)


def test_training_and_evaluation_agree(awake: AttentionUNet) -> None:
    planes, tokens = inputs()
    assert torch.equal(awake.train()(planes, tokens), awake.eval()(planes, tokens))


def test_gradients_reach_every_token(awake: AttentionUNet) -> None:
    planes, tokens = inputs()
    tokens.requires_grad_()
    awake(planes, tokens).square().mean().backward()
    assert tokens.grad is not None
    assert (tokens.grad.abs().sum(-1) > 0).all()


def test_gradients_reach_every_weight(awake: AttentionUNet) -> None:
    planes, tokens = inputs()
    awake(planes, tokens).square().mean().backward()
    for name, parameter in awake.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_tokens_move_all_planes(awake: AttentionUNet) -> None:
    planes, tokens = inputs(1)
    difference = (awake(planes, tokens) - awake(planes, -tokens)).abs().amax((0, 2, 3, 4))
    assert (difference > 1e-4).all()


def test_the_path_down_must_fit_the_path_up() -> None:
    with pytest.raises(AssertionError, match="added to the down path"):
        AttentionUNet(UNetConfig(up=(32, 24, 16)))


# The roll-out.


def axis_of(plane: int, along_columns: bool) -> int:
    """Which world axis (0 x, 1 y, 2 z) runs along a plane's columns (or rows): asked of the renderer."""
    ramp = torch.linspace(-1, 1, 8)
    planes = torch.zeros(1, 3, 1, 8, 8)
    planes[0, plane, 0] = ramp.expand(8, 8) if along_columns else ramp[:, None].expand(8, 8)
    steps = 0.1 * torch.eye(3)[None]
    return int(sample_planes(planes, steps, "aligned", 1.0)[0, :, 0].argmax())


def test_the_renderers_planes_are_xy_xz_zy() -> None:
    assert [(axis_of(p, True), axis_of(p, False)) for p in range(3)] == [(0, 1), (0, 2), (2, 1)]


@pytest.mark.parametrize(("source", "along_columns"), list(itertools.product(range(3), (True, False))))
def test_profiles_land_on_the_axis_they_came_from(source: int, along_columns: bool) -> None:
    """Fill a plane with a function of one world axis: planes with this axis must vary along it in the same way, and in
    in the plane that lacks it the mean must stand.
    """
    size = 6
    values = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0, 9.0])
    planes = torch.zeros(1, 3, 2, size, size)
    planes[:, source] = values.expand(size, size) if along_columns else values[:, None].expand(size, size)
    rolled = roll_out(planes)
    assert rolled.shape == (1, 3, 6, size, size)
    axis = axis_of(source, along_columns)
    for target in range(3):
        slot = rolled[0, target, 2 * source : 2 * source + 2]  # slot k carries source plane k
        if axis_of(target, True) == axis:
            expected = values.expand(size, size)
        elif axis_of(target, False) == axis:
            expected = values[:, None].expand(size, size)
        else:
            expected = values.mean().expand(size, size)
        torch.testing.assert_close(slot, expected.expand(2, size, size))
        others = [k for k in range(3) if k != source]
        for other in others:
            assert rolled[0, target, 2 * other : 2 * other + 2].abs().max() == 0


def test_canary_the_uncorrected_roll_out_would_be_noticed() -> None:
    """The published axes put the first plane's x-profile on the second plane's rows, where z runs."""
    planes = torch.zeros(1, 3, 1, 4, 4)
    planes[:, 0] = torch.arange(4.0).expand(4, 4)
    published = planes[0, 0, 0].mean(0)[:, None].expand(4, 4)
    assert not torch.allclose(roll_out(planes)[0, 1, 0], published)


def test_a_planes_own_content_is_kept() -> None:
    planes = torch.randn(2, 3, 4, 5, 5)
    rolled = roll_out(planes).unflatten(2, (3, 4))
    for plane in range(3):
        assert torch.equal(rolled[:, plane, plane], planes[:, plane])


# Planes kept apart.


def leaks(layer: torch.nn.Module, x: torch.Tensor) -> list[tuple[int, int]]:
    """Pairs (from, to) of different planes, on axis 1, between which the layer carries anything."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()  # nothing may hide behind a zero
        before = layer(x)
        found = []
        for source in range(3):
            changed = x.clone()
            changed[:, source] += torch.randn_like(changed[:, source])
            difference = (layer(changed) - before).flatten(2).abs().amax((0, 2))
            assert difference[source] > 1e-3
            found += [(source, target) for target in range(3) if target != source and difference[target] > 0]
    return found


def test_nothing_leaks_between_planes_in_their_own_layers() -> None:
    assert leaks(SplitConv(4, 8), torch.randn(2, 3, 4, 6, 6)) == []
    positions = torch.randn(2, 3, 10, 8)
    for layer in (PlaneLinear(8, 6), PlaneNorm(8), PlaneSelfAttention(8, 2)):
        assert leaks(layer, positions) == []
    # Canary: layers that are meant to mix are caught by the same measure.
    block = TransformerBlock(8, 4, 2)
    block.forward = lambda x: block.look_around(x, torch.zeros(1, 3, 10, 8))
    assert leaks(block, positions) == []

    class Mixing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return roll_out(x)

    assert len(leaks(Mixing(), torch.randn(2, 3, 4, 6, 6))) == 6


def test_planes_have_weights_of_their_own() -> None:
    """The same content in all planes comes out different."""
    same = torch.randn(1, 1, 4, 6, 6).expand(1, 3, 4, 6, 6)
    out = SplitConv(4, 8)(same)
    assert not torch.allclose(out[:, 0], out[:, 1])
    out = PlaneLinear(4, 8)(torch.randn(1, 1, 5, 4).expand(1, 3, 5, 4))
    assert not torch.allclose(out[:, 1], out[:, 2])


def test_split_convolutions_equal_three_separate_ones() -> None:
    layer, x = SplitConv(4, 8), torch.randn(2, 3, 4, 6, 6)
    out = layer(x)
    for plane in range(3):
        y = x[:, plane]
        for conv, norm in ((layer.conv0, layer.norm0), (layer.conv1, layer.norm1)):
            own = slice(8 * plane, 8 * plane + 8)
            assert conv.bias is not None
            y = torch.nn.functional.conv2d(y, conv.weight[own], conv.bias[own], padding=1)
            y = torch.nn.functional.group_norm(y, 4, norm.weight[own], norm.bias[own])
            y = torch.nn.functional.leaky_relu(y, 0.2)
        torch.testing.assert_close(out[:, plane], y, atol=1e-5, rtol=1e-4)


# Attention.


def test_attention_equals_its_definition() -> None:
    layer, x = PlaneSelfAttention(8, 2), torch.randn(1, 3, 5, 8)
    q, k, v = (layer.to_qkv(x)[..., i * 8 : i * 8 + 8] for i in range(3))
    heads = []
    for head in range(2):
        own = slice(4 * head, 4 * head + 4)
        weights = (q[..., own] @ k[..., own].mT / 2).softmax(-1)  # 1 / sqrt(4)
        heads.append(weights @ v[..., own])
    torch.testing.assert_close(layer(x), layer.to_out(torch.cat(heads, -1)), atol=1e-5, rtol=1e-4)


def test_cross_attention_uses_one_set_of_weights_and_no_order_of_tokens() -> None:
    layer = CrossAttention(8, 6, 2)
    x, tokens = torch.randn(2, 3, 5, 8), torch.randn(2, 4, 6)
    out = layer(x, tokens)
    torch.testing.assert_close(layer(x.flip(1), tokens), out.flip(1))
    torch.testing.assert_close(layer(x.flip(2), tokens), out.flip(2))
    torch.testing.assert_close(layer(x, tokens.flip(1)), out)
    # With a single token there is nothing to choose: every position gets the same.
    single = layer(x, tokens[:, :1])
    torch.testing.assert_close(single, single[:, :1, :1].expand_as(single))


def test_attention_maps_are_what_attention_does(awake: AttentionUNet) -> None:
    """They share out one everywhere, and an average of the values by them is what the layer gives on."""
    planes, tokens = inputs(3)
    trunk = awake.trunk(planes)
    maps = awake.attention(trunk, tokens)
    side = SMALL.plane_size // 8
    assert maps.shape == (SMALL.blocks, 3, 3, 5, side, side)
    torch.testing.assert_close(maps.sum(3), torch.ones(SMALL.blocks, 3, 3, side, side))
    torch.testing.assert_close(awake.attention(trunk, tokens.flip(1)), maps.flip(3))

    layer, x = CrossAttention(8, 6, 2), torch.randn(2, 3, 5, 8)
    few = torch.randn(2, 4, 6)
    shares = layer.probabilities(x, few)  # [B, heads, 15, tokens]
    values = layer.to_kv(torch.nn.functional.layer_norm(few, (6,)))[..., 8:].unflatten(-1, (2, 4)).transpose(1, 2)
    by_hand = layer.to_out((shares @ values).transpose(1, 2).flatten(2)).unflatten(1, (3, 5))
    torch.testing.assert_close(layer(x, few), by_hand, atol=1e-5, rtol=1e-4)


def test_the_code_of_space_has_the_documented_numbers() -> None:
    """Method, appendix A: 256 channels at (1, 0, 0), which is row 1 of the slice across z."""
    code = AttentionUNet(dataclasses.replace(OFFICIAL, plane_channels=1, up=(128, 64, 1))).position[0]
    assert code.shape == (3, 1024, 256)
    at = code[0, 32]
    torch.testing.assert_close(at[:6], torch.tensor([0.8415, 0.5403, 0.7223, 0.6915, 0.6064, 0.7951]), atol=1e-4, rtol=0)
    assert torch.equal(at[86:172], torch.tensor([0.0, 1.0]).repeat(43))
    distance = torch.cdist(code[0], code[0]) + 10 * torch.eye(1024)
    assert distance.min() > 0.05


def test_positions_are_told_apart_by_both_axes(unet: AttentionUNet) -> None:
    code = unet.position[0, 0]
    distance = torch.cdist(code, code) + 10 * torch.eye(len(code))
    assert distance.min() > 0.05
    side = SMALL.plane_size // 8
    grid = code.unflatten(0, (side, side))
    # Half of the channels know the column only, the other half the row only.
    half = grid.shape[-1] // 2
    assert (grid[..., :half] - grid[:1, :, :half]).abs().max() == 0
    assert (grid[..., half:] - grid[:, :1, half:]).abs().max() == 0


# Cost.


def flops(batch: int) -> tuple[int, int]:
    """Of the trunk and of the delta, 2 per multiply-add, at the size that is trained and shipped."""
    config = UNetConfig()
    with torch.device("meta"):
        unet = AttentionUNet(config)
        planes = torch.zeros(1, 3, config.plane_channels, config.plane_size, config.plane_size)
        tokens = torch.zeros(batch, 5, config.token_width)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        trunk = unet.trunk(planes)
    with torch.no_grad(), FlopCounterMode(display=False) as each:
        unet.delta(trunk, tokens)
    return once.get_total_flops(), each.get_total_flops()


def test_a_frame_costs_at_most_two_gigaflops() -> None:
    _, delta = flops(1)
    assert 0.1e9 < delta <= 2e9, f"{delta / 1e9:.2f} GFLOP"


def test_the_trunk_is_not_paid_again_per_frame() -> None:
    one, eight = flops(1), flops(8)
    assert eight[0] == one[0]
    assert eight[1] == pytest.approx(8 * one[1], rel=0.01)

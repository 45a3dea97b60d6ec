"""Conditions to tokens: each condition speaks through its own token, and all are heard."""

import dataclasses

import pytest
import torch

from talk3d.errors import ConfigError
from talk3d.talker.audio import AudioConfig
from talk3d.talker.logits import LogitsConfig
from talk3d.talker.tokens import (
    NAMES,
    AudioAttention,
    AudioNet,
    Conditions,
    OfficialTokenEncoder,
    SinusoidalMLP,
    TokenConfig,
    TokenEncoder,
    token_encoder,
)

AUDIO, CONFIG = AudioConfig(bands=12), TokenConfig(width=24, windows=6)


def conditions(batch: int = 3) -> Conditions:
    return Conditions(
        code=torch.randn(batch, CONFIG.width),
        blink=torch.rand(batch),
        rotation=0.3 * torch.randn(batch, 2),
        landmark=torch.randn(batch, 4),
    )


@pytest.fixture
def encoder() -> TokenEncoder:
    return TokenEncoder(CONFIG, AUDIO).eval()


def test_one_token_per_condition_in_the_stated_order(encoder: TokenEncoder) -> None:
    given = conditions()
    tokens = encoder(given)
    assert tokens.shape == (3, len(NAMES), CONFIG.width)
    for name, changes in {
        "audio": {"code": -given.code},
        "blink": {"blink": 1 - given.blink},
        "rotation": {"rotation": -given.rotation},
        "landmark": {"landmark": -given.landmark},
    }.items():
        changed = (encoder(dataclasses.replace(given, **changes)) - tokens).abs().amax(-1)  # [B, tokens]
        assert [other for other, difference in zip(NAMES, changed.T, strict=True) if difference.max() > 1e-4] == [name]
        assert (changed[:, NAMES.index(name)] > 1e-4).all()


def test_the_null_token_listens_to_nothing(encoder: TokenEncoder) -> None:
    null = NAMES.index("null")
    tokens = torch.cat([encoder(conditions())[:, null], encoder(conditions())[:, null]])
    assert torch.equal(tokens, tokens[:1].expand_as(tokens))
    assert tokens.abs().max() > 0


def test_frames_of_a_batch_do_not_mix(encoder: TokenEncoder) -> None:
    given = conditions(4)
    alone = [
        encoder(Conditions(*(getattr(given, field.name)[i : i + 1] for field in dataclasses.fields(given)))) for i in range(4)
    ]
    torch.testing.assert_close(encoder(given), torch.cat(alone))


def test_tokens_can_be_left_out_one_by_one() -> None:
    given = conditions()
    for left_out in NAMES:
        config = dataclasses.replace(CONFIG, tokens=tuple(name for name in NAMES if name != left_out))
        encoder = TokenEncoder(config, AUDIO).eval()
        tokens = encoder(given)
        assert tokens.shape == (3, len(NAMES) - 1, CONFIG.width) == (3, config.count, CONFIG.width)
        # Nothing is left behind of what is not used.
        names = {name.split(".")[0] for name, _ in encoder.named_parameters()}
        assert left_out not in names


def test_there_may_be_several_null_tokens() -> None:
    config = dataclasses.replace(CONFIG, null_tokens=3)
    tokens = TokenEncoder(config, AUDIO)(conditions())
    assert tokens.shape == (3, 7, CONFIG.width) == (3, config.count, CONFIG.width)
    nulls = tokens[:, 2:5]
    assert torch.equal(nulls, nulls[:1].expand_as(nulls))
    assert torch.cdist(nulls[0], nulls[0])[0, 1] > 0.1


@pytest.mark.parametrize("tokens", [(), ("blink", "audio"), ("audio", "audio"), ("audio", "mood")])
def test_impossible_choices_of_tokens_are_refused(tokens: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="choose at least one of audio, blink, null, rotation, landmark"):
        TokenConfig(tokens=tokens)


def test_no_null_tokens_are_asked_for_by_leaving_them_out() -> None:
    with pytest.raises(ConfigError, match="leave `null` out"):
        TokenConfig(null_tokens=0)


def test_talk3ds_encoders_have_the_published_sizes() -> None:
    """Method, appendix A."""
    encoder = token_encoder(TokenConfig(encoder="official"), LogitsConfig("hf:unknown"))
    assert isinstance(encoder, OfficialTokenEncoder)

    def size(*modules: torch.nn.Module) -> int:
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    assert size(encoder.audio_net) == 34_240
    assert size(encoder.audio_attention) == 3_685
    assert size(encoder.blink) == 10_496
    assert size(encoder.rotation, encoder.landmark) == 25_792


def test_talk3ds_conditions_each_speak_through_their_token() -> None:
    encoder = token_encoder(TokenConfig(encoder="official", null_tokens=2), LogitsConfig("hf:unknown", channels=9))
    code = encoder.hear(torch.randn(3, 8, 9, 16))
    given = Conditions(code, torch.rand(3), 10 * torch.randn(3, 3), torch.rand(3, 6))
    tokens = encoder(given)
    assert tokens.shape == (3, 6, 64)
    assert torch.equal(tokens[:, 0], code)
    for place, changes in {
        0: {"code": -given.code},
        1: {"blink": 1 - given.blink},
        4: {"rotation": -given.rotation},
        5: {"landmark": -given.landmark},
    }.items():
        changed = (encoder(dataclasses.replace(given, **changes)) - tokens).abs().amax((0, 2))
        assert changed.nonzero().flatten().tolist() == [place]


def test_learnt_codes_tell_equal_tokens_apart(encoder: TokenEncoder) -> None:
    assert len({tuple(code.tolist()) for code in encoder.kinds.detach()}) == len(NAMES)
    given = conditions(1)
    before = encoder(given)
    with torch.no_grad():
        encoder.kinds.zero_()
    assert not torch.allclose(encoder(given), before)


def test_gradients_reach_every_weight_and_every_condition(encoder: TokenEncoder) -> None:
    given = conditions()
    leaves = [value.requires_grad_() for value in dataclasses.astuple(given)]
    given = Conditions(*leaves)
    sound = (torch.rand(3, CONFIG.windows, AUDIO.channels, AUDIO.columns) * 2 - 1).requires_grad_()
    leaves.append(sound)
    (encoder(given).square().mean() + encoder.lips(encoder.hear(sound)).square().mean()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.reshape(len(leaf), -1).abs().sum(1).min() > 0


def test_attention_weighs_its_windows() -> None:
    attention = AudioAttention(8, 6)
    code = torch.randn(2, 1, 8).expand(2, 6, 8)
    # Weights sum to one: equal codes come out as they are.
    torch.testing.assert_close(attention(code), code[:, 0])
    codes = torch.randn(5, 6, 8)
    out = attention(codes)
    low, high = codes.amin(1), codes.amax(1)
    assert ((out >= low - 1e-6) & (out <= high + 1e-6)).all()


def test_attention_begins_by_listening_to_the_frame_itself() -> None:
    torch.manual_seed(3)
    attention = AudioAttention(8, 6)
    for window in range(6):
        codes = torch.zeros(1, 6, 8)
        codes[0, window] = 1.0
        weight = attention(codes).mean().item()
        assert (weight > 0.3) == (window == 3)


def test_the_audio_net_hears_all_columns() -> None:
    net = AudioNet(AUDIO, 16).eval()
    sound = (torch.rand(1, AUDIO.channels, AUDIO.columns) * 2 - 1).requires_grad_()
    net(sound).square().sum().backward()
    assert sound.grad is not None
    assert (sound.grad.abs().sum(1) > 0).all()  # every column
    assert (sound.grad.abs().sum(2) > 0).all()  # every band


def test_octaves_of_sines_by_hand() -> None:
    mlp = SinusoidalMLP(1, 2, 4)
    seen: list[torch.Tensor] = []
    mlp.dense[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mlp(torch.tensor([[1.0], [0.5], [0.0]]))
    half = 2**-0.5
    expected = torch.tensor([[1.0, 1.0, 0.0, 0.0, -1.0], [0.5, half, half, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 1.0]])
    torch.testing.assert_close(seen[0], expected, atol=1e-6, rtol=0)


def test_wrong_shapes_are_refused(encoder: TokenEncoder) -> None:
    """The annotations are checked when tests run; this is the canary of that check."""
    given = conditions()
    with pytest.raises(Exception, match="rotation"):
        dataclasses.replace(given, rotation=torch.zeros(3, 5))


def test_told_codes_say_the_shapes_and_move_no_further_than_they_must():
    """They say what they were told; what does not speak of lips stays; told what they already say, they stay altogether."""
    torch.manual_seed(0)
    encoder = TokenEncoder(TokenConfig(width=16, lip_shapes=3), AudioConfig(phones=False, ear=False))
    codes, shapes = torch.randn(5, 16), torch.randn(5, 3)
    told = encoder.tell(codes, shapes)
    torch.testing.assert_close(encoder.lips(told), shapes, atol=1e-5, rtol=0)
    _, _, rows = torch.linalg.svd(encoder.lips.weight, full_matrices=True)
    torch.testing.assert_close((told - codes) @ rows[3:].mT, torch.zeros(5, 13), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.tell(told, shapes), told, atol=1e-5, rtol=0)


def test_what_is_told_teaches_the_sound_nothing_about_lips():
    """A picture of the told shape says nothing about what was heard: gradients reach the rest of the codes only."""
    torch.manual_seed(0)
    encoder = TokenEncoder(TokenConfig(width=16, lip_shapes=3), AudioConfig(phones=False, ear=False))
    codes, wanted = torch.randn(2, 16, requires_grad=True), torch.randn(2, 16)
    (encoder.tell(codes, torch.zeros(2, 3)) * wanted).sum().backward()
    assert codes.grad is not None
    assert (codes.grad @ encoder.lips.weight.mT).abs().max() < 1e-5
    assert codes.grad.abs().max() > 0.1
    assert encoder.lips.weight.grad is None

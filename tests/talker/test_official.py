"""Talk3D's weights under our names: what comes in goes out bit by bit, and what does not fit is refused by name.

That they also compute what Talk3D computes is shown in tests/golden.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from talk3d.errors import CheckpointError
from talk3d.prior.convert import Talk3DCheckpoint, read_talk3d
from talk3d.talker.audio import AudioConfig
from talk3d.talker.delta import DeltaConfig, DeltaNetwork
from talk3d.talker.logits import LogitsConfig
from talk3d.talker.official import from_official, load_official, to_official
from talk3d.talker.tokens import TokenConfig
from talk3d.talker.unet import OFFICIAL, UNetConfig

SMALL = DeltaConfig(
    LogitsConfig("hf:unknown", channels=10),
    TokenConfig(encoder="official", null_tokens=2),
    dataclasses.replace(OFFICIAL, plane_channels=2, plane_size=32, down=(4, 6, 64), up=(6, 4, 2), heads=1),
    (),
)
"""Talk3D's layout at sizes of its own; E is one head wide."""


@pytest.fixture
def network() -> DeltaNetwork:
    network = DeltaNetwork(SMALL)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point() and value.ndim and value is not network.unet.filter:
                value.normal_()
            elif value.shape == (3,):
                value.copy_(torch.randint(1000, (3,)))
    return network


@pytest.fixture
def checkpoint(network: DeltaNetwork) -> Talk3DCheckpoint:
    states, null_vector = to_official(network)
    return Talk3DCheckpoint(states, null_vector, 3, 12345, {"file": "talker.pt"})


def test_there_and_back_loses_no_bit(network: DeltaNetwork, checkpoint: Talk3DCheckpoint) -> None:
    """And every size is found in the weights."""
    back = load_official(checkpoint, "hf:unknown")
    assert back.config == SMALL
    expected = network.state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert [name for name, value in back.state_dict().items() if not torch.equal(value, expected[name])] == []
    assert not back.training


def test_talk3ds_own_layout(shared: Path) -> None:
    """With every name of a file of the reference; it has 3 null vectors."""
    given = read_talk3d(shared / "golden" / "checkpoints" / "talk3d-sample.pt")
    network = load_official(given, "hf:unknown")
    assert network.config.tokens.null_tokens == 3
    assert network.config.unet == dataclasses.replace(OFFICIAL, plane_channels=8, down=(16, 32, 64), up=(32, 16, 8), heads=1)
    states, null_vector = to_official(network)
    assert torch.equal(null_vector, given.null_vector)
    for part, state in given.states.items():
        assert states[part].keys() == state.keys()
        assert all(torch.equal(states[part][name], value) for name, value in state.items())


def test_names_of_the_published_size() -> None:
    """383 entries (method 6.5)."""
    with torch.device("meta"):
        network = DeltaNetwork(dataclasses.replace(SMALL, unet=OFFICIAL))
    state = to_official(network)[0]["deltaplane_predictor"]
    assert len(state) == 383
    assert state["Upnet.Upnet1_yz.conv0.weight"].shape == (128, 768, 3, 3)
    assert state["transformer.0.pos_emb"].shape == (1, 1024, 768)
    assert state["transformer.0.transformer_blocks.1.ff.ff_zx.net.0.proj.weight"].shape == (2048, 256)
    assert state["transformer.0.transformer_blocks.0.attn2.to_v.weight"].shape == (256, 64)


@pytest.mark.parametrize("part", ["deltaplane_predictor", "audio_net", "audio_att_net", "blink_encoder", "camera_encoder"])
def test_each_missing_or_unknown_entry_is_named(checkpoint: Talk3DCheckpoint, part: str) -> None:
    state = dict(checkpoint.states[part])
    for victim in sorted(state)[:: max(1, len(state) // 20)]:
        without = {name: value for name, value in state.items() if name != victim}
        with pytest.raises(CheckpointError, match=r"`talker\.pt` does not fit Talk3D's layout: it lacks"):
            from_official({**checkpoint.states, part: without}, checkpoint.null_vector, "talker.pt")
    more = state | {"zeta.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"it has an unknown `zeta\.weight`"):
        from_official({**checkpoint.states, part: more}, checkpoint.null_vector, "talker.pt")


@pytest.mark.parametrize(
    ("part", "name", "shape"),
    [
        ("deltaplane_predictor", "Downnet.Downnet1_yz.conv0.weight", (4, 5, 3, 3)),
        ("deltaplane_predictor", "transformer.0.transformer_blocks.0.attn1.att_yz.to_k.weight", (64, 65)),
        ("deltaplane_predictor", "transformer.0.pos_emb", (1, 16, 191)),
        ("deltaplane_predictor", "transformer.0.norm.GN_xy.weight", (7,)),
        ("deltaplane_predictor", "Upnet.Upnet3_xy.conv1.weight", ()),
        ("audio_net", "encoder_conv.2.weight", (32, 31, 3)),
        ("camera_encoder", "encoder1.in_layer.weight", (64, 62)),
    ],
)
def test_weights_of_another_shape_are_refused(
    checkpoint: Talk3DCheckpoint, part: str, name: str, shape: tuple[int, ...]
) -> None:
    states = {**checkpoint.states, part: {**checkpoint.states[part], name: torch.zeros(shape)}}
    with pytest.raises(CheckpointError, match=r"`talker\.pt` does not fit Talk3D's layout"):
        load_official(dataclasses.replace(checkpoint, states=states), "hf:unknown")


def test_filters_that_differ_are_refused(checkpoint: Talk3DCheckpoint) -> None:
    name = "Upnet.Upnet2_zx.resample_filter"
    unet = checkpoint.states["deltaplane_predictor"]
    states = {**checkpoint.states, "deltaplane_predictor": {**unet, name: 2 * unet[name]}}
    with pytest.raises(CheckpointError, match="filters differ"):
        load_official(dataclasses.replace(checkpoint, states=states), "hf:unknown")


# The config in an avatar's manifest.


def test_an_older_avatar_means_what_was_usual_then() -> None:
    """What it was written with before there was a choice."""
    fields = {
        "audio": {"bands": 40, "columns": 32, "hop": 160, "window": 400, "fft": 512, "low": 60.0, "high": 7600.0,
                  "floor": 1e-5, "phones": True},
        "tokens": {"width": 64, "windows": 8, "lip_shapes": 8},
        "unet": {"plane_channels": 16, "plane_size": 128, "down": [24, 48, 64], "up": [48, 24, 16], "blocks": 2, "heads": 4,
                 "token_width": 64},
        "expressions": ["jawOpen"],
    }  # fmt: skip
    unet = UNetConfig(slope=0.01)
    assert DeltaConfig.from_json(fields) == DeltaConfig(AudioConfig(ear=False), TokenConfig(), unet, ("jawOpen",))


@pytest.mark.parametrize("config", [SMALL, DeltaConfig(AudioConfig(), TokenConfig(tokens=("audio",)), UNetConfig(), ())])
def test_configs_survive_json(config: DeltaConfig) -> None:
    assert DeltaConfig.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config

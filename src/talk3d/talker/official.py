"""Talk3D's weights under our names, and back (method 6.5).

Where Talk3D keeps three networks side by side, one for each plane, ours is one network whose weights hold the three one after
another; beyond that only names differ. So there is a table of names, and for each the way its tensors are put together.
Letters: E channels at the bottom, N positions there.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..prior.convert import Talk3DCheckpoint
from .delta import DeltaConfig, DeltaNetwork
from .logits import LogitsConfig
from .tokens import TokenConfig
from .unet import OFFICIAL

PLANES = ("xy", "yz", "zx")
"""How names tell the planes apart; they are the renderer's (x, y), (x, z) and (z, y) all the same."""
HEAD = 64
"""Channels of an attention head, which no shape tells."""

States = Mapping[str, Mapping[str, Tensor]]
"""State dicts under Talk3D's names, by part; `Talk3DCheckpoint.states` without a tuned super-resolution."""


@dataclass(frozen=True)
class _Layout:
    """How some tensors of theirs make one of ours, and the way back."""

    join: Callable[[list[Tensor]], Tensor]
    part: Callable[[Tensor], Sequence[Tensor]]


def _common(copies: list[Tensor]) -> Tensor:
    if any(not torch.equal(copy, copies[0]) for copy in copies):
        raise CheckpointError("Its resampling filters differ from each other, which is none of Talk3D's networks.")
    return copies[0]


_SAME = _Layout(lambda t: t[0], lambda x: [x])
_CHANNELS = _Layout(torch.cat, lambda x: x.chunk(3))  # of a convolution in groups, and of what normalises them
_COUNTS = _Layout(torch.stack, lambda x: x.unbind())
_WEIGHTS = _Layout(lambda t: torch.stack([w.T for w in t]), lambda x: [w.T for w in x])  # of a `PlaneLinear`
_ROWS = _Layout(lambda t: torch.stack(t)[:, None], lambda x: x[:, 0].unbind())  # its bias, or that of a `PlaneNorm`
_QUERIES_KEYS_VALUES = _Layout(
    lambda t: torch.stack([torch.cat(t[i : i + 3]).T for i in (0, 3, 6)]),
    lambda x: [part for plane in x for part in plane.T.chunk(3)],
)
_KEYS_VALUES = _Layout(torch.cat, lambda x: x.chunk(2))
_POSITIONS = _Layout(lambda t: t[0].unflatten(2, (3, -1)).transpose(1, 2), lambda x: [x.transpose(1, 2).flatten(2)])
_LEVELS = {f"{way}{level}": f"{way.title()}net.{way.title()}net{level}" for way in ("down", "up") for level in (1, 2, 3)}
_FILTERS = _Layout(_common, lambda x: [x] * (len(_LEVELS) * len(PLANES)))


@dataclass(frozen=True)
class _Entry:
    ours: str
    theirs: tuple[str, ...]
    layout: _Layout


def _unet_entries(blocks: int) -> Iterable[_Entry]:
    """All of a U-Net with so many transformer blocks."""

    def planes(ours: str, theirs: str, layout: _Layout) -> _Entry:
        return _Entry(ours, tuple(theirs.replace("*", plane) for plane in PLANES), layout)

    levels = [f"{theirs}_{plane}" for theirs in _LEVELS.values() for plane in PLANES]
    yield _Entry("filter", tuple(f"{level}.resample_filter" for level in levels), _FILTERS)
    for ours, theirs in _LEVELS.items():
        for i in (0, 1):
            for kind in ("weight", "bias"):
                yield planes(f"{ours}.conv{i}.{kind}", f"{theirs}_*.conv{i}.{kind}", _CHANNELS)
            for kind in ("weight", "bias", "running_mean", "running_var"):
                yield planes(f"{ours}.norm{i}.{kind}", f"{theirs}_*.bn{i}.{kind}", _CHANNELS)
            count = "num_batches_tracked"
            yield planes(f"{ours}.norm{i}.{count}", f"{theirs}_*.bn{i}.{count}", _COUNTS)
    top = "transformer.0"
    yield _Entry("position", (f"{top}.pos_emb",), _POSITIONS)
    for kind in ("weight", "bias"):
        yield planes(f"norm.{kind}", f"{top}.norm.GN_*.{kind}", _CHANNELS)
    yield planes("project.weight", f"{top}.proj_in.lin_*.weight", _WEIGHTS)
    yield planes("project.bias", f"{top}.proj_in.lin_*.bias", _ROWS)
    for i in range(blocks):
        ours, theirs = f"blocks.{i}", f"{top}.transformer_blocks.{i}"
        for norm in ("norm1", "norm2", "norm3"):
            yield planes(f"{ours}.{norm}.gain", f"{theirs}.{norm}.norm_*.weight", _ROWS)
            yield planes(f"{ours}.{norm}.bias", f"{theirs}.{norm}.norm_*.bias", _ROWS)
        around = tuple(f"{theirs}.attn1.att_{plane}.to_{part}.weight" for plane in PLANES for part in "qkv")
        yield _Entry(f"{ours}.self_attention.to_qkv.weight", around, _QUERIES_KEYS_VALUES)
        yield planes(f"{ours}.self_attention.to_out.weight", f"{theirs}.attn1.att_*.to_out.0.weight", _WEIGHTS)
        yield planes(f"{ours}.self_attention.to_out.bias", f"{theirs}.attn1.att_*.to_out.0.bias", _ROWS)
        yield _Entry(f"{ours}.cross_attention.to_q.weight", (f"{theirs}.attn2.to_q.weight",), _SAME)
        tokens = tuple(f"{theirs}.attn2.to_{part}.weight" for part in "kv")
        yield _Entry(f"{ours}.cross_attention.to_kv.weight", tokens, _KEYS_VALUES)
        for kind in ("weight", "bias"):
            yield _Entry(f"{ours}.cross_attention.to_out.{kind}", (f"{theirs}.attn2.to_out.0.{kind}",), _SAME)
        for layer, net in (("expand", "net.0.proj"), ("contract", "net.2")):
            yield planes(f"{ours}.{layer}.weight", f"{theirs}.ff.ff_*.{net}.weight", _WEIGHTS)
            yield planes(f"{ours}.{layer}.bias", f"{theirs}.ff.ff_*.{net}.bias", _ROWS)


def _encoder_entries(part: str) -> Iterable[_Entry]:
    """All of one part of the token encoder."""
    names: dict[str, str] = {}
    match part:
        case "audio_net":
            names |= {f"audio_net.convolutions.{i}": f"encoder_conv.{i}" for i in (0, 2, 4, 6)}
            names |= {f"audio_net.dense.{i}": f"encoder_fc1.{i}" for i in (0, 2)}
        case "audio_att_net":
            names |= {f"audio_attention.convolutions.{i}": f"attentionConvNet.{i}" for i in (0, 2, 4, 6, 8)}
            names["audio_attention.dense"] = "attentionNet.0"
        case "blink_encoder":
            names |= _dense("blink", "simplemlp")
        case "camera_encoder":
            names |= _dense("rotation", "encoder1") | _dense("landmark", "encoder2")
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            yield _Entry(f"{ours}.{kind}", (f"{theirs}.{kind}",), _SAME)


def _dense(ours: str, theirs: str) -> dict[str, str]:
    layers = ("in_layer", "mlp_layers.0", "mlp_layers.1")
    return {f"{ours}.dense.{2 * i}": f"{theirs}.{layer}" for i, layer in enumerate(layers)}


_UNET = "deltaplane_predictor"
_PARTS = ("audio_net", "audio_att_net", "blink_encoder", "camera_encoder")


def from_official(states: States, null_vector: Tensor, source: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts of our U-Net and our token encoder.

    Args:
        states: Talk3D's, by part.
        null_vector: [1, null tokens, D].
        source: names the file in messages.

    Raises:
        CheckpointError: an entry is missing, left over, or of a shape that does not go with the others.
    """
    unet = _joined(_unet_entries(_blocks(states[_UNET])), states[_UNET], source) | {"scale": torch.ones(())}
    encoder: dict[str, Tensor] = {}
    for part in _PARTS:
        encoder |= _joined(_encoder_entries(part), states[part], source)
    if null_vector.ndim != 3 or len(null_vector) != 1:
        raise CheckpointError(f"`{source}` does not fit Talk3D's layout: its null vector is {_size(null_vector)}.")
    return unet, encoder | {"null": null_vector[0]}


def to_official(network: DeltaNetwork) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
    """Talk3D's state dicts by part, and its null vector: the inverse of `from_official`."""
    unet, encoder = network.unet.state_dict(), network.encoder.state_dict()
    states = {_UNET: _parted(_unet_entries(len(network.unet.blocks)), unet)}
    states |= {part: _parted(_encoder_entries(part), encoder) for part in _PARTS}
    return states, encoder["null"][None]


def load_official(checkpoint: Talk3DCheckpoint, extractor: str) -> DeltaNetwork:
    """Talk3D's talker as our network, sized as its weights are; in evaluation mode.

    Args:
        checkpoint: what `read_talk3d` found.
        extractor: the recogniser whose logits it was trained with; no file says.

    Raises:
        CheckpointError: see `from_official`.
        ConfigError: there is no such extractor.
    """
    source = checkpoint.provenance["file"]
    unet, encoder = from_official(checkpoint.states, checkpoint.null_vector, source)
    network = DeltaNetwork(_config(unet, encoder, extractor, source))
    try:
        network.unet.load_state_dict(unet)
        network.encoder.load_state_dict(encoder)
    except RuntimeError as error:  # it names every shape that differs
        raise CheckpointError(f"`{source}` does not fit Talk3D's layout. {error}") from error
    return network.eval()


def _config(unet: Mapping[str, Tensor], encoder: Mapping[str, Tensor], extractor: str, source: str) -> DeltaConfig:
    """Sizes as shapes tell them; the rest is what Talk3D is."""
    outputs = {name: len(unet[f"{name}.conv1.weight"]) // 3 for name in _LEVELS}
    bottom = outputs["down3"]
    if bottom % HEAD or (outputs["up1"], outputs["up2"]) != (outputs["down2"], outputs["down1"]):
        raise CheckpointError(
            f"`{source}` does not fit Talk3D's layout: its levels have {', '.join(map(str, outputs.values()))} channels. The "
            f"third must be a multiple of {HEAD}, the fourth and fifth equal the second and first."
        )
    width = encoder["null"].shape[1]
    return DeltaConfig(
        audio=LogitsConfig(extractor, channels=encoder["audio_net.convolutions.0.weight"].shape[1]),
        tokens=TokenConfig(
            width=width,
            windows=len(encoder["audio_attention.dense.bias"]),
            null_tokens=len(encoder["null"]),
            encoder="official",
        ),
        unet=dataclasses.replace(
            OFFICIAL,
            plane_channels=outputs["up3"],
            plane_size=8 * math.isqrt(unet["position"].shape[2]),
            down=(outputs["down1"], outputs["down2"], bottom),
            up=(outputs["up1"], outputs["up2"], outputs["up3"]),
            blocks=1 + max(int(name.split(".")[1]) for name in unet if name.startswith("blocks.")),
            heads=bottom // HEAD,
            token_width=width,
        ),
        expressions=(),
    )


def _blocks(state: Mapping[str, Tensor]) -> int:
    found = (re.match(r"transformer\.0\.transformer_blocks\.(\d{1,2})\.", name) for name in state)
    return 1 + max((int(match[1]) for match in found if match), default=0)


def _joined(entries: Iterable[_Entry], state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    entries = list(entries)
    expected = {name for entry in entries for name in entry.theirs}
    for what, names in (("lacks", expected - state.keys()), ("has an unknown", state.keys() - expected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"`{source}` does not fit Talk3D's layout: it {what} `{min(names)}`{more}.")
    made = {}
    for entry in entries:
        parts = [state[name] for name in entry.theirs]
        try:
            made[entry.ours] = entry.layout.join(parts)
        except (IndexError, RuntimeError) as error:
            sizes = ", ".join(_size(part) for part in parts)
            raise CheckpointError(
                f"`{source}` does not fit Talk3D's layout: `{entry.theirs[0]}` and what belongs to it are {sizes}."
            ) from error
    return made


def _parted(entries: Iterable[_Entry], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: part.clone(memory_format=torch.contiguous_format)  # of its own, as tensors of files are
        for entry in entries
        for name, part in zip(entry.theirs, entry.layout.part(state[entry.ours]), strict=True)
    }  # fmt: skip


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"

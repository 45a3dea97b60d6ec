"""Importing: real layouts come in bit by bit, and no file whatever gets anything run.

Files are written by the standard pickler and by torch, or opcode by opcode; none by the code under test.
"""

import collections
import copyreg
import hashlib
import importlib.util
import io
import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from talk3d.artifacts import Prior
from talk3d.errors import ArtifactError, CheckpointError, OutputExistsError
from talk3d.prior import convert
from talk3d.prior.convert import load_talk3d, open_checkpoint, read_eg3d, read_talk3d, read_tensor, save_talk3d
from talk3d.prior.generator import load_prior, save_prior

FUZZER = Path(__file__).parents[2] / "benchmarks" / "fuzz_convert.py"


def _load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


fuzz = _load(FUZZER)
Write = Callable[[bytes], Path]
PROTOCOLS = (2, 4)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(data: bytes) -> Path:
        path = tmp_path / "checkpoint"
        path.write_bytes(data)
        return path

    return write


def refused(path: Path, match: str = "") -> None:
    """Neither reader accepts a file, and both say what to do."""
    for reader in (read_eg3d, read_talk3d):
        with pytest.raises(CheckpointError, match=match or None) as error:
            reader(path)
        text = str(error.value)
        assert path.name in text
        assert "Nothing in it was run" in text or "nothing to import" in text or "Import the generator" in text


@contextmanager
def generator_file(**changes: Any) -> Iterator[tuple[dict[str, torch.Tensor], Any]]:
    """The state of a small generator, and it as EG3D's object, to be pickled within the block."""
    state = {name: torch.randn_like(value) for name, value in fuzz.small_generator().state_dict().items()}
    with fuzz.foreign_classes() as make:
        yield state, fuzz.network(make, state | {"dataset_label_std": torch.ones(25)}, **changes)


def same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    if actual.keys() != expected.keys():
        return False
    return all(actual[n].dtype == expected[n].dtype and torch.equal(actual[n], expected[n]) for n in actual)


# --- What must come in ---------------------------------------------------------------------------------------------------


def test_the_official_layout_comes_in_bit_by_bit(shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden"
    foreign = read_eg3d(golden / "checkpoints" / "eg3d-128-sample.pkl")
    expected = load_file(golden / "eg3d" / "eg3d-128" / "state.safetensors")
    del expected["dataset_label_std"]
    expected = {name: value.float() for name, value in expected.items()}
    assert same(foreign.generator.state_dict(), expected)
    assert foreign.generator.profile.render.plane_axes == "eg3d"
    assert foreign.generator.profile.neural_resolution == 64
    # And through the Prior on disk.
    save_prior(tmp_path / "prior", foreign.generator, None, config={"imported": foreign.provenance})
    assert same(load_prior(tmp_path / "prior").generator.state_dict(), expected)


def test_the_average_is_taken_and_not_the_last_step(shared: Path) -> None:
    path = shared / "golden" / "checkpoints" / "eg3d-128-sample.pkl"
    state = read_eg3d(path).generator.state_dict()
    # The description beside the file says that the other generator has nothing but these numbers there.
    assert not (state["backbone.mapping.w_avg"] == 7).all()
    assert not (state["decoder.net.2.bias"] == 9).all()
    # Canary: that generator is in the file, and read just as well.
    other = open_checkpoint(path).root["G"]
    tensors = convert._stored_tensors(convert._modules(other))
    assert (tensors["backbone.mapping.w_avg"].read() == 7).all()
    assert (tensors["decoder.net.2.bias"].read() == 9).all()


def test_talk3ds_layout_comes_in_bit_by_bit(shared: Path) -> None:
    golden = shared / "golden"
    talker = read_talk3d(golden / "checkpoints" / "talk3d-sample.pt")
    assert (talker.epoch, talker.iteration) == (3, 12345)
    assert same(dict(talker.states["deltaplane_predictor"]), load_file(golden / "talk3d" / "deltaplane" / "state.safetensors"))
    encoders = load_file(golden / "talk3d" / "encoders" / "state.safetensors")
    assert torch.equal(talker.null_vector, encoders.pop("null_vector"))
    rest = {f"{p}/{n}": v for p, state in talker.states.items() if p != "deltaplane_predictor" for n, v in state.items()}
    assert same(rest, encoders)


@pytest.mark.parametrize("container", ["zip", "legacy", "plain"])
def test_a_file_may_be_a_single_tensor(container: str, write: Write) -> None:
    value = torch.randn(6, 2)
    assert torch.equal(read_tensor(write(dumped(value, container))), value)
    with pytest.raises(CheckpointError, match="not a single tensor"):
        read_tensor(write(dumped([value], container)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_official_files_of_every_protocol(protocol: int, write: Write) -> None:
    with generator_file() as (state, network), fuzz.foreign_classes() as make:
        other = fuzz.network(make, {name: value + 1 for name, value in state.items()})
        path = write(pickle.dumps({"G": other, "D": None, "G_ema": network, "augment_pipe": None}, protocol))
    foreign = read_eg3d(path)
    assert same(foreign.generator.state_dict(), state)
    assert not foreign.generator.training
    assert not any(parameter.requires_grad for parameter in foreign.generator.parameters())


@pytest.mark.parametrize(
    "dump",
    [pickle.dumps, fuzz.saved, lambda x: fuzz.saved(x, _use_new_zipfile_serialization=False)],
    ids=["plain", "zip", "legacy"],
)
def test_a_bare_tuned_generator_in_every_container(dump: Callable[[Any], bytes], write: Write) -> None:
    with generator_file() as (state, network):
        path = write(dump(network))
    assert same(read_eg3d(path).generator.state_dict(), state)


def test_half_precision_is_kept_exactly_as_single(write: Write) -> None:
    state = {name: value.half() for name, value in fuzz.small_generator().state_dict().items()}
    with fuzz.foreign_classes() as make:
        path = write(pickle.dumps(fuzz.network(make, state)))
    assert same(read_eg3d(path).generator.state_dict(), {name: value.float() for name, value in state.items()})


def test_provenance_names_file_classes_and_sources(write: Write) -> None:
    with generator_file() as (_, network):
        path = write(pickle.dumps(network))
    provenance = read_eg3d(path).provenance
    assert provenance["file"] == "checkpoint"
    assert provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "TriPlaneGenerator" in provenance["classes"]
    assert "training.volumetric_rendering.renderer.ImportanceRenderer" in provenance["classes"]
    source = "import os\nos.system('touch of TriPlaneGenerator')\n"
    assert hashlib.sha256(source.encode()).hexdigest() in provenance["sources"]


def test_the_talker_survives_its_own_folder(write: Write, tmp_path: Path) -> None:
    with fuzz.foreign_classes() as make:
        root = fuzz.talk3d_root(make) | {"superresolution": {"block0.conv0.weight": torch.ones(2)}}
    expected = {name: dict(value) for name, value in root.items() if name in (*convert._NETWORKS, "superresolution")}
    talker = read_talk3d(write(fuzz.saved(root)))
    save_talk3d(tmp_path / "talker", talker)
    loaded = load_talk3d(tmp_path / "talker")
    for checkpoint in (talker, loaded):
        for name, state in expected.items():
            if state:  # an empty state dict leaves nothing in a safetensors file
                assert same(dict(checkpoint.states[name]), {n: v.detach().contiguous() for n, v in state.items()})
        assert torch.equal(checkpoint.null_vector, root["null_vector"].detach())
        assert (checkpoint.epoch, checkpoint.iteration) == (3, 70000)
    assert loaded.provenance == talker.provenance
    with pytest.raises(OutputExistsError):
        save_talk3d(tmp_path / "talker", talker)
    with pytest.raises(ArtifactError, match="of the kind Talk3DWeights, but Prior"):
        Prior.open(tmp_path / "talker")


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
        torch.int8, torch.uint8, torch.bool,
    ],
)  # fmt: skip
@pytest.mark.parametrize("container", ["plain", "zip", "legacy"])
def test_tensors_of_every_type_and_layout_are_torchs_own(dtype: torch.dtype, container: str, write: Write) -> None:
    whole = (torch.arange(24) % 7 - 1).reshape(2, 3, 4).to(dtype)
    state = {"whole": whole, "part": whole[1], "turned": whole[1].T, "late": whole.permute(2, 0, 1), "scalar": whole[0, 0, 1]}
    state["last"] = torch.ones(2, 3, 4, 5).to(dtype).to(memory_format=torch.channels_last)
    read = read_talk3d(write(dumped(talker(state), container)))
    assert same(dict(read.states["audio_net"]), state)
    assert all(value.is_contiguous() for value in read.states["audio_net"].values())


def talker(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A checkpoint of Talk3D's layout with one filled state dict."""
    root: dict[str, Any] = {name: {} for name in convert._NETWORKS}
    return root | {"audio_net": state, "null_vector": torch.zeros(1, 1, 2), "epoch": 0, "iter": 0} | changes


def dumped(root: Any, container: str) -> bytes:
    if container == "plain":
        return pickle.dumps(root, 4)
    return fuzz.saved(root, _use_new_zipfile_serialization=container == "zip")


def test_tensors_may_share_a_storage_but_not_multiply_the_file(write: Write) -> None:
    value = torch.randn(1000)
    assert len(read_talk3d(write(pickle.dumps(talker({"a": value, "b": value})))).states["audio_net"]) == 2
    refused_talker(write(pickle.dumps(talker({f"t{i}": value for i in range(100)}))), "far larger than the file")


def refused_talker(path: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        read_talk3d(path)


# --- How planes lie ------------------------------------------------------------------------------------------------------

CORRECTED = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [0, 1, 0], [1, 0, 0]]]


@pytest.mark.parametrize(("matrices", "axes"), [(fuzz.ORIGINAL_AXES, "eg3d"), (CORRECTED, "aligned")])
def test_axes_come_from_the_file(matrices: list, axes: str, write: Write) -> None:
    """The reference multiplies points by the inverse matrices and reads the first two coordinates as width and height."""
    point = torch.tensor([1.0, 2.0, 3.0])
    expected = (point @ torch.linalg.inv(torch.tensor(matrices).float()))[:, :2]
    with generator_file(plane_axes=matrices) as (_, network):
        path = write(pickle.dumps(network))
    profile = read_eg3d(path).generator.profile
    assert profile.render.plane_axes == axes
    from talk3d.render.reference import project_points

    assert torch.equal(project_points(point[None, None], profile.render.plane_axes)[0, :, 0], expected)
    other = "aligned" if axes == "eg3d" else "eg3d"
    with pytest.raises(CheckpointError, match=f"its planes lie as `{axes}`, and `--plane-axes {other}` was given"):
        read_eg3d(path, other)


def test_axes_that_are_missing_must_be_stated(write: Write) -> None:
    with generator_file(plane_axes=None) as (_, network):
        path = write(pickle.dumps(network))
    with pytest.raises(CheckpointError, match="does not say how its planes lie") as error:
        read_eg3d(path)
    assert "--plane-axes eg3d" in str(error.value)
    assert read_eg3d(path, "aligned").generator.profile.render.plane_axes == "aligned"


def test_unknown_axes_are_refused_even_if_stated(write: Write) -> None:
    with generator_file(plane_axes=[fuzz.ORIGINAL_AXES[0]] * 3) as (_, network):
        path = write(pickle.dumps(network))
    with pytest.raises(CheckpointError, match="neither EG3D's nor the corrected one"):
        read_eg3d(path, "eg3d")


# --- Weights and settings that do not fit --------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_named(write: Write) -> None:
    state = dict(fuzz.small_generator().state_dict())
    del state["decoder.net.0.bias"]
    state["decoder.net.9.bias"] = torch.zeros(2)
    state["backbone.mapping.w_avg"] = torch.zeros(5)
    with fuzz.foreign_classes() as make:
        path = write(pickle.dumps(fuzz.network(make, state)))
    with pytest.raises(CheckpointError) as error:
        read_eg3d(path)
    for part in ("missing: decoder.net.0.bias", "unknown: decoder.net.9.bias", "backbone.mapping.w_avg (5,) instead of (4,)"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("z_dim", 10**12), ("z_dim", -1), ("z_dim", 4.0), ("z_dim", True), ("z_dim", "4"), ("z_dim", None), ("c_dim", 7),
        ("channel_base", 2**40), ("channel_max", 10**9), ("conv_clamp", float("nan")),
        ("mapping_kwargs", {"num_layers": 10**9}),
        ("mapping_kwargs", [1]), ("mapping_kwargs", {"lr_multiplier": float("inf")}),
    ],
)  # fmt: skip
def test_arguments_that_would_take_the_machine_down_are_refused(name: str, value: object, write: Write) -> None:
    with generator_file(_init_kwargs=fuzz.ARGUMENTS | {name: value}) as (_, network):
        path = write(pickle.dumps(network))
    with pytest.raises(CheckpointError, match=r"makes no sense|how its mapping|another length"):
        read_eg3d(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth_resolution", 10**9), ("depth_resolution", 0), ("box_warp", 0), ("box_warp", float("nan")),
        ("ray_start", "later"),
        ("ray_start", 4.0), ("ray_start", "auto"), ("avg_camera_pivot", [0, 0]), ("avg_camera_pivot", [0, 0, "x"]),
        ("avg_camera_pivot", 1),
        ("superresolution_module", "x" * 10**6), ("superresolution_module", "training.superresolution.Other"),
        ("clamp_mode", "relu"),
        ("white_back", 1), ("sr_antialias", []), ("c_scale", torch.ones(1)),
    ],
)  # fmt: skip
def test_rendering_settings_that_make_no_sense_are_refused(name: str, value: object, write: Write) -> None:
    with generator_file(rendering_kwargs=fuzz.RENDERING | {name: value}) as (_, network):
        path = write(pickle.dumps(network))
    with pytest.raises(CheckpointError, match="was not imported") as error:
        read_eg3d(path)
    assert len(str(error.value)) < 500


def test_missing_settings_are_named(write: Write) -> None:
    rendering = {name: value for name, value in fuzz.RENDERING.items() if name != "ray_start"}
    with generator_file(rendering_kwargs=rendering) as (_, network):
        path = write(pickle.dumps(network))
    with pytest.raises(CheckpointError, match="lack `ray_start`"):
        read_eg3d(path)


def test_positional_arguments_count(write: Write) -> None:
    arguments = {name: value for name, value in fuzz.ARGUMENTS.items() if name not in ("z_dim", "c_dim", "w_dim")}
    with generator_file(_init_kwargs=arguments, _init_args=(4, 25, 4, 128, 3)) as (state, network):
        path = write(pickle.dumps(network))
    assert same(read_eg3d(path).generator.state_dict(), state)


def test_the_rendering_attribute_counts_and_not_the_argument(write: Write) -> None:
    with generator_file(rendering_kwargs=fuzz.RENDERING | {"depth_resolution": 7}) as (_, network):
        path = write(pickle.dumps(network))
    assert read_eg3d(path).generator.profile.render.samples_coarse == 7


@pytest.mark.parametrize(
    ("root", "match"),
    [
        ({}, "holds no `G_ema`"), ({"G": 1}, "holds no `G_ema`"), ({"G_ema": 1}, "no `TriPlaneGenerator`"), ([], "no `Tri"),
        (None, "no `Tri"), ({"G_ema": torch.nn.Linear(2, 2)}, "no `Tri"), (talker({}), "talker's checkpoint of Talk3D"),
    ],
)  # fmt: skip
def test_files_without_a_generator_say_so(root: object, match: str, write: Write) -> None:
    with pytest.raises(CheckpointError, match=match):
        read_eg3d(write(pickle.dumps(root)))


@pytest.mark.parametrize(
    "root",
    [
        {}, talker({"a": 1}), talker({1: torch.ones(1)}), talker({"a/b": torch.ones(1)}), talker({}, audio_net=None),
        talker({}, epoch="3"), talker({}, iter=-1), talker({}, null_vector=None), talker({}, superresolution=[1]), talker({},
        epoch=True),
    ],
)  # fmt: skip
def test_files_that_are_no_talker_are_refused(root: object, write: Write) -> None:
    refused_talker(write(pickle.dumps(root)), "was not imported")


# --- Attacks that run code -----------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def glob(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(what: bytes, *arguments: bytes) -> bytes:
    return what + b"(" + b"".join(arguments) + b"tR"


SYSTEM, EVAL, GETATTR = glob("os", "system"), glob("builtins", "eval"), glob("builtins", "getattr")
OS = call(glob("builtins", "__import__"), text("os"))


class Evil:
    """Pickles as a call of `os.system`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def legacy_stream(inside: bytes) -> bytes:
    """A legacy stream of torch whose object is a pickle of the attacker's."""
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(parts) + b"\x80\x02" + inside + b"." + pickle.dumps([], 2)


def torch_zip(inside: bytes) -> bytes:
    """A zip file of torch whose pickle is the attacker's."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", inside)
        archive.writestr("archive/version", b"3\n")
    return file.getvalue()


def running_attacks(canary: Path) -> dict[str, bytes]:
    """Pickles that make the canary file when Python reads them."""
    touch, code = text(f"touch {canary}"), text(f"open({str(canary)!r}, 'w').close()")
    linear = glob("torch.nn.modules.linear", "Identity") + b")\x81"
    short = f"touch {canary}".encode()
    bodies = {
        "os.system": call(SYSTEM, touch),
        "posix.system": call(glob("posix", "system"), touch),
        "eval": call(EVAL, code),
        "exec": call(glob("builtins", "exec"), code),
        "getattr of __import__": call(call(GETATTR, OS, text("system")), touch),
        "functools.partial": call(call(glob("functools", "partial"), EVAL, code)),
        "operator.attrgetter": call(call(call(glob("operator", "attrgetter"), text("system")), OS), touch),
        "operator.methodcaller": call(call(glob("operator", "methodcaller"), text("system"), touch), OS),
        "builtins.map": call(glob("builtins", "list"), call(glob("builtins", "map"), EVAL, b"](" + code + b"e")),
        "subprocess": call(glob("subprocess", "getoutput"), touch),
        "instance opcode": b"(" + touch + b"ios\nsystem\n",
        "object opcode": b"(" + SYSTEM + touch + b"o",
        "attributes of a namespace": glob("types", "SimpleNamespace")
        + b")R}"
        + text("__setstate__")
        + SYSTEM
        + b"sb"
        + touch
        + b"b",
        "attributes of a known class": linear + b"}" + text("__setstate__") + SYSTEM + b"sb" + touch + b"b",
        "inside a known call": call(glob("collections", "OrderedDict"), b"](" + b"](" + b"K\0" + call(SYSTEM, touch) + b"ee"),
        "default of a dictionary": call(glob("collections", "defaultdict"), call(SYSTEM, touch) + b"0" + b"N"),
        "embedded stream": call(
            glob("torch.storage", "_load_from_bytes"),
            b"B" + struct.pack("<I", len(s := legacy_stream(call(SYSTEM, touch)))) + s,
        ),
        "after a value": b"K\1" + call(SYSTEM, touch) + b"0",
    }
    attacks = {name: b"\x80\x03" + body + b"." for name, body in bodies.items()}
    attacks["python 2 eval"] = b"\x80\x02" + call(glob("__builtin__", "eval"), code) + b"."
    attacks["stack global"] = b"\x80\x04\x8c\2os\x8c\6system\x93" + b"\x8c" + bytes([len(short)]) + short + b"\x85R."
    attacks["dotted stack global"] = (
        b"\x80\x04\x8c\2os\x8c\x1apath.genericpath.os.system\x93" + b"\x8c" + bytes([len(short)]) + short + b"\x85R."
    )
    attacks["extension"] = b"\x80\x02\x82\xf0" + touch + b"\x85R."
    for protocol in range(6):
        attacks[f"reduce, protocol {protocol}"] = pickle.dumps({"G_ema": [Evil(canary)]}, protocol)
    return attacks


RUNNING = list(running_attacks(Path("canary")))


@pytest.mark.parametrize("attack", RUNNING)
def test_code_does_not_run(attack: str, write: Write, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = running_attacks(canary)[attack]
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        refused(write(data))
        refused(write(torch_zip(data)))
        refused(write(legacy_stream(data[2:-1])))
        assert not canary.exists()
        # And Python's own reader would have run it.
        with suppress(Exception):
            pickle.loads(data)
        assert canary.exists()
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)


def test_canary_torch_itself_would_run_both_containers(tmp_path: Path) -> None:
    for name, wrap in (("zip", torch_zip), ("legacy", lambda data: legacy_stream(data[2:-1]))):
        canary = tmp_path / name
        with suppress(Exception):
            torch.load(io.BytesIO(wrap(running_attacks(canary)["os.system"])), weights_only=False)
        assert canary.exists()


def test_embedded_source_is_not_run(write: Write, tmp_path: Path) -> None:
    """What the reference executes: here it is hashed and dropped, even when everything else is fine."""
    canary = tmp_path / "canary"
    with generator_file() as (state, network):
        network.meta["module_src"] = f"open({str(canary)!r}, 'w')"
        path = write(pickle.dumps(network))
    assert same(read_eg3d(path).generator.state_dict(), state)
    assert not canary.exists()


def test_nothing_is_imported(write: Write) -> None:
    names = [("torch.optim.nothing", "SGD"), ("training.nothing", "System"), ("torch.nn.modules.os", "system")]
    before = set(sys.modules)
    data = b"\x80\x02]" + b"".join(call(glob(*name)) + b"a" for name in names) + b"."
    open_checkpoint(write(data))
    assert set(sys.modules) == before


def test_inert_records_keep_attributes_to_themselves(write: Write) -> None:
    """Attributes with a meaning in Python are entries of a dictionary and nothing more."""
    adam = glob("torch.optim.adam", "Adam") + b")\x81}("
    for name in ("__class__", "__dict__", "__setstate__", "__reduce__", "kind", "state"):
        adam += text(name) + text("x")
    path = write(b"\x80\x02" + adam + b"ub.")
    record = open_checkpoint(path).root
    assert type(record) is convert._Inert
    assert record.kind == "torch.optim.adam.Adam"
    assert record.state["__class__"] == "x"


@pytest.mark.parametrize(
    "body",
    [
        call(glob("torch.optim.adam", "Adam") + b")\x81"),  # an instance is called
        glob("torch.optim.adam", "Adam") + b")\x81}b}b",  # attributes twice
        glob("torch.optim.adam", "Adam") + b")\x81K\1b",  # attributes that are none
        glob("torch.optim.adam", "Adam") + b"}b",  # of a class
        glob("torch.optim.adam", "Adam") + b")}\x92",  # NEWOBJ_EX
        glob("torch.optim.adam", "Adam") + b"]R",  # arguments that are no tuple
        glob("torch", "FloatStorage") + b")R",
        glob("collections", "OrderedDict") + b")RK\1b",
        call(glob("builtins", "set"), b"](" + b")" + b"e"),  # a tuple as a member
        b"})K\1s",  # and as a key
        b"}G" + b"\0" * 8 + b"K\1s",
        b"}]K\1s",
        b"\x8f(]\x90",
        b"K\1K\2a",
        b"Pname\n",
        b"K\1Q",
        b"(" + text("storage") + glob("torch", "FloatStorage") + text("0") + text("cpu") + b"K\1tQ",
        # nothing outside a plain pickle
        b"(" + text("module") + glob("torch.nn.modules.linear", "Linear") + text("") + text("") + b"tQ",
        b"\x97",  # out-of-band buffers
        b"\x98",
        b"I1\n",
        b"L1L\n",
        b"F1\n",
        b"S'x'\n",
        b"Vx\n",
        b"U\1x",
        b"p0\n",
        b"g0\n",
        b"d",
        b"l",
        b"2",
        b"h\7",
        b"j\xff\xff\xff\xff",
        b"q\0",
        b"t",
        b"0",
        b"N" * 2,
        b"(",
        b"",
        b"\x80\x06",
        b"\xff",
        b"X\2\0\0\0\xff\xfe",
        b"\x8c\1x\x8c\1y\x93",
        b"K\1K\2\x93",
    ],
)  # fmt: skip
def test_opcodes_without_a_place_in_checkpoints_are_refused(body: bytes, write: Write) -> None:
    refused(write(b"\x80\x04" + body + b"."))


# --- Attacks on memory and time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("opcode", [b"X", b"B", b"T", b"\x8b", b"\x8d", b"\x8e", b"\x95", b"\x96"])
def test_lengths_beyond_the_file_are_refused(opcode: bytes, length: int, write: Write) -> None:
    form = "I" if opcode in (b"X", b"B", b"T", b"\x8b") else "Q"
    refused(write(b"\x80\x04" + opcode + struct.pack(f"<{form}", length % 2 ** (8 * struct.calcsize(form))) + b"abc."))


def test_whole_numbers_of_many_digits_are_refused(write: Write) -> None:
    refused(write(b"\x80\x02\x8a\xff" + b"\x01" * 255 + b"."))
    refused(write(b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x01" * 10**6 + b"."))


def test_too_many_steps_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert convert.MAX_OPCODES == 500_000
    monkeypatch.setattr(convert, "MAX_OPCODES", 2000)  # the checks of annotations make steps slow here
    refused(write(b"\x80\x02" + b"N0" * 2000 + b"N."), "more than 2,000 steps")
    # The same within one stream of many, each of which is short.
    stream = fuzz.saved(torch.ones(1)._typed_storage(), _use_new_zipfile_serialization=False)
    blob = b"B" + struct.pack("<I", len(stream)) + stream
    body = glob("torch.storage", "_load_from_bytes") + b"q\0" + blob + b"\x85q\x01" + b"h\0h\1R0" * 400
    refused(write(b"\x80\x02" + body + b"."), "more than 2,000 steps")


def test_repeated_work_on_one_large_value_is_counted(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "MAX_OPCODES", 10_000)
    letters = text("a" * 2**20)
    encode = glob("_codecs", "encode") + b"q\0(" + letters + text("latin1") + b"tq\x01"
    refused(write(b"\x80\x02" + encode + b"h\0h\1R0" * 100 + b"."), "MiB of text")
    many = glob("builtins", "set") + b"q\0](" + b"K\1" * 2000 + b"e\x85q\x01"
    refused(write(b"\x80\x02" + many + b"h\0h\1R0" * 1000 + b"."), "more than 10,000 steps")


def test_values_that_double_forty_times_stay_small(write: Write) -> None:
    """As a value they are references; where a network is walked, they are counted."""
    steps = [b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(40)]
    laughs = b"]q\0" + b"".join(steps)
    refused(write(b"\x80\x02(" + laughs + b"t."))
    with fuzz.foreign_classes() as make:
        module = make("Layer", {"_modules": {}, "_parameters": {"w": torch.ones(2)}})
        for _ in range(30):
            module = make("Layer", {"_modules": {"a": module, "b": module}})
        path = write(pickle.dumps(make("TriPlaneGenerator", {"_modules": {"a": module}})))
    with pytest.raises(CheckpointError, match="contain each other without end"):
        read_eg3d(path)


def test_a_module_that_contains_itself_is_refused(write: Write) -> None:
    sequential = (
        glob("training.triplane", "TriPlaneGenerator") + b")\x81q\0}" + text("_modules") + b"}" + text("a") + b"h\0ssb."
    )
    with pytest.raises(CheckpointError, match="contain each other without end"):
        read_eg3d(write(b"\x80\x02" + sequential))


def test_a_module_of_very_many_members_is_refused(write: Write) -> None:
    with fuzz.foreign_classes() as make:
        members = {f"w{i}": None for i in range(convert.MAX_MEMBERS + 1)}
        path = write(pickle.dumps(make("TriPlaneGenerator", {"_modules": members})))
    with pytest.raises(CheckpointError, match="far too many"):
        read_eg3d(path)


@pytest.mark.parametrize(("begin", "end"), [(b"(", b"t"), (b"](", b"e"), (b"}(" + text("x"), b"u"), (b"", b"\x85")])
def test_deep_nesting_is_no_recursion(begin: bytes, end: bytes, write: Write) -> None:
    refused(write(b"\x80\x02" + begin * 5000 + b"N" + end * 5000 + b"."))


def test_streams_do_not_nest(write: Write) -> None:
    stream = fuzz.saved(torch.ones(2)._typed_storage(), _use_new_zipfile_serialization=False)
    for _ in range(5):
        inside = call(glob("torch.storage", "_load_from_bytes"), b"B" + struct.pack("<I", len(stream)) + stream)
        refused(write(b"\x80\x03" + inside + b"."))
        stream = legacy_stream(inside)


def test_files_beyond_the_limit_are_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(convert.MAX_FILE + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    refused(path, "more than 2 GiB")


# --- Attacks through tensors ---------------------------------------------------------------------------------------------


class Rebuilt:
    """Pickles as a tensor of given fields."""

    def __init__(self, *fields: Any) -> None:
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, (*self.fields, False, collections.OrderedDict())  # type: ignore[attr-defined]


SIX = torch.arange(6.0)._typed_storage()


def test_a_tensor_of_given_fields_is_torchs(write: Write) -> None:
    read = read_talk3d(write(pickle.dumps(talker({"a": Rebuilt(SIX, 1, (2, 2), (2, 1))}))))
    assert read.states["audio_net"]["a"].tolist() == [[1, 2], [3, 4]]
    assert read_talk3d(write(pickle.dumps(talker({"a": Rebuilt(SIX, 6, (0, 3), (3, 1))})))).states["audio_net"]["a"].shape == (
        0,
        3,
    )


@pytest.mark.parametrize(
    "fields",
    [
        (SIX, -1, (2,), (1,)), (SIX, 5, (2,), (1,)), (SIX, 6, (1,), (1,)), (SIX, 0, (7,), (1,)), (SIX, 0, (3,), (3,)),
        (SIX, 0, (2, 4), (4, 1)),
        (SIX, 0, (-2,), (1,)), (SIX, 0, (2,), (-1,)), (SIX, 0, (-1, -6), (1, 1)), (SIX, 0, (2**40, 2**40), (0, 0)), (SIX, 0,
        (2**64,), (0,)),
        (SIX, 2**70, (1,), (1,)), (SIX, 0, (2**31 - 1,), (0,)), (SIX, 0, (0, 2**31 - 1, 2**31 - 1), (1, 1, 1)), (SIX, 0,
        (6,), (1, 1)),
        (SIX, 0, (6, 1), (1,)), (SIX, 0, (1,) * 9, (1,) * 9), (SIX, 0, (True, 2), (1, 1)), (SIX, False, (2,), (1,)), (SIX, 0,
        (2.0,), (1,)),
        (SIX, 0, [2], [1]), (SIX, 0, ("2",), (1,)), (SIX, None, (2,), (1,)), (b"x" * 24, 0, (6,), (1,)), (None, 0, (6,), (1,)),
        (SIX, 0, (3,), (0,)), (SIX, 0, (3,), (2,)), (SIX, 0, (2, 2), (1, 1)),
    ],
)  # fmt: skip
def test_tensors_that_reach_beyond_their_storage_are_refused(fields: tuple, write: Write) -> None:
    refused_talker(write(pickle.dumps(talker({"a": Rebuilt(*fields)}))), "tensor")


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2, dtype=torch.complex64), torch.eye(2).to_sparse(),
        torch.ones(2, device="meta"), np.ones(2), np.array([None]), "text", b"bytes", [1.0],
        torch.ones(2).untyped_storage(), torch.ones(2)._typed_storage(),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "layout", "")) + str(getattr(value, "dtype", "")),
)  # fmt: skip
@pytest.mark.parametrize("container", ["plain", "zip", "legacy"])
def test_other_kinds_of_arrays_are_refused(value: object, container: str, write: Write) -> None:
    try:
        data = dumped(talker({"a": value}), container)
    except Exception as error:
        pytest.skip(f"cannot be written in this container: {error}")
    refused_talker(write(data), "was not imported")


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_quantised_tensors_are_refused(write: Write) -> None:
    value = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    refused_talker(write(fuzz.saved(talker({"a": value}))), "asks for `torch._utils._rebuild_qtensor`")


def test_truth_values_are_zero_or_one(write: Write) -> None:
    data = pickle.dumps(talker({"a": torch.tensor([True, False, True])}), 4)
    assert data.count(b"\1\0\1") == 1
    refused_talker(write(data.replace(b"\1\0\1", b"\1\0\2")), "truth values")


@pytest.mark.parametrize("value", [np.float32(1.5), np.float64(-2), np.int64(2**40), np.uint8(3), np.int16(-3)])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_numbers_become_pythons(value: np.generic, protocol: int, write: Write) -> None:
    assert open_checkpoint(write(pickle.dumps([value], protocol))).root == [value.item()]


@pytest.mark.parametrize(
    "value",
    [np.complex64(1j), np.str_("x"), np.bytes_(b"x"), np.datetime64("2020-01-01"), np.void(b"xx"), np.float64(1).astype(">f8")],
)
def test_other_numpy_scalars_are_refused(value: object, write: Write) -> None:
    data = pickle.dumps(value, 4)
    if b">" in data or not isinstance(value, float):
        refused(write(data), "NumPy number")


def test_a_numpy_object_is_refused(write: Write) -> None:
    scalar = glob("numpy._core.multiarray", "scalar")
    dtype = (
        call(glob("numpy", "dtype"), text("O8"), b"\x89", b"\x88")
        + b"(K\3"
        + text("|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"
    )
    refused(write(b"\x80\x03" + call(scalar, dtype, b"C\x08" + b"\0" * 8) + b"."), "NumPy number of type `O8`")


# --- Damaged and foreign files -------------------------------------------------------------------------------------------


def valid_files() -> dict[str, bytes]:
    root = talker({"w": torch.arange(12.0).reshape(3, 4)})
    return {container: dumped(root, container) for container in ("plain", "zip", "legacy")}


VALID = valid_files()


@pytest.mark.parametrize("container", VALID)
def test_every_truncation_is_refused(container: str, write: Write) -> None:
    data = VALID[container]
    read_talk3d(write(data))
    for length in range(0, len(data), max(1, len(data) // 60)):
        refused_talker(write(data[:length]), "was not imported")


@pytest.mark.parametrize("container", VALID)
def test_anything_that_follows_is_refused(container: str, write: Write) -> None:
    for tail in (b"\0", b".", b"K\1.", VALID[container]):
        refused(write(VALID[container] + tail))


@pytest.mark.parametrize("container", VALID)
def test_flipped_bits_are_an_error_or_another_number_never_more(container: str, write: Write) -> None:
    data = VALID[container]
    outcomes = collections.Counter()
    for index in range(0, len(data) * 8, 101):
        changed = bytearray(data)
        changed[index // 8] ^= 1 << index % 8
        try:
            read_talk3d(write(bytes(changed)))
            outcomes["read"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 20
    if container == "zip":  # its checksums leave nothing to chance but padding and unused fields
        weights = data.index(np.arange(12, dtype="<f4").tobytes())
        changed = bytearray(data)
        changed[weights + 5] ^= 1
        refused_talker(write(bytes(changed)), "checksum")


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("See LICENSE.txt\n")
    (tmp_path / "page.html").write_text("<!DOCTYPE html><title>Sign in</title>")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("folder/readme.txt", "hello")
    (tmp_path / "other.zip").write_bytes(b"PK\5\6" + b"\0" * 18)
    for path in list(tmp_path.iterdir()):
        refused(path)
    for path in (tmp_path, tmp_path / "missing", Path("/dev/zero")):
        refused(path, "is not a file")


# --- Zip files -----------------------------------------------------------------------------------------------------------


def zipped(*members: tuple[str, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, options.get("compression", zipfile.ZIP_STORED))
    return file.getvalue()


def members_of(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


MEMBERS = members_of(VALID["zip"])


def test_zip_files_of_the_standard_library_are_fine(write: Write) -> None:
    assert read_talk3d(write(zipped(*MEMBERS))).states["audio_net"]["w"].shape == (3, 4)
    renamed = [("né (1)" + name[name.index("/") :], content) for name, content in MEMBERS]
    assert read_talk3d(write(zipped(*renamed))).epoch == 0


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "data",
    [
        lambda: zipped(*MEMBERS, compression=zipfile.ZIP_DEFLATED),
        lambda: zipped(*MEMBERS, ("archive/data/9", b"\0" * 10**6), compression=zipfile.ZIP_BZIP2),
        lambda: zipped(("a/data.pkl", pickle.dumps(0)), ("a/bomb", bytes(10**7)), compression=zipfile.ZIP_DEFLATED),
        lambda: zipped(*MEMBERS, MEMBERS[0]),
        lambda: zipped(*MEMBERS, ("/etc/passwd", b"")),
        lambda: zipped(*MEMBERS, ("archive/../../x", b"")),
        lambda: zipped(*MEMBERS, ("../x", b"")),
        lambda: zipped(*MEMBERS, ("archive\\x/y", b"")),
        lambda: zipped(*MEMBERS, ("C:/x", b"")),
        lambda: zipped(*MEMBERS, ("other/data/0", b"")),
        lambda: zipped(*MEMBERS, ("flat", b"")),
        lambda: zipped(*MEMBERS[1:]),
        lambda: zipped(*[(name, b"big" if name.endswith("byteorder") else content) for name, content in MEMBERS]),
        lambda: zipped(*[(name, content[:-4] if "/data/0" in name else content) for name, content in MEMBERS]),
        lambda: zipped(*[(name, content + b"0000" if "/data/0" in name else content) for name, content in MEMBERS]),
        lambda: zipped(*[(name, content) for name, content in MEMBERS if "/data/" not in name]),
        lambda: b"PK\3\4" + zipped(*MEMBERS),
    ],
)  # fmt: skip
def test_zip_files_that_torch_does_not_write_are_refused(data: Callable[[], bytes], write: Write) -> None:
    refused_talker(write(data()), "was not imported")


def test_overlapping_zip_members_are_refused(write: Write) -> None:
    """Two members of one place, the way zip bombs multiply."""
    data = zipped(("a/data.pkl", pickle.dumps(0)), ("a/data/0", b"0123"), ("a/data/1", b"0123"))
    directory = data.index(b"PK\1\2")
    entries = [i for i in range(directory, len(data)) if data[i : i + 4] == b"PK\1\2"]
    changed = bytearray(data)
    changed[entries[2] + 42 : entries[2] + 46] = data[entries[1] + 42 : entries[1] + 46]
    refused(write(bytes(changed)), "overlaps another")


def test_zip_fields_beyond_the_file_are_refused(write: Write) -> None:
    data = VALID["zip"]
    directory = data.index(b"PK\1\2")
    for offset, form in [(20, "I"), (24, "I"), (28, "H"), (30, "H"), (32, "H"), (42, "I")]:
        for number in (0, 1, 2**16 - 1, 2**32 - 1):
            changed = bytearray(data)
            field = struct.pack(f"<{form}", number % 2 ** (8 * struct.calcsize(form)))
            if changed[directory + offset : directory + offset + len(field)] != field:
                changed[directory + offset : directory + offset + len(field)] = field
                refused(write(bytes(changed)))


def test_encrypted_zip_members_are_refused(write: Write) -> None:
    changed = bytearray(zipped(*MEMBERS))
    directory = changed.index(b"PK\1\2")
    changed[6] |= 1
    changed[directory + 8] |= 1
    refused(write(bytes(changed)), "encrypted")


# --- The fuzzer ----------------------------------------------------------------------------------------------------------


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own: audit hooks stay for good."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(convert.__file__).parents[2]), str(FUZZER.parent)])}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


def test_two_thousand_damaged_files(tmp_path: Path) -> None:
    result = python(str(FUZZER), "--count", "2000", "--seed", "7", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "2,000 in" in result.stdout
    assert int(result.stdout.split("different refusals")[1].split()[0]) > 40
    assert list(tmp_path.iterdir()) == []


def test_canary_the_fuzzer_notices_everything_it_watches(tmp_path: Path) -> None:
    """Readers that do what none may, in place of ours."""
    readers = {
        "pickle.loads(path.read_bytes())": "os.system",
        "__import__('wave')": "import",
        "compile('1', 'x', 'eval')": "compile",
        "exec('1')": "exec",
        "open(str(path) + 'other', 'w')": "open",
        "path.write_bytes(b'')": "open",
        "1 / 0": "ZeroDivisionError",
        "time.sleep(9)": "took longer",
        "path.read_bytes()": "nothing",
    }
    code = (
        "import pickle, sys, time, fuzz_convert as f\n"
        "watch = f.Watch().install()\n"
        "f.LIMIT = 0.5\n"
        "for body in sys.argv[1:]:\n"
        "    f.read_eg3d = f.read_talk3d = eval(f'lambda path: {body}')\n"
        "    try:\n"
        r"        f.run(iter([b'\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.']), watch, 1)"
        "\n"
        "        print('nothing')\n"
        "    except f.Violation as violation:\n"
        "        print(violation)\n"
    )
    result = python("-c", code, *readers, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    for line, event in zip(result.stdout.splitlines(), readers.values(), strict=True):
        assert event in line

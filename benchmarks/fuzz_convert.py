"""Feed the reader of foreign checkpoints (prior/convert.py) with damaged and hostile files.

    python benchmarks/fuzz_convert.py [--count N] [--seconds S] [--seed K] [--golden FOLDER]

Half of the inputs are real files, written by the standard pickler and by torch at tiny sizes, and then damaged: bits flipped,
pieces cut, doubled and moved between files, lengths overwritten, opcodes inserted, removed and swapped, names replaced by
dangerous ones. The other half are pickles made up opcode by opcode. Each goes through both readers, in this process, watched:

- nothing but success and CheckpointError may come out;
- the interpreter's audit events must show no file opened but the input, nothing imported, compiled, executed or started;
- no input may take longer than LIMIT seconds.

The first violation ends the run with the input kept. Otherwise it prints how many inputs were read and refused and for how many
different reasons, the slowest input, and the peak of memory. The same seed makes the same inputs.
"""

import argparse
import collections
import functools
import io
import pickle
import pickletools
import random
import re
import resource
import signal
import struct
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from talk3d.errors import CheckpointError
from talk3d.prior.convert import read_eg3d, read_talk3d
from talk3d.prior.generator import Generator, Profile

LIMIT = 20.0
"""Seconds that one input may take."""

# --- Real files, written by others' code -------------------------------------------------------------------------------

ORIGINAL_AXES = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]]
RENDERING = {
    "depth_resolution": 4, "depth_resolution_importance": 4, "ray_start": 2.25, "ray_end": 3.3, "box_warp": 1,
    "clamp_mode": "softplus", "superresolution_module": "training.superresolution.SuperresolutionHybrid2X", "c_scale": 1.0,
    "avg_camera_radius": 2.7, "avg_camera_pivot": [0, 0, 0.2], "sr_antialias": True,
}  # fmt: skip
ARGUMENTS = {
    "z_dim": 4, "c_dim": 25, "w_dim": 4, "img_resolution": 128, "img_channels": 3, "mapping_kwargs": {"num_layers": 2},
    "channel_base": 256, "channel_max": 4, "conv_clamp": None, "sr_num_fp16_res": 4, "rendering_kwargs": RENDERING,
}  # fmt: skip


@contextmanager
def foreign_classes() -> Iterator[Callable[..., Any]]:
    """Stand-ins for EG3D's modules while files are written; yields `make(class, attributes)`.

    A name without a dot becomes an object with embedded source, any other an instance of the class of that name.
    """
    added = []

    def module(name: str) -> types.ModuleType:
        for stop in [i for i, letter in enumerate(name) if letter == "."] + [len(name)]:  # the packages it lies in, too
            if name[:stop] not in sys.modules:
                sys.modules[name[:stop]] = types.ModuleType(name[:stop])
                added.append(name[:stop])
        return sys.modules[name]

    def reconstruct(meta: object) -> None:
        raise AssertionError("files are only written here")

    reconstruct.__name__ = reconstruct.__qualname__ = "_reconstruct_persistent_obj"
    reconstruct.__module__ = "torch_utils.persistence"
    persistence = module(reconstruct.__module__)
    reconstruct = persistence.__dict__.setdefault(reconstruct.__name__, reconstruct)  # there already where blocks are nested

    class Persistent:
        def __init__(self, meta: dict[str, Any]) -> None:
            self.meta = meta

        def __reduce__(self) -> tuple[Any, ...]:
            return reconstruct, (self.meta,)

    def make(kind: str, attributes: dict[str, Any]) -> Any:
        if "." not in kind:
            source = f"import os\nos.system('touch of {kind}')\n"
            return Persistent({"type": "class", "version": 6, "module_src": source, "class_name": kind, "state": attributes})
        home, _, name = kind.rpartition(".")
        if not hasattr(module(home), name):
            setattr(module(home), name, type(name, (), {"__module__": home}))
        instance = getattr(module(home), name)()
        instance.__dict__.update(attributes)
        return instance

    try:
        yield make
    finally:
        for name in added:
            del sys.modules[name]


def network(make: Callable[..., Any], state: dict[str, torch.Tensor], **attributes: Any) -> Any:
    """A generator object around a state dict, as EG3D's classes would be pickled."""

    def module(kind: str, prefix: str, **own: Any) -> Any:
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        children = dict.fromkeys(name.split(".")[0] for name in inside if "." in name)
        return make(
            kind,
            {
                "training": False,
                "_parameters": {n: torch.nn.Parameter(v) for n, v in inside.items() if "." not in n} | {"absent": None},
                "_buffers": collections.OrderedDict(),
                "_non_persistent_buffers_set": set(),
                "_modules": {name: module("SynthesisLayer", f"{prefix}{name}.") for name in children} | own.pop("modules", {}),
                **own,
            },
        )

    matrices = attributes.pop("plane_axes", ORIGINAL_AXES)
    inner = {} if matrices is None else {"plane_axes": torch.tensor(matrices).float()}
    renderer = make("training.volumetric_rendering.renderer.ImportanceRenderer", inner)
    settings = {
        "rendering_kwargs": RENDERING, "neural_rendering_resolution": 64, "_init_args": (), "_init_kwargs": ARGUMENTS,
        "dataset_size": torch.Size([3]), "modules": {"renderer": renderer},
    }  # fmt: skip
    return module("TriPlaneGenerator", "", **(settings | attributes))


def small_generator() -> Generator:
    """The smallest generator that EG3D's layout allows (2 MB: the size of its noise and of super-resolution is fixed)."""
    return Generator(Profile.from_eg3d(ARGUMENTS, plane_axes="eg3d"))


def talk3d_root(make: Callable[..., Any]) -> dict[str, Any]:
    """A checkpoint of Talk3D's layout with next to nothing in it."""
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    layer = torch.nn.BatchNorm1d(2)
    return {
        "deltaplane_predictor": layer.state_dict(),
        "blink_encoder": {"weight": weight},
        "camera_encoder": {"half": torch.ones(2, 2).half(), "view": torch.arange(8)[2:6].reshape(2, 2).T},
        "audio_net": {"b": torch.tensor([True, False]), "bf": torch.ones(3).bfloat16()},
        "audio_att_net": {},
        "null_vector": torch.zeros(1, 1, 2, requires_grad=True),
        "epoch": 3,
        "iter": 70000,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 20),
    }


def saved(root: Any, **options: Any) -> bytes:
    """What `torch.save` writes."""
    file = io.BytesIO()
    torch.save(root, file, **options)
    return file.getvalue()


def seeds() -> tuple[list[bytes], list[bytes]]:
    """Small files, which are read in a millisecond, and whole generators."""
    import numpy

    with foreign_classes() as make:
        tensors = {"decoder.net.0.weight": torch.ones(2, 2), "mapping.w_avg": torch.zeros(3, dtype=torch.float64)}
        official = {
            "training_set_kwargs": {"path": "x.zip", "max_size": 70000},
            "G": network(make, tensors, gain=numpy.float64(1.5), none=numpy.zeros(2)),
            "D": None,
            "G_ema": network(make, tensors, plane_axes=None),
        }
        small = [pickle.dumps(official, protocol) for protocol in (2, 3, 4, 5)]
        small += [pickle.dumps(network(make, tensors, rendering_kwargs={}), 4)]
        small += [saved(official), saved(official["G_ema"], _use_new_zipfile_serialization=False)]
        talker = talk3d_root(make)
        small += [saved(talker), saved(talker, _use_new_zipfile_serialization=False), saved(talker, pickle_protocol=4)]
        state = {name: value.detach().clone() for name, value in small_generator().state_dict().items()}
        state["dataset_label_std"] = torch.zeros(25)
        whole = [pickle.dumps({"G_ema": network(make, state)}, 4), saved(network(make, state))]
    return small, whole


# --- Damage --------------------------------------------------------------------------------------------------------------

DANGEROUS = [
    ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "getattr"),
    ("builtins", "__import__"), ("functools", "partial"), ("operator", "attrgetter"), ("operator", "methodcaller"),
    ("subprocess", "Popen"), ("torch", "load"), ("copyreg", "_reconstructor"), ("builtins", "object"), ("builtins", "list"),
    ("torch.nn.modules.linear", "Linear.__init__.__globals__"),
]  # fmt: skip
FAMILIAR = [
    ("builtins", "set"), ("builtins", "dict"), ("collections", "OrderedDict"),
    ("collections", "defaultdict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
    ("torch.storage", "_load_from_bytes"), ("torch", "FloatStorage"), ("torch", "BoolStorage"), ("torch", "Size"),
    ("torch.optim.adam", "Adam"), ("torch.nn.modules.linear", "Linear"), ("training.triplane", "OSGDecoder"),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"), ("numpy", "dtype"), ("numpy.core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("_codecs", "encode"), ("dnnlib.util", "EasyDict"),
]  # fmt: skip
NAMES = DANGEROUS + FAMILIAR
WORDS = [
    "storage", "cpu", "latin1", "G_ema", "state", "_modules", "_parameters", "_buffers", "class", "type", "class_name",
    "module_src", "0", "1", "x", "__dict__", "__class__", "__setstate__", "TriPlaneGenerator", "<", "f8", "O8", "null_vector",
    "", "é\U0001f600",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 7, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
SIMPLE = b"(012NQRbatesulod)]}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"
"""Opcodes without an argument."""


def random_opcode(rng: random.Random) -> bytes:
    """One opcode with its argument; more often one that means something to the reader."""
    kind = rng.randrange(10)
    if kind < 4:
        return bytes([rng.choice(SIMPLE)])
    if kind == 4:
        module, name = rng.choice(NAMES)
        if rng.random() < 0.5:
            return f"c{module}\n{name}\n".encode()
        return short_text(module) + short_text(name) + b"\x93"
    if kind == 5:
        return short_text(rng.choice(WORDS))
    if kind == 6:
        return rng.choice([b"q", b"h", b"h", b"K"]) + bytes([rng.choice([0, 1, 2, 3, rng.randrange(256)])])
    if kind == 7:
        number = rng.choice(NUMBERS)
        forms = [("B", b"K"), ("H", b"M"), ("I", b"J"), ("I", b"r"), ("I", b"j"), ("Q", b"\x95"), ("Q", b"\x8a\x08")]
        form, opcode = rng.choice(forms)
        return opcode + struct.pack(f"<{form}", number % 2 ** (8 * struct.calcsize(form)))
    if kind == 8:
        form, opcode = rng.choice(
            [("B", b"\x8c"), ("B", b"C"), ("I", b"X"), ("I", b"B"), ("Q", b"\x8d"), ("Q", b"\x8e"), ("Q", b"\x96")]
        )
        body = rng.randbytes(rng.randrange(8)) if rng.random() < 0.5 else rng.choice(WORDS).encode()
        length = rng.choice([len(body)] * 3 + NUMBERS) % 2 ** (8 * struct.calcsize(form))
        return opcode + struct.pack(f"<{form}", length) + body
    return bytes([rng.randrange(256)])


def short_text(text: str) -> bytes:
    raw = text.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def random_call(rng: random.Random) -> bytes:
    """A call of some name with plausible arguments, so that made-up pickles get beyond the first opcodes."""
    module, name = rng.choice(NAMES if rng.random() < 0.05 else FAMILIAR)
    arguments = b"".join(rng.choice([random_value(rng, 2), b"h" + bytes([rng.randrange(4)])]) for _ in range(rng.randrange(4)))
    return f"c{module}\n{name}\n".encode() + b"(" + arguments + b"t" + rng.choice([b"R", b"\x81"])


def random_value(rng: random.Random, depth: int) -> bytes:
    """A value that leaves exactly one thing on the stack."""
    kind = int(rng.random() * (12 if depth > 0 else 6))
    if kind < 3:
        return rng.choice(
            [b"N", b"\x88", b"\x89", b"K" + bytes([rng.randrange(256)]), b"G" + rng.randbytes(8), b")", b"]", b"}", b"\x8f"]
        )
    if kind < 5:
        return short_text(rng.choice(WORDS))
    if kind == 5:
        body = rng.randbytes(rng.randrange(9))
        return b"C" + bytes([len(body)]) + body
    inside = [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind < 8:
        return b"(" + b"".join(inside) + b"t"
    if kind == 8:
        return b"](" + b"".join(inside) + b"e"
    if kind == 9:
        return b"}(" + b"".join(short_text(rng.choice(WORDS)) + value for value in inside) + b"u"
    if kind == 10:
        return random_call(rng)
    return random_call(rng) + random_value(rng, depth - 1) + b"b"


def made_up(rng: random.Random) -> bytes:
    """A pickle from nothing."""
    # The first values are kept, so that later opcodes have something to recall.
    parts = [b"\x80\x04", *(random_value(rng, 2) + b"q" + bytes([i]) + b"0" for i in range(4))]
    for _ in range(rng.choice([1, 2, 4, 8, 40])):
        parts.append(random_value(rng, 2) if rng.random() < 0.5 else random_opcode(rng))
        if rng.random() < 0.5:
            parts.append(rng.choice([b"\x94", b"q" + bytes([rng.randrange(4)]), b"0"]))
    if rng.random() < 0.3:
        return b"".join(parts) + b"."
    # Or a root of the right shape around a value, to get into the code behind the interpreter.
    keys = rng.sample(["G_ema", "deltaplane_predictor", "null_vector", "epoch", "iter"], 2)
    return b"".join(parts[:5]) + b"}(" + b"".join(short_text(key) + random_value(rng, 3) for key in keys) + b"u."


@functools.lru_cache(64)
def boundaries(data: bytes) -> list[int]:
    """Where opcodes begin, as far as the standard library can follow."""
    found = []
    try:
        for _, _, position in pickletools.genops(data):
            found.append(position or 0)
    except Exception:  # damaged already; whatever was found will do
        pass
    return found or [0]


def damage_pickle(rng: random.Random, data: bytes) -> bytes:
    """Changes that keep opcodes whole."""
    places = boundaries(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        i = rng.randrange(len(places))
        start, stop = places[i], places[i + 1] if i + 1 < len(places) else len(data)
        other = rng.choice(places)
        choice = rng.randrange(6)
        if choice == 0:
            data = data[:start] + random_opcode(rng) + data[start:]
        elif choice == 1:
            data = data[:start] + data[stop:]
        elif choice == 2:
            data = data[:start] + data[start:stop] + data[start:]
        elif choice == 3:
            data = data[:start] + random_value(rng, 3) + data[stop:]
        elif choice == 4:
            data = data[:other] + data[start:stop] + data[other:]
        else:
            data = rename(rng, data)
        places = [place for place in places if place < len(data)] or [0]
    return data


def rename(rng: random.Random, data: bytes) -> bytes:
    """Exchange a global's name for another."""
    globals_ = list(re.finditer(rb"c([\w.]+)\n(\w+)\n", data))
    if globals_:
        found = rng.choice(globals_)
        module, name = rng.choice(NAMES)
        return data[: found.start()] + f"c{module}\n{name}\n".encode() + data[found.end() :]
    names = list(re.finditer(rb"\x8c(.)([\w.]+)\x94\x8c(.)(\w+)\x94\x93", data, re.DOTALL))
    if not names:
        return data
    found = rng.choice(names)
    module, name = rng.choice(NAMES)
    return data[: found.start()] + short_text(module) + b"\x94" + short_text(name) + b"\x94\x93" + data[found.end() :]


def damage_bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Changes that know nothing of the format."""
    raw = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(len(raw)) if raw else 0
        choice = rng.randrange(7)
        if choice == 0 and raw:
            raw[at] ^= 1 << rng.randrange(8)
        elif choice == 1 and raw:
            raw[at] = rng.choice([0, 255, 0x80, rng.randrange(256)])
        elif choice == 2:
            form = rng.choice("BHIQ")
            size = struct.calcsize(form)
            raw[at : at + size] = struct.pack(f"<{form}", rng.choice([*NUMBERS, len(raw), len(raw) - at]) % 2 ** (8 * size))
        elif choice == 3:
            del raw[at : at + rng.choice([1, 2, 8, 64, len(raw)])]
        elif choice == 4:
            place = rng.randrange(len(other))
            raw[at:at] = other[place : place + rng.choice([1, 8, 64, 512])]
        elif choice == 5:
            place = rng.randrange(len(other))
            del raw[at:]
            raw += other[place:]
        else:
            raw += rng.randbytes(rng.choice([1, 8, 64]))
    return bytes(raw)


def damage_zip(rng: random.Random, data: bytes) -> bytes:
    """Write the members again, some changed, with right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        names = old.namelist()
        victim = rng.choice(names) if rng.random() < 0.3 else names[0]
        for name in names:
            content = old.read(name)
            if name == victim:
                content = damage_pickle(rng, content) if name.endswith(".pkl") else damage_bytes(rng, content or b"0", data)
                name = rng.choice([name] * 30 + ["/etc/x", "../x", "a/../x", names[-1]])
            method = zipfile.ZIP_DEFLATED if rng.random() < 0.002 else zipfile.ZIP_STORED
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                new.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def damaged(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One damaged version of a file."""
    if data[:2] == b"PK" and rng.random() < 0.8:
        return damage_zip(rng, data)
    if data[:2] != b"PK" and rng.random() < 0.7:
        return damage_pickle(rng, data)
    return damage_bytes(rng, data, other)


# --- Watching ------------------------------------------------------------------------------------------------------------


HARMLESS = {"builtins.id"}
"""Audit events that building a network raises."""


class Violation(BaseException):
    """Something happened that no file may cause. Not an Exception, so that no handler on the way can hide it."""


@dataclass
class Watch:
    """What the interpreter does while a file is read."""

    active: bool = False
    path: str = ""
    seen: list[str] = field(default_factory=list)

    def install(self) -> "Watch":
        """Audit hooks stay for the life of the process."""
        sys.addaudithook(self._hook)
        return self

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        expected = event == "open" and str(arguments[0]) == self.path and "r" in str(arguments[1])
        if self.active and not expected and event not in HARMLESS:
            self.seen.append(f"{event} {str(arguments)[:100]}")

    @contextmanager
    def over(self, path: Path) -> Iterator[None]:
        """Watch a block that may open `path` for reading, and do nothing else that the interpreter audits.

        Raises:
            Violation: it did.
        """
        self.path, self.seen, self.active = str(path), [], True
        try:
            yield
        finally:
            self.active = False
        if self.seen:
            raise Violation(f"the interpreter reports {self.seen[:3]}")


def _too_slow(*_: object) -> None:
    raise Violation(f"took longer than {LIMIT} seconds")


@dataclass
class Outcome:
    """Of a run."""

    inputs: int = 0
    read: int = 0
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest: float = 0.0
    slowest_input: bytes = b""
    seconds: float = 0.0


def inputs(seed: int, golden: Path | None = None) -> Iterator[bytes]:
    """Inputs without end; the seed decides what they are."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    small, whole = seeds()
    files = small + whole
    yield from files
    large = [path.read_bytes() for path in sorted(golden.glob("*.pt")) + sorted(golden.glob("*.pkl"))] if golden else []
    while True:
        choice = rng.random()
        if choice < 0.5:
            yield made_up(rng)
        elif choice < 0.999 or not large:
            yield damaged(rng, rng.choice(small if choice < 0.997 else whole), rng.choice(small))
        else:
            yield damaged(rng, rng.choice(large), rng.choice(small))


def run(
    stream: Iterator[bytes],
    watch: Watch,
    count: int,
    seconds: float = float("inf"),
    report: Callable[[Outcome], None] | None = None,
    keep: Path | None = None,
) -> Outcome:
    """Feed inputs to both readers.

    Raises:
        Violation: see the top of this file; the input is then in `keep`.
    """
    outcome = Outcome()
    begin = time.perf_counter()
    previous = signal.signal(signal.SIGALRM, _too_slow)
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "input"
        for data in stream:
            if outcome.inputs >= count or outcome.seconds > seconds:
                break
            path.write_bytes(data)
            start = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            try:
                for reader in (read_eg3d, read_talk3d):
                    try:
                        with watch.over(path):
                            reader(path)
                        outcome.read += 1
                    except CheckpointError as error:
                        outcome.reasons[re.sub(r"`[^`]*`|0x\w+|\d+", "#", str(error))] += 1
            except BaseException as error:
                if keep is not None:
                    keep.write_bytes(data)
                raise Violation(f"input {outcome.inputs} ({keep}): {type(error).__name__}: {error}") from error
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            took = time.perf_counter() - start
            if took > outcome.slowest:
                outcome.slowest, outcome.slowest_input = took, data
            outcome.inputs += 1
            outcome.seconds = time.perf_counter() - begin
            if report is not None and outcome.inputs % 10_000 == 0:
                report(outcome)
    signal.signal(signal.SIGALRM, previous)
    return outcome


def peak_memory() -> float:
    """Of this process so far, MB (Linux counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the reader of foreign checkpoints.")
    parser.add_argument("--count", type=int, default=200_000, help="how many inputs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--seed", type=int, default=0, help="which inputs")
    parser.add_argument("--golden", type=Path, help="a folder with real checkpoints, damaged once in a thousand inputs")
    options = parser.parse_args()
    watch = Watch().install()
    stream = inputs(options.seed, options.golden)
    # What torch imports at first use is not the input's doing.
    warm = Watch()
    run(stream, warm, len(seeds()[0]) + len(seeds()[1]))
    before = peak_memory()

    def report(outcome: Outcome) -> None:
        rate = outcome.inputs / outcome.seconds
        print(f"{outcome.inputs:9,} inputs, {rate:.0f} per second, peak memory {peak_memory():.0f} MB", flush=True)

    outcome = run(stream, watch, options.count, options.seconds, report, Path("fuzz-violation.bin"))
    print(f"inputs             {outcome.inputs:,} in {outcome.seconds:.0f} s, seed {options.seed}, each through both readers")
    print(f"readings           {outcome.read:,} succeeded, {sum(outcome.reasons.values()):,} refused")
    print(f"different refusals {len(outcome.reasons)}")
    print(f"slowest input      {outcome.slowest:.2f} s, {len(outcome.slowest_input):,} bytes")
    print(f"peak memory        {peak_memory():.0f} MB, {before:.0f} MB before the first damaged input")
    for reason, times in outcome.reasons.most_common():
        print(f"{times:9,}  {reason[:120]}")


if __name__ == "__main__":
    main()

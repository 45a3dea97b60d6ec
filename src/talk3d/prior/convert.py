"""Checkpoints of other programs, read without trusting them: EG3D's, VIVE3D's and Talk3D's weights to ours.

Such files are pickles, and a pickle is a program. No unpickler is used here. A small interpreter of our own knows only the
opcodes that these files are made of; it builds plain containers and inert records, resolves a name to nothing but that name,
imports nothing, and calls nothing but the functions of this file in ``_CALLS``. Every length is compared with what is left of
the file before anything is made of it, and every kind of work has a budget, so that reading costs little more than the file.

    bytes -> open_checkpoint -> containers and records -> read_eg3d   -> Generator -> save_prior
                                                       -> read_talk3d -> Talk3DCheckpoint

Tensors stay views of the file's bytes until a network asks for them, so what is only named costs nothing.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, no_type_check

import torch
from torch import Tensor

from talk3d.artifacts import Artifact, creating
from talk3d.errors import CheckpointError, ConfigError
from talk3d.prior.generator import Generator, Profile, load_weights, require_fit
from talk3d.render.reference import PlaneAxes

MAX_FILE = 2**31
"""Bytes of a file; a full-size generator has 0.12 GB of weights, and official files hold two of them and a discriminator."""
MAX_OPCODES = 500_000
"""Steps of the interpreter, nested streams included. The number does not depend on the sizes of
layers, and samples of both layouts take 31,000 and 41,000."""
MAX_TEXT = 2**26
"""Bytes of all texts. They grow fourfold in memory at worst."""
MAX_ENTRIES = 50_000
"""Members of a zip file."""
MAX_MODULES, MAX_MEMBERS, MAX_TENSORS = 2_000, 500, 10_000
"""Modules of a network, counted once for each way to reach them; what one of them holds of a kind; and all their tensors."""
MAX_DEPTH = 32
"""How deep modules lie in each other."""

LICENCE = (
    "unknown: the terms of the imported checkpoint apply. NVIDIA's EG3D weights, and what was tuned from them, "
    "are for non-commercial research and evaluation only."
)


_CHECK_THE_FILE = (
    "Nothing in it was run. Check that it is the file you meant and that its download is complete; checkpoints of EG3D, VIVE3D "
    "and Talk3D can be read."
)


class _Refusal(Exception):  # noqa: N818 (never leaves this module)
    """Why a file is not read, and what to do; `_refusing` adds the file's name."""


def _refuse(why: str, advice: str = _CHECK_THE_FILE) -> NoReturn:
    raise _Refusal(f"{why}. {advice}")


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except _Refusal as refusal:
        raise CheckpointError(f"`{name}` was not imported: {refusal}") from None


def _shown(text: str) -> str:
    """A text of the file, fit to be printed."""
    return ascii(text[:80])[1:-1]


# --- What a file can hold -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Name:
    """A class or function the file refers to. It is only a name: nothing was looked up."""

    full: str


@dataclass(eq=False, slots=True)
class _Inert:
    """An object of a foreign class: what it was made of and its attributes, without any behaviour."""

    kind: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    source: str = ""
    """SHA-256 of the source text that travels with the object; the text itself is dropped."""


@dataclass(eq=False, slots=True)
class _Storage:
    """Numbers one after another, little-endian."""

    dtype: torch.dtype
    count: int
    data: memoryview | None
    """None until a legacy stream, which has its numbers at the end, is read that far."""


@dataclass(frozen=True, eq=False, slots=True)
class _Tensor:
    """A checked view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def length(self) -> int:
        """Bytes."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def read(self) -> Tensor:
        """A contiguous copy. Sparse or overlapping views are refused: no network has any, and they could grow without end."""
        count, dtype = math.prod(self.size), self.storage.dtype
        if count == 0:
            return torch.empty(self.size, dtype=dtype)
        if _span(self.size, self.stride) != count:
            _refuse("a tensor has gaps or overlaps itself")
        assert self.storage.data is not None, "storages are filled before anyone can see them"
        start = self.offset * dtype.itemsize
        raw = bytearray(self.storage.data[start : start + count * dtype.itemsize])
        if dtype == torch.bool and int(torch.frombuffer(raw, dtype=torch.uint8).max()) > 1:
            _refuse("a tensor of truth values holds other numbers")
        return torch.frombuffer(raw, dtype=dtype).as_strided(self.size, self.stride).contiguous()


def _span(size: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements of storage from a tensor's first to its last; it has at least one."""
    return 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))


_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}

_SCALARS = {
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
}
"""NumPy's number types to those of `struct`."""


# --- The calls a file may make ---------------------------------------------------------------------------------------
#
# Each takes the machine and the tuple of arguments, checks them, and makes one thing. None costs more than the machine has
# counted.


def _new_dict(machine: _Machine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        _refuse("a dictionary is made in an unknown way")
    return {}


def _new_defaultdict(machine: _Machine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    return {}  # whatever the default would be: it would have to be called


def _new_set(machine: _Machine, arguments: tuple[Any, ...]) -> set[Any]:
    if len(arguments) != 1 or not isinstance(arguments[0], list):
        _refuse("a set is made in an unknown way")
    machine.budget.spend(len(arguments[0]))
    return {_key(item) for item in arguments[0]}


def _encode(machine: _Machine, arguments: tuple[Any, ...]) -> bytes:
    """How protocol 2 writes bytes."""
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            machine.budget.spend_text(len(text))
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                _refuse("bytes are written with impossible characters")
        case _:
            _refuse("a text is encoded in an unknown way")


def _numpy_scalar(machine: _Machine, arguments: tuple[Any, ...]) -> int | float:
    match arguments:
        case (_Inert("numpy.dtype", (str() as kind, *_), (int(), str() as order, *_)), bytes() | memoryview() as raw):
            letter = _SCALARS.get(kind)
            if letter is not None and order in ("<", "|") and len(raw) == struct.calcsize(f"<{letter}"):
                return struct.unpack(f"<{letter}", raw)[0]
            _refuse(f"it holds a NumPy number of type `{_shown(kind)}`; only little-endian real numbers are known")
        case _:
            _refuse("a NumPy number is made in an unknown way")


def _persistent(machine: _Machine, arguments: tuple[Any, ...]) -> _Inert:
    """An object that carries the source text of its class. The original reader runs that text; here it is only hashed."""
    match arguments:
        case ({"type": "class", "class_name": str() as kind, "module_src": str() as text, "state": dict() as state},):
            return _Inert(kind, state=state, source=machine.budget.digest(text))
        case _:
            _refuse("an object with embedded source is laid out in an unknown way")


def _nested_storage(machine: _Machine, arguments: tuple[Any, ...]) -> _Storage:
    match arguments:
        case (bytes() | memoryview() as stream,):
            # A stream inside may hold one storage and nothing else, so streams never nest deeper.
            storage = _read_legacy(memoryview(stream), machine.budget, _STORAGES.__contains__)
            if isinstance(storage, _Storage):
                return storage
    _refuse("an embedded stream is not a tensor's storage")


def _rebuild_tensor(machine: _Machine, arguments: tuple[Any, ...]) -> _Tensor:
    match arguments:
        case (_Storage() as storage, offset, tuple() as size, tuple() as stride, bool(), *_):
            pass
        case _:
            _refuse("a tensor is made in an unknown way")
    if len(size) != len(stride) or len(size) > 8 or not all(_is_count(number) for number in (offset, *size, *stride)):
        _refuse("a tensor's offset, sizes or strides are no plain non-negative numbers")
    if 0 in size:
        if math.prod(length or 1 for length in size) > MAX_FILE:
            _refuse("an empty tensor has absurd sizes")
    elif offset + _span(size, stride) > storage.count or math.prod(size) > storage.count:
        _refuse("a tensor reaches beyond its storage")
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(machine: _Machine, arguments: tuple[Any, ...]) -> _Tensor:
    match arguments:
        case (_Tensor() as tensor, bool(), dict()):
            return tensor
        case _:
            _refuse("a parameter is made in an unknown way")


def _size(machine: _Machine, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    match arguments:
        case (tuple() as numbers,):
            return numbers
        case _:
            _refuse("a size is made in an unknown way")


_CALLS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _new_dict,
    "collections.defaultdict": _new_defaultdict,
    "dnnlib.util.EasyDict": _new_dict,
    "builtins.set": _new_set,
    "__builtin__.set": _new_set,
    "_codecs.encode": _encode,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch.storage._load_from_bytes": _nested_storage,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": _size,
}
"""Names that do something when called: one of the functions above."""

_INERT = re.compile(
    r"(?:training|torch\.nn\.modules|torch\.optim)(?:\.[A-Za-z_]\w*)+"
    r"|numpy\.(?:dtype|ndarray)|numpy\.(?:core|_core)\.multiarray\._reconstruct|torch\.device"
    r"|torch\.(?:float(?:16|32|64)|bfloat16|u?int8|int(?:16|32|64)|bool)"
    r"|(?:builtins|__builtin__)\.dict",
    re.ASCII,
)
"""Names whose instances become records."""


def _known(full: str) -> bool:
    return full in _CALLS or full in _STORAGES or _INERT.fullmatch(full) is not None


# --- The interpreter -------------------------------------------------------------------------------------------------


@no_type_check
@dataclass(eq=False)
class _Budget:
    """What is left of what one file may cost."""

    steps: int
    text: int
    digests: dict[str, str] = field(default_factory=dict)
    """Source texts already hashed: many objects share one."""

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            _refuse(f"it takes more than {MAX_OPCODES:,} steps to read, many times more than known checkpoints")

    def spend_text(self, count: int) -> None:
        self.text -= count
        if self.text < 0:
            _refuse(f"it holds more than {MAX_TEXT >> 20} MiB of text")

    def digest(self, text: str) -> str:
        if text not in self.digests:
            self.digests[text] = hashlib.sha256(text.encode()).hexdigest()
        return self.digests[text]


def _key(value: Any) -> Any:
    """A key of a dictionary or set. Only what hashes in constant time, and not to a value the file can choose."""
    if isinstance(value, str | _Tensor | _Inert | _Name) or _is_count(value):
        return value
    _refuse("a dictionary's key is neither a text nor a small number")


def _is_count(value: Any) -> bool:
    """Whether a value is a whole number that can count something in a file; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


@no_type_check  # at run time: the tests' checks of every call would cost ten times the work itself
class _Machine:
    """Runs pickles of protocols 2 to 5 as far as checkpoints need it; every other opcode is refused."""

    def __init__(
        self,
        data: memoryview,
        budget: _Budget,
        known: Callable[[str], bool],
        storage: Callable[[torch.dtype, str, int], _Storage] | None = None,
    ) -> None:
        """`known` tells which names are fine, `storage` finds what a file keeps outside of the pickle."""
        self.data, self.budget, self.known, self.storage = data, budget, known, storage
        self.position = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """Stacks under each mark."""
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value of one pickle; `position` is then behind it."""
        self.stack, self.below, self.memo = [], [], {}
        while (opcode := self.take(1)[0]) != _STOP:
            self.budget.spend(1)
            action = _OPCODES.get(opcode)
            if action is None:
                _refuse(f"byte {self.position - 1} is the pickle opcode {opcode:#04x}, which no known checkpoint needs")
            action(self)
        if self.below or len(self.stack) != 1:
            _refuse(f"the pickle that ends at byte {self.position} leaves more or less than one value")
        return self.stack[0]

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.position:
            _refuse(f"{count} bytes are needed at byte {self.position}, and only {len(self.data) - self.position} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, form: str) -> Any:
        """A number of the given `struct` form, little-endian."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self, count: int) -> str:
        raw = self.take(count)
        self.budget.spend_text(count)
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            _refuse(f"the text at byte {self.position - count} is not UTF-8")

    def pop(self) -> Any:
        if not self.stack:
            _refuse(f"byte {self.position - 1} takes a value where none is left")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Everything above the last mark."""
        if not self.below:
            _refuse(f"byte {self.position - 1} needs a mark where none is set")
        items, self.stack = self.stack, self.below.pop()
        return items

    def top(self, kind: type) -> Any:
        """The topmost value, which is about to be filled."""
        if not self.stack or not isinstance(self.stack[-1], kind):
            _refuse(f"byte {self.position - 1} fills something that is no {kind.__name__}")
        return self.stack[-1]

    # Opcodes, in the order of the table below.

    def proto(self) -> None:
        version = self.take(1)[0]
        if not 2 <= version <= 5:
            _refuse(f"it is a pickle of protocol {version}; known checkpoints use 2 to 5")

    def frame(self) -> None:
        if self.number("Q") > len(self.data) - self.position:
            _refuse(f"the frame at byte {self.position - 8} is longer than what is left")

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def long1(self) -> None:
        length = self.take(1)[0]
        if length > 16:
            _refuse(f"byte {self.position - 1} begins a whole number of {length} bytes")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def marked_tuple(self) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def append(self) -> None:
        item = self.pop()
        self.top(list).append(item)

    def appends(self) -> None:
        items = self.pop_mark()
        self.top(list).extend(items)

    def setitem(self) -> None:
        value, key = self.pop(), self.pop()
        self.top(dict)[_key(key)] = value

    def setitems(self) -> None:
        items = self.pop_mark()
        if len(items) % 2:
            _refuse(f"byte {self.position - 1} gives a dictionary a key without a value")
        self.top(dict).update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def additems(self) -> None:
        items = self.pop_mark()
        self.top(set).update(_key(item) for item in items)

    def put(self, index: int) -> None:
        self.memo[index] = self.top(object)

    def get(self, index: int) -> None:
        if index not in self.memo:
            _refuse(f"byte {self.position - 1} recalls value {index}, which was never stored")
        self.stack.append(self.memo[index])

    def name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if "." in name or not self.known(full):
            _refuse(f"it asks for `{_shown(full)}`, which no checkpoint needs; reading it the usual way could run that")
        self.stack.append(_Name(full))

    def line(self) -> str:
        window = bytes(self.data[self.position : self.position + 200])
        length = window.find(b"\n")
        if length < 0:
            _refuse(f"the name at byte {self.position} does not end")
        text = self.text(length)
        self.take(1)
        return text

    def global_(self) -> None:
        self.name(self.line(), self.line())

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str) or len(name) + len(module) > 400:
            _refuse(f"byte {self.position - 1} asks for something whose name is no short text")
        self.name(module, name)

    def make(self) -> None:
        """Both ways of making an object: calling something, or making a class's empty instance."""
        arguments, what = self.pop(), self.pop()
        if not isinstance(what, _Name) or not isinstance(arguments, tuple):
            _refuse(f"byte {self.position - 1} calls something that is no name, or with no arguments")
        if what.full in _CALLS:
            self.stack.append(_CALLS[what.full](self, arguments))
        elif _INERT.fullmatch(what.full):
            self.stack.append(_Inert(what.full, arguments))
        else:
            _refuse(f"it calls `{what.full}`")

    def build(self) -> None:
        """Attributes, kept beside the object and never set on anything."""
        state = self.pop()
        what = self.top(object)
        if isinstance(what, dict) and isinstance(state, dict):
            return  # attributes of a dictionary: versions that PyTorch notes on a state dict
        if not isinstance(what, _Inert) or what.state is not None or not isinstance(state, dict | tuple):
            _refuse(f"byte {self.position - 1} sets attributes of something that has none, or twice")
        what.state = state

    def persistent_storage(self) -> None:
        match self.pop():
            case ("storage", _Name(full), str() as key, str(), count, *rest) if rest in ([], [None]):
                if self.storage is not None and full in _STORAGES and _is_count(count):
                    self.stack.append(self.storage(_STORAGES[full], key, count))
                    return
        _refuse(f"byte {self.position - 1} refers to something outside that is no tensor's storage")


_STOP = ord(".")
_OPCODES: dict[int, Callable[[_Machine], object]] = {
    0x80: _Machine.proto,
    0x95: _Machine.frame,
    ord("("): _Machine.mark,
    ord("0"): _Machine.pop,
    ord("1"): _Machine.pop_mark,
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("K"): lambda m: m.stack.append(m.number("B")),  # BININT1
    ord("M"): lambda m: m.stack.append(m.number("H")),  # BININT2
    ord("J"): lambda m: m.stack.append(m.number("i")),  # BININT
    0x8A: _Machine.long1,
    ord("G"): lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0]),  # BINFLOAT
    0x8C: lambda m: m.stack.append(m.text(m.number("B"))),  # SHORT_BINUNICODE
    ord("X"): lambda m: m.stack.append(m.text(m.number("I"))),  # BINUNICODE
    0x8D: lambda m: m.stack.append(m.text(m.number("Q"))),  # BINUNICODE8
    ord("C"): lambda m: m.stack.append(m.take(m.number("B"))),  # SHORT_BINBYTES
    ord("B"): lambda m: m.stack.append(m.take(m.number("I"))),  # BINBYTES
    0x8E: lambda m: m.stack.append(m.take(m.number("Q"))),  # BINBYTES8
    ord(")"): lambda m: m.stack.append(()),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("t"): _Machine.marked_tuple,
    ord("]"): lambda m: m.stack.append([]),
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord("}"): lambda m: m.stack.append({}),
    ord("s"): _Machine.setitem,
    ord("u"): _Machine.setitems,
    0x8F: lambda m: m.stack.append(set()),
    0x90: _Machine.additems,
    ord("q"): lambda m: m.put(m.number("B")),  # BINPUT
    ord("r"): lambda m: m.put(m.number("I")),  # LONG_BINPUT
    0x94: lambda m: m.put(len(m.memo)),  # MEMOIZE
    ord("h"): lambda m: m.get(m.number("B")),  # BINGET
    ord("j"): lambda m: m.get(m.number("I")),  # LONG_BINGET
    ord("c"): _Machine.global_,
    0x93: _Machine.stack_global,
    ord("R"): _Machine.make,  # REDUCE
    0x81: _Machine.make,  # NEWOBJ
    ord("b"): _Machine.build,
    ord("Q"): _Machine.persistent_storage,
}


# --- Containers ------------------------------------------------------------------------------------------------------

_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""The first pickle of a legacy stream: PyTorch's magic number."""


def _read_legacy(data: memoryview, budget: _Budget, known: Callable[[str], bool]) -> Any:
    """A stream of `torch.save` before 1.6, which every tensor inside a plain pickle still is: magic number, version, kind of
    machine, the object, the order of its storages, and their numbers."""
    storages: dict[str, _Storage] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
        found = storages.setdefault(key, _Storage(dtype, count, None))
        if found.dtype != dtype or found.count != count:
            _refuse("two tensors disagree about their common storage")
        return found

    if data[: len(_LEGACY)] != _LEGACY:
        _refuse("an embedded stream is not PyTorch's")
    machine = _Machine(data, budget, lambda _: False)
    machine.position = len(_LEGACY)
    version, system = machine.run(), machine.run()
    if not _is_count(version) or version != 1001:
        _refuse("a stream of PyTorch has an unknown version")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        _refuse("its numbers are not little-endian")
    machine.known, machine.storage = known, storage
    root = machine.run()
    machine.known, machine.storage = lambda _: False, None
    keys = machine.run()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        _refuse("a stream of PyTorch does not list its storages")
    if len(keys) != len(storages) or set(keys) != set(storages):
        _refuse("a stream of PyTorch lists other storages than its tensors need")
    for key in keys:
        found = storages[key]
        if machine.number("q") != found.count:
            _refuse("a storage's length is not what its tensors say")
        found.data = machine.take(found.count * found.dtype.itemsize)
    if machine.position != len(data):
        _refuse(f"{len(data) - machine.position} bytes follow the end of a stream")
    return root


def _read_zip(data: memoryview, budget: _Budget) -> Any:
    """A file of `torch.save` since 1.6: a pickle and its storages, each a member of a zip."""
    members = _zip_members(data)
    folder = next(iter(members)).partition("/")[0]
    if any(not name.startswith(f"{folder}/") for name in members) or f"{folder}/data.pkl" not in members:
        _refuse("it is a zip file, but not one of PyTorch's")
    if bytes(members.get(f"{folder}/byteorder", memoryview(b"little"))[:10]) != b"little":
        _refuse("its numbers are not little-endian")
    storages: dict[str, _Storage] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
        numbers = members.get(f"{folder}/data/{key}")
        if numbers is None or len(numbers) != count * dtype.itemsize:
            _refuse("a tensor's storage is missing from the zip file, or has another length")
        found = storages.setdefault(key, _Storage(dtype, count, numbers))
        if found.dtype != dtype:
            _refuse("two tensors disagree about their common storage")
        return found

    return _whole(_Machine(members[f"{folder}/data.pkl"], budget, _known_outside, storage))


def _known_outside(full: str) -> bool:
    """PyTorch's own files keep storages beside the pickle, so nothing in them has reason to embed a stream."""
    return _known(full) and full != "torch.storage._load_from_bytes"


def _whole(machine: _Machine) -> Any:
    root = machine.run()
    if machine.position != len(machine.data):
        _refuse(f"{len(machine.data) - machine.position} bytes follow the end of the pickle")
    return root


_END, _END64, _LOCATOR = struct.Struct("<4s4H2IH"), struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
_CENTRAL, _LOCAL = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H")
_ZIP_FLAGS = 0x0808
"""A length that follows the data, and names in UTF-8: what PyTorch sets."""
_DESCRIPTORS = (12, 16, 20, 24)
"""Bytes that such a length takes, in its four variants."""


def _zip_members(data: memoryview) -> dict[str, memoryview]:
    """The members of an uncompressed zip, in the order of the file.

    Of the many liberties of the format PyTorch takes none: members follow one another from the first byte, the directory and
    its end follow them, and the file ends there. Nothing else is accepted, so no byte has two readings.
    """
    end = len(data) - _END.size
    if end < 0:
        _refuse("it is too short for a zip file")
    magic, *disks, count, length, start, comment = _END.unpack(data[end:])
    if magic != b"PK\5\6" or comment:
        _refuse("it does not end like a zip file; the rest is missing or something follows")
    locator = end - _LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\6\7":
        end = locator - _END64.size
        if end < 0:
            _refuse("the end of the zip file's directory is damaged")
        magic, size, _, _, *disks, _, count, length, start = _END64.unpack(data[end:locator])
        if magic != b"PK\6\6" or size != _END64.size - 12 or _LOCATOR.unpack(data[locator : locator + 20])[2] != end:
            _refuse("the end of the zip file's directory is damaged")
    if any(disks[:2]) or start + length != end or not 0 < count <= MAX_ENTRIES:
        _refuse("the zip file's directory is damaged, empty or too long")
    members: dict[str, memoryview] = {}
    gaps: tuple[int, ...] = (0,)  # what may lie between members
    position, free = start, 0
    for _ in range(count):
        if position + _CENTRAL.size > end:
            _refuse("the zip file's directory ends early")
        (magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra, note, disk, _, _, offset) = _CENTRAL.unpack(
            data[position : position + _CENTRAL.size]
        )
        position += _CENTRAL.size
        raw = bytes(data[position : position + name_length])
        position += name_length + extra + note
        if magic != b"PK\1\2" or position > end or disk:
            _refuse("the zip file's directory is damaged")
        name = raw.decode("utf-8", "replace")
        if not re.fullmatch(r"(?:[^/\\:\0-\x1f]+/)+[\w.-]+", name, re.ASCII) or "/../" in f"/{name}/" or name in members:
            _refuse(f"the zip file's member `{_shown(name)}` appears twice, or its name is none of PyTorch's")
        if method or packed != size or flags & ~_ZIP_FLAGS:
            _refuse(f"the zip file's member `{_shown(name)}` is compressed or encrypted; PyTorch's never are")
        if offset - free not in gaps or offset + _LOCAL.size > start:
            _refuse(f"the zip file's member `{_shown(name)}` overlaps another, or leaves room for something hidden")
        magic, _, flags2, method2, _, _, _, _, _, length2, extra2 = _LOCAL.unpack(data[offset : offset + _LOCAL.size])
        begin = offset + _LOCAL.size + length2 + extra2
        free = begin + size
        named = data[offset + _LOCAL.size : offset + _LOCAL.size + length2] == raw
        if magic != b"PK\3\4" or not named or (flags2, method2) != (flags, method) or free > start:
            _refuse(f"the zip file's member `{_shown(name)}` is not where the directory says")
        gaps = _DESCRIPTORS if flags & 8 else (0,)
        members[name] = data[begin:free]
        if zlib.crc32(members[name]) != crc:
            _refuse(f"the zip file's member `{_shown(name)}` is damaged: its checksum differs")
    if position != end or start - free not in gaps:
        _refuse("the zip file's directory is not where it says, or longer")
    return members


# --- Opening ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """A file of another program, read but not yet understood."""

    name: str
    """Of the file, without its folder."""
    sha256: str
    """Of the whole file."""
    container: str
    """How it was written: `pickle`, `torch zip` or `torch legacy`."""
    length: int
    """Of the file, bytes."""
    root: Any
    """Plain containers, numbers and texts, and this module's inert records."""


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint's structure without running anything in it; tensors stay where they are.

    Raises:
        CheckpointError: there is no such file, or it is not exactly what EG3D, VIVE3D or Talk3D write.
    """
    if not path.is_file():
        raise CheckpointError(
            f"`{path}` does not exist or is not a file, so there is nothing to import. Give the path of a checkpoint."
        )
    with _refusing(path.name):
        try:
            if path.stat().st_size > MAX_FILE:
                _refuse(f"it has more than {MAX_FILE >> 30} GiB")
            content = path.read_bytes()
        except OSError as error:
            _refuse(f"it cannot be read ({error.strerror})")
        data, budget = memoryview(content), _Budget(MAX_OPCODES, MAX_TEXT)
        if data[:4] == b"PK\3\4":
            container, root = "torch zip", _read_zip(data, budget)
        elif data[: len(_LEGACY)] == _LEGACY:
            container, root = "torch legacy", _read_legacy(data, budget, _known_outside)
        elif data[:1] == b"\x80":
            container, root = "pickle", _whole(_Machine(data, budget, _known))
        else:
            _refuse("it is neither a pickle nor a file of PyTorch")
    return Checkpoint(path.name, hashlib.sha256(content).hexdigest(), container, len(content), root)


class _Reader:
    """Makes tensors of one checkpoint's records, together at most twice as large as the file: some are stored once and named
    twice, more would be an attack."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.left = 2 * checkpoint.length

    def read(self, tensor: _Tensor) -> Tensor:
        self.left -= tensor.length
        if self.left < 0:
            _refuse("its tensors repeat each other until they are far larger than the file")
        return tensor.read()


# --- EG3D ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForeignPrior:
    """A generator made from another program's weights."""

    generator: Generator
    """In evaluation mode, frozen; weights bit by bit those of the file."""
    provenance: Mapping[str, Any]
    """For the manifest: the file's name and SHA-256, its classes, and the SHA-256 of the source texts it carries."""


def read_eg3d(path: Path, plane_axes: PlaneAxes | None = None) -> ForeignPrior:
    """Make a generator from an official EG3D file (its moving average, `G_ema`) or a tuned generator of VIVE3D or Talk3D.

    Args:
        path: the `.pkl` or `.pt` file.
        plane_axes: only for files that do not say how their planes lie.

    Raises:
        CheckpointError: see `open_checkpoint`; or no generator is in the file, its weights do not fit its own settings, or its
            planes lie in an unknown way.
    """
    checkpoint = open_checkpoint(path)
    with _refusing(checkpoint.name):
        network = _find_generator(checkpoint.root)
        reader = _Reader(checkpoint)
        modules = _modules(network)
        axes = _plane_axes(modules, reader, plane_axes)
        arguments, resolution = _settings(network.state)
        try:
            profile = Profile.from_eg3d(arguments, plane_axes=axes, neural_resolution=resolution)
        except ConfigError as error:
            raise CheckpointError(f"`{checkpoint.name}` was not imported. {error}") from error
        stored = _stored_tensors(modules)
        stored.pop("dataset_label_std", None)  # of the training loop (docs/quirks.md)
        # Sizes are compared before anything of these sizes is made.
        with torch.device("meta"):
            outline = Generator(profile)
        require_fit(outline, {name: tensor.size for name, tensor in stored.items()}, checkpoint.name)
        generator = Generator(profile)
        load_weights(generator, {name: reader.read(tensor) for name, tensor in stored.items()}, checkpoint.name)
    return ForeignPrior(
        generator.eval().requires_grad_(False),
        {
            "file": checkpoint.name,
            "sha256": checkpoint.sha256,
            "container": checkpoint.container,
            "classes": sorted({_shown(module.kind) for module in modules.values()}),
            "sources": sorted({module.source for module in modules.values()} - {""}),
        },
    )


def _find_generator(root: Any) -> _Inert:
    """`G_ema` of an official file, or the one network that the file is."""
    if isinstance(root, dict):
        if "deltaplane_predictor" in root:
            _refuse(
                "it is a talker's checkpoint of Talk3D and holds no generator",
                "Import the generator that it was trained with, `G_tune.pkl`; `read_talk3d` reads the talker.",
            )
        if "G_ema" not in root:
            _refuse("it holds no `G_ema`, the averaged generator that official checkpoints have")
        root = root["G_ema"]
    if not isinstance(root, _Inert) or not isinstance(root.state, dict) or root.kind.rpartition(".")[2] != "TriPlaneGenerator":
        _refuse("what should be the generator is no `TriPlaneGenerator` of EG3D")
    return root


def _modules(network: _Inert) -> dict[str, _Inert]:
    """All modules by their path; the network itself has the empty one, and others end in a dot."""
    found: dict[str, _Inert] = {}
    waiting = [("", network)]
    while waiting:
        path, module = waiting.pop()
        found[path] = module
        waiting += [(f"{path}{name}.", child) for name, child in _members(module, "_modules", _Inert)]
        if len(found) + len(waiting) > MAX_MODULES or path.count(".") > MAX_DEPTH:
            _refuse("its modules contain each other without end")
    return found


def _members(module: _Inert, kind: str, expected: type) -> list[tuple[str, Any]]:
    """The parameters, buffers or children of a module, without the absent ones."""
    members = _attributes(module).get(kind, {})
    if not isinstance(members, dict) or len(members) > MAX_MEMBERS:
        _refuse(f"a module's `{kind}` are no dictionary, or far too many")
    present = [(name, value) for name, value in members.items() if value is not None]
    for name, value in present:
        if not isinstance(name, str) or not re.fullmatch(r"\w{1,64}", name, re.ASCII) or not isinstance(value, expected):
            _refuse(f"a module's `{kind}` hold something else")
    return present


def _attributes(module: _Inert) -> dict[str, Any]:
    """A module's attributes; an object without any is stored without a state."""
    if not isinstance(module.state, dict | None):
        _refuse("a module's attributes are no dictionary")
    return module.state or {}


def _stored_tensors(modules: Mapping[str, _Inert]) -> dict[str, _Tensor]:
    """What a state dict of the network would hold."""
    found: dict[str, _Tensor] = {}
    for path, module in modules.items():
        for kind in ("_parameters", "_buffers"):
            found.update((f"{path}{name}", tensor) for name, tensor in _members(module, kind, _Tensor))
        if len(found) > MAX_TENSORS:
            _refuse("its modules hold far too many tensors")
    return found


_AXES_MATRICES: dict[tuple[float, ...], PlaneAxes] = {
    # Points are multiplied by the inverse, whose first two columns give (width, height): for these, rows and columns swapped.
    (1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0): "eg3d",
    (1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0): "aligned",
}


def _plane_axes(modules: Mapping[str, _Inert], reader: _Reader, stated: PlaneAxes | None) -> PlaneAxes:
    """The convention the file's renderer carries; `stated` counts where it carries none."""
    renderer = modules.get("renderer.")
    matrices = None if renderer is None else _attributes(renderer).get("plane_axes")
    if matrices is None:
        if stated is None:
            _refuse(
                "it does not say how its planes lie, and neither names nor shapes can tell",
                "Find out with which release of EG3D it was trained, and say so: `--plane-axes eg3d` for the first, which most "
                "published weights belong to, `--plane-axes aligned` for those called fixed.",
            )
        return stated
    if not isinstance(matrices, _Tensor) or matrices.size != (3, 3, 3):
        _refuse("its `plane_axes` are not three 3x3 matrices")
    axes = _AXES_MATRICES.get(tuple(reader.read(matrices).double().flatten().tolist()))
    if axes is None:
        _refuse("its planes lie in a way that is neither EG3D's nor the corrected one, so pictures would be wrong")
    if stated is not None and stated != axes:
        _refuse(f"its planes lie as `{axes}`, and `--plane-axes {stated}` was given", "Leave the option out: the file knows.")
    return axes


def _within(low: int | float, high: int | float, *others: str | None, whole: bool = False) -> Callable[[Any], bool]:
    """Whether a setting is a number in a range, or one of a few other values."""

    def fine(value: Any) -> bool:
        if value is None or isinstance(value, str):
            return value in others
        return isinstance(value, int if whole else int | float) and not isinstance(value, bool) and low <= value <= high

    return fine


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.]{1,100}", value, re.ASCII) is not None


# What settings may be: wide enough for any sensible network, narrow enough that none takes the machine down.
_ARGUMENTS = {
    "z_dim": _within(1, 4096, whole=True),
    "c_dim": _within(0, 25, whole=True),
    "w_dim": _within(1, 4096, whole=True),
    "channel_base": _within(256, 2**20, whole=True),
    "channel_max": _within(1, 4096, whole=True),
    "conv_clamp": _within(0, 1e6, None),
    "sr_num_fp16_res": _within(0, 16, whole=True),
}
_MAPPING = {
    "num_layers": _within(1, 64, whole=True),
    "layer_features": _within(1, 4096, None, whole=True),
    "embed_features": _within(1, 4096, None, whole=True),
    "lr_multiplier": _within(1e-6, 1e3),
}
_RENDERING = {
    "depth_resolution": _within(2, 1024, whole=True),
    "depth_resolution_importance": _within(0, 1024, whole=True),
    "ray_start": _within(0, 1e3, "auto"),
    "ray_end": _within(0, 1e3, "auto"),
    "box_warp": _within(1e-3, 1e3),
    "c_scale": _within(-1e3, 1e3),
    "decoder_lr_mul": _within(1e-6, 1e3),
    "avg_camera_radius": _within(1e-3, 1e3),
    "c_gen_conditioning_zero": _is_flag,
    "sr_antialias": _is_flag,
    "white_back": _is_flag,
    "disparity_space_sampling": _is_flag,
    "clamp_mode": _is_word,
    "superresolution_module": _is_word,
}
_COORDINATE, _RESOLUTION = _within(-1e3, 1e3), _within(8, 512, whole=True)
_REQUIRED = ("depth_resolution", "depth_resolution_importance", "ray_start", "ray_end", "box_warp", "superresolution_module")


def _settings(state: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The constructor's arguments, of them only those that matter and only with plausible values; and the raw resolution."""
    given, rendering = state.get("_init_kwargs"), state.get("rendering_kwargs")
    positional = state.get("_init_args", ())
    if not isinstance(given, dict) or not isinstance(rendering, dict) or not isinstance(positional, tuple):
        _refuse("the generator does not say how it was made (`_init_kwargs`, `rendering_kwargs`)")
    mapping = given.get("mapping_kwargs", {})
    if not isinstance(mapping, dict):
        _refuse("the generator does not say how its mapping was made")
    named = {**dict(zip(("z_dim", "c_dim", "w_dim"), positional, strict=False)), **given}
    missing = [name for name in _REQUIRED if name not in rendering]
    if missing:
        _refuse(f"its rendering settings lack `{missing[0]}`")
    arguments = _checked(named, _ARGUMENTS)
    if arguments.get("c_dim", 25) not in (0, 25):
        _refuse("its camera labels have another length than 25")
    # The attribute, not the argument of the same name: it may have been changed since, and it is what is rendered with.
    kept = _checked(rendering, _RENDERING)
    pivot = rendering.get("avg_camera_pivot", [0, 0, 0.2])
    if not isinstance(pivot, list | tuple) or len(pivot) != 3 or not all(_COORDINATE(value) for value in pivot):
        _refuse("its camera's pivot is no point")
    near, far = kept["ray_start"], kept["ray_end"]
    if not (near == far == "auto" or ("auto" not in (near, far) and near < far)):
        _refuse("its rays do not end behind their start")
    resolution = state.get("neural_rendering_resolution", 64)
    if not _RESOLUTION(resolution):
        _refuse("its raw resolution makes no sense")
    arguments["mapping_kwargs"] = _checked(mapping, _MAPPING)
    arguments["rendering_kwargs"] = kept | {"avg_camera_pivot": list(pivot)}
    return arguments, resolution


def _checked(settings: Mapping[Any, Any], known: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """The known ones of the given settings."""
    for name, fine in known.items():
        if name in settings and not fine(settings[name]):
            _refuse(f"its setting `{name}` has a value that makes no sense")
    return {name: settings[name] for name in known if name in settings}


# --- Talk3D ----------------------------------------------------------------------------------------------------------

_NETWORKS = ("deltaplane_predictor", "blink_encoder", "camera_encoder", "audio_net", "audio_att_net")
_TUNED = "superresolution"


@dataclass(frozen=True)
class Talk3DCheckpoint:
    """The weights of Talk3D's talker, under its own names (method: a U-Net and four encoders)."""

    states: Mapping[str, Mapping[str, Tensor]]
    """State dicts of `deltaplane_predictor`, `blink_encoder`, `camera_encoder`, `audio_net`, `audio_att_net`, and of
    `superresolution` where it was tuned."""
    null_vector: Tensor
    """[1, tokens, 64]: what stands for no condition."""
    epoch: int
    iteration: int
    provenance: Mapping[str, Any]
    """The file's name and SHA-256."""


class Talk3DWeights(Artifact):
    """Talk3D's talker as safetensors and JSON."""

    kind = "Talk3DWeights"


def read_talk3d(path: Path) -> Talk3DCheckpoint:
    """Read a `.pt` file of Talk3D. Its optimiser and scheduler, whole Python objects, are left where they are.

    Raises:
        CheckpointError: see `open_checkpoint`; or it is not a talker's checkpoint.
    """
    checkpoint = open_checkpoint(path)
    with _refusing(checkpoint.name):
        root, reader = checkpoint.root, _Reader(checkpoint)
        if not isinstance(root, dict) or any(name not in root for name in (*_NETWORKS, "null_vector", "epoch", "iter")):
            _refuse("it is not a talker's checkpoint of Talk3D")
        states = {name: _state_dict(name, root[name], reader) for name in (*_NETWORKS, _TUNED) if name in root}
        null_vector, epoch, iteration = root["null_vector"], root["epoch"], root["iter"]
        if not isinstance(null_vector, _Tensor) or not _is_count(epoch) or not _is_count(iteration):
            _refuse("its null vector, epoch or iteration is something else")
        provenance = {"file": checkpoint.name, "sha256": checkpoint.sha256, "container": checkpoint.container}
        return Talk3DCheckpoint(states, reader.read(null_vector), epoch, iteration, provenance)


def _state_dict(name: str, state: Any, reader: _Reader) -> dict[str, Tensor]:
    if not isinstance(state, dict):
        _refuse(f"its `{name}` is no state dict")
    for key, tensor in state.items():
        if not isinstance(key, str) or not re.fullmatch(r"[\w.]{1,200}", key, re.ASCII) or not isinstance(tensor, _Tensor):
            _refuse(f"its `{name}` holds something that is no weight")
    return {key: reader.read(tensor) for key, tensor in state.items()}


def read_tensor(path: Path) -> Tensor:
    """Read a file that holds one tensor and nothing else, as Talk3D's preparation writes a person's latent and tracks.

    Raises:
        CheckpointError: see `open_checkpoint`; or it is something else.
    """
    checkpoint = open_checkpoint(path)
    with _refusing(checkpoint.name):
        if not isinstance(checkpoint.root, _Tensor):
            _refuse("it is not a single tensor", "Check that it is the file you meant.")
        return _Reader(checkpoint).read(checkpoint.root)


_TALK3D = "talk3d.safetensors"


def save_talk3d(path: Path, checkpoint: Talk3DCheckpoint, *, overwrite: bool = False) -> None:
    """Write a folder of safetensors (`<network>/<name>`, `null_vector`) and JSON.

    Raises:
        OutputExistsError: `path` is taken.
    """
    with creating(Talk3DWeights, path, overwrite=overwrite) as draft:
        draft.licence = "unknown: the terms of the imported checkpoint apply; Talk3D's own are CC BY-NC 4.0 (non-commercial)."
        draft.config = {
            "imported": dict(checkpoint.provenance),
            "epoch": checkpoint.epoch,
            "iteration": checkpoint.iteration,
        }
        tensors = {f"{part}/{name}": value for part, state in checkpoint.states.items() for name, value in state.items()}
        draft.write_tensors(_TALK3D, tensors | {"null_vector": checkpoint.null_vector})


def load_talk3d(path: Path) -> Talk3DCheckpoint:
    """Read what `save_talk3d` wrote.

    Raises:
        ArtifactError: it is missing, damaged, or something else.
    """
    artifact = Talk3DWeights.open(path)
    states: dict[str, dict[str, Tensor]] = {}
    tensors = artifact.tensors(_TALK3D)
    null_vector = tensors.pop("null_vector")
    for full, value in tensors.items():
        part, _, name = full.partition("/")
        states.setdefault(part, {})[name] = value
    config = artifact.config
    return Talk3DCheckpoint(states, null_vector, config["epoch"], config["iteration"], config["imported"])

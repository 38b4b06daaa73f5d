# SPDX-License-Identifier: Apache-2.0
"""A reader for files of ``torch.save`` that neither unpickles nor calls ``torch.load``.

Both formats hold a pickle that describes how tensors lie in storages, and the bytes of the
storages: a zip archive with ``data.pkl``, ``data/0``, ``data/1`` and so on, none compressed; or,
before torch 1.6, several pickles followed by the storages. ``d3fast.io.pickles`` follows the
pickle; nothing that it names is looked up, imported or called. The bytes of a tensor are read when
the caller, who knows how large it may be, asks for them; so optimizer state costs nothing.

``torch.load(weights_only=True)`` ran code from files up to torch 2.5 (CVE-2025-32434), corrupted
memory up to 2.9 (CVE-2026-24747), and builds all tensors before the first can be checked.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch
from torch import Tensor

from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.foreign import OTHERS, inert
from d3fast.io.pickles import AsksForCode, Handlers, Inert, Name, plain_key, read_pickle
from d3fast.io.untrusted import printable, zip_members
from d3fast.io.whole_models import is_module_state, whole_model

_MAX_PICKLE = 2**26
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_FEW = 1000  # instructions of the pickles before the one that counts

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_QUANTISED = (
    "QInt8Storage",
    "QUInt8Storage",
    "QInt32Storage",
    "QUInt4x2Storage",
    "QUInt2x4Storage",
)
_DTYPES = {f"torch {n}": v for n, v in vars(torch).items() if isinstance(v, torch.dtype)}
_DICTS = ("collections OrderedDict", "collections Counter")
_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_PLAIN_TYPES = ("torch Tensor", "torch._tensor Tensor", "torch.nn.parameter Parameter")
_SUBCLASS = ("torch._tensor _rebuild_from_type_v2", "torch._tensor _rebuild_from_type")


@dataclass(frozen=True)
class _Storage:
    """A storage of the file, and where a view of it starts."""

    key: str
    dtype: torch.dtype
    start: int  # of this view, in elements


def _is_known(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    return (
        name in (*_DICTS, *_PLAIN_TYPES, *_SUBCLASS, "torch Size")
        or name in OTHERS
        or (module == "torch._utils" and attribute in (*_TENSORS, *_PARAMETERS))
        or (
            module in ("torch", "torch.cuda", "torch.storage")
            and attribute in (*_STORAGES, *_QUANTISED)
        )
    )


def _find(name: str) -> Any:
    if name in _DTYPES:
        return _DTYPES[name]
    if not _is_known(name):
        raise AsksForCode(name.replace(" ", ".", 1))
    return Name(name)


def _find_any(name: str) -> Any:
    return _DTYPES.get(name, Name(name))


def _sizes(given: Any) -> tuple[int, ...]:
    if len(given) > 64 or not all(type(n) is int and 0 <= n < 2**63 for n in given):
        raise ValueError("a tensor has impossible sizes or strides")
    return tuple(given)


def _key(given: Any) -> str:
    if not isinstance(given, str | int):  # nested tuples may have an endless text
        raise ValueError("a storage has a key that is not text")
    return str(given)


def _dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Build what ``OrderedDict`` and ``Counter`` would: a dictionary."""
    given = arguments[0] if arguments else {}
    if isinstance(given, dict):
        return given
    made = {plain_key(key): value for key, value in given}
    given.clear()  # a list that is referred to a million times would be copied as often
    return made


@dataclass
class _Contents:
    """Follows the calls of one pickle.

    Attributes:
        read: reads bytes of a storage, given its key, the first byte and their number.
        inert: objects of other classes are read as ``Inert``; otherwise the file is refused.
        storages: bytes per element of the storages that the pickle names, by key.
        entries: tensors so far; equal views of a storage, such as tied weights, share one.
        modules: objects whose state is that of a module, and the state, by identity.
    """

    read: Callable[[str, int, int], bytearray]
    inert: bool = False
    storages: dict[str, int] = field(default_factory=dict)
    entries: dict[Any, TensorEntry] = field(default_factory=dict)
    modules: dict[int, tuple[Inert, Any]] = field(default_factory=dict)

    def handlers(self) -> Handlers:
        if not self.inert:
            return Handlers(self.call, _ignore_state, _find, self.persistent, _utf8)
        return Handlers(self.call, self.set_state, _find_any, self.persistent, _utf8, self.new)

    def set_state(self, item: Any, state: Any) -> None:
        _ignore_state(item, state)
        if isinstance(item, Inert) and is_module_state(state):
            self.modules[id(item)] = (item, state)

    def persistent(self, identity: Any) -> Any:
        if self.inert and identity[0] == "module":  # a class and its source, before torch 1.6
            return identity[1]
        kind, storage, key, _, _, *view = identity
        if kind not in ("storage", b"storage") or not isinstance(storage, Name):
            raise ValueError("it refers to an object that is not a storage")
        name = storage.name.partition(" ")[2]
        if not _is_known(storage.name) or name not in (*_STORAGES, *_QUANTISED):
            raise ValueError(f"its storage is of an unknown type '{printable(name, 40)}'")
        if name in _QUANTISED:
            self.storages[_key(key)] = {"QInt32Storage": 4}.get(name, 1)
            return OtherEntry("a quantised storage")
        dtype = _STORAGES[name]
        self.storages[_key(key)] = dtype.itemsize
        (start,) = _sizes((view[0][1],) if view and view[0] is not None else (0,))
        return _Storage(_key(key), dtype, start)

    def new(self, name: str) -> Any:
        return {} if name in _DICTS else inert(name, made=True)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        attribute = name.partition(" ")[2]
        if not _is_known(name):
            return inert(name, made=False)
        if name in _DICTS:
            return _dict(arguments)
        if name == "torch Size":
            return _sizes(arguments[0])
        if attribute in _TENSORS:
            return self._tensor(attribute, *arguments)
        if attribute in _PARAMETERS:
            return arguments[0]
        if name in _SUBCLASS:
            function, kind, inner, _ = arguments
            plain = isinstance(kind, Name) and kind.name in _PLAIN_TYPES
            if plain and isinstance(function, Name) and isinstance(inner, tuple):
                return self.call(function.name, inner)
            return OtherEntry("a tensor of another class")
        return OtherEntry(OTHERS.get(name, f"a {printable(attribute, 40)}"))

    def _tensor(
        self, name: str, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
    ) -> TensorEntry | OtherEntry:
        if not isinstance(storage, _Storage):
            return OtherEntry("a tensor of an odd storage")
        dtype = storage.dtype
        if name == "_rebuild_tensor_v3":
            dtype, rest = rest[2], (*rest[:2], *rest[3:])
        if not isinstance(dtype, torch.dtype) or any(rest[2:]):
            return OtherEntry("a negated or conjugated tensor")
        shape, strides = _sizes(size), _sizes(stride)
        (start,) = _sizes((offset,))
        if len(shape) != len(strides):
            raise ValueError("a tensor has impossible sizes or strides")
        start += storage.start
        view = storage.key, start, shape, strides, dtype
        if view not in self.entries:
            self.entries[view] = TensorEntry(shape, dtype, lambda: self._values(*view))
        return self.entries[view]

    def _values(
        self,
        key: str,
        start: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: torch.dtype,
    ) -> Tensor:
        return strided_values(
            lambda first, count: self.read(key, first, count), start, shape, strides, dtype
        )


def strided_values(
    read: Callable[[int, int], bytearray],
    start: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: torch.dtype,
) -> Tensor:
    """Return a tensor that lies in a storage with given strides.

    Args:
        read: reads bytes of the storage, given the first byte and their number.
        start: of the tensor in the storage, in elements.
        shape: of the tensor.
        strides: in elements.
        dtype: of the tensor.

    Raises:
        ValueError: few numbers spread over many; what ``read`` raises.
    """
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    extent = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if extent > 4 * count + 2**16:  # a view of few numbers must not read gigabytes
        raise ValueError(f"its {count} numbers are spread over {extent}")
    content = read(start * dtype.itemsize, extent * dtype.itemsize)
    if dtype == torch.bool:  # bytes other than 0 and 1 are not bools
        flat = torch.frombuffer(content, dtype=torch.uint8) != 0
    else:
        flat = torch.frombuffer(content, dtype=dtype)
    return flat.as_strided(shape, strides)


def _ignore_state(item: Any, state: Any) -> None:
    """Ignore the attributes that a pickle sets on a dictionary or a parameter."""
    if not isinstance(item, dict | TensorEntry | OtherEntry | Inert):
        raise ValueError("it sets the state of an object without state")


def _utf8(text: str) -> str:
    return text.encode("latin1").decode("utf-8")


def read_at(file: BinaryIO, position: int, count: int) -> bytearray:
    """Return bytes of a file; raise ``ValueError`` if it ends before them."""
    file.seek(position)
    content = bytearray(count)
    if file.readinto(content) != count:  # type: ignore[attr-defined]
        raise ValueError("it ends early")
    return content


def record_start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return the position of a stored member's bytes, which follow a header of its own.

    Raises:
        ValueError: a member that is compressed, encrypted or longer than the file.
    """
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"its record '{printable(info.filename, 80)}' is compressed or encrypted")
    head = read_at(file, info.header_offset, 30)
    start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
    length = file.seek(0, 2)
    if head[:4] != b"PK\3\4" or start + info.file_size > length:
        raise ValueError(
            f"its record '{printable(info.filename, 80)}' claims {info.file_size} bytes of "
            f"{length} in the file"
        )
    return start


def _from_zip(file: BinaryIO, inert: bool) -> Any:
    _, members = zip_members(file)
    pickles = [name for name in members if name.endswith("data.pkl") and name.count("/") == 1]
    if len(pickles) != 1 or not pickles[0].endswith("/data.pkl"):
        raise ValueError("it holds no record data.pkl, or several")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in members:
        raise ValueError("it is TorchScript, a program: save the model's state_dict() instead")
    order = members.get(f"{prefix}byteorder")
    if (
        order is not None
        and read_at(file, record_start(file, order), min(order.file_size, 8)) != b"little"
    ):
        raise ValueError("its numbers are big-endian")

    def read(key: str, first: int, count: int) -> bytearray:
        info = members.get(f"{prefix}data/{key}")
        if info is None:
            raise ValueError(f"its storage '{printable(key, 80)}' is missing")
        begin = record_start(file, info)
        if first + count > info.file_size:
            raise ValueError(f"it needs {first + count} bytes of a storage of {info.file_size}")
        return read_at(file, begin + first, count)

    main = members[pickles[0]]
    if main.file_size > _MAX_PICKLE:
        raise ValueError(f"its record data.pkl claims {main.file_size} bytes")
    content = read_at(file, record_start(file, main), main.file_size)
    contents = _Contents(read, inert)
    return whole_model(read_pickle(bytes(content), contents.handlers()), contents.modules)


def _storage_positions(
    file: BinaryIO, position: int, keys: Any, itemsizes: Mapping[str, int]
) -> dict[str, tuple[int, int]]:
    """Return position and length of the storages behind a legacy file's pickles."""
    positions, end = {}, file.seek(0, 2)
    for key in map(_key, keys):
        (count,) = struct.unpack("<q", read_at(file, position, 8))
        length = count * itemsizes[key]
        if count < 0 or position + 8 + length > end:
            raise ValueError(f"a storage claims {length} bytes of {end} in the file")
        positions[key] = (position + 8, length)
        position += 8 + length
    return positions


def _from_pickles(file: BinaryIO, inert: bool) -> Any:
    head = io.BytesIO(file.read(_MAX_PICKLE))
    positions: dict[str, tuple[int, int]] = {}

    def read(key: str, first: int, count: int) -> bytearray:
        position, length = positions[key]
        if first + count > length:
            raise ValueError(f"it needs {first + count} bytes of a storage of {length}")
        return read_at(file, position + first, count)

    contents = _Contents(read, inert)
    handlers = contents.handlers()
    if read_pickle(head, handlers, _FEW) != _MAGIC:
        raise ValueError("it is a pickle that torch.save did not write")
    protocol, system = (read_pickle(head, handlers, _FEW) for _ in range(2))
    if protocol != _PROTOCOL or not isinstance(system, dict) or not system.get("little_endian"):
        raise ValueError("it is of an unknown version of torch.save, or big-endian")
    held, keys = (read_pickle(head, handlers) for _ in range(2))
    positions.update(_storage_positions(file, head.tell(), keys, contents.storages))
    return whole_model(held, contents.modules)


def read_torch_file(file: BinaryIO, *, inert: bool = False) -> Any:
    """Return the object that was saved, with its tensors not read yet.

    Args:
        file: must stay open as long as tensors are read from it.
        inert: read past objects of other classes; see ``d3fast.io.foreign``.

    Returns:
        Dictionaries, lists, numbers and text; the weights of a whole model, see
        ``d3fast.io.whole_models``; a ``TensorEntry`` for each dense tensor, an
        ``OtherEntry`` for each other object that torch would load from such a file, an ``Inert``
        for each other object.

    Raises:
        AsksForCode: the file names something other than tensors and plain data.
        ValueError: a damaged file, one that is compressed or claims more than it holds,
            TorchScript.
    """
    start = file.read(8)
    file.seek(0)
    if start.startswith(b"PK"):
        return _from_zip(file, inert)
    if not start.startswith(b"\x80"):
        raise ValueError(f"it starts with '{start.hex()}', unlike a file of torch.save")
    return _from_pickles(file, inert)

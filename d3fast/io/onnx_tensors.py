# SPDX-License-Identifier: Apache-2.0
"""Tensors of ONNX files: where their bytes are, in the file or beside it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from d3fast.io.paths import file_inside
from d3fast.io.protobuf import Messages, Span, signed
from d3fast.io.torch_files import read_at
from d3fast.io.untrusted import open_regular, printable

MAX_NAME = 1000  # bytes
_MAX_DIMENSIONS = 16
_MAX_NUMBERS = 2**16  # of a tensor that is stored number by number
DTYPES: Mapping[int, torch.dtype] = MappingProxyType(
    {
        1: torch.float32,
        2: torch.uint8,
        3: torch.int8,
        5: torch.int16,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float64,
        16: torch.bfloat16,
    }
)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of an ONNX file that was not read yet.

    Attributes:
        name: in the file.
        shape: of the tensor.
        dtype: in the file.
        path: the file that its bytes are in: the ONNX file, or one beside it.
        begin: position of its first byte.
        numbers: its values where they are stored number by number, which is for a few only.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    path: Path
    begin: int
    numbers: tuple[int, ...] | None = None

    @property
    def count(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.count * self.dtype.itemsize

    def read(self) -> Tensor:
        """Return the tensor, in the dtype of the file.

        Raises:
            ValueError: a file that ends early; NaN or inf.
            OSError: a file that cannot be read.
        """
        if not self.count:
            return torch.empty(self.shape, dtype=self.dtype)
        if self.numbers is not None:
            value = _from_numbers(self.numbers, self.dtype)
        else:
            with open_regular(self.path) as file:
                value = _from_bytes(read_at(file, self.begin, self.nbytes), self.dtype)
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"'{printable(self.name, 100)}' holds NaN or inf")
        return value.reshape(self.shape)


def _from_bytes(content: bytearray, dtype: torch.dtype) -> Tensor:
    if dtype == torch.bool:  # bytes other than 0 and 1 are not bools
        return torch.frombuffer(content, dtype=torch.uint8) != 0
    return torch.frombuffer(content, dtype=dtype)


def _from_numbers(numbers: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:  # 16-bit floats, as the numbers that their bits are
        bits = [n if n < 2**15 else n - 2**16 for n in numbers if 0 <= n < 2**16]
        if len(bits) < len(numbers):
            raise ValueError("a tensor has numbers that its dtype does not have")
        return torch.tensor(bits, dtype=torch.int16).view(dtype)
    try:
        return torch.tensor(numbers, dtype=dtype)
    except (RuntimeError, OverflowError):
        raise ValueError("a tensor has numbers that its dtype does not have") from None


@dataclass
class _Raw:
    """The fields of a tensor, as they are met."""

    dims: list[int] = field(default_factory=list)
    kind: int = 0
    name: str = ""
    stored: dict[int, Span] = field(default_factory=dict)  # by field number
    loose: list[int] = field(default_factory=list)
    external: dict[str, str] = field(default_factory=dict)
    outside: bool = False


# Fields of a tensor with values, by number.
_FLOATS, _INTS32, _INTS64, _RAW, _DOUBLES, _UINTS64 = 4, 5, 7, 9, 10, 11
_VARINTS = (_INTS32, _INTS64, _UINTS64)


class TensorReader:
    """Reads tensors from the messages of one file.

    Args:
        messages: of the file.
        path: of the file; other files with tensors are in its folder or below.
    """

    def __init__(self, messages: Messages, path: Path) -> None:
        self.messages, self.path = messages, path

    def tensor(self, message: Span) -> StoredTensor:
        """Return a tensor that was not read yet.

        Raises:
            ValueError: a tensor of an unknown dtype, of impossible sizes, or of other bytes than
                its sizes need; a path out of the folder.
        """
        raw = _Raw()
        for number, value in self.messages.fields(message):
            if number == 1:
                raw.dims += (
                    self.messages.numbers(value, _MAX_DIMENSIONS)
                    if isinstance(value, Span)
                    else [number_of(value)]
                )
            elif number == 2:
                raw.kind = number_of(value)
            elif number == 8:
                raw.name = self.messages.text(span_of(value), MAX_NAME)
            elif number == 13:
                self._external(span_of(value), raw)
            elif number == 14:
                raw.outside = bool(value)
            elif number in _VARINTS and not isinstance(value, Span):
                raw.loose.append(number_of(value))
            elif number in (_FLOATS, *_VARINTS, _RAW, _DOUBLES):
                if number in raw.stored:
                    raise ValueError("a tensor is stored in pieces")
                raw.stored[number] = span_of(value)
            if len(raw.loose) > _MAX_NUMBERS or len(raw.dims) > _MAX_DIMENSIONS:
                raise ValueError("a tensor has too many numbers or dimensions")
        return self._placed(raw)

    def _external(self, message: Span, raw: _Raw) -> None:
        key = text = ""
        for number, value in self.messages.fields(message):
            if number == 1:
                key = self.messages.text(span_of(value), MAX_NAME)
            elif number == 2:
                text = self.messages.text(span_of(value), 4096)
        raw.external[key] = text

    def _placed(self, raw: _Raw) -> StoredTensor:
        """Return a tensor whose bytes are where the file says, all of them."""
        shown = printable(raw.name, 80)
        dtype = DTYPES.get(raw.kind)
        if dtype is None:
            raise ValueError(f"'{shown}' has a dtype that is not read, number {raw.kind}")
        if any(not 0 <= size < 2**40 for size in raw.dims):
            raise ValueError(f"'{shown}' has impossible sizes")
        found = StoredTensor(raw.name, tuple(raw.dims), dtype, self.path, 0)
        if raw.outside or raw.external:
            path, begin, length = self._outside(raw, found.nbytes)
            found = replace(found, path=path, begin=begin)
        elif raw.loose or any(number in _VARINTS for number in raw.stored):
            given = [n for span in raw.stored.values() for n in self._numbers(span)]
            numbers = (*raw.loose, *given)
            found, length = replace(found, numbers=numbers), len(numbers) * dtype.itemsize
        else:
            span = _single(raw, dtype)
            found, length = replace(found, begin=span.begin), len(span)
        if length != found.nbytes:
            raise ValueError(f"'{shown}' needs {found.nbytes} bytes, the file has {length} for it")
        return found

    def _numbers(self, span: Span) -> list[int]:
        return self.messages.numbers(span, _MAX_NUMBERS)

    def _outside(self, raw: _Raw, nbytes: int) -> tuple[Path, int, int]:
        """Return the file beside this one that holds a tensor, its first byte and its length."""
        path = file_inside(raw.external.get("location", ""), self.path.parent)
        begin = _decimal(raw.external.get("offset", "0"))
        length = _decimal(raw.external.get("length", str(nbytes)))
        size = path.stat().st_size
        if begin + length > size:
            raise ValueError(
                f"'{printable(raw.name, 80)}' ends at byte {begin + length} of "
                f"{printable(path.name, 80)}, which has {size}"
            )
        return path, begin, length


def _single(raw: _Raw, dtype: torch.dtype) -> Span:
    """Return the bytes of a tensor that is stored as such."""
    wanted = _RAW
    if _RAW not in raw.stored:
        wanted = {torch.float32: _FLOATS, torch.float64: _DOUBLES}.get(dtype, _RAW)
    if set(raw.stored) - {wanted}:
        raise ValueError(f"'{printable(raw.name, 80)}' is stored in two ways, or as another dtype")
    return raw.stored.get(wanted, Span(0, 0))


def _decimal(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise ValueError(f"a tensor lies at '{printable(text, 40)}', which is no position")
    return int(text)


def span_of(value: int | Span) -> Span:
    """Return a value that must be a range of bytes."""
    if not isinstance(value, Span):
        raise ValueError("it has a number where a message or a text should be")
    return value


def number_of(value: int | Span) -> int:
    """Return a value that must be a number, signed."""
    if isinstance(value, Span):
        raise ValueError("it has a message where a number should be")
    return signed(value)

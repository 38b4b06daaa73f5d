# SPDX-License-Identifier: Apache-2.0
"""Safetensors files: one check of the header for weights and triggers alike.

Reading the format cannot run code, and its library checks offsets and sizes. The check here keeps
the header short and unambiguous, and admits the dtypes that torch can compute with.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.json_file import parse_object
from d3fast.io.untrusted import error_text, open_regular, printable

_MAX_HEADER = 2**23  # bytes: 70,000 tensors
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_header(file: BinaryIO) -> dict[str, Any]:
    """Return the header of a safetensors file: a description of each tensor by name.

    Args:
        file: open at its start.

    Raises:
        ValueError: a header that is longer than 8 MiB or than the file, is not JSON, or holds a
            name twice.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER:
        raise ValueError(f"its header claims {length} bytes, more than {_MAX_HEADER}")
    raw = file.read(length)
    if len(raw) < length or not length:
        raise ValueError(f"its header claims {length} bytes, {len(raw)} are there")
    try:
        return parse_object(raw)
    except ValueError as error:
        raise ValueError(f"its header cannot be read: {error_text(error)}") from None


def _entry(name: str, description: Any, file: BinaryIO, start: int) -> TensorEntry | OtherEntry:
    dtype = _DTYPES.get(description["dtype"])
    if dtype is None:
        return OtherEntry(f"a tensor of {printable(description['dtype'], 40)}")
    shape, (first, end) = tuple(description["shape"]), description["data_offsets"]

    def read() -> Tensor:
        if first == end:
            return torch.empty(shape, dtype=dtype)
        content = bytearray(end - first)  # a mapped file would stay in memory beside the model
        file.seek(start + first)
        if file.readinto(content) != len(content):  # type: ignore[attr-defined]
            raise ValueError("it ends early")
        if dtype == torch.bool:  # bytes other than 0 and 1 are not bools
            return (torch.frombuffer(content, dtype=torch.uint8) != 0).reshape(shape)
        return torch.frombuffer(content, dtype=dtype).reshape(shape)

    return TensorEntry(shape, dtype, read)


@contextmanager
def open_safetensors(
    path: Path,
) -> Iterator[tuple[Mapping[str, str], dict[str, TensorEntry | OtherEntry]]]:
    """Open a safetensors file and list its content.

    Args:
        path: the file, whatever its suffix.

    Yields:
        The metadata and the tensors by name; they can be read inside the ``with`` block.

    Raises:
        ValueError: a special file, or a damaged one; the message does not name the file.
        OSError: a folder, or a file that is missing or cannot be read.
    """
    from safetensors import SafetensorError, safe_open  # detoxify needs torch and numpy only

    with open_regular(path) as file:
        header, start = read_header(file), file.tell()
        try:
            with safe_open(path, framework="pt") as opened:  # checks names, offsets and sizes
                metadata = opened.metadata() or {}
        except SafetensorError as error:
            raise ValueError(error_text(error)) from None
        names = [name for name in header if name != "__metadata__"]
        yield metadata, {name: _entry(name, header[name], file, start) for name in names}

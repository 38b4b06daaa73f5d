# SPDX-License-Identifier: Apache-2.0
"""Arrays of a .npz file from a stranger.

The sizes that a file declares are checked before anything is decompressed; nothing is unpickled.
"""

import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from d3fast.io.untrusted import error_text, open_regular, printable, zip_members

_MAX_BYTES = 2**32  # of one array, decompressed
_UNSUSPICIOUS = 2**26  # bytes of an array that may be compressed at any ratio
_MAX_RATIO = 200  # deflate reaches 1000, on nothing but zeros
_CHUNK = 2**20


@dataclass(frozen=True)
class NpzFile:
    """An open .npz file.

    Attributes:
        archive: the zip archive.
        members: its members by name, with the sizes that it claims.
    """

    archive: zipfile.ZipFile
    members: Mapping[str, zipfile.ZipInfo]

    @property
    def keys(self) -> set[str]:
        """Names of the arrays."""
        return {name.removesuffix(".npy") for name in self.members if name.endswith(".npy")}

    def read(self, key: str) -> np.ndarray[Any, Any]:
        """Read one array of numbers or text.

        Raises:
            ValueError: an array that is damaged, empty, of objects, of more than 4 GiB, or
                compressed like a decompression bomb; the message does not name the file.
        """
        info = self.members[f"{key}.npy"]
        try:
            _check_member(info)
            with self.archive.open(info) as file:
                return _read_array(file, info.file_size)
        except MemoryError:
            raise ValueError(f"its {info.file_size} bytes do not fit in memory") from None
        except Exception as error:  # zipfile and numpy raise all kinds of exceptions on bad bytes
            raise ValueError(error_text(error)) from None


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open a .npz file and list its arrays.

    Raises:
        ValueError: a special file, one that is not a zip archive, or a damaged one.
        OSError: a folder, or a file that is missing or cannot be read.
    """
    with open_regular(path) as file:
        try:
            opened = NpzFile(*zip_members(file))
        except ValueError as error:
            raise ValueError(f"{printable(path)} is not a .npz file: {error}") from None
        yield opened


def _check_member(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is encrypted, or compressed in a way that numpy does not use")
    if info.file_size > _MAX_BYTES:
        raise ValueError(f"it claims {info.file_size} bytes, more than {_MAX_BYTES}")
    if info.file_size > _UNSUSPICIOUS and info.file_size > _MAX_RATIO * info.compress_size:
        raise ValueError(f"it unpacks from {info.compress_size} bytes to {info.file_size}")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers that Python 2 wrote
        version = npy.read_magic(file)
        if version != (1, 0):  # the others are for headers of more than 64 KiB
            raise ValueError(f"its version {version} is not one of plain arrays")
        return npy.read_array_header_1_0(file)


def _read_array(file: IO[bytes], length: int) -> np.ndarray[Any, Any]:
    shape, fortran, dtype = _read_header(file)
    if dtype.kind not in "uifU":
        raise ValueError(f"its type is {dtype}, not numbers or text")
    if not all(type(n) is int and n > 0 for n in shape) or dtype.itemsize == 0:
        raise ValueError(f"its shape is {shape}, it is empty")
    expected, there = math.prod(shape) * dtype.itemsize, length - file.tell()
    if expected != there:
        raise ValueError(f"it must hold {expected} bytes of data for shape {shape}, has {there}")
    content = bytearray(expected)
    found = 0
    while found < expected and (chunk := file.read(min(_CHUNK, expected - found))):
        content[found : found + len(chunk)] = chunk
        found += len(chunk)
    file.read(1)  # to the checksum at the end
    if found != expected:
        raise ValueError(f"it is truncated: {expected} bytes expected, {found} found")
    flat = np.frombuffer(content, dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C")

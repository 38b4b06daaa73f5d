# SPDX-License-Identifier: Apache-2.0
"""The IDX format of MNIST and its relatives.

Header, big-endian: two zero bytes, a type code (0x08: uint8), the number of dimensions, then one
32-bit size per dimension; then the data, C order. Files may be gzipped.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from d3fast.io.untrusted import error_text, open_regular, printable

_MAX_BYTES = 2**30  # no IDX data set in use comes near; a forged header must not exhaust memory
_CHUNK = 2**20


def read_idx(path: Path) -> Tensor:
    """Read one IDX file of uint8.

    Args:
        path: the file; read as gzip if it starts like one, whatever its name.

    Returns:
        uint8 tensor of the shape that the header gives.

    Raises:
        ValueError: a file that is corrupt, truncated, too long, empty, or of another type.
        OSError: a file that cannot be opened.
    """
    with open_regular(path) as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            if not zipped:
                return _read(raw, printable(path.name))
            with gzip.open(raw) as unzipped:
                return _read(unzipped, printable(path.name))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{printable(path.name)} is corrupt or truncated: {error_text(error)}"
            ) from None


def _read(file: BinaryIO | gzip.GzipFile, name: str) -> Tensor:
    head = file.read(4)
    if len(head) < 4 or head[:3] != b"\x00\x00\x08" or not 1 <= head[3] <= 4:
        raise ValueError(
            f"{name} is not an IDX file of uint8: it starts with {head.hex() or 'nothing'}"
        )
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise ValueError(f"{name} is truncated: it ends inside its header")
    shape = struct.unpack(f">{head[3]}I", sizes)
    expected = math.prod(shape)
    if expected > _MAX_BYTES:
        raise ValueError(f"{name} claims {expected} bytes of data, more than {_MAX_BYTES}")
    data = bytearray()  # grows with what is there, not with what the header claims
    while len(data) <= expected and (chunk := file.read(min(_CHUNK, expected + 1 - len(data)))):
        data += chunk
    if len(data) != expected:
        found = "more" if len(data) > expected else len(data)
        raise ValueError(
            f"{name} must hold {expected} bytes of data for shape {shape}, has {found}"
        )
    if not data:
        raise ValueError(f"{name} holds no data: its shape is {shape}")
    return torch.frombuffer(data, dtype=torch.uint8).reshape(shape)

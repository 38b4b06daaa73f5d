# SPDX-License-Identifier: Apache-2.0
"""Weights and graph of a ``torch.export`` archive (``.pt2``), without unpickling.

``torch.export.load`` is not used. As of torch 2.13 it unpickles constants and sample inputs with
``weights_only=False``, and evaluates expressions of the program as Python text. The archive is a
zip of uncompressed records: ``data/weights/model_weights_config.json`` describes each tensor, and
the bytes of its storage are a record of their own. ``data/constants`` has the same form, and
``models/model.json`` is the graph, as plain JSON. Only these are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO
from zipfile import ZipInfo

import torch

from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.json_file import parse_object
from d3fast.io.torch_files import read_at, record_start, strided_values
from d3fast.io.untrusted import printable, zip_members

_CONFIG = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_GRAPH = "models/model.json"
_MAX_CONFIG = 2**25  # bytes: 70,000 tensors
_MAX_GRAPH = 2**24  # bytes: 6,000 nodes with the traces of their code
_MAX_DIMENSIONS = 64
_STRIDED = 7  # of torch._export.serde.schema.Layout
DTYPES: Mapping[int, torch.dtype] = MappingProxyType(
    {
        1: torch.uint8,
        2: torch.int8,
        3: torch.int16,
        4: torch.int32,
        5: torch.int64,
        6: torch.float16,
        7: torch.float32,
        8: torch.float64,
        10: torch.complex64,
        11: torch.complex128,
        12: torch.bool,
        13: torch.bfloat16,
        29: torch.float8_e4m3fn,
        30: torch.float8_e5m2,
    }
)


def _number(given: Any) -> int:
    value = given.get("as_int") if isinstance(given, dict) else None
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("a tensor has impossible sizes or strides")
    return value


def _numbers(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list) or len(given) > _MAX_DIMENSIONS:
        raise ValueError("a tensor has impossible sizes or strides")
    return tuple(map(_number, given))


def read_exported(file: BinaryIO) -> dict[str, TensorEntry | OtherEntry]:
    """Return the weights of an archive by name, not read yet.

    Args:
        file: must stay open as long as tensors are read from it.

    Raises:
        ValueError: a damaged archive, one that is compressed or claims more than it holds, one of
            several models, or of torch before 2.8.
    """
    prefix, members = _members(file)
    return _tensors(file, members, prefix, _CONFIG)


@dataclass(frozen=True)
class ExportedProgram:
    """The graph of an archive, and its tensors, not read yet.

    Attributes:
        graph: of the file, as JSON; nothing in it is checked.
        weights: by name.
        constants: by name.
    """

    graph: Mapping[str, Any]
    weights: Mapping[str, TensorEntry | OtherEntry]
    constants: Mapping[str, TensorEntry | OtherEntry]


def read_program(file: BinaryIO) -> ExportedProgram:
    """Return the graph of an archive beside its tensors.

    Args:
        file: must stay open as long as tensors are read from it.

    Raises:
        ValueError: what ``read_exported`` raises; an archive without a graph, or with one of more
            than 16 MiB.
    """
    prefix, members = _members(file)
    weights = _tensors(file, members, prefix, _CONFIG)
    constants = (
        _tensors(file, members, prefix, _CONSTANTS) if f"{prefix}{_CONSTANTS}" in members else {}
    )
    if f"{prefix}{_GRAPH}" not in members:
        raise ValueError(f"it holds no record {_GRAPH}")
    held = parse_object(_content(file, members[f"{prefix}{_GRAPH}"], _MAX_GRAPH))
    return ExportedProgram(held, weights, constants)


def _members(file: BinaryIO) -> tuple[str, Mapping[str, ZipInfo]]:
    """Return the folder of a model in an archive, and all records.

    Raises:
        ValueError: what ``read_exported`` raises.
    """
    _, members = zip_members(file)
    configs = [name for name in members if name.endswith(f"/{_CONFIG}") or name == _CONFIG]
    if len(configs) != 1:
        raise ValueError(f"it holds no record {_CONFIG}, or several")
    (config,) = configs
    prefix = config.removesuffix(_CONFIG)
    order = members.get(f"{prefix}byteorder")
    if order is None or _content(file, order, 8) != b"little":
        raise ValueError("its numbers are big-endian, or of unknown order")
    return prefix, members


def _tensors(
    file: BinaryIO, members: Mapping[str, ZipInfo], prefix: str, config: str
) -> dict[str, TensorEntry | OtherEntry]:
    """Return the tensors that a record describes, not read yet."""
    described = parse_object(_content(file, members[f"{prefix}{config}"], _MAX_CONFIG)).get(
        "config"
    )
    if not isinstance(described, dict):
        raise ValueError("its description of the weights is not an object")
    folder = f"{prefix}{config.rpartition('/')[0]}/"

    def entry(described: Any) -> TensorEntry | OtherEntry:
        if not isinstance(described, dict) or described.get("use_pickle") is not False:
            return OtherEntry("a pickled tensor")
        meta = described.get("tensor_meta")
        meta = meta if isinstance(meta, dict) else {}
        number = meta.get("dtype")
        dtype = DTYPES.get(number) if isinstance(number, int) else None
        if dtype is None or meta.get("layout") != _STRIDED:
            return OtherEntry("a tensor of another dtype or layout")
        shape, strides = _numbers(meta.get("sizes")), _numbers(meta.get("strides"))
        first = _number(meta.get("storage_offset"))
        if len(shape) != len(strides):
            raise ValueError("a tensor has impossible sizes or strides")
        where = members.get(f"{folder}{described.get('path_name')}")

        def values(begin: int, count: int) -> bytearray:
            if where is None:
                raise ValueError("its record is missing")
            start = record_start(file, where)
            if begin + count > where.file_size:
                raise ValueError(f"it needs {begin + count} bytes of a record of {where.file_size}")
            return read_at(file, start + begin, count)

        return TensorEntry(
            shape, dtype, lambda: strided_values(values, first, shape, strides, dtype)
        )

    return {name: entry(value) for name, value in described.items()}


def _content(file: BinaryIO, info: Any, limit: int) -> bytes:
    if info.file_size > limit:
        raise ValueError(f"its record '{printable(info.filename, 80)}' claims too many bytes")
    return bytes(read_at(file, record_start(file, info), info.file_size))

# SPDX-License-Identifier: Apache-2.0
"""Columns of a Parquet file or an Arrow stream, read by pyarrow in a process of its own.

``d3fast.io.arrow`` starts that process: pyarrow ends the process that reads some damaged files.

Sizes that a file claims are compared with its length before anything is decoded: no column may
unpack to more than 64 MiB and 100 times the file. Columns of texts, bytes, numbers and of images as
the ``datasets`` library writes them (a struct of bytes and path) are read, all others are refused
if they are asked for. Limits: 2^20 rows, 1,000 columns, a footer of 8 MiB. Every error is one line
that names the file.
"""

import mmap
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from d3fast.io.json_file import parse_object
from d3fast.io.parquet_pages import DICTIONARY_PAGE, read_pages
from d3fast.io.tables import MAX_COLUMNS, MAX_ROWS, Choose, Table
from d3fast.io.untrusted import error_text, is_displayable, open_regular, printable

_SPARE, _RATIO = 2**26, 100
_MAX_FOOTER = 2**23
_MAX_GROUPS = 10_000
_MAX_MESSAGES = 2**16
_BATCH_BYTES, _BATCH_ROWS = 2**26, 1024
_SAFE_VERSION = (14, 0, 1)  # older ones ran code from extension types (CVE-2023-47248)


def read_parquet_here(path: Path, choose: Choose, max_memory: int) -> Table:
    """Read columns of a Parquet file.

    Args:
        path: the file.
        choose: gets the names of the columns.
        max_memory: limit on the bytes of the columns, decoded.

    Raises:
        ValueError: a file beyond the limits, a damaged one, or one with columns of other types;
            what ``choose`` raises; pyarrow is missing.
        OSError: a file that cannot be opened.
    """
    with _opened(path) as (pyarrow, content):
        from pyarrow import parquet

        _check_footer(content)
        file = parquet.ParquetFile(
            pyarrow.BufferReader(pyarrow.py_buffer(content)),
            pre_buffer=False,
            thrift_string_size_limit=_MAX_FOOTER,
            thrift_container_size_limit=2**20,
        )
        meta, schema = file.metadata, file.schema_arrow
        if meta.num_rows > MAX_ROWS or meta.num_row_groups > _MAX_GROUPS:
            raise ValueError(f"it has {meta.num_rows} rows, more than {MAX_ROWS}, or many groups")
        chosen = _chosen(pyarrow, schema, choose)
        if any("." in name for name in chosen):  # it would name a field inside of another
            raise ValueError("a column of it has a point in its name")
        limit = min(max_memory, _SPARE + _RATIO * len(content))
        largest = _check_pages(meta, chosen, memoryview(content), limit)
        batches = file.iter_batches(
            # A row may repeat a whole dictionary page.
            max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(largest, 1))),
            columns=list(chosen),
            use_threads=False,
        )
        return Table(_values(pyarrow, batches, chosen, limit), _class_names(schema))


def read_arrow_here(path: Path, choose: Choose, max_memory: int) -> Table:
    """Read columns of an Arrow stream, as ``datasets.save_to_disk`` writes it.

    Args:
        path: the file.
        choose: gets the names of the columns.
        max_memory: limit on the bytes of the columns, decoded.

    Raises:
        ValueError: as for ``read_parquet_here``; a file with compressed buffers, which ``datasets``
            does not write.
        OSError: a file that cannot be opened.
    """
    with _opened(path) as (pyarrow, content):
        from pyarrow import ipc

        source = pyarrow.BufferReader(pyarrow.py_buffer(content))
        _check_uncompressed(ipc.MessageReader.open_stream(source))
        source.seek(0)
        with ipc.open_stream(source, options=ipc.IpcReadOptions(use_threads=False)) as reader:
            schema = reader.schema
            chosen = _chosen(pyarrow, schema, choose)
            limit = min(max_memory, _SPARE + _RATIO * len(content))
            return Table(_values(pyarrow, reader, chosen, limit), _class_names(schema))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, mmap.mmap]]:
    """Map a file; errors of the block name it."""
    try:
        import pyarrow
    except ImportError:
        raise ValueError(
            f"{printable(path)} needs the package pyarrow: pip install 'd3fast[tables]'"
        ) from None
    version = tuple(int(part) for part in pyarrow.__version__.split(".")[:3] if part.isdecimal())
    if version < _SAFE_VERSION:
        raise ValueError(f"pyarrow must be 14.0.1 or newer, got {pyarrow.__version__}")
    with open_regular(path) as file:
        try:
            # Not closed here: values that pyarrow has not let go of keep it open.
            yield pyarrow, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except Exception as error:  # pyarrow raises all kinds of exceptions on bad bytes
            raise ValueError(f"{printable(path)} cannot be used: {error_text(error)}") from None


def _check_footer(content: mmap.mmap) -> None:
    if len(content) < 12 or content[-4:] != b"PAR1":
        raise ValueError("it is no Parquet file, or an encrypted one")
    (length,) = struct.unpack("<I", content[-8:-4])
    if length > _MAX_FOOTER or length > len(content) - 12:
        raise ValueError(f"its footer claims {length} bytes")


def _chosen(pyarrow: Any, schema: Any, choose: Choose) -> Sequence[str]:
    """Return the columns to read; they have types that are bounded by the bytes they take."""
    names = list(schema.names)
    if len(names) > MAX_COLUMNS or len(set(names)) < len(names):
        raise ValueError(f"it has more than {MAX_COLUMNS} columns, or two of one name")
    chosen = choose(names)
    for name in chosen:
        kind = schema.field(name).type
        if not _is_known(pyarrow.types, kind):
            raise ValueError(f"its column '{printable(name, 80)}' holds {printable(kind, 80)}")
    return chosen


def _is_known(types: Any, kind: Any) -> bool:
    if types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return {f.name for f in fields} <= {"bytes", "path"} and all(
            _is_flat(types, f.type) for f in fields
        )
    return _is_flat(types, kind.value_type if types.is_dictionary(kind) else kind)


def _is_flat(types: Any, kind: Any) -> bool:
    tests = ("string", "large_string", "binary", "large_binary", "boolean", "null")
    numbers = types.is_integer(kind) or types.is_floating(kind)
    return numbers or any(getattr(types, f"is_{test}")(kind) for test in tests)


def _check_pages(meta: Any, chosen: Sequence[str], content: memoryview, limit: int) -> int:
    """Add up what the pages of the columns claim; return the largest dictionary page."""
    total = largest = 0
    with content:
        for group in range(meta.num_row_groups):
            row_group = meta.row_group(group)
            for position in range(row_group.num_columns):
                column = row_group.column(position)
                if column.path_in_schema.partition(".")[0] not in chosen:
                    continue
                starts = (column.dictionary_page_offset, column.data_page_offset)
                start = min(offset for offset in starts if offset)
                for page in read_pages(content, start, column.total_compressed_size):
                    total += page.unpacked
                    if page.kind == DICTIONARY_PAGE:
                        largest = max(largest, page.unpacked)
                    if total > limit:
                        raise ValueError(f"its columns unpack to more than {limit} bytes")
    return largest


def _check_uncompressed(messages: Any) -> None:
    """Refuse record batches with compressed buffers: their sizes are claims."""
    for count, message in enumerate(messages):
        if count >= _MAX_MESSAGES:
            raise ValueError(f"it has more than {_MAX_MESSAGES} messages")
        if _has_compression(memoryview(message.metadata)):
            raise ValueError("its buffers are compressed")


def _has_compression(message: memoryview) -> bool:
    """Return whether a flatbuffer ``Message`` is a record batch with ``compression`` set.

    Fields are those of arrow.apache.org/docs/format: header is field 2 of a message, compression
    field 3 of a record batch, whose dictionary batch has it in field 1.
    """
    table = _number("<I", message, 0)
    kind_at, header_at = _field(message, table, 1), _field(message, table, 2)
    if not kind_at or not header_at:
        return False
    kind = message[kind_at]
    batch = header_at + _number("<I", message, header_at)
    if kind == 2:  # a dictionary batch: its data is a record batch
        data_at = _field(message, batch, 1)
        if not data_at:
            return False
        batch = data_at + _number("<I", message, data_at)
    return kind in (2, 3) and _field(message, batch, 3) != 0


def _field(buffer: memoryview, table: int, index: int) -> int:
    """Return where a field of a flatbuffer table is, 0 where it is absent."""
    vtable = table - _number("<i", buffer, table)
    if 4 + 2 * index >= _number("<H", buffer, vtable):
        return 0
    offset = _number("<H", buffer, vtable + 4 + 2 * index)
    return table + offset if offset else 0


def _number(form: str, buffer: memoryview, at: int) -> int:
    if not 0 <= at <= len(buffer) - struct.calcsize(form):
        raise ValueError("a message of it is damaged")
    (value,) = struct.unpack_from(form, buffer, at)
    return int(value)


def _values(pyarrow: Any, batches: Any, chosen: Sequence[str], limit: int) -> dict[str, list[Any]]:
    """Return the columns as Python values, and count their bytes."""
    columns: dict[str, list[Any]] = {name: [] for name in chosen}
    total = rows = 0
    for batch in batches:
        rows += batch.num_rows
        if rows > MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS} rows")
        for name in chosen:
            array = batch.column(name)
            array.validate(full=True)  # offsets of a stream may point anywhere
            total += array.nbytes
            if total > limit:
                raise ValueError(f"its columns unpack to more than {limit} bytes")
            if pyarrow.types.is_dictionary(array.type):  # rows share their values
                values = array.dictionary.to_pylist()
                indices = array.indices.to_pylist()
                columns[name] += [None if i is None else values[i] for i in indices]
            else:
                columns[name] += array.to_pylist()
    return columns


def _class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """Return the class names that ``datasets`` keeps in the metadata of a file, by column."""
    try:
        held = parse_object((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = held["info"]["features"]
        return {
            column: tuple(feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and all(isinstance(n, str) and is_displayable(n) for n in feature["names"])
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def send(content: Any) -> None:
    """Write a value to stdout, its length first."""
    packed = msgspec.msgpack.encode(content)
    sys.stdout.buffer.write(struct.pack("<Q", len(packed)) + packed)
    sys.stdout.buffer.flush()


def main(path: str, max_memory: str, address_space: str, seconds: str) -> None:
    """Read one file for ``d3fast.io.arrow``: send column names, take those to read, send values."""
    try:
        import resource
    except ImportError:  # Windows
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for limit, most in (
            (resource.RLIMIT_AS, int(address_space)),
            (resource.RLIMIT_CPU, int(seconds)),
        ):
            hard = resource.getrlimit(limit)[1]
            resource.setrlimit(limit, (most if hard < 0 else min(most, hard), hard))

    def choose(names: Sequence[str]) -> Sequence[str]:
        send(list(names))
        chosen: list[str] = msgspec.json.decode(sys.stdin.buffer.readline(), type=list[str])
        return chosen

    read = read_parquet_here if path.lower().endswith(".parquet") else read_arrow_here
    try:
        table = read(Path(path), choose, int(max_memory))
        send({"columns": table.columns, "names": table.names})
    except (ValueError, OSError) as error:
        send({"error": str(error)})

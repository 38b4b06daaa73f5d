# SPDX-License-Identifier: Apache-2.0
"""Columns of a Parquet file or an Arrow stream from a stranger, read in another process.

Some damaged files end the process that reads them with pyarrow. ``d3fast.io.arrow_reader`` runs in
a process with limits on memory and time; here only its answers are read.
"""

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from d3fast.io.tables import Choose, Table
from d3fast.io.untrusted import open_regular, printable
from d3fast.runtime.extras import require

_SECONDS = 60  # of CPU
_SPACE = 2**32  # bytes of address space beside ``max_memory``: the libraries alone take one
_CODE = (
    "import os, sys; sys.path[:] = sys.argv.pop(1).split(os.pathsep); "  # without this folder
    "from d3fast.io.arrow_reader import main; main(*sys.argv[1:])"
)


def read_columnar(path: Path, choose: Choose, max_memory: int) -> Table:
    """Read columns of a Parquet file, or of an Arrow stream as ``datasets.save_to_disk`` writes it.

    Args:
        path: the file; its name ends in .parquet or .arrow.
        choose: gets the names of the columns.
        max_memory: limit on the bytes of the columns, decoded.

    Raises:
        ValueError: a file that is damaged, or beyond the limits of ``d3fast.io.arrow_reader``; one
            on which pyarrow crashes, or takes more than a minute; what ``choose`` raises; pyarrow
            is missing.
        OSError: a file that cannot be opened.
    """
    require(printable(path), "msgspec", extra="tables")
    import msgspec

    open_regular(path).close()
    space = _SPACE + 4 * max_memory
    given = (str(path), str(max_memory), str(space), str(_SECONDS))
    with subprocess.Popen(
        [sys.executable, "-c", _CODE, os.pathsep.join(sys.path), *given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        try:
            answer = _received(process.stdout, space)
            if isinstance(answer, list):
                try:
                    chosen = choose(answer)
                except ValueError as error:
                    raise ValueError(f"{printable(path)} cannot be used: {error}") from None
                process.stdin.write(msgspec.json.encode(list(chosen)) + b"\n")
                process.stdin.flush()
                answer = _received(process.stdout, space)
        except (EOFError, BrokenPipeError):
            raise ValueError(
                f"{printable(path)} cannot be used: pyarrow crashes on it, or takes too long"
            ) from None
        finally:
            process.kill()
    if "error" in answer:
        raise ValueError(answer["error"])
    names = {column: tuple(classes) for column, classes in answer["names"].items()}
    return Table(answer["columns"], names)


def _received(stream: IO[bytes], most: int) -> Any:
    """Return the next value of ``arrow_reader.send``."""
    import msgspec

    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", head)
    content = stream.read(length) if length <= most else b""
    if len(content) < length:
        raise EOFError
    return msgspec.msgpack.decode(content)

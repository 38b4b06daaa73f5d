# SPDX-License-Identifier: Apache-2.0
"""Members of a .tar.gz archive, read into memory; nothing is extracted to disk."""

import gzip
import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from d3fast.io.untrusted import error_text, open_regular, printable

_PIECE = 2**20


class _Limited:
    """A file that ends with an error once ``limit`` bytes were read from it."""

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self.file = file
        self.left = limit

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("it is longer than it may be")
        return content


def read_tar_gz(path: Path, names: Collection[str], limit: int) -> dict[str, bytes]:
    """Read members by the last part of their name.

    Args:
        path: the archive.
        names: which members; others are passed over.
        limit: how many bytes the archive may have, unpacked.

    Returns:
        The content of those that are there, by name. The first of several with a name counts.

    Raises:
        ValueError: no archive, a damaged or too long one.
        OSError: a file that cannot be opened.
    """
    found: dict[str, bytes] = {}
    with open_regular(path) as raw:
        try:
            limited: Any = _Limited(gzip.GzipFile(fileobj=raw), limit)
            # Read as a stream, through the limit: that bounds what headers may ask for too.
            with tarfile.open(fileobj=limited, mode="r|") as archive:
                for member in archive:
                    name = member.name.rpartition("/")[2]
                    if name not in names or name in found or not member.isreg():
                        continue
                    if member.issparse():  # its length may be anything
                        raise ValueError(f"its member {name} is sparse")
                    file = archive.extractfile(member)
                    assert file is not None  # regular files have content
                    found[name] = file.read()
            while limited.read(_PIECE):  # to the checksum at the end
                pass
        except Exception as error:  # tarfile lets out whatever a bad header leads to
            raise ValueError(
                f"{printable(path)} is no .tar.gz archive, or a damaged one: {error_text(error)}"
            ) from None
    return found

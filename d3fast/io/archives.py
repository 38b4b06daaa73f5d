# SPDX-License-Identifier: Apache-2.0
"""Members of a .tar.gz archive, read into memory; nothing is extracted to disk."""

import gzip
import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from d3fast.io.untrusted import error_text, open_regular, printable

_CHUNK = 2**20
_MAX_MEMBERS = 1000
_MAX_EXTENDED = 2**16  # bytes of an extended header: long names, times, owners
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _LimitedReader:
    """A stream that raises once more than ``limit`` bytes were read from it."""

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self.file = file
        self.left = limit

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("it is longer than it may be")
        return content


class _Member(tarfile.TarInfo):
    """A header block; tarfile reads an extended header into memory whatever its length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENDED and member.size > _MAX_EXTENDED:
            raise ValueError(f"a header has {member.size} bytes, more than {_MAX_EXTENDED}")
        return member


def read_tar_gz(path: Path, names: Collection[str], limit: int) -> dict[str, bytes]:
    """Read members of a .tar.gz archive by the last component of their names.

    Args:
        path: the archive.
        names: the members to read; others are skipped.
        limit: limit on the bytes of the archive, unpacked.

    Returns:
        The content of the members found, by name. The first of several with one name counts.

    Raises:
        ValueError: not an archive, or one that is damaged, longer than ``limit``, or holds more
            than 1,000 members or a header of more than 64 KiB.
        OSError: a file that cannot be opened.
    """
    found: dict[str, bytes] = {}
    with open_regular(path) as raw:
        try:
            limited: Any = _LimitedReader(gzip.GzipFile(fileobj=raw), limit)
            # Read as a stream, through the limit: it bounds what headers claim as well.
            with tarfile.open(fileobj=limited, mode="r|", tarinfo=_Member) as opened:
                archive: Any = opened  # its attributes below are public, but not typed
                for count, member in enumerate(archive):
                    archive.members = []  # tarfile would keep every member,
                    archive.pax_headers.clear()  # and copy global headers to each
                    if count >= _MAX_MEMBERS:
                        raise ValueError(f"it holds more than {_MAX_MEMBERS} members")
                    name = member.name.rpartition("/")[2]
                    if name not in names or name in found or not member.isreg():
                        continue
                    if member.issparse():  # its length may be anything
                        raise ValueError(f"its member {name} is sparse")
                    file = archive.extractfile(member)
                    assert file is not None  # regular files have content
                    found[name] = file.read()
            while limited.read(_CHUNK):  # to the checksum at the end
                pass
        except Exception as error:  # tarfile raises all kinds of exceptions on a bad header
            raise ValueError(
                f"{printable(path)} is not a .tar.gz archive, or a damaged one: {error_text(error)}"
            ) from None
    return found

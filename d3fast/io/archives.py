# SPDX-License-Identifier: Apache-2.0
"""Members of archives, read into memory; nothing is extracted to disk."""

import gzip
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from d3fast.io.untrusted import error_text, open_regular, printable, zip_members

_CHUNK = 2**20
_MAX_MEMBERS = 1000
_MAX_SAMPLES = 2**16  # members of an archive of samples
_MAX_MEMBER = 2**27  # bytes of one of them
_GZIP = b"\x1f\x8b"
_SPARE, _RATIO = 2**26, 200  # an archive may unpack to so much, and so many times its length
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

    def __init__(self, file: Any, limit: int) -> None:
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
            for name, read in _tar_members(gzip.GzipFile(fileobj=raw), limit, _MAX_MEMBERS, 2**63):
                last = name.rpartition("/")[2]
                if last in names and last not in found:
                    found[last] = read()
        except Exception as error:  # tarfile raises all kinds of exceptions on a bad header
            raise ValueError(
                f"{printable(path)} is not a .tar.gz archive, or a damaged one: {error_text(error)}"
            ) from None
    return found


def read_archive(path: Path, wanted: Callable[[str], bool], max_memory: int) -> dict[str, bytes]:
    """Read members of a .zip, .tar or .tar.gz archive of samples.

    Args:
        path: the archive; its content decides the format.
        wanted: gets the name of a regular member; others are skipped.
        max_memory: limit on the bytes of the members that are read.

    Returns:
        Their contents by name, in the order of the archive. Names are never used as paths.

    Raises:
        ValueError: not an archive, a damaged one, one that holds a name twice, more than 65,536
            members, a member of more than 128 MiB, or more than ``max_memory``; one that unpacks
            to more than 64 MiB and 200 times its length.
        OSError: a file that cannot be opened.
    """
    found: dict[str, bytes] = {}
    with open_regular(path) as raw:
        start = raw.read(4)
        length = raw.seek(0, 2)
        raw.seek(0)
        unpacked = _SPARE + _RATIO * length
        left = limit = min(max_memory, unpacked)
        try:
            if start[:2] == b"PK":
                members = _zip_members(raw)
            else:
                file = gzip.GzipFile(fileobj=raw) if start[:2] == _GZIP else raw
                members = _tar_members(file, unpacked, _MAX_SAMPLES, _MAX_MEMBER)
            for name, read in members:
                if not wanted(name):
                    continue
                if name in found:
                    raise ValueError(f"it holds '{printable(name, 80)}' twice")
                found[name] = read()
                left -= len(found[name])
                if left < 0:
                    raise ValueError(f"its samples take more than {limit} bytes")
        except Exception as error:  # tarfile and zipfile raise all kinds of exceptions
            raise ValueError(
                f"{printable(path)} is no archive of samples, or a damaged one: {error_text(error)}"
            ) from None
    return found


Members = Iterator[tuple[str, Callable[[], bytes]]]


def _tar_members(file: Any, limit: int, most: int, largest: int) -> Members:
    """Yield regular members of a tar archive, and a function that reads each before the next."""
    limited: Any = _LimitedReader(file, limit)
    # Read as a stream, through the limit: it bounds what headers claim as well.
    with tarfile.open(fileobj=limited, mode="r|", tarinfo=_Member) as opened:
        archive: Any = opened  # its attributes below are public, but not typed
        for count, member in enumerate(archive):
            archive.members = []  # tarfile would keep every member,
            archive.pax_headers.clear()  # and copy global headers to each
            if count >= most:
                raise ValueError(f"it holds more than {most} members")
            if member.isreg():
                yield member.name, partial(_tar_content, archive, member, largest)
    while limited.read(_CHUNK):  # to the checksum at the end
        pass


def _tar_content(archive: Any, member: tarfile.TarInfo, largest: int) -> bytes:
    name = printable(member.name, 80)
    if member.issparse():  # its length may be anything
        raise ValueError(f"its member {name} is sparse")
    if member.size > largest:
        raise ValueError(f"its member {name} has {member.size} bytes, more than {largest}")
    content: bytes = archive.extractfile(member).read()
    return content


def _zip_members(raw: BinaryIO) -> Members:
    """Yield the members of a zip archive, and a function that reads each."""
    archive, members = zip_members(raw)
    if len(members) > _MAX_SAMPLES:
        raise ValueError(f"it holds more than {_MAX_SAMPLES} members")
    for name, info in members.items():
        if not info.is_dir():
            yield name, partial(_zip_content, archive, info)


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    name = printable(info.filename, 80)
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {name} is encrypted, or compressed in an unusual way")
    if info.file_size > min(_MAX_MEMBER, 2**20 + _RATIO * info.compress_size):
        raise ValueError(
            f"its member {name} unpacks from {info.compress_size} bytes to {info.file_size}"
        )
    with archive.open(info) as file:
        content = file.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise ValueError(f"its member {name} is longer than it says")
    return content

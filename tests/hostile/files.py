"""The row of a case, and writers of files that no library would write."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A line break, a colour, a bell, three bidirectional controls.
BAD_NAME = "a\nb\x1b[31m\x07\u061c\u200e\u200f"


LOADS = "(loads)"


@dataclass(frozen=True)
class Case:
    """One hostile file.

    Attributes:
        name: what is wrong with it.
        make: writes it into an empty folder and gives its path.
        says: a regular expression that the one line must match; ``LOADS`` where what is wrong is
            beside what is asked for, and has no effect.
    """

    name: str
    make: Callable[[Path], Path]
    says: str


def content(name: str, data: bytes | Callable[[], bytes]) -> Callable[[Path], Path]:
    """Writes given bytes, or long ones that are made when they are needed, to a file."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data if isinstance(data, bytes) else data())
        return path

    return make


def pipe(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def link(name: str, target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def subfolder(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


def sparse_file(name: str, start: bytes, length: int) -> Callable[[Path], Path]:
    """A file that is long and takes no room: what is after its start is zeros."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(start)
        os.truncate(path, length)
        return path

    return make


def special(suffix: str) -> list[Case]:
    """What is no file, under a name of the right suffix."""
    return [
        Case("a folder", subfolder(f"w{suffix}"), r"directory|folder|regular file|missing"),
        Case("a pipe", pipe(f"w{suffix}"), "not a regular file"),
        Case("an endless device", link(f"w{suffix}", "/dev/zero"), "not a regular file"),
        Case("a link to nowhere", link(f"w{suffix}", "nowhere"), "No such file|missing"),
        Case(
            "a link to itself", link(f"w{suffix}", f"w{suffix}"), "symbolic links|missing|regular"
        ),
        Case("an empty file", content(f"w{suffix}", b""), ""),
        Case(
            "a name with a line break", content(f"{BAD_NAME}{suffix}", b"text"), r"a\\nb\\x1b\[31m"
        ),
        Case("a long name", content("w" * 200 + suffix, b"text"), "www"),
    ]


def damaged(good: bytes, suffix: str, spare: int = 0) -> list[Case]:
    """A good file that ends early; its last ``spare`` bytes say nothing."""
    good = good[: len(good) - spare]
    lengths = sorted({1, 2, 4, 7, 8, 9, 64, len(good) // 3, len(good) // 2, len(good) - 1})
    return [
        Case(
            f"{suffix} cut to {length} of {len(good)} bytes",
            content(f"w{suffix}", good[:length]),
            "",
        )
        for length in lengths
        if length < len(good)
    ]


def forged_zip(
    members: list[tuple[str, bytes]],
    *,
    method: int = 0,
    claims: int | None = None,
    flags: int = 0,
    count: int = 1,
) -> bytes:
    """A zip archive whose directory may claim anything.

    Args:
        members: names and the bytes as they are stored.
        method: 0 stored, 8 deflated.
        claims: length that the last member claims to have, unpacked.
        flags: of every member; 1 is encrypted.
        count: how often the last entry of the directory is repeated.
    """
    body, entries = io.BytesIO(), []
    for position, (name, data) in enumerate(members):
        raw = name.encode()
        length = len(data) if claims is None or position < len(members) - 1 else claims
        sizes = (zlib.crc32(data), min(len(data), 2**32 - 1), min(length, 2**32 - 1))
        extra = struct.pack("<HHQ", 1, 8, length) if length >= 2**32 - 1 else b""
        common = struct.pack("<HHHHH", 45, flags, method, 0, 0x21) + struct.pack("<3I", *sizes)
        common += struct.pack("<HH", len(raw), len(extra))
        start = body.tell()
        body.write(b"PK\3\4" + common + raw + extra + data)
        entries.append(
            b"PK\1\2\x2d\0" + common + struct.pack("<HHHII", 0, 0, 0, 0, start) + raw + extra
        )
    entries += entries[-1:] * (count - 1)
    directory = b"".join(entries)
    total = min(len(entries), 2**16 - 1)
    end = struct.pack("<HHHHIIH", 0, 0, total, total, len(directory), body.tell(), 0)
    return body.getvalue() + directory + b"PK\5\6" + end


def deflated_zeros(gigabytes: int) -> bytes:
    """A deflate stream of zeros, a thousandth as long."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * (64 * gigabytes) + packer.flush()


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


class Reduced:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call

"""Hostile images, and folders of images."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from tests.hostile.files import BAD_NAME, Case, content, damaged, deflated_zeros, special

_file = partial(content, "w.png")


def encoded(kind: str = "PNG", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 20)).save(buffer, kind, **options)
    return buffer.getvalue()


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        parts += struct.pack(">I", len(data)) + kind + data
        parts += struct.pack(">I", zlib.crc32(kind + data))
    return parts


def _header(width: int, height: int, depth: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)


def _zeros(length: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(length // 2**20)) + packer.flush()


def _animation() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("L", (8, 8), shade) for shade in range(3)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    good = encoded("JPEG", (1024, 1024), progressive=True)
    last = good[good.rindex(b"\xff\xda") : -2]
    return good[:-2] + last * (count - good.count(b"\xff\xda")) + good[-2:]


_IDAT, _IEND = (b"IDAT", zlib.compress(bytes(25 * 8))), (b"IEND", b"")
IMAGES = [
    *special(".png"),
    Case("a text", _file(b"hello"), "not an image"),
    Case("SVG", _file(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "not an image"),
    Case("an animated GIF", _file(_animation()), "not an image"),
    Case("TIFF", _file(encoded("TIFF")), "not an image"),
    Case("PDF", content("w.jpg", encoded("PDF")), "not an image"),
    Case("EPS, which Ghostscript would run", _file(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "not an image"),
    Case("a million pixels square", _file(_png(_header(10**6, 10**6), _IDAT, _IEND)), "pixels"),
    Case("2^31 pixels square", _file(_png(_header(2**31 - 1, 2**31 - 1), _IDAT)), ""),
    Case(
        "a bomb of 64 million pixels",
        _file(lambda: _png(_header(8192, 8193), (b"IDAT", _zeros(3 * 8192 * 8193)), _IEND)),
        "pixels",
    ),
    Case("no pixels", _file(_png(_header(0, 0), _IDAT, _IEND)), ""),
    Case(
        "a comment that unpacks to 4 GB",
        _file(
            lambda: _png(
                _header(8, 8), (b"zTXt", b"a\0\0\x78\x9c" + deflated_zeros(4)), _IDAT, _IEND
            )
        ),
        "",
    ),
    Case("a chunk longer than the file", _file(_png(_header(8, 8))[:-4] + b"\x7f" * 8), ""),
    Case("a palette that is not there", _file(_png(_header(8, 8, 8, 3), _IEND)), ""),
    Case("16 bits per channel", _file(_png(_header(8, 8, 16, 0), _IDAT, _IEND)), ""),
    Case(
        "a JPEG of 65500 pixels square",
        _file(encoded("JPEG").replace(b"\0\x08\0\x08\x03", b"\xff\xdc\xff\xdc\x03")),
        "pixels",
    ),
    Case("a PPM of 10^18 pixels", content("w.ppm", b"P6 1000000000 1000000000 255\n"), "pixels"),
    Case("a PPM with a number that does not end", content("w.ppm", b"P6 " + b"9" * 10**6), ""),
    Case(
        "a BMP of negative size",
        content(
            "w.bmp",
            encoded("BMP").replace(struct.pack("<ii", 8, 8), struct.pack("<ii", -8, -(2**31))),
        ),
        "",
    ),
    Case("a JPEG of 3,000 scans", content("w.jpg", lambda: _scans(3000)), "3000 scans"),
    Case("a truncated JPEG", content("w.jpg", encoded("JPEG", (64, 64))[:-200]), ""),
    *(
        case
        for kind in ("PNG", "BMP", "WEBP")
        for case in damaged(encoded(kind), f".{kind.lower()}", 24 * (kind == "PNG"))
    ),
]


def _images(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded())


def _with(change: Callable[[Path], Any]) -> Callable[[Path], Path]:
    """A good folder of two classes, and what a change makes of it."""

    def make(folder: Path) -> Path:
        root = folder / "clean"
        _images(root, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
        (folder / "outside").mkdir()
        _images(folder / "outside", "1.png")
        change(root)
        return root

    return make


FOLDERS = [
    Case(
        "a link to an image outside",
        _with(lambda r: (r / "cat/3.png").symlink_to(r.parent / "outside/1.png")),
        "leads out of",
    ),
    Case(
        "a link to a class outside",
        _with(lambda r: (r / "cow").symlink_to(r.parent / "outside")),
        "leads out of",
    ),
    Case(
        "a link to a secret",
        _with(lambda r: (r / "cat/3.png").symlink_to("/etc/hostname")),
        "leads out of",
    ),
    Case("a link to nowhere", _with(lambda r: (r / "cat/3.png").symlink_to("nowhere")), "missing"),
    Case("a link to itself", _with(lambda r: (r / "cat/3.png").symlink_to("3.png")), "missing"),
    Case(
        "a class that links to its own folder",
        _with(lambda r: (r / "cat/cat").symlink_to(".")),
        "a folder",
    ),
    Case(
        "a pipe among the images", _with(lambda r: os.mkfifo(r / "cat/3.png")), "not a regular file"
    ),
    Case(
        "a device among the images",
        _with(lambda r: (r / "cat/3.png").symlink_to("/dev/zero")),
        "leads out of",
    ),
    Case(
        "a folder among the images",
        _with(lambda r: (r / "cat/3.png").mkdir()),
        "not a regular file",
    ),
    Case(
        "a text among the images",
        _with(lambda r: (r / "cat/3.png").write_text("hello")),
        r"3\.png is not an image",
    ),
    Case(
        "an empty image",
        _with(lambda r: (r / "cat/3.png").write_bytes(b"")),
        r"3\.png is not an image",
    ),
    Case(
        "another size",
        _with(lambda r: (r / "cat/3.png").write_bytes(encoded(size=(9, 9)))),
        "pixels",
    ),
    Case(
        "500 folders deep",
        _with(lambda r: (r / "cow").joinpath(*["d"] * 500).mkdir(parents=True)),
        "a folder",
    ),
    Case(
        "an image whose name prints badly",
        _with(lambda r: (r / f"cat/{BAD_NAME}.png").write_bytes(b"")),
        r"a\\nb\\x1b\[31m\\x07\\u061c\\u200e\\u200f\.png is not an image",
    ),
    Case(
        "an image whose name is no UTF-8",
        _with(lambda r: (r / os.fsdecode(b"cat/\xff\xfe.png")).write_bytes(b"")),
        r"\\udcff\\udcfe\.png is no",
    ),
    Case(
        "an image of a long name",
        _with(lambda r: (r / f"cat/{'w' * 250}.png").write_bytes(b"")),
        "is not an image",
    ),
    Case(
        "a class whose name prints badly",
        _with(lambda r: _images(r, f"{BAD_NAME}/1.png")),
        r"a\\nb",
    ),
    Case(
        "a stray file whose name prints badly",
        _with(lambda r: _images(r, f"{BAD_NAME}.png")),
        r"a\\nb",
    ),
    Case(
        "a folder whose name prints badly in a class",
        _with(lambda r: (r / "cat" / BAD_NAME).mkdir()),
        r"a\\nb",
    ),
    Case(
        "a link whose name prints badly",
        _with(lambda r: (r / f"cat/{BAD_NAME}.png").symlink_to("/etc/hostname")),
        r"a\\nb",
    ),
    Case(
        "no class folders",
        _with(lambda r: r.rename(r.parent / "x") and r.mkdir()),
        "no class folders",
    ),
    Case("a folder that is not there", lambda folder: folder / BAD_NAME, r"a\\nb"),
    Case("a name past what the system takes", lambda folder: folder / ("w" * 5000), ""),
    Case(
        "a bomb among the images",
        _with(lambda r: (r / "cat/3.png").write_bytes(_png(_header(10**6, 10**6), _IDAT, _IEND))),
        "pixels",
    ),
    Case(
        "20,000 classes",
        _with(
            lambda r: [_images(r, f"{n}/1.png") for n in range(20_000)] and _images(r, "0/2.txt")
        ),
        "not an image",
    ),
]

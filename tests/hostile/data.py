"""Hostile images, arrays and data sets."""

import gzip
import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from tests.hostile.files import (
    BAD_NAME,
    Case,
    content,
    damaged,
    deflated_zeros,
    forged_zip,
    special,
)

_png_file = partial(content, "w.png")
_npz = partial(content, "w.npz")
_idx_file = partial(content, "w")


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


_IDAT, _IEND = (b"IDAT", zlib.compress(bytes(25 * 8))), (b"IEND", b"")
PICTURES = [
    *special(".png"),
    Case("a text", _png_file(b"hello"), "no image"),
    Case("SVG", _png_file(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "no image"),
    Case("an animated GIF", _png_file(_animation()), "no image"),
    Case("TIFF", _png_file(encoded("TIFF")), "no image"),
    Case("PDF", content("w.jpg", encoded("PDF")), "no image"),
    Case("EPS, which Ghostscript would run", _png_file(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "no image"),
    Case("a million pixels square", _png_file(_png(_header(10**6, 10**6), _IDAT, _IEND)), "pixels"),
    Case("2^31 pixels square", _png_file(_png(_header(2**31 - 1, 2**31 - 1), _IDAT)), ""),
    Case(
        "a bomb of 64 million pixels",
        _png_file(lambda: _png(_header(8192, 8193), (b"IDAT", _zeros(3 * 8192 * 8193)), _IEND)),
        "pixels",
    ),
    Case("no pixels", _png_file(_png(_header(0, 0), _IDAT, _IEND)), ""),
    Case(
        "a comment that unpacks to 4 GB",
        _png_file(
            lambda: _png(
                _header(8, 8), (b"zTXt", b"a\0\0\x78\x9c" + deflated_zeros(4)), _IDAT, _IEND
            )
        ),
        "",
    ),
    Case("a chunk longer than the file", _png_file(_png(_header(8, 8))[:-4] + b"\x7f" * 8), ""),
    Case("a palette that is not there", _png_file(_png(_header(8, 8, 8, 3), _IEND)), ""),
    Case("16 bits per channel", _png_file(_png(_header(8, 8, 16, 0), _IDAT, _IEND)), ""),
    Case(
        "a JPEG of 65500 pixels square",
        _png_file(encoded("JPEG").replace(b"\0\x08\0\x08\x03", b"\xff\xdc\xff\xdc\x03")),
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
    Case("a pipe among the images", _with(lambda r: os.mkfifo(r / "cat/3.png")), "no regular file"),
    Case(
        "a device among the images",
        _with(lambda r: (r / "cat/3.png").symlink_to("/dev/zero")),
        "leads out of",
    ),
    Case(
        "a folder among the images", _with(lambda r: (r / "cat/3.png").mkdir()), "no regular file"
    ),
    Case(
        "a text among the images",
        _with(lambda r: (r / "cat/3.png").write_text("hello")),
        r"3\.png is no image",
    ),
    Case(
        "an empty image", _with(lambda r: (r / "cat/3.png").write_bytes(b"")), r"3\.png is no image"
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
        r"a\\nb\\x1b\[31m\\x07\.png is no image",
    ),
    Case(
        "an image whose name is no UTF-8",
        _with(lambda r: (r / os.fsdecode(b"cat/\xff\xfe.png")).write_bytes(b"")),
        r"\\udcff\\udcfe\.png is no",
    ),
    Case(
        "an image of a long name",
        _with(lambda r: (r / f"cat/{'w' * 250}.png").write_bytes(b"")),
        "is no image",
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
]


def _npy(shape: Any, data: bytes = b"", descr: Any = "|u1") -> bytes:
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


def _raw_npy(header: bytes, version: bytes = b"\1\0") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header


_GOOD = {"images": np.zeros((10, 4, 4), np.uint8), "labels": np.arange(10) % 2}


def npz_file(packed: bool = False, **changes: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **{**_GOOD, **changes})
    return buffer.getvalue()


class _Marks:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def _objects(folder: Path) -> Path:
    array = np.array([_Marks(str(folder / "mark"))] * 10, dtype=object)
    return _npz(npz_file(images=array))(folder)


def _bare_pickle(folder: Path) -> Path:
    code = pickle.dumps(_Marks(str(folder / "mark")))
    return _npz(forged_zip([("images.npy", code), ("labels.npy", code)]))(folder)


def _archive(images: bytes, labels: bytes = b"", **options: Any) -> bytes:
    return forged_zip([("labels.npy", labels), ("images.npy", images)], **options)


ARRAYS = [
    *special(".npz"),
    Case("objects with code", _objects, "type is object"),
    Case("pickles with code", _bare_pickle, "images"),
    Case(
        "a header that claims 2^60 numbers", _npz(_archive(_npy((2**20, 2**20, 2**20)))), "images"
    ),
    Case("a header past 64 bits", _npz(_archive(_npy((2**80, 2**80)))), "images"),
    Case("a header of negative size", _npz(_archive(_npy((-1, 4, 4)))), "images"),
    Case("a bomb", _npz(lambda: _archive(deflated_zeros(2), method=8, claims=2**31)), "images"),
    Case("a bomb with a good header", _npz(lambda: _bomb()), "images"),
    Case("a member longer than the file", _npz(_archive(_npy((9,)), claims=2**40)), "images"),
    Case("an encrypted member", _npz(_archive(_npy((9,), bytes(9)), flags=1)), "images"),
    Case(
        "one name twice",
        _npz(
            forged_zip(
                [(n, _npy((2, 2, 2), bytes(8))) for n in ("images.npy", "labels.npy", "images.npy")]
            )
        ),
        "twice",
    ),
    Case("a path out of the folder", _npz(forged_zip([("../images.npy", b"")])), "hold"),
    Case("names that print badly", _npz(forged_zip([(BAD_NAME, b"")])), "hold"),
    Case(
        "a directory of half a million entries",
        _npz(lambda: forged_zip([("images.npy", b"")], count=500_000)),
        "",
    ),
    Case("a header of code", _npz(_archive(_raw_npy(b"__import__('os').system('x')\n"))), ""),
    Case("a header of 9,000 brackets", _npz(_archive(_raw_npy(b"(" * 9000))), ""),
    Case("a header of 9,000 signs", _npz(_archive(_raw_npy(b"-" * 9000 + b"1"))), ""),
    Case("a header that numpy warns about", _npz(_archive(_raw_npy(b" " * 60_000 + b"1"))), ""),
    Case("a newer version", _npz(_archive(_raw_npy(b"{}", b"\2\0"))), ""),
    Case(
        "a type of many parts",
        _npz(_archive(_npy((1,), b"1", [(f"f{n}", "|u1") for n in range(1000)]))),
        "",
    ),
    Case("a type of a gigabyte", _npz(_archive(_npy((1,), b"1", "<U268435456"))), ""),
    Case(
        "names of classes that print badly",
        _npz(npz_file(classes=np.array(["cat", BAD_NAME]))),
        "classes",
    ),
    Case("NaN", _npz(npz_file(images=np.full((10, 4, 4), np.nan))), "images"),
    Case("labels past 64 bits", _npz(npz_file(labels=np.full(10, 2**64 - 1, np.uint64))), "labels"),
    *damaged(npz_file(), ".npz"),
    *damaged(npz_file(packed=True), ".npz"),
]


def _bomb() -> bytes:
    """Two gigabytes of images in two megabytes, every size in it true."""
    head = _npy((2**15, 2**8, 2**8))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    return _archive(start + deflated_zeros(2), method=8, claims=len(head) + 2**31)


def _idx(shape: tuple[int, ...], data: bytes, code: int = 8) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


IDX = [
    *special(""),
    Case("a text", _idx_file(b"hello world"), "no IDX file"),
    Case("a header of 4 GB by 4 GB", _idx_file(_idx((2**32 - 1,) * 4, b"1")), "claims"),
    Case("more than there is", _idx_file(_idx((1000,), b"1")), "must hold"),
    Case("more than was said", _idx_file(_idx((1,), b"123")), "more"),
    Case("nothing", _idx_file(_idx((0, 28, 28), b"")), "no data"),
    Case("floats", _idx_file(_idx((1,), bytes(4), 13)), "no IDX file"),
    Case("200 dimensions", _idx_file(b"\0\0\x08\xc8" + bytes(800)), "no IDX file"),
    Case("a gzip bomb", _idx_file(lambda: gzip.compress(_idx((64,), b"")) + _gzip_zeros()), ""),
    Case("a damaged gzip", _idx_file(gzip.compress(_idx((4,), b"1234"))[:-5]), "corrupt"),
    *damaged(_idx((9, 9), bytes(81)), ""),
]


def _gzip_zeros() -> bytes:
    return b"\x1f\x8b\x08" + bytes(7) + deflated_zeros(2)


def _cifar(name: str, data: Callable[[Path], bytes]) -> Callable[[Path], Path]:
    """The binary or the python version of CIFAR-10 with one file that is not as it should be."""

    def make(folder: Path) -> Path:
        binary = name.endswith(".bin")
        suffix = ".bin" if binary else ""
        names = [f"data_batch_{n}{suffix}" for n in range(1, 6)] + [f"test_batch{suffix}"]
        good = bytes(3073 * 2)
        if not binary:
            good = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}, 4)
        for each in names:
            (folder / each).write_bytes(data(folder) if each == name else good)
        return folder

    return make


CIFAR = [
    Case("a truncated record", _cifar("data_batch_3.bin", lambda f: bytes(3072)), "whole records"),
    Case("an empty file", _cifar("test_batch.bin", lambda f: b""), "whole records"),
    Case("a label that is no class", _cifar("test_batch.bin", lambda f: b"\xff" * 3073), "labels"),
    Case(
        "a pickle with code",
        _cifar("test_batch", lambda f: pickle.dumps(_Marks(str(f / "mark")), 2)),
        "wants to call",
    ),
    Case(
        "100 million instructions",
        _cifar("test_batch", lambda f: b"(" + b"N" * 10**8 + b"l."),
        "instructions",
    ),
    Case(
        "a key that doubles with every level",
        _cifar("test_batch", lambda f: b"\x80\x02}NN\x86" + b"q\0h\0\x86" * 64 + b"Ns."),
        "",
    ),
    Case("a truncated pickle", _cifar("test_batch", lambda f: b"\x80\x02}q"), ""),
    Case(
        "a call with a list that doubles",
        _cifar("test_batch", lambda f: b"\x80\x02]" + b"q\0h\0\x86" * 64 + b")R."),
        "no function",
    ),
]

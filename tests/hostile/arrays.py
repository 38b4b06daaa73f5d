"""Hostile .npz files."""

import io
import os
import pickle
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tests.hostile.files import (
    BAD_NAME,
    Case,
    Reduced,
    content,
    damaged,
    deflated_zeros,
    forged_zip,
    special,
)

_npz = partial(content, "w.npz")


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


def _objects(folder: Path) -> Path:
    array = np.array([Reduced(os.system, f"touch {folder / 'mark'}")] * 10, dtype=object)
    return _npz(npz_file(images=array))(folder)


def _bare_pickle(folder: Path) -> Path:
    code = pickle.dumps(Reduced(os.system, f"touch {folder / 'mark'}"))
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
    Case(
        "a member longer than the file",
        _npz(_archive(_npy((9,)), claims=2**40)),
        "takes 1099511627776 bytes",
    ),
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

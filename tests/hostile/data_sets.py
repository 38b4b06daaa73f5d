"""Hostile files of data sets: IDX, and CIFAR in its versions."""

import gzip
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.files import Case, Reduced, content, damaged, deflated_zeros, special

_idx_file = partial(content, "w")


def _idx(shape: tuple[int, ...], data: bytes, code: int = 8) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


IDX = [
    *special(""),
    Case("a text", _idx_file(b"hello world"), "not an IDX file"),
    Case("a header of 4 GB by 4 GB", _idx_file(_idx((2**32 - 1,) * 4, b"1")), "claims"),
    Case("more than there is", _idx_file(_idx((1000,), b"1")), "must hold"),
    Case("more than was said", _idx_file(_idx((1,), b"123")), "more"),
    Case("nothing", _idx_file(_idx((0, 28, 28), b"")), "no data"),
    Case("floats", _idx_file(_idx((1,), bytes(4), 13)), "not an IDX file"),
    Case("200 dimensions", _idx_file(b"\0\0\x08\xc8" + bytes(800)), "not an IDX file"),
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


def _archive(members: Callable[[tarfile.TarFile], None], **options: Any) -> Callable[[Path], Path]:
    """The .tar.gz file of CIFAR-10 with members of a stranger's making."""

    def make(folder: Path) -> Path:
        with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz", **options) as archive:
            members(archive)
        return folder

    return make


def _many(count: int) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        for number in range(count):
            archive.addfile(tarfile.TarInfo(f"{number}"))

    return add


CIFAR = [
    Case(
        "an archive with 100,000 global headers",
        _archive(_many(1000), pax_headers={f"key{n}": "" for n in range(100_000)}),
        "a header has .* bytes",
    ),
    Case("an archive of 100,000 members", _archive(_many(100_000)), "more than 1000 members"),
    Case("a truncated record", _cifar("data_batch_3.bin", lambda f: bytes(3072)), "whole records"),
    Case("an empty file", _cifar("test_batch.bin", lambda f: b""), "whole records"),
    Case("a label that is no class", _cifar("test_batch.bin", lambda f: b"\xff" * 3073), "labels"),
    Case(
        "a pickle with code",
        _cifar("test_batch", lambda f: pickle.dumps(Reduced(os.system, f"touch {f / 'mark'}"), 2)),
        "calls",
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

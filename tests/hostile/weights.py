"""Hostile checkpoints. None does harm: what code there is would make a file called ``mark``."""

import json
import os
import pickle
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tests.hostile.exported import EXPORTED
from tests.hostile.files import (
    BAD_NAME,
    Case,
    Reduced,
    content,
    damaged,
    deflated_zeros,
    forged_zip,
    link,
    safetensors,
    sparse_file,
    special,
)
from tests.hostile.models import state, torch_file
from tests.hostile.pickles import PICKLES

_pt = partial(content, "w.pt")
_safe = partial(content, "w.safetensors")

MISFIT = "does not fit the model"

_GOOD = torch_file(state())
_EMPTY = pickle.dumps({}, 2)


def _view(offset: Any, shape: Any, stride: Any) -> Any:
    """A tensor of four numbers that claims to be another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = torch.zeros(4).storage()
    return Reduced(
        torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, OrderedDict()
    )


def _claims(*view: Any) -> Callable[[Path], Path]:
    return _pt(lambda: torch_file(state(**{"3_bias": _view(*view)})))


def _storage_claims(numel: int) -> Callable[[Path], Path]:
    """The pickle says that the storage of one tensor has so many numbers."""

    def write(folder: Path) -> Path:
        pid = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpu"
        pid += b"\x8a\x08" + struct.pack("<q", numel) + b"tQ"
        size = b"\x8a\x08" + struct.pack("<q", numel) + b"\x85"
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\0" + size + b"K\1\x85\x89}tR"
        members = [("w/data.pkl", b"\x80\x02}X\1\0\0\0a" + tensor + b"s."), ("w/data/0", bytes(16))]
        return _pt(forged_zip(members))(folder)

    return write


def _quantised() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)


def _padded(length: int) -> Callable[[Path], Path]:
    """A sparse file whose end is a good archive: its directory counts from its own start."""

    def write(folder: Path) -> Path:
        path = folder / "w.pt"
        with path.open("wb") as file:
            file.write(_GOOD[:8])
            file.seek(length - len(_GOOD))
            file.write(_GOOD)
        return path

    return write


TORCH = [
    Case(
        "a bomb in a storage",
        _pt(
            lambda: forged_zip(
                [("w/data.pkl", _EMPTY), ("w/data/0", deflated_zeros(4))], method=8, claims=2**32
            )
        ),
        "",
    ),
    Case(
        "a bomb in the pickle",
        _pt(lambda: forged_zip([("w/data.pkl", deflated_zeros(4))], method=8, claims=2**32)),
        "",
    ),
    Case(
        "a pickle longer than the file", _pt(forged_zip([("w/data.pkl", _EMPTY)], claims=2**40)), ""
    ),
    Case("a storage longer than the file", _storage_claims(2**40), ""),
    Case("a storage of a negative length", _storage_claims(-4), ""),
    Case(
        "two pickles of one name",
        _pt(forged_zip([("w/data.pkl", _EMPTY), ("w/data.pkl", pickle.dumps({"a": 1}, 2))])),
        "twice|duplicate",
    ),
    Case("two pickles", _pt(forged_zip([("a/data.pkl", _EMPTY), ("b/data.pkl", _EMPTY)])), ""),
    Case("a record outside the archive", _pt(forged_zip([("../../w/data.pkl", _EMPTY)])), ""),
    Case("an absolute path", _pt(forged_zip([("/w/data.pkl", _EMPTY)])), ""),
    Case("an archive in an archive", _pt(forged_zip([("w/w.pt", _GOOD)])), ""),
    Case("an empty archive", _pt(b"PK\5\6" + bytes(18)), ""),
    Case("an encrypted record", _pt(forged_zip([("w/data.pkl", _EMPTY)], flags=1)), ""),
    Case(
        "a directory of half a million entries",
        _pt(lambda: forged_zip([("w/data.pkl", _EMPTY), ("w/data/0", b"")], count=500_000)),
        "",
    ),
    Case("a tensor larger than its storage", _claims(0, (2**40,), (1,)), ""),
    Case("a tensor past its storage", _claims(2, (3,), (1,)), ""),
    Case("a tensor before its storage", _claims(-1, (3,), (1,)), ""),
    Case("a tensor that repeats one number 2^50 times", _claims(0, (2**50,), (0,)), ""),
    Case("a tensor with a negative stride", _claims(2, (3,), (-1,)), ""),
    Case("a tensor of negative size", _claims(0, (-3,), (1,)), ""),
    Case("a size past 64 bits", _claims(0, (10**30,), (0,)), ""),
    Case("a size that is a text", _claims(0, ("3",), (1,)), ""),
    Case("a stride for no dimension", _claims(0, (3,), (1, 1)), ""),
    Case("100,000 dimensions", _claims(0, (1,) * 100_000, (1,) * 100_000), ""),
    Case("big-endian", _pt(forged_zip([("w/data.pkl", _EMPTY), ("w/byteorder", b"big")])), ""),
    Case("NaN", _pt(torch_file(state(**{"3_bias": torch.full((3,), torch.nan)}))), "NaN"),
    Case("inf", _pt(torch_file(state(**{"3_bias": torch.full((3,), torch.inf)}))), "inf"),
    Case("a meta tensor", _pt(torch_file(state(**{"3_bias": torch.zeros(3, device="meta")}))), ""),
    Case(
        "a sparse tensor",
        _pt(torch_file(state(**{"3_weight": torch.zeros(3, 2).to_sparse()}))),
        "must be a dense tensor",
    ),
    Case("a quantised tensor", _pt(torch_file(state(**{"3_bias": _quantised()}))), ""),
    Case(
        "a complex tensor",
        _pt(torch_file(state(**{"3_bias": torch.zeros(3, dtype=torch.complex64)}))),
        MISFIT,
    ),
    Case("names that print badly", _pt(torch_file({BAD_NAME: torch.zeros(1)})), MISFIT),
    Case("a name of a megabyte", _pt(torch_file({"n" * 2**20: torch.zeros(1)})), MISFIT),
    Case("no names", _pt(torch_file([torch.zeros(1)])), "must hold weights by name"),
    Case("other names", _pt(torch_file({"a": torch.zeros(1)})), MISFIT),
    Case("another shape", _pt(torch_file(state(**{"3_bias": torch.zeros(4)}))), MISFIT),
    Case(
        "another dtype",
        _pt(torch_file(state(**{"3_bias": torch.zeros(3, dtype=torch.int64)}))),
        MISFIT,
    ),
    Case(
        "a terabyte of holes beside good weights",
        _padded(2**40),
        "does not fit the model: it has 1099511627776 bytes",
    ),
    Case("a gigabyte where three numbers belong", sparse_file("w.pt", b"PK\3\4", 2**30), ""),
    *damaged(_GOOD, ".pt"),
    *damaged(torch_file(state(), _use_new_zipfile_serialization=False), ".pth"),
]

_BIAS = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}


def _st(data: int = 12, **changes: Any) -> Callable[[Path], Path]:
    return _safe(safetensors({"3.bias": {**_BIAS, **changes}}, bytes(data)))


_TWICE = f'{{"3.bias": {json.dumps(_BIAS)}, "3.bias": {json.dumps(_BIAS)}}}'.encode()
SAFETENSORS = [
    Case("a header past the end", _safe(safetensors({}, length=2**20)), ""),
    Case("a header of 2^63 bytes", _safe(safetensors({}, length=2**63)), ""),
    Case(
        "a header of 90 MB",
        sparse_file("w.safetensors", (90 * 10**6).to_bytes(8, "little") + b"{}", 10**8),
        "",
    ),
    Case(
        "50,000 tensors in the header",
        _safe(
            lambda: safetensors(
                {
                    f"{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                    for n in range(50_000)
                }
            )
        ),
        MISFIT,
    ),
    Case("offsets past the end", _st(data_offsets=[0, 120]), ""),
    Case("offsets in reverse", _st(data_offsets=[12, 0]), ""),
    Case("offsets of another length", _st(data_offsets=[0, 8]), ""),
    Case("negative offsets", _st(data_offsets=[-12, 0]), ""),
    Case("offsets past 64 bits", _st(data_offsets=[0, 10**30]), ""),
    Case("tensors that overlap", _safe(safetensors({"a": _BIAS, "b": _BIAS}, bytes(12))), ""),
    Case(
        "a hole between tensors",
        _safe(safetensors({"a": _BIAS, "b": {**_BIAS, "data_offsets": [24, 36]}}, bytes(36))),
        "",
    ),
    Case("an absurd shape", _st(shape=[2**60, 2**60]), ""),
    Case("a shape that overflows to the right size", _st(shape=[2**62, 4]), ""),
    Case("a shape of nothing", _st(data=0, shape=[0], data_offsets=[0, 0]), MISFIT),
    Case("a shape of texts", _st(shape=["3"]), ""),
    Case("one name twice", _safe(safetensors(_TWICE, bytes(12))), "twice"),
    Case("an unknown dtype", _st(dtype="F33"), ""),
    Case("a dtype of half a byte", _st(data=4, dtype="F4", shape=[8], data_offsets=[0, 4]), ""),
    Case("no JSON", _safe(safetensors(b"{" * 64)), ""),
    Case("deep JSON", _safe(safetensors(b'{"a":' * 10**5 + b"1" + b"}" * 10**5)), ""),
    Case("a list", _safe(safetensors([1])), ""),
    Case("no offsets", _safe(safetensors({"a": {"dtype": "F32"}})), ""),
    Case("metadata of numbers", _safe(safetensors({"__metadata__": {"a": 1}})), ""),
    Case("data that nothing asks for", _safe(save(state()) + b"more"), ""),
    Case("names that print badly", _safe(save({BAD_NAME: torch.zeros(1)})), MISFIT),
    Case("a key error that prints badly", _safe(safetensors({BAD_NAME: BAD_NAME})), ""),
    Case("NaN", _safe(save(state(**{"3_bias": torch.full((3,), torch.nan)}))), "NaN"),
    Case("inf", _safe(save(state(**{"3_bias": torch.full((3,), torch.inf)}))), "inf"),
    Case(
        "complex", _safe(save(state(**{"3_bias": torch.zeros(3, dtype=torch.complex64)}))), MISFIT
    ),
    Case("another shape", _safe(save(state(**{"3_bias": torch.zeros(4)}))), MISFIT),
    Case(
        "a pickle with code",
        lambda folder: _safe(pickle.dumps(Reduced(os.system, f"touch {folder / 'mark'}")))(folder),
        "",
    ),
    *damaged(save(state()), ".safetensors"),
]

OTHER = [
    *special(".pt"),
    *special(".safetensors"),
    Case("a text", _pt(b"hello"), ""),
    Case(
        "a pointer of git lfs",
        _safe(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "",
    ),
    Case("a page that says log in", _pt(b"<!DOCTYPE html><html>log in</html>"), ""),
    Case("the other format", _pt(save(state())), ""),
    Case("the other format", _safe(_GOOD), ""),
    Case("another suffix", content("w.onnx", _GOOD), "must be in a file ending in"),
    Case("no suffix", content("w", _GOOD), "must be in a file ending in"),
    Case(
        "a suffix that prints badly", content(f"w.{BAD_NAME}", _GOOD), "must be in a file ending in"
    ),
    Case("a device", lambda folder: Path("/dev/zero"), "must be in a file ending in"),
    Case(
        "a folder in the way", lambda folder: content("x", b"")(folder) / "w.pt", "Not a directory"
    ),
    Case("a link out of the folder to nothing", link("w.pt", "/nowhere/w.pt"), "No such file"),
]

WEIGHTS = [*PICKLES, *TORCH, *SAFETENSORS, *EXPORTED, *OTHER]

"""Hostile checkpoints. None does harm: what code there is would make a file called ``mark``."""

import builtins
import io
import json
import os
import pickle
import struct
import tarfile
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from tests.hostile.files import (
    BAD_NAME,
    LOADS,
    Case,
    content,
    damaged,
    deflated_zeros,
    forged_zip,
    link,
    safetensors,
    sparse_file,
    special,
)

_pt = partial(content, "w.pt")
_safe = partial(content, "w.safetensors")

CODE = "holds more than tensors .*refused"
MISFIT = "does not fit the model"


def net(seed: int = 0) -> nn.Module:
    """The model that every file is loaded into."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


def state(**changes: Any) -> dict[str, Any]:
    """Weights that fit, some of them replaced."""
    return {**net(1).state_dict(), **{n.replace("_", ".", 1): v for n, v in changes.items()}}


def torch_file(held: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(held, buffer, **options)
    return buffer.getvalue()


class Reduced:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _with_code(make: Callable[[str], Any], **options: Any) -> Callable[[Path], Path]:
    """Weights that fit, and beside them something that would make the file ``mark``."""

    def write(folder: Path) -> Path:
        held = {"state_dict": state(), "extra": make(str(folder / "mark"))}
        return _pt(torch_file(held, **options))(folder)

    return write


def _raw_pickle(make: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    """A zip archive as torch writes it, with a pickle written by hand."""

    def write(folder: Path) -> Path:
        pickled = make(str(folder / "mark").encode())
        members = [("w/data.pkl", pickled), ("w/version", b"3\n")]
        return _pt(forged_zip(members))(folder)

    return write


def _tar(folder: Path) -> Path:
    """The oldest format, which torch once read by the ordinary unpickler whatever it was told."""
    code = pickle.dumps(Reduced(os.system, f"touch {folder / 'mark'}"), 2)
    with tarfile.open(folder / "w.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(code)
            archive.addfile(member, io.BytesIO(code))
    return folder / "w.tar"


def _script(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net().eval(), torch.zeros(1, 1, 3, 3)).save(str(folder / "w.pt"))
    return folder / "w.pt"


def _pickle_of(obj: Any) -> bytes:
    return pickle.dumps(obj, 2)


def _touch(mark: bytes) -> bytes:
    text = b"touch " + mark
    return b"X" + len(text).to_bytes(4, "little") + text


PICKLES = [
    Case("os.system", _with_code(lambda m: Reduced(os.system, f"touch {m}")), rf"{CODE}.*sandbox"),
    Case("eval", _with_code(lambda m: Reduced(builtins.eval, f"open({m!r}, 'w')")), CODE),
    Case(
        "code of torch that runs commands",
        _with_code(lambda m: Reduced(torch.utils.collect_env.run, f"touch {m}")),
        CODE,
    ),
    Case(
        "code in protocol 4",
        _with_code(lambda m: Reduced(os.system, f"touch {m}"), pickle_protocol=4),
        CODE,
    ),
    Case(
        "code in the legacy format",
        _with_code(
            lambda m: Reduced(os.system, f"touch {m}"), _use_new_zipfile_serialization=False
        ),
        CODE,
    ),
    Case("code in the tar format", _tar, ""),
    Case(
        "a call of what a call returned",
        _raw_pickle(
            lambda m: (
                b"\x80\x02cbuiltins\ngetattr\ncos\n__dict__\nX\x06\0\0\0system\x86R"
                + _touch(m)
                + b"\x85R."
            )
        ),
        CODE,
    ),
    Case(
        "a class instead of a function",
        _raw_pickle(lambda m: b"(" + _touch(m) + b"ios\nsystem\n."),
        "",
    ),
    Case(
        "an object built from its parts",
        _raw_pickle(lambda m: b"(cos\nsystem\n" + _touch(m) + b"o."),
        CODE,
    ),
    Case(
        "a dotted name below torch",
        _raw_pickle(
            lambda m: (
                b"\x80\x04\x8c\x05torch\x8c\x17serialization.os.system\x93" + _touch(m) + b"\x85R."
            )
        ),
        CODE,
    ),
    Case("a registered extension", _raw_pickle(lambda m: b"\x82\x01" + _touch(m) + b"\x85R."), ""),
    Case(
        "a name with escape codes",
        _raw_pickle(lambda m: b"c\x1b[2Jos\nsystem\n" + _touch(m) + b"\x85R."),
        CODE,
    ),
    Case("a whole model", _pt(torch_file(net())), rf"{CODE}.*save_file"),
    Case("numpy objects", _with_code(lambda m: __import__("numpy").float64(1)), CODE),
    Case("TorchScript", _script, "TorchScript"),
    Case("a bare pickle", _pt(pickle.dumps({"a": 1})), ""),
    Case(
        "a tensor of four terabytes beside the weights",
        _pt(torch_file({"state_dict": state(), "x": Reduced(torch.Tensor, 2**40)})),
        LOADS,
    ),
    Case(
        "a buffer of a terabyte beside the weights",
        _pt(torch_file({"state_dict": state(), "x": Reduced(bytearray, 2**40)})),
        LOADS,
    ),
    Case(
        "lists 100,000 deep",
        _raw_pickle(lambda m: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "it holds a list",
    ),
    Case(
        "40 million instructions",
        _raw_pickle(lambda m: b"\x80\x02(" + b"N" * 40_000_000 + b"l."),
        "",
    ),
    Case(
        "a key that doubles with every level",
        _raw_pickle(lambda m: b"\x80\x02}NN\x86" + b"q\0h\0\x86" * 64 + b"Ns."),
        "must hold weights by name",
    ),
    Case(
        "a text that ends after the file", _raw_pickle(lambda m: b"\x80\x02X\xff\xff\xff\xffa."), ""
    ),
    Case("an empty stack", _raw_pickle(lambda m: b"\x80\x02R."), ""),
    Case("a memo that is not there", _raw_pickle(lambda m: b"\x80\x02h\x07."), ""),
    Case("no end", _raw_pickle(lambda m: b"\x80\x02}"), ""),
]

_GOOD = torch_file(state())
_EMPTY = _pickle_of({})


def _view(offset: Any, shape: Any, stride: Any) -> Any:
    """A tensor of four numbers that claims to be another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = torch.zeros(4).storage()
    return Reduced(
        torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, OrderedDict()
    )


def _claims(*view: Any) -> Callable[[Path], Path]:
    return _pt(torch_file(state(**{"3_bias": _view(*view)})))


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
        _pt(forged_zip([("w/data.pkl", _EMPTY), ("w/data.pkl", _pickle_of({"a": 1}))])),
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

WEIGHTS = [*PICKLES, *TORCH, *SAFETENSORS, *OTHER]

"""Checkpoints with code in their pickles: it would make a file called ``mark``."""

import builtins
import io
import os
import pickle
import struct
import tarfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.hostile.files import LOADS, Case, Reduced, content, forged_zip
from tests.hostile.models import net, state, torch_file

_pt = partial(content, "w.pt")
CODE = "holds more than tensors .*refused"


def _with_code(make: Callable[[str], Any], **options: Any) -> Callable[[Path], Path]:
    """Weights that fit, and beside them something that would make the file ``mark``."""

    def write(folder: Path) -> Path:
        held = {"state_dict": state(), "extra": make(str(folder / "mark"))}
        return _pt(torch_file(held, **options))(folder)

    return write


def raw_pickle(make: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
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


def _bare(folder: Path) -> Path:
    return _pt(pickle.dumps(Reduced(os.system, f"touch {folder / 'mark'}"), 4))(folder)


def _script(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net().eval(), torch.zeros(1, 1, 3, 3)).save(str(folder / "w.pt"))
    return folder / "w.pt"


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
        raw_pickle(
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
        raw_pickle(lambda m: b"(" + _touch(m) + b"ios\nsystem\n."),
        "",
    ),
    Case(
        "an object built from its parts",
        raw_pickle(lambda m: b"(cos\nsystem\n" + _touch(m) + b"o."),
        CODE,
    ),
    Case(
        "a dotted name below torch",
        raw_pickle(
            lambda m: (
                b"\x80\x04\x8c\x05torch\x8c\x17serialization.os.system\x93" + _touch(m) + b"\x85R."
            )
        ),
        CODE,
    ),
    Case("a registered extension", raw_pickle(lambda m: b"\x82\x01" + _touch(m) + b"\x85R."), ""),
    Case(
        "a name with escape codes",
        raw_pickle(lambda m: b"c\x1b[2Jos\nsystem\n" + _touch(m) + b"\x85R."),
        CODE,
    ),
    Case("a whole model", _pt(torch_file(net())), rf"{CODE}.*save_file"),
    Case("numpy objects", _with_code(lambda m: __import__("numpy").float64(1)), CODE),
    Case("TorchScript", _script, "TorchScript"),
    Case("code in a bare pickle", _bare, CODE),
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
        raw_pickle(lambda m: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "it holds a list",
    ),
    Case(
        "40 million instructions",
        raw_pickle(lambda m: b"\x80\x02(" + b"N" * 40_000_000 + b"l."),
        "",
    ),
    Case(
        "a key that doubles with every level",
        raw_pickle(lambda m: b"\x80\x02}NN\x86" + b"q\0h\0\x86" * 64 + b"Ns."),
        "must hold weights by name",
    ),
    Case(
        "a text that ends after the file", raw_pickle(lambda m: b"\x80\x02X\xff\xff\xff\xffa."), ""
    ),
    Case(
        "a key of 10,000 digits",
        raw_pickle(lambda m: b"\x80\x02}\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000 + b"Ns."),
        "w.pt must hold weights by name",
    ),
    Case("an empty stack", raw_pickle(lambda m: b"\x80\x02R."), ""),
    Case("a memo that is not there", raw_pickle(lambda m: b"\x80\x02h\x07."), ""),
    Case("no end", raw_pickle(lambda m: b"\x80\x02}"), ""),
]

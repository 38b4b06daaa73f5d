"""Checkpoints with code in their pickles: it would make a file called ``mark``."""

import builtins
import io
import os
import pickle
import struct
import subprocess
import tarfile
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.hostile.files import LOADS, Case, Reduced, content, forged_zip
from tests.hostile.models import net, state, torch_file

_pt = partial(content, "w.pt")
MISFIT = "does not fit the model"
CODE = "holds more than tensors .*refused"


class Config(dict[str, Any]):
    """A dictionary of another class, as settings are."""


class Other(nn.Module):
    """A class that no library has."""


def _hooked() -> nn.Module:
    model = net()
    model.register_forward_pre_hook(os.getpid)  # type: ignore[arg-type]
    return model


def _endless() -> nn.Module:
    model = net()
    model._modules["again"] = model
    return model


def _doubled() -> nn.Module:
    model = net()
    for _ in range(30):
        model = nn.Sequential(model, model)
    return model


class Acts:
    """Makes a file when it is made by a pickle, gets its state, or is copied."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["mark"]).touch()


def _with_code(make: Callable[[str], Any], **options: Any) -> Callable[[Path], Path]:
    """Weights that fit, and beside them something that would make the file ``mark``."""

    def write(folder: Path) -> Path:
        held = {"state_dict": state(), "extra": make(str(folder / "mark"))}
        return _pt(torch_file(held, **options))(folder)

    return write


def _prefixed(count: int) -> bytes:
    """Tensors under many prefixes, one name lacking under each."""
    names = [name for name in state() if name != "3.bias"]
    return torch_file({f"p{i}.{name}": torch.zeros(()) for i in range(count) for name in names})


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
    Case("a whole model", _pt(torch_file(net())), LOADS),
    Case(
        "a whole model of other classes",
        _pt(torch_file(nn.Sequential(*net(), Other()))),
        "holds an object of torch.*refused.*save_file",
    ),
    Case(
        "a whole model with a hook", _pt(torch_file(_hooked())), "holds an object of torch.*refused"
    ),
    Case("a module within itself", _pt(torch_file(_endless())), "nested without end"),
    Case(
        "modules that double",
        _pt(torch_file(_doubled())),
        "nested without end",
    ),
    Case(
        "a whole model beside a name",
        _pt(torch_file({"model": net(), "epoch": 1})),
        "'model' must be a dense tensor, it is an object of torch.*refused.*save_file",
    ),
    Case("numpy objects", _with_code(lambda m: np.float64(1)), LOADS),
    Case("a namespace of paths", _with_code(lambda m: Namespace(out=PurePosixPath(m))), LOADS),
    Case("a random generator", _with_code(lambda m: np.random.default_rng(0)), LOADS),
    Case(
        "settings in protocol 5",
        _with_code(lambda m: [{1}, Namespace(a=np.arange(3))], pickle_protocol=5),
        LOADS,
    ),
    Case("an object that acts when it is made", _with_code(Acts), LOADS),
    Case(
        "a class that starts a program, made without a call",
        raw_pickle(lambda m: b"\x80\x02csubprocess\nPopen\n" + _touch(m) + b"\x85\x81."),
        CODE,
    ),
    Case(
        "a class that starts a program, called",
        _with_code(lambda m: Reduced(subprocess.Popen, ["touch", m])),
        CODE,
    ),
    Case(
        "code inside the arguments of a harmless class",
        _with_code(lambda m: Namespace(a=[Reduced(os.system, f"touch {m}")])),
        CODE,
    ),
    Case(
        "a function of a library, by a dotted name",
        raw_pickle(
            lambda m: (
                b"\x80\x04\x8c\x08argparse\x8c\x14Namespace.os.systemX\x93"
                + _touch(m)
                + b"\x85\x81."
            )
        ),
        CODE,
    ),
    Case(
        "weights in a dictionary of an unknown class",
        _pt(torch_file({"state_dict": Config(state())})),
        "'state_dict' must be a dense tensor, it is an object of .*Config: refused",
    ),
    Case(
        "a weight of an unknown class",
        _pt(torch_file(state(**{"3_bias": Namespace(a=torch.zeros(3))}))),
        r"does not fit the model: it lacks '3\.bias'",
    ),
    Case(
        "a weight whose storage is an unknown object",
        _pt(
            torch_file(
                state(
                    **{
                        "3_bias": Reduced(
                            torch._utils._rebuild_tensor_v2, Namespace(), 0, (3,), (1,), False, {}
                        )
                    }
                )
            )
        ),
        "'3.bias' must be a dense tensor, it is a tensor of an odd storage",
    ),
    Case(
        "two copies of the weights under two prefixes",
        _pt(torch_file({f"{p}.{n}": v for p in "ab" for n, v in state().items()})),
        "twice: under 'a.' and 'b.'",
    ),
    Case(
        "3,000 prefixes with all names but one",
        _pt(lambda: _prefixed(3000)),
        MISFIT,
    ),
    Case(
        "an average over training with NaN",
        _pt(
            torch_file(
                {
                    "state_dict": state(),
                    "state_dict_ema": state(**{"3_bias": torch.full((3,), torch.nan)}),
                }
            )
        ),
        "NaN",
    ),
    Case(
        "an unknown object filled a million times",
        raw_pickle(lambda m: b"\x80\x02ca\nB\n)\x81" + b"(" + b"N" * 10**6 + b"e."),
        "it holds an object of a.B: refused",
    ),
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

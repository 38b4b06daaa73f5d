# SPDX-License-Identifier: Apache-2.0
"""Hostile ONNX files: the graph is read without its library and run by a list of operators."""

from pathlib import Path
from typing import Any

import numpy as np

from d3fast.hub import Request, resolve
from tests.hostile.files import Case, content, damaged, sparse_file, special
from tests.io.onnx_files import classifier, declared, field, graph, model, node, tensor

NAME = "w.onnx"


def resolve_onnx(path: Path) -> Any:
    """Resolve a file as the commands do."""
    return resolve(Request(str(path)))


def _file(*args: Any, **options: Any) -> Any:
    return content(NAME, lambda: model(*args, **options))


def _outside(location: str, **more: str) -> Any:
    entries = {"location": location, **more}
    parts = [field(13, field(1, key) + field(2, text)) for key, text in entries.items()]
    held = tensor("w", np.zeros((16, 3), "float32"), *parts, field(14, 1), raw=False)
    return _file([node("Flatten", "x", "f"), node("MatMul", "f w", "y")], [held])


def _linked(folder: Path) -> Path:
    """Tensors in a link to a file outside of the folder."""
    outside = folder.parent / f"{folder.name}.secret"
    outside.write_bytes(bytes(192))
    (folder / "m.data").symlink_to(outside)
    return _outside("m.data")(folder)


def _ints(*values: int) -> Any:
    return tensor("t", np.array(values, "int64"))


def _doubling(steps: int) -> Any:
    """Each step doubles a value: a few hundred bytes, 2^steps numbers."""
    nodes = [node("Concat", f"v{n} v{n}", f"v{n + 1}", axis=1) for n in range(steps)]
    first = node("Flatten", "x", "v0")
    return _file([first, *nodes, node("Identity", f"v{steps}", "y")])


def _body() -> bytes:
    return field(1, "body") + field(6, graph([node("Relu", "a", "b")])) + field(20, 5)


_LOOP = node("Loop", "n c x", "y") + field(5, _body())
_CODE = "__import__('os').system('touch mark')"

ONNX = [
    *special(".onnx"),
    *damaged(classifier(), ".onnx"),
    Case("no graph", content(NAME, field(1, 8)), "0 graphs"),
    Case("a million fields", content(NAME, field(1, 0) * (2**20 + 1)), "fields"),
    Case("empty nodes", _file([b""] * 30_000), "20000 nodes"),
    Case("nested types", _file([], more=field(11, declared("x" * 5000, 1, [1]))), "5000 bytes"),
    Case("a terabyte of zeros", sparse_file(NAME, b"", 2**40), "damaged"),
    Case(
        "a tensor of terabytes",
        _file([], [tensor("w", np.zeros(1, "float32"), field(1, 2**38))]),
        "needs",
    ),
    Case("a path out of the folder", _outside("../../etc/passwd"), "no relative path"),
    Case("an absolute path", _outside("/etc/passwd"), "no relative path"),
    Case("a link out of the folder", _linked, "leads out"),
    Case("a tensor past its file", _outside(NAME, offset="9" * 14), "ends at byte"),
    Case("an endless number", _outside(NAME, offset="9" * 5000), "longer|more than|no position"),
    Case(
        "a custom operator", _file([node("Any", "x", "y", domain="evil")]), "only operators of ONNX"
    ),
    Case("an operator that is Python", _file([node(_CODE, "x", "y")]), "operator"),
    Case(
        "an equation that is Python",
        _file([node("Einsum", "x", "y", equation=_CODE)]),
        "does not run",
    ),
    Case("a loop", _file([_LOOP]), "loops"),
    Case(
        "a graph in a circle",
        _file([node("Add", "x y", "z"), node("Relu", "z", "y")]),
        "before it is made",
    ),
    Case("a value twice", _file([node("Relu", "x", "y")] * 2), "twice"),
    Case("doubling", _doubling(60), "a value of"),
    Case(
        "many values", _file([node("Concat", "x " * 10**5, "y", axis=1)]), "no row|too large|value"
    ),
    Case(
        "a tile of terabytes", _file([node("Tile", "x t", "y")], [_ints(1, 2**40, 1, 1)]), "a value"
    ),
    Case(
        "a shape of terabytes",
        _file([node("ConstantOfShape", "t", "y")], [_ints(2**40)]),
        "a value",
    ),
    Case(
        "a shape past 64 bits", _file([node("Expand", "x t", "y")], [_ints(2**62, 2**62, 1, 1)]), ""
    ),
    Case(
        "a range without end",
        _file(
            [node("Range", "a b c", "y")],
            [
                tensor(name, np.array(value, "int64"))
                for name, value in (("a", 0), ("b", 2**60), ("c", 1))
            ],
        ),
        "",
    ),
    Case(
        "an input of terabytes",
        _file([node("Flatten", "x", "y")], shape=(1, 3, 2**20, 2**20)),
        "too large",
    ),
    Case(
        "a million images at a time",
        _file([node("Flatten", "x", "y")], shape=(10**6, 1, 4, 4)),
        "at a time",
    ),
    Case(
        "a negative group",
        _file(
            [node("Conv", "x t", "y", group=-1)], [tensor("t", np.zeros((1, 1, 1, 1), "float32"))]
        ),
        "",
    ),
    Case(
        "a stride of zero",
        _file(
            [node("Conv", "x t", "y", strides=[0, 0])],
            [tensor("t", np.zeros((1, 1, 1, 1), "float32"))],
        ),
        "",
    ),
    Case("a window of nothing", _file([node("MaxPool", "x", "y", kernel_shape=[0, 0])]), ""),
    Case("a name of control characters", _file([node("\x1b[31m\n", "x", "y")]), r"x1b"),
    Case(
        "NaN",
        content(
            NAME,
            lambda: classifier(
                given={
                    "conv.weight": np.full((2, 1, 3, 3), np.nan, "float32"),
                    "conv.bias": np.zeros(2, "float32"),
                    "fc.weight": np.zeros((3, 32), "float32"),
                    "fc.bias": np.zeros(3, "float32"),
                }
            ),
        ),
        "NaN",
    ),
]

# SPDX-License-Identifier: Apache-2.0
"""Hostile graphs in archives of ``torch.export``: plain JSON, run by a list of operators."""

import json
from typing import Any

from d3fast.hub import Request, resolve
from tests.hostile.files import Case, content, damaged, forged_zip

_WEIGHTS = "w/data/weights/model_weights_config.json"


def resolve_archive(path: Any) -> Any:
    """Resolve a file as the commands do."""
    return resolve(Request(str(path)))


def _value(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def _node(target: str, output: str = "y", **given: Any) -> dict[str, Any]:
    inputs = [{"name": name, "arg": each} for name, each in {"self": _value("x"), **given}.items()]
    return {"target": target, "inputs": inputs, "outputs": [_value(output)]}


def _archive(*nodes: dict[str, Any], sizes: tuple[int, ...] = (2, 1, 4, 4)) -> bytes:
    meta = {"sizes": [{"as_int": size} for size in sizes], "dtype": 7}
    signature = {
        "input_specs": [{"user_input": {"arg": _value("x")}}],
        "output_specs": [{"user_output": {"arg": _value("y")}}],
    }
    graph = {"nodes": list(nodes), "tensor_values": {"x": meta}}
    held = {"graph_module": {"graph": graph, "signature": signature}}
    return _zip(json.dumps(held).encode())


def _zip(graph: bytes) -> bytes:
    members = [("w/byteorder", b"little"), (_WEIGHTS, b'{"config": {}}')]
    return forged_zip([*members, ("w/models/model.json", graph)])


def _case(name: str, says: str, *nodes: dict[str, Any], **options: Any) -> Case:
    return Case(name, content("w.pt2", lambda: _archive(*nodes, **options)), says)


_ATEN = "torch.ops.aten"
_HUGE = {"as_ints": [2, 2**40, 4, 4]}
_DOUBLE = [
    {
        "target": f"{_ATEN}.cat.default",
        "inputs": [{"name": "tensors", "arg": {"as_tensors": [{"name": f"v{n}"}] * 2}}],
        "outputs": [_value(f"v{n + 1}")],
    }
    for n in range(60)
]

PROGRAMS = [
    _case("a function of Python", "not run", _node("os.system", command={"as_string": "true"})),
    _case("an operator with effects", "not run", _node(f"{_ATEN}.set_.source_Tensor")),
    _case("a file that is read", "not run", _node(f"{_ATEN}.from_file.default")),
    _case("another library", "not run", _node("torch.ops.evil.run.default")),
    _case("a graph as an argument", "as_graph", _node(f"{_ATEN}.relu.default", f={"as_graph": {}})),
    _case("terabytes", "a value of", _node(f"{_ATEN}.expand.default", size=_HUGE)),
    _case(
        "doubling",
        "a value of",
        _node(f"{_ATEN}.alias.default", "v0"),
        *_DOUBLE,
        {**_node(f"{_ATEN}.alias.default"), "inputs": [{"name": "self", "arg": _value("v60")}]},
    ),
    _case(
        "a huge number", "no sizes", _node("_operator.pow", a={"as_int": 10}, b={"as_int": 10**9})
    ),
    _case("a circle", "before it is made", _node(f"{_ATEN}.add.Tensor", other=_value("y"))),
    _case("a missing value", "before it is made", _node(f"{_ATEN}.add.Tensor", other=_value("q"))),
    _case(
        "arguments that nobody takes", "does not run", _node(f"{_ATEN}.relu.default", b=_value("x"))
    ),
    _case(
        "images of terabytes",
        "too large",
        _node(f"{_ATEN}.relu.default"),
        sizes=(1, 3, 2**20, 2**20),
    ),
    Case("no graph", content("w.pt2", _zip(b"{}")), "graph_module"),
    Case(
        "deep JSON", content("w.pt2", lambda: _zip(b'{"a":' * 10**5 + b"1" + b"}" * 10**5)), "deep"
    ),
    *damaged(_archive(_node(f"{_ATEN}.relu.default")), ".pt2"),
]

# SPDX-License-Identifier: Apache-2.0
"""The graph of a ``torch.export`` archive as plain data, checked field by field.

Sizes that the file writes as expressions are free sizes here: their text is never evaluated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from d3fast.hub.programs.onnx_shapes import computed_dtype
from d3fast.io.exported_file import DTYPES
from d3fast.io.untrusted import printable

_MAX_NODES = 20_000
_MAX_LIST = 1000
_PLAIN: Mapping[str, tuple[type, ...]] = {
    "as_int": (int,),
    "as_float": (float, int),
    "as_bool": (bool,),
    "as_string": (str,),
}
_LISTS: Mapping[str, tuple[type, ...]] = {
    "as_ints": (int,),
    "as_floats": (float, int),
    "as_bools": (bool,),
}
_LEFT_OUT = ("as_memory_format", "as_layout", "as_device")


@dataclass(frozen=True)
class Value:
    """An argument that is a value of the graph."""

    name: str


@dataclass(frozen=True)
class AtenNode:
    """One operation of a graph.

    Attributes:
        target: name of the operator, such as ``"conv2d.default"``.
        arguments: name and value of each; ``Value`` for values of the graph, alone or in lists.
        outputs: names of values.
    """

    target: str
    arguments: tuple[tuple[str, Any], ...]
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values that it reads."""
        return tuple(name for _, given in self.arguments for name in _names(given))


def _names(given: Any) -> list[str]:
    if isinstance(given, Value):
        return [given.name]
    return [name for each in given for name in _names(each)] if isinstance(given, list) else []


@dataclass(frozen=True)
class AtenGraph:
    """A graph.

    Attributes:
        nodes: in their order.
        weights: name of the tensor of the file for each value that is one.
        trained: values that are parameters.
        inputs: values that the user gives.
        outputs: values that the user gets.
        shape: of the first input, ``None`` for free sizes.
        dtype: of the first input.
    """

    nodes: tuple[AtenNode, ...]
    weights: Mapping[str, str]
    trained: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: tuple[int | None, ...] | None
    dtype: torch.dtype | None


def _get(held: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(held, dict) or key not in held:
            raise ValueError(f"its graph lacks {'.'.join(keys)}")
        held = held[key]
    return held


def _list(held: Any, *keys: str) -> list[Any]:
    found = _get(held, *keys)
    if not isinstance(found, list) or len(found) > _MAX_NODES:
        raise ValueError(f"its graph has no list of at most {_MAX_NODES} {'.'.join(keys)}")
    return found


def _text(held: Any, *keys: str) -> str:
    found = _get(held, *keys)
    if not isinstance(found, str) or len(found) > _MAX_LIST:
        raise ValueError(f"its graph has no name as {'.'.join(keys)}")
    return found


def _one(held: Any) -> tuple[str, Any]:
    """Return kind and content of an object with one entry, as unions are stored."""
    if not isinstance(held, dict) or len(held) != 1:
        raise ValueError("its graph has an argument of several kinds or none")
    return next(iter(held.items()))


def _argument(given: Any) -> Any:
    """Return an argument; ``NotImplemented`` for one that is left out."""
    kind, held = _one(given)
    if kind == "as_none":
        return None
    if kind in _LEFT_OUT:
        return NotImplemented
    if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        return _size(held) if kind != "as_tensor" else Value(_text(held, "name"))
    if kind == "as_scalar_type":
        dtype = DTYPES.get(held) if isinstance(held, int) else None
        if dtype is None:
            raise ValueError("its graph has a dtype that is not known")
        return computed_dtype(dtype)
    if kind in _PLAIN and type(held) in _PLAIN[kind]:
        return held
    if not isinstance(held, list) or len(held) > _MAX_LIST:
        raise ValueError(f"its graph has an argument of the kind {printable(kind, 40)}")
    if kind in _LISTS and all(type(each) in _LISTS[kind] for each in held):
        return held
    if kind == "as_tensors":
        return [Value(_text(each, "name")) for each in held]
    if kind == "as_optional_tensors":
        return [_argument(each) for each in held]
    if kind == "as_sym_ints":
        return [_size(each) for each in held]
    raise ValueError(f"its graph has an argument of the kind {printable(kind, 40)}")


def _size(given: Any) -> Any:
    """Return a whole number, or the value that is one."""
    kind, held = _one(given)
    if kind == "as_name" and isinstance(held, str):
        return Value(held)
    if kind in ("as_int", "as_float", "as_bool") and type(held) in (int, float, bool):
        return held
    raise ValueError("its graph has a size that is neither a number nor a value")


def _outputs(given: Any) -> list[str]:
    kind, held = _one(given)
    if kind == "as_tensors" and isinstance(held, list):
        return [_text(each, "name") for each in held]
    if kind == "as_none":
        return [""]
    return [_text(held, "name" if kind == "as_tensor" else "as_name")]


def _node(given: Any) -> AtenNode:
    arguments = [
        (_text(each, "name"), _argument(_get(each, "arg"))) for each in _list(given, "inputs")
    ]
    kept = tuple(each for each in arguments if each[1] is not NotImplemented)
    outputs = tuple(name for each in _list(given, "outputs") for name in _outputs(each))
    target = _text(given, "target")
    return AtenNode(target.removeprefix("torch.ops.aten."), kept, outputs)


def read_graph(held: Mapping[str, Any]) -> AtenGraph:
    """Return the graph of ``models/model.json``.

    Raises:
        ValueError: a graph of another form, with what is wrong.
    """
    graph = _get(held, "graph_module", "graph")
    nodes = tuple(map(_node, _list(graph, "nodes")))
    weights: dict[str, str] = {}
    trained, inputs = set[str](), list[str]()
    for spec in _list(held, "graph_module", "signature", "input_specs"):
        kind, given = _one(spec)
        if kind == "user_input":
            inputs.append(_text(given, "arg", "as_tensor", "name"))
            continue
        if kind not in ("parameter", "buffer", "tensor_constant"):
            raise ValueError(f"its graph has an input of the kind {printable(kind, 40)}")
        name = _text(given, "arg", "name")
        weights[name] = _text(given, f"{kind}_name")
        if kind == "parameter":
            trained.add(name)
    specs = map(_one, _list(held, "graph_module", "signature", "output_specs"))
    outputs = [
        _text(given, "arg", "as_tensor", "name") for kind, given in specs if kind == "user_output"
    ]
    shape, dtype = None, None
    if len(inputs) == 1:
        meta = _get(graph, "tensor_values", inputs[0])
        sizes = _list(meta, "sizes")
        shape = tuple(each.get("as_int") if isinstance(each, dict) else None for each in sizes)
        if any(each is not None and type(each) is not int for each in shape):
            raise ValueError("its input has impossible sizes")
        number = _get(meta, "dtype")
        dtype = DTYPES.get(number) if isinstance(number, int) else None
    return AtenGraph(
        nodes, weights, frozenset(trained), tuple(inputs), tuple(outputs), shape, dtype
    )

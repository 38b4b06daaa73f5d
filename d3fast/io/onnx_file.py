# SPDX-License-Identifier: Apache-2.0
"""ONNX files: the nodes of the graph as plain data, and tensors that are still in the file.

Nothing is run here. The messages are those of onnx.proto3 of ONNX 1.23 (IR version 14); the library
itself is not used, because its parser makes objects of a hundred bytes from two bytes of a file.
Other IR versions have the same fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from d3fast.io.onnx_tensors import DTYPES, MAX_NAME, StoredTensor, TensorReader, number_of, span_of
from d3fast.io.protobuf import Messages, Span
from d3fast.io.untrusted import error_text, open_regular, printable

MAX_NODES = 20_000
_MAX_TENSORS = 70_000
_MAX_TEXT = 2**16
_MAX_LIST = 2**16  # numbers of an attribute
_MAX_REST = 2**20  # bytes that tensors may share


@dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Attributes:
        op: name of the operator.
        domain: of the operator; empty for those of ONNX itself.
        inputs: names of values; empty for an input that is left out.
        outputs: names of values.
        attributes: numbers, texts, lists of them, a ``StoredTensor``, or ``None`` for others.
    """

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Declared:
    """An input of the graph: its name, its dtype, and its shape with ``None`` for free sizes."""

    name: str
    dtype: torch.dtype | None
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class OnnxFile:
    """The graph of a file.

    Attributes:
        opset: version of the operators.
        producer: the software that wrote the file, as it names itself.
        nodes: in the order of the file.
        tensors: by name.
        inputs: without the tensors.
        outputs: names.
    """

    opset: int
    producer: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, StoredTensor]
    inputs: tuple[Declared, ...]
    outputs: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that hold its tensors, each once."""
        return tuple(dict.fromkeys(tensor.path for tensor in self.tensors.values()))


class _Reader:
    """Reads the messages of one file."""

    def __init__(self, messages: Messages, path: Path) -> None:
        self.messages, self.tensors = messages, TensorReader(messages, path)

    def name(self, value: int | Span) -> str:
        return self.messages.text(span_of(value), MAX_NAME)

    def model(self) -> OnnxFile:
        graphs: list[Span] = []
        opsets: dict[str, int] = {}
        producer = ""
        for number, value in self.messages.fields(self.messages.whole):
            if number == 2:
                producer = printable(self.name(value), 60)
            elif number == 7:
                graphs.append(span_of(value))
            elif number == 8:
                domain, version = self.opset(span_of(value))
                opsets[domain] = version
        if len(graphs) != 1:
            raise ValueError(f"it holds {len(graphs)} graphs instead of one")
        found = self.graph(graphs[0])
        return replace(found, opset=opsets.get("", opsets.get("ai.onnx", 0)), producer=producer)

    def opset(self, message: Span) -> tuple[str, int]:
        domain, version = "", 0
        for number, value in self.messages.fields(message):
            if number == 1:
                domain = self.name(value)
            elif number == 2:
                version = number_of(value)
        return domain, version

    def graph(self, message: Span) -> OnnxFile:
        nodes: list[Node] = []
        tensors: dict[str, StoredTensor] = {}
        inputs: list[Declared] = []
        outputs: list[str] = []
        for number, value in self.messages.fields(message):
            if number == 1:
                nodes.append(self.node(span_of(value)))
            elif number == 5:
                tensor = self.tensors.tensor(span_of(value))
                if tensor.name in tensors:
                    raise ValueError(f"it holds '{printable(tensor.name, 80)}' twice")
                tensors[tensor.name] = tensor
            elif number == 11:
                inputs.append(self.declared(span_of(value)))
            elif number == 12:
                outputs.append(self.declared(span_of(value)).name)
            elif number == 15:
                raise ValueError("it holds sparse tensors, which are not read")
            if len(nodes) > MAX_NODES or len(tensors) > _MAX_TENSORS:
                raise ValueError(f"it has more than {MAX_NODES} nodes or {_MAX_TENSORS} tensors")
        given = tuple(each for each in inputs if each.name not in tensors)
        return OnnxFile(0, "", tuple(nodes), tensors, given, tuple(outputs))

    def node(self, message: Span) -> Node:
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: dict[str, Any] = {}
        op = domain = ""
        for number, value in self.messages.fields(message):
            if number == 1:
                inputs.append(self.name(value))
            elif number == 2:
                outputs.append(self.name(value))
            elif number == 4:
                op = self.name(value)
            elif number == 5:
                name, given = self.attribute(span_of(value))
                attributes[name] = given
            elif number == 7:
                domain = self.name(value)
        domain = "" if domain == "ai.onnx" else domain
        return Node(op, domain, tuple(inputs), tuple(outputs), attributes)

    def attribute(self, message: Span) -> tuple[str, Any]:
        name, kind = "", 0
        single: Any = None
        several: list[Any] = []
        for number, value in self.messages.fields(message):
            if number == 1:
                name = self.name(value)
            elif number == 20:
                kind = number_of(value)
            elif number == 2:
                (single,) = self.messages_float(value)
            elif number == 3:
                single = number_of(value)
            elif number == 4:
                single = self.messages.text(span_of(value), _MAX_TEXT)
            elif number == 5:
                single = self.tensors.tensor(span_of(value))
            elif number == 7 and isinstance(value, Span):
                several += self.messages.floats(value, _MAX_LIST)
            elif number == 7:
                several += self.messages_float(value)
            elif number == 8 and isinstance(value, Span):
                several += self.messages.numbers(value, _MAX_LIST)
            elif number == 8:
                several.append(number_of(value))
            elif number == 9:
                several.append(self.messages.text(span_of(value), MAX_NAME))
        if several:
            return name, several
        return name, _default(kind) if single is None else single

    @staticmethod
    def messages_float(value: int | Span) -> list[float]:
        bits = torch.tensor([number_of(value) & 0xFFFFFFFF], dtype=torch.int64)
        return bits.to(torch.int32).view(torch.float32).tolist()

    def declared(self, message: Span) -> Declared:
        name, kind = "", 0
        shape: list[int | None] | None = None
        for number, value in self.messages.fields(message):
            if number == 1:
                name = self.name(value)
            elif number == 2:
                kind, shape = self.type(span_of(value))
        return Declared(name, DTYPES.get(kind), None if shape is None else tuple(shape))

    def type(self, message: Span) -> tuple[int, list[int | None] | None]:
        """Return element type and shape of a value that is a tensor."""
        kind, shape = 0, None
        for number, value in self.messages.fields(message):
            for inner, given in self.messages.fields(span_of(value)) if number == 1 else ():
                if inner == 1:
                    kind = number_of(given)
                elif inner == 2:
                    shape = [
                        self.size(span_of(each))
                        for at, each in self.messages.fields(span_of(given))
                        if at == 1
                    ]
        return kind, shape

    def size(self, message: Span) -> int | None:
        """Return a declared size; ``None`` where it is free or has a name only."""
        sizes = [number_of(value) for at, value in self.messages.fields(message) if at == 1]
        return sizes[0] if sizes and 0 < sizes[0] < 2**31 else None


def _default(kind: int) -> Any:
    """Return the value of an attribute that is not stored because it is zero or empty."""
    return {1: 0.0, 2: 0, 3: ""}.get(kind, [] if kind in (6, 7, 8) else None)


def read_onnx(path: Path) -> OnnxFile:
    """Return the graph of an ONNX file; its tensors are not read yet.

    Args:
        path: the file. Tensors may lie in files beside it, or below.

    Raises:
        ValueError: a damaged or special file; more than 2^20 fields, 20,000 nodes or 70,000
            tensors; a tensor that is not where the file says, or whose path leads out of the
            folder; tensors that overlap so much that they take more bytes than the files have.
        OSError: a file that is missing or cannot be read.
    """
    with open_regular(path) as file:
        try:
            found = _Reader(Messages(file), path).model()
            _check_sizes(found)
        except Exception as error:
            raise ValueError(
                f"{printable(path)} is damaged or no ONNX file: {error_text(error)}"
            ) from None
    return found


def _check_sizes(found: OnnxFile) -> None:
    constants = [
        value
        for node in found.nodes
        for value in node.attributes.values()
        if isinstance(value, StoredTensor)
    ]
    packed = (each for each in (*found.tensors.values(), *constants) if each.numbers is None)
    needed = sum(each.nbytes for each in packed)
    paths = {*found.paths, *(each.path for each in constants)}
    there = sum(path.stat().st_size for path in paths)
    if needed > there + _MAX_REST:
        raise ValueError(f"its tensors take {needed} bytes, its files have {there}")

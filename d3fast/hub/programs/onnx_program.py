# SPDX-License-Identifier: Apache-2.0
"""An ONNX file as a ``Program``: which tensors are layers, weights or constants.

    Gemm, MatMul, Conv, BatchNormalization   with weights of their own: modules of torch
    other tensors of floats                  parameters where an operator of ``_TRAINED`` reads them
    short tensors                            constants, read first: they may decide shapes
    all others                               buffers

A tensor that several operators share is one parameter of all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.hub.programs.input_form import InputForm
from d3fast.hub.programs.onnx_operators import OnnxStep, check_operators
from d3fast.hub.programs.onnx_shapes import computed_dtype
from d3fast.hub.programs.program import AnyBatchNorm, LayerStep, Program, Step
from d3fast.io.onnx_file import Node, OnnxFile
from d3fast.io.onnx_tensors import StoredTensor
from d3fast.io.untrusted import printable

_SHORT = 2**16  # elements
_LAYERS = ("Conv", "Gemm", "MatMul", "BatchNormalization")
_TRAINED = (
    *_LAYERS,
    "Add",
    "Concat",
    "Div",
    "Einsum",
    "Expand",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "Mul",
    "PRelu",
    "Sub",
)
_THROUGH = (  # operators between the head and the scores
    *("Add", "Sub", "Mul", "Div", "Cast", "Identity", "Softmax", "LogSoftmax"),
    *("Flatten", "Reshape", "Squeeze"),
)
_SCALARS = {"value_float": torch.float32, "value_int": torch.int64}
_CONVOLUTIONS: Mapping[int, Any] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


@dataclass(frozen=True)
class Source:
    """Where a weight of the program is stored.

    Attributes:
        stored: the tensor of the file.
        transposed: the file has rows and columns of it exchanged.
    """

    stored: StoredTensor
    transposed: bool = False

    @property
    def trains(self) -> bool:
        """Whether a repair may change it and write it back."""
        return _trainable(self.stored)

    def weight(self, value: Tensor) -> Tensor:
        """Return a tensor of the file as the program holds it, or the reverse."""
        value = value.to(computed_dtype(value.dtype))
        return value.T.contiguous() if self.transposed else value


class Builder:
    """Makes a program of the nodes that one output needs.

    Args:
        file: the ONNX file.
        output: name of a value.
        form: how the program takes images.

    Attributes:
        program: on the meta device, but for its constants.
        sources: of its weights, by qualified name.
        softmax: whether a softmax at the end was left out, so that the scores are logits.

    Raises:
        ValueError: an operator that d3fast does not compute; a graph that is none.
    """

    def __init__(self, file: OnnxFile, output: str, form: InputForm) -> None:
        self.opset = file.opset
        self.tensors = dict(file.tensors)
        nodes = self._without_copies(file.nodes)
        result, self.softmax = _before_softmax(nodes, self.renamed.get(output, output))
        self.nodes = _needed(nodes, result)
        check_operators(self.nodes)
        self.program = Program(file.inputs[0].name, result, form)
        self.sources: dict[str, Source] = {}
        head = _head(self.nodes, result)
        first = next((at for at, n in enumerate(self.nodes) if n.op in _LAYERS), len(self.nodes))
        steps: list[Step] = []
        for at, node in enumerate(self.nodes):
            name = "head" if node is head else f"{node.op.lower()}_{at}"
            steps.append(self._layer(node, name) or OnnxStep(node, self.opset))
            if isinstance(steps[-1], OnnxStep):
                self._weights(node, trains=at >= first)
        self.program.set_steps(steps)

    def fill(self) -> None:
        """Read the weights.

        Raises:
            ValueError: NaN or inf; a weight that operators use with and without a transposition.
            OSError: a file that cannot be read.
        """
        made: dict[str, tuple[Tensor, bool]] = {}
        for name, source in self.sources.items():
            key = source.stored.name
            if key not in made:
                weight = source.weight(source.stored.read())
                made[key] = nn.Parameter(weight) if source.trains else weight, source.transposed
            value, transposed = made[key]
            if transposed != source.transposed:
                raise ValueError(f"the weight '{printable(key, 80)}' is used in two orientations")
            self.program.set_weight(name, value)

    def _without_copies(self, nodes: Sequence[Node]) -> list[Node]:
        """Return the nodes without constants and copies of tensors, which become tensors."""
        self.renamed: dict[str, str] = {}
        self.scalars: dict[str, Tensor] = {}
        self.turned: dict[str, str] = {}  # transposed matrices
        kept = []
        for node in nodes:
            node = replace(node, inputs=tuple(self.renamed.get(n, n) for n in node.inputs))
            if node.op == "Constant" and not node.domain and len(node.outputs) == 1:
                self._constant(node)
            elif node.op == "Identity" and node.inputs[:1] and node.inputs[0] in self.tensors:
                self.renamed[node.outputs[0]] = node.inputs[0]
            else:
                kept.append(node)
            if node.op == "Transpose" and node.inputs[:1] and node.inputs[0] in self.tensors:
                rank = len(self.tensors[node.inputs[0]].shape)
                if rank == 2 and node.attributes.get("perm", [1, 0]) == [1, 0]:
                    self.turned[node.outputs[0]] = node.inputs[0]
        return kept

    def _constant(self, node: Node) -> None:
        (name,) = node.outputs
        value = node.attributes.get("value")
        if name in self.tensors or name in self.scalars:
            raise ValueError(f"the value '{printable(name, 80)}' is made twice")
        if isinstance(value, StoredTensor):
            self.tensors[name] = replace(value, name=name)
            return
        for key, given in node.attributes.items():
            dtype = _SCALARS.get(key.removesuffix("s"))
            if dtype is not None:
                self.scalars[name] = torch.tensor(given, dtype=dtype)
                return
        raise ValueError(f"the constant '{printable(name, 80)}' holds neither numbers nor a tensor")

    def _matrix(self, name: str) -> Source | None:
        """Return a weight, perhaps behind a transposition; ``None`` for other values."""
        stored = self.tensors.get(self.turned.get(name, name))
        if stored is None or not _trainable(stored):
            return None
        return Source(stored, transposed=name in self.turned)

    def _vector(self, node: Node, position: int, length: int) -> Source | None:
        """Return a weight of one number per output; ``None`` for other values."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        found = self._matrix(name) if name else None
        return found if found is not None and found.stored.shape == (length,) else None

    def _layer(self, node: Node, name: str) -> Step | None:
        """Return a step with a module of torch, or ``None`` if the operator is none."""
        if node.op in ("Gemm", "MatMul"):
            return self._linear(node, name)
        if node.op == "Conv":
            return self._convolution(node, name)
        return self._batch_norm(node, name) if node.op == "BatchNormalization" else None

    def _linear(self, node: Node, name: str) -> Step | None:
        weight = self._matrix(node.inputs[1]) if len(node.inputs) > 1 else None
        given = {"alpha": 1.0, "beta": 1.0, "transA": 0, **node.attributes}
        plain = given["alpha"] == given["beta"] == 1 and not given["transA"]
        if weight is None or len(weight.stored.shape) != 2 or not plain:
            return None
        by_rows = bool(given.get("transB", 0)) != weight.transposed  # as torch stores it
        weight = replace(weight, transposed=not by_rows)
        rows, columns = weight.stored.shape if by_rows else reversed(weight.stored.shape)
        has_bias = len(node.inputs) > 2 and node.inputs[2] != ""
        bias = self._vector(node, 2, rows) if has_bias else None
        if has_bias and bias is None:
            return None
        layer = nn.Linear(columns, rows, bias=has_bias, device="meta")
        return self._placed(node, name, layer, {"weight": weight, "bias": bias})

    def _convolution(self, node: Node, name: str) -> Step | None:
        weight = self._matrix(node.inputs[1]) if len(node.inputs) > 1 else None
        has_bias = len(node.inputs) > 2 and node.inputs[2] != ""
        shape = () if weight is None else weight.stored.shape
        kind = _CONVOLUTIONS.get(len(shape))
        bias = self._vector(node, 2, shape[0]) if has_bias and shape else None
        rank = len(shape) - 2
        pads = node.attributes.get("pads", [0] * 2 * rank)
        groups = node.attributes.get("group", 1)
        plain = (
            node.attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
            and pads[:rank] == pads[rank:]
            and min(*shape, groups, *pads, 1) >= 0
        )
        if weight is None or kind is None or not plain or (has_bias and bias is None):
            return None
        valid = node.attributes.get("auto_pad") == "VALID"
        layer = kind(
            shape[1] * groups,
            shape[0],
            shape[2:],
            stride=node.attributes.get("strides", 1),
            padding=0 if valid else tuple(pads[:rank]),
            dilation=node.attributes.get("dilations", 1),
            groups=groups,
            bias=has_bias,
            device="meta",
        )
        return self._placed(node, name, layer, {"weight": weight, "bias": bias})

    def _batch_norm(self, node: Node, name: str) -> Step | None:
        size = (
            self.tensors[node.inputs[1]].count
            if node.inputs[1:2] and (node.inputs[1] in self.tensors)
            else 0
        )
        found = [self._vector(node, at, size) for at in range(1, 5)]
        if None in found or node.attributes.get("training_mode", 0):
            return None
        layer = AnyBatchNorm(
            size,
            eps=node.attributes.get("epsilon", 1e-5),
            momentum=1 - node.attributes.get("momentum", 0.9),
            device="meta",
        )
        names = ("weight", "bias", "running_mean", "running_var")
        return self._placed(node, name, layer, dict(zip(names, found, strict=True)))

    def _placed(
        self, node: Node, name: str, layer: nn.Module, weights: Mapping[str, Source | None]
    ) -> Step:
        """Add a layer under the name of its weight in the file, if that is a name of torch."""
        main = weights["weight"]
        stored = "" if main is None else main.stored.name
        wanted = stored.removesuffix(".weight") if stored.endswith(".weight") else name
        path = self.program.add_layer(wanted, layer)
        for part, source in weights.items():
            if source is not None:
                self.sources[f"{path}.{part}"] = source
        return LayerStep(path, node.inputs[:1], node.outputs[:1])

    def _weights(self, node: Node, trains: bool) -> None:
        """Add the tensors that an operator reads."""
        for name in node.inputs:
            scalar, stored = self.scalars.get(name), self.tensors.get(name)
            if scalar is not None:
                self.program.constants[name] = scalar
            if stored is None or name in self.program.places or name in self.program.constants:
                continue
            weight = trains and node.op in _TRAINED and stored.count > 1 and _trainable(stored)
            if not weight and stored.count <= _SHORT:
                value = stored.read()
                self.program.constants[name] = value.to(computed_dtype(value.dtype))
                continue
            empty = torch.empty(stored.shape, dtype=computed_dtype(stored.dtype), device="meta")
            path = self.program.add_weight(name, stored.name, empty, weight)
            self.sources[path] = Source(stored)


def _trainable(stored: StoredTensor) -> bool:
    """Return whether a tensor can be a weight that a repair writes back."""
    return stored.dtype.is_floating_point and stored.numbers is None


def _makers(nodes: Sequence[Node]) -> dict[str, Node]:
    makers: dict[str, Node] = {}
    for node in nodes:
        for name in filter(None, node.outputs):
            if makers.setdefault(name, node) is not node:
                raise ValueError(f"the value '{printable(name, 80)}' is made twice")
    return makers


def _needed(nodes: Sequence[Node], result: str) -> list[Node]:
    """Return the nodes that a value depends on, in their order."""
    makers, wanted, found = _makers(nodes), [result], set[int]()
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and id(node) not in found:
            found.add(id(node))
            wanted += node.inputs
    return [node for node in nodes if id(node) in found]


def _before_softmax(nodes: Sequence[Node], result: str) -> tuple[str, bool]:
    """Return the value that a softmax at the end reads, and whether there is one."""
    node = _makers(nodes).get(result)
    if node is None or node.domain or node.op not in ("Softmax", "Identity") or not node.inputs:
        return result, False
    if node.op == "Softmax" and node.attributes.get("axis", -1) in (-1, 1):
        return node.inputs[0], True
    before, found = _before_softmax(nodes, node.inputs[0]) if node.op == "Identity" else ("", False)
    return (before, True) if found else (result, False)


def _head(nodes: Sequence[Node], result: str) -> Node | None:
    """Return the operator with the weights that make the scores."""
    makers, tensors = _makers(nodes), result
    for _ in nodes:
        node = makers.get(tensors)
        if node is None or node.op in _LAYERS:
            return node
        within = [name for name in node.inputs if name in makers]
        if node.op not in _THROUGH or len(within) != 1:
            return None
        tensors = within[0]
    return None

# SPDX-License-Identifier: Apache-2.0
"""The graph of a ``torch.export`` archive as a ``Program``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from d3fast.hub.programs.aten_graph import AtenGraph, AtenNode, Value
from d3fast.hub.programs.aten_operators import VIEWS, AtenStep, check_targets, plain_target
from d3fast.hub.programs.input_form import InputForm
from d3fast.hub.programs.onnx_shapes import computed_dtype
from d3fast.hub.programs.program import AnyBatchNorm, LayerStep, Program, Step
from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.exported_file import ExportedProgram
from d3fast.io.untrusted import printable

_SOFTMAX = "softmax.int"


class AtenBuilder:
    """Makes a program of the nodes that one output needs.

    Args:
        file: the archive.
        graph: of the archive.
        output: name of a value.
        form: how the program takes images.

    Attributes:
        program: on the meta device.
        sources: of its weights, by qualified name: the name in the file, and the tensor.
        softmax: whether a softmax at the end was left out, so that the scores are logits.

    Raises:
        ValueError: an operator that d3fast does not run; a graph that is none.
    """

    def __init__(
        self, file: ExportedProgram, graph: AtenGraph, output: str, form: InputForm
    ) -> None:
        self.file, self.graph = file, graph
        nodes, renamed = _without_effects(graph.nodes)
        result, self.softmax = _before_softmax(nodes, renamed.get(output, output))
        self.nodes = _needed(nodes, result)
        check_targets(self.nodes)
        self.program = Program(graph.inputs[0], result, form)
        self.sources: dict[str, tuple[str, TensorEntry]] = {}
        self.layers: dict[str, nn.Module] = {}
        steps: list[Step] = []
        for node in self.nodes:
            steps.append(self._layer(node) or AtenStep(node))
            if isinstance(steps[-1], AtenStep):
                for name in node.inputs:
                    self._weight(name)
        self.program.set_steps(steps)

    def fill(self) -> None:
        """Read the weights.

        Raises:
            ValueError: tensors that are more than the file; NaN or inf; a damaged file.
        """
        for name, (_, entry) in self.sources.items():
            value = entry.read()
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise ValueError(f"'{printable(name, 100)}' holds NaN or inf")
            self.program.set_weight(name, value.to(computed_dtype(value.dtype)).contiguous())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that ``fill`` reads."""
        return sum(entry.nbytes for _, entry in self.sources.values())

    def _entry(self, value: str) -> TensorEntry | None:
        """Return the tensor of the file for a value that is one."""
        name = self.graph.weights.get(value)
        return None if name is None else self._tensor(name)

    def _tensor(self, name: str) -> TensorEntry:
        found = self.file.weights.get(name, self.file.constants.get(name))
        if found is None or isinstance(found, OtherEntry):
            kind = "is missing" if found is None else f"is {found.kind}"
            raise ValueError(f"its tensor '{printable(name, 80)}' {kind}")
        return found

    def _weight(self, value: str) -> None:
        """Add a tensor that an operator reads."""
        entry = self._entry(value)
        if entry is None or value in self.program.places:
            return
        trains = value in self.graph.trained and entry.dtype.is_floating_point
        empty = torch.empty(entry.shape, dtype=computed_dtype(entry.dtype), device="meta")
        name = self.graph.weights[value]
        self.sources[self.program.add_weight(value, name, empty, trains)] = (name, entry)

    def _layer(self, node: AtenNode) -> Step | None:
        """Return a step with a module of torch, or ``None`` if the operator is none."""
        given = dict(node.arguments)
        made = _layer_of(node, given, {n: self._entry(n) for n in node.inputs})
        if made is None:
            return None
        layer, parts = made
        values = {part: given[part].name for part in parts}
        names = {part: self.graph.weights[value] for part, value in values.items()}
        path = names["weight"].removesuffix(".weight")
        free = not any(value in self.program.places for value in values.values())
        if not free or any(name != f"{path}.{part}" for part, name in names.items()):
            return None
        path = self.program.add_layer(path, layer)
        for part, value in values.items():
            self.program.places[value] = f"{path}.{part}"
            self.sources[f"{path}.{part}"] = (names[part], self._tensor(names[part]))
        counter = names["weight"].removesuffix("weight") + "num_batches_tracked"
        if isinstance(layer, AnyBatchNorm) and counter in self.file.weights:
            self.sources[f"{path}.num_batches_tracked"] = (counter, self._tensor(counter))
        return LayerStep(path, (given["input"].name,), node.outputs)


def _layer_of(
    node: AtenNode, given: Mapping[str, Any], entries: Mapping[str, TensorEntry | None]
) -> tuple[nn.Module, list[str]] | None:
    """Return a module for an operator, and its arguments that are weights of the same names."""
    parts = ["weight", *(["bias"] if given.get("bias") is not None else [])]
    if node.target == "batch_norm.default":
        parts += ["running_mean", "running_var"]
    found = [
        entries.get(value.name) if isinstance(value := given.get(part), Value) else None
        for part in parts
    ]
    weight = found[0]
    if weight is None or None in found or not isinstance(given.get("input"), Value):
        return None
    shape, biased = weight.shape, "bias" in parts
    if node.target == "linear.default" and len(shape) == 2:
        return nn.Linear(shape[1], shape[0], bias=biased, device="meta"), parts
    if node.target == "conv2d.default" and len(shape) == 4:
        groups = given.get("groups", 1)
        layer = nn.Conv2d(
            shape[1] * groups,
            shape[0],
            (shape[2], shape[3]),
            stride=given.get("stride", 1),
            padding=given.get("padding", 0),
            dilation=given.get("dilation", 1),
            groups=groups,
            bias=biased,
            device="meta",
        )
        return layer, parts
    if node.target == "batch_norm.default" and len(shape) == 1 and biased:
        return AnyBatchNorm(shape[0], eps=given.get("eps", 1e-5), device="meta"), parts
    return None


def _without_effects(nodes: Sequence[AtenNode]) -> tuple[list[AtenNode], dict[str, str]]:
    """Return the nodes with operators in place replaced, and the new names of changed values.

    Raises:
        ValueError: a view of a changed value that is read later.
    """
    renamed: dict[str, str] = {}
    roots: dict[str, str] = {}
    stale = set[str]()
    kept = []
    for node in nodes:
        if stale & set(node.inputs):
            raise ValueError("it changes a value in place that other values are views of")
        arguments = tuple((name, _renamed(given, renamed)) for name, given in node.arguments)
        plain = plain_target(node.target)
        kept.append(AtenNode(plain, arguments, node.outputs))
        first = next(iter(node.inputs), "")
        root = roots.get(first, first)
        if plain != node.target:
            stale |= {name for name, of in roots.items() if of == root} - {first}
            stale |= {root} - {first}
            renamed = {old: new for old, new in renamed.items() if new != renamed.get(first, first)}
            renamed[first] = node.outputs[0]
            roots[node.outputs[0]] = root
        elif plain in VIEWS:
            roots.update(dict.fromkeys(node.outputs, root))
    return kept, renamed


def _renamed(given: Any, names: Mapping[str, str]) -> Any:
    if isinstance(given, Value):
        return replace(given, name=names.get(given.name, given.name))
    return [_renamed(each, names) for each in given] if isinstance(given, list) else given


def _makers(nodes: Sequence[AtenNode]) -> dict[str, AtenNode]:
    return {name: node for node in nodes for name in node.outputs if name}


def _needed(nodes: Sequence[AtenNode], result: str) -> list[AtenNode]:
    """Return the nodes that a value depends on, in their order."""
    makers, wanted, found = _makers(nodes), [result], set[int]()
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and id(node) not in found:
            found.add(id(node))
            wanted += node.inputs
    return [node for node in nodes if id(node) in found]


def _before_softmax(nodes: Sequence[AtenNode], result: str) -> tuple[str, bool]:
    """Return the value that a softmax at the end reads, and whether there is one."""
    node = _makers(nodes).get(result)
    if node is None or node.target != _SOFTMAX or dict(node.arguments).get("dim") not in (-1, 1):
        return result, False
    return node.inputs[0], True

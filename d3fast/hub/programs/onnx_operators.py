# SPDX-License-Identifier: Apache-2.0
"""All operators of ONNX that d3fast computes: those of image classifiers, no control flow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from d3fast.hub.programs.onnx_call import Call, Operator
from d3fast.hub.programs.onnx_elements import ELEMENTS
from d3fast.hub.programs.onnx_layers import LAYERS
from d3fast.hub.programs.onnx_shapes import SHAPES
from d3fast.io.onnx_file import Node
from d3fast.io.untrusted import printable

OPERATORS: Mapping[str, Operator] = MappingProxyType({**LAYERS, **SHAPES, **ELEMENTS})

_LOOPS = ("If", "Loop", "Scan", "SequenceMap")
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv")
_SHOWN = 3


def check_operators(nodes: Sequence[Node]) -> None:
    """Raise ``ValueError`` with the reason where d3fast does not compute an operator.

    Example:
        >>> check_operators([Node("Loop", "", (), (), {})])
        Traceback (most recent call last):
        ValueError: it has the operator Loop: graphs with loops and branches are not run
    """
    odd = {f"{node.domain}::{node.op}" for node in nodes if node.domain}
    unknown = {node.op for node in nodes if not node.domain and node.op not in OPERATORS}
    if not odd and not unknown:
        return
    names = sorted(odd or unknown)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shown = printable(", ".join(names[:_SHOWN]), 200) + more
    if odd:
        reason = "only operators of ONNX itself are run, no custom ones and no functions"
    elif unknown & set(_LOOPS):
        shown, reason = min(unknown & set(_LOOPS)), "graphs with loops and branches are not run"
    elif unknown & set(_QUANTISED):
        reason = "quantised weights have no gradient, give the file before quantisation"
    else:
        reason = "docs/model-names.md lists those that are"
    raise ValueError(f"it has the operator {shown}: {reason}")


@dataclass(frozen=True)
class OnnxStep:
    """An operator of ONNX as a step of a program; see ``Step``.

    Attributes:
        node: the operator.
        opset: version of the operators.
    """

    node: Node
    opset: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values that it reads."""
        return self.node.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values that it makes."""
        return self.node.outputs

    def __call__(
        self, program: Any, values: Mapping[str, Any], device: torch.device | None = None
    ) -> Sequence[Any]:
        """Return the values that it makes; see ``Step``."""
        given = [values[name] if name else None for name in self.node.inputs]
        made = OPERATORS[self.node.op](Call(self.node, self.opset, given, device))
        return (made,) if isinstance(made, Tensor) else made

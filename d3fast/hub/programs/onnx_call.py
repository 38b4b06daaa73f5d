# SPDX-License-Identifier: Apache-2.0
"""One operator of ONNX with its inputs and attributes, as the functions that compute it take it.

Inputs that decide shapes (axes, sizes, pads) were attributes in early versions of an operator and
became inputs later: ``ints`` takes either. They must not depend on the pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from d3fast.io.onnx_file import Node

_MAX_INTS = 1000


class Call:
    """An operator and its inputs, on one device.

    Args:
        node: the operator.
        opset: version of the operators.
        given: its inputs, ``None`` for those that are left out. Those that decide shapes are on
            the CPU; all are moved to where the others are.
        device: where to compute instead.
    """

    def __init__(
        self,
        node: Node,
        opset: int,
        given: Sequence[Tensor | None],
        device: torch.device | None = None,
    ) -> None:
        self.node, self.opset = node, opset
        self._given = given
        there = [each.device for each in given if each is not None]
        cpu = torch.device("cpu")
        self.device = device or next((each for each in there if each != cpu), cpu)

    def __len__(self) -> int:
        return len(self._given)

    def __getitem__(self, position: int) -> Tensor:
        value = self.get(position)
        if value is None:
            raise ValueError(f"{self.node.op} lacks its input {position}")
        return value

    def get(self, position: int) -> Tensor | None:
        """Return an input, or ``None`` if it is left out."""
        value = self._given[position] if position < len(self._given) else None
        return None if value is None else value.to(self.device)

    def all(self) -> list[Tensor]:
        """Return all inputs."""
        return [self[position] for position in range(len(self))]

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute of the type of its default.

        Raises:
            ValueError: an attribute of another type.
        """
        value = self.node.attributes.get(name, default)
        if isinstance(default, float) and isinstance(value, int):
            value = float(value)
        if default is not None and not isinstance(value, type(default)):
            raise ValueError(f"{self.node.op} has an attribute {name!r} of another type")
        return value

    def numbers(self, position: int, name: str) -> list[Any] | None:
        """Return a short list of numbers that an input or an attribute holds, if it is there.

        Raises:
            ValueError: values that depend on the pixels, or too many of them.
        """
        value = self._given[position] if position < len(self._given) else None
        if value is None:
            listed = self.node.attributes.get(name)
            if listed is not None and not isinstance(listed, list):
                listed = [listed]
        elif value.is_meta:
            raise ValueError(f"the shape that {self.node.op} makes depends on the pixels")
        elif value.numel() > _MAX_INTS:
            raise ValueError(f"{self.node.op} has a list of {value.numel()} numbers")
        else:
            listed = value.detach().flatten().tolist()
        if listed is not None and not all(isinstance(each, int | float) for each in listed):
            raise ValueError(f"{self.node.op} has an attribute {name!r} of another type")
        return listed

    def fixed(self, position: int) -> Tensor:
        """Return an input that must not depend on the pixels.

        Raises:
            ValueError: it does.
        """
        given = self._given[position] if position < len(self) else None
        if given is None:
            raise ValueError(f"{self.node.op} lacks its input {position}")
        if given.is_meta:
            raise ValueError(f"what {self.node.op} picks depends on the pixels")
        return given

    def ints(self, position: int, name: str) -> list[int] | None:
        """Return the same as whole numbers."""
        found = self.numbers(position, name)
        return None if found is None else [int(each) for each in found]

    def needed(self, position: int, name: str) -> list[int]:
        """Return the same where it must be there."""
        found = self.ints(position, name)
        if found is None:
            raise ValueError(f"{self.node.op} lacks {name!r}")
        return found


Operator: TypeAlias = Callable[[Call], Tensor | Sequence[Tensor]]

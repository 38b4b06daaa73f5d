# SPDX-License-Identifier: Apache-2.0
"""``Program``: a list of steps over named values as a module, with gradients.

A step reads values by name and makes new ones. Weights of linear layers, convolutions and batch
norms are in modules of torch, so that heads, norm groups and hooks are found as in any model; other
weights are parameters of the program. A value is dropped behind the last step that reads it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from d3fast.hub.programs.input_form import InputForm
from d3fast.io.untrusted import printable

_PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", re.ASCII)
_MAX_PARTS, _MAX_NAME = 30, 200


class Step(Protocol):
    """One operation."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values that it reads; empty ones stand for inputs that are left out."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values that it makes; empty ones for those that nobody reads."""

    def __call__(
        self, program: "Program", values: Mapping[str, Any], device: torch.device | None = None
    ) -> Sequence[Any]:
        """Return the values that it makes.

        Args:
            program: holds the layers.
            values: holds the inputs.
            device: where to compute instead of where the inputs are.
        """


class Watch(Protocol):
    """What looks at every step of a run; see ``d3fast.hub.programs.measure``."""

    def __call__(self, program: "Program", step: Step, values: Mapping[str, Any]) -> Sequence[Any]:
        """Run the step and return the values that it makes."""


@dataclass(frozen=True)
class LayerStep:
    """A module of the program on one value.

    Attributes:
        layer: qualified name of the module.
        inputs: one name.
        outputs: one name.
    """

    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(
        self, program: "Program", values: Mapping[str, Any], device: torch.device | None = None
    ) -> Sequence[Any]:
        """Return the value of the layer; see ``Step``."""
        return (program.get_submodule(self.layer)(values[self.inputs[0]]),)


class AnyBatchNorm(nn.BatchNorm2d):
    """A batch norm of inputs (N, C, ...) of any rank."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept every rank."""


class Program(nn.Module):
    """From images (N, C, H, W) to scores (N, classes), step by step.

    Attributes:
        steps: in the order in which they run.
        source: name of the value that the images become.
        result: name of the value with the scores.
        form: how the program takes images.
        constants: small values that decide shapes, always on the CPU.
        places: qualified name of the weight for each value that is one.
    """

    def __init__(self, source: str, result: str, form: InputForm) -> None:
        super().__init__()
        self.source, self.result, self.form = source, result, form
        self.steps: tuple[Step, ...] = ()
        self.constants: dict[str, Tensor] = {}
        self.places: dict[str, str] = {}
        self._dead: tuple[tuple[str, ...], ...] = ()

    def set_steps(self, steps: Iterable[Step]) -> None:
        """Set the steps.

        Raises:
            ValueError: a value that is read before it is made, or made twice.
        """
        self.steps = tuple(steps)
        known = {self.source, *self.constants, *self.places}
        last: dict[str, int] = {}
        for at, step in enumerate(self.steps):
            for name in filter(None, step.inputs):
                if name not in known:
                    raise ValueError(f"the value '{printable(name, 80)}' is read before it is made")
                last[name] = at
            for name in filter(None, step.outputs):
                if name in known:
                    raise ValueError(f"the value '{printable(name, 80)}' is made twice")
                known.add(name)
                last[name] = at
        if self.result not in known:
            raise ValueError(f"the output '{printable(self.result, 80)}' is not made")
        last.pop(self.result, None)
        dead: list[list[str]] = [[] for _ in self.steps]
        for name, at in last.items():
            dead[at].append(name)
        self._dead = tuple(map(tuple, dead))

    def add_layer(self, wanted: str, layer: nn.Module) -> str:
        """Add a module under a name like the wanted one; return its qualified name."""
        parent, name = self._parent(wanted, "layer")
        parent.add_module(name, layer)
        return _qualified(self, parent, name)

    def add_weight(self, value: str, wanted: str, weight: Tensor, trains: bool) -> str:
        """Add a value as a parameter or a buffer; return its qualified name."""
        parent, name = self._parent(wanted, "weight")
        if trains:
            parent.register_parameter(name, nn.Parameter(weight))
        else:
            parent.register_buffer(name, weight)
        self.places[value] = _qualified(self, parent, name)
        return self.places[value]

    def _parent(self, wanted: str, kind: str) -> tuple[nn.Module, str]:
        """Return the module for a qualified name and the last part of the name, both free."""
        parts = wanted.split(".")
        if len(wanted) <= _MAX_NAME and len(parts) <= _MAX_PARTS and _PLAIN.fullmatch(wanted):
            parent: nn.Module = self
            for part in parts[:-1]:
                inner = parent._modules.get(part)
                if inner is None and hasattr(parent, part):
                    break
                if inner is None:
                    inner = nn.Module()
                    parent.add_module(part, inner)
                parent = inner
            else:
                if not hasattr(parent, parts[-1]):
                    return parent, parts[-1]
        number = 0
        while hasattr(self, f"{kind}_{number}"):
            number += 1
        return self, f"{kind}_{number}"

    def set_weight(self, name: str, value: Tensor) -> None:
        """Replace a parameter or buffer, perhaps one on the meta device, by a tensor.

        Raises:
            ValueError: a tensor of another shape.
        """
        path, _, last = name.rpartition(".")
        module = self.get_submodule(path)
        if getattr(module, last).shape != value.shape:
            raise ValueError(f"'{printable(name, 100)}' has another shape than its layer")
        if last in module._parameters:
            module._parameters[last] = (
                value if isinstance(value, nn.Parameter) else nn.Parameter(value)
            )
        else:
            module._buffers[last] = value.detach()

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, classes) of images (N, C, H, W); a fixed batch is filled up."""
        batch = self.form.batch
        if batch is None:
            return self.run(images)
        parts = torch.split(images, batch)
        whole = [self.run(_filled(part, batch)) for part in parts]
        return torch.cat(whole)[: len(images)]

    def run(self, images: Tensor, watch: Watch | None = None) -> Tensor:
        """Return the scores of one batch; see ``forward``.

        Args:
            images: as many as the program takes at once.
            watch: runs the steps instead.

        Raises:
            ValueError: an operator that does not fit its inputs.
        """
        values: dict[str, Any] = dict(self.constants)
        for value, name in self.places.items():
            path, _, last = name.rpartition(".")
            values[value] = getattr(self.get_submodule(path), last)
        values[self.source] = self.form.given(images)
        for step, dead in zip(self.steps, self._dead, strict=True):
            made = step(self, values) if watch is None else watch(self, step, values)
            values.update(zip(step.outputs, made, strict=False))
            for name in dead:
                values.pop(name, None)
        scores: Tensor = values[self.result]
        if scores.ndim > 2 and all(size == 1 for size in scores.shape[2:]):
            scores = scores.flatten(1)
        return scores.float()


def _filled(images: Tensor, batch: int) -> Tensor:
    """Return images with the last one repeated up to a batch."""
    missing = batch - len(images)
    if not missing:
        return images
    return torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])


def _qualified(program: Program, parent: nn.Module, name: str) -> str:
    path = next(at for at, module in program.named_modules() if module is parent)
    return f"{path}.{name}" if path else name

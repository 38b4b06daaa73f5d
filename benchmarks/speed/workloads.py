# SPDX-License-Identifier: Apache-2.0
"""Workloads of the step benchmark: lists of tensors, some tracked, the others plain SGD.

theta_0 ~ N(0, 0.02), theta at distance ||theta_0|| from it, gradients of the size of fine-tuning.
Shapes are those of known models; no model is built.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from benchmarks.shapes import (
    ParameterList,
    Shape,
    resnet18,
    transformer_1b,
    vgg19_bn,
    vit_b16,
)

FULL = "full"  # every constraint, active and inactive
MAIN = "main"  # the constraints that matter most


@dataclass(frozen=True)
class Workload:
    """Tensors to step over.

    Attributes:
        name: name in tables.
        tracked: shapes of the tracked tensors.
        plain: shapes of the tensors with the plain SGD step.
        constraints: ``FULL`` or ``MAIN``.
        compiled: include torch.compile, which takes longer to compile than to measure.
        busy: keep one core busy during the measurement.
        dtype: dtype of weights, gradients, momentum and references. For a half type d3fast also
            keeps the Kahan compensation of tracked weights.
        narrow: d3fast keeps momentum and reference in bf16 beside fp32 weights; the peers do not.
    """

    name: str
    tracked: tuple[Shape, ...]
    plain: tuple[Shape, ...] = ()
    constraints: str = MAIN
    compiled: bool = False
    busy: bool = False
    dtype: torch.dtype = torch.float32
    narrow: bool = False

    @property
    def half(self) -> bool:
        """True for weights of a half type."""
        return self.dtype.itemsize == 2

    @property
    def tracked_numel(self) -> int:
        """Number of tracked parameters."""
        return sum(prod(shape) for shape in self.tracked)

    @property
    def plain_numel(self) -> int:
        """Number of parameters that are not tracked."""
        return sum(prod(shape) for shape in self.plain)

    @property
    def bytes(self) -> int:
        """Least bytes that a D3 step moves: 24 per tracked fp32 parameter, 20 per other one.

        In a half type 16, of which 4 are the compensation, and 10; with a narrow state 18 and 16.
        """
        tracked, plain = (16, 10) if self.half else (18, 16) if self.narrow else (24, 20)
        return tracked * self.tracked_numel + plain * self.plain_numel

    @property
    def footprint(self) -> int:
        """Bytes of weights, gradients and momentum, with references and compensation if tracked."""
        tracked, plain = (10, 6) if self.half else (12, 10) if self.narrow else (16, 12)
        return tracked * self.tracked_numel + plain * self.plain_numel

    def of_one_element(self) -> "Workload":
        """Return the workload with tensors of one element, to measure the call itself."""
        one = {"tracked": ((1,),) * len(self.tracked), "plain": ((1,),) * len(self.plain)}
        return replace(self, **one)

    def shrunk(self, scale: int) -> "Workload":
        """Return the workload with about 1/scale of the elements per tensor, for a smoke run."""

        def cut(shapes: Sequence[Shape]) -> tuple[Shape, ...]:
            return tuple((max(1, prod(shape) // scale),) for shape in shapes)

        return replace(self, tracked=cut(self.tracked), plain=cut(self.plain))


def _of_model(model: ParameterList, tracked: str, **options: object) -> Workload:
    heads = [shape for name, shape in model.shapes.items() if name == model.head]
    others = [shape for name, shape in model.shapes.items() if name != model.head]
    if tracked == "all":
        heads, others = list(model.shapes.values()), []
    return Workload(f"{model.name}, {tracked}", tuple(heads), tuple(others), **options)  # type: ignore[arg-type]


def workloads(gpu: bool) -> list[Workload]:
    """Return all workloads of a CPU or of a GPU."""
    one = Workload("1x25M", ((25_000_000,),), constraints=FULL, compiled=True)
    tens = Workload("10x2.5M", ((2_500_000,),) * 10, constraints=FULL, compiled=True)
    sixties = Workload("60x36k", ((36_000,),) * 60, constraints=FULL, compiled=True)
    chosen = [
        one,
        tens,
        sixties,
        _of_model(resnet18(), "head"),
        _of_model(resnet18(), "all", compiled=True),
        _of_model(vgg19_bn(), "head"),
        _of_model(vgg19_bn(), "all"),
        _of_model(vit_b16(), "head"),
        _of_model(vit_b16(), "all", compiled=gpu),
    ]
    chosen += [_in_bf16(w) for w in (tens, sixties)]
    chosen += [_with_narrow_state(w) for w in (one, tens, sixties)]
    if not gpu:
        return chosen + [_beside_a_busy_core(w) for w in (tens, sixties)]
    return [
        *chosen,
        Workload("1x250M", ((250_000_000,),), constraints=FULL),
        Workload("10x25M", ((25_000_000,),) * 10, constraints=FULL, compiled=True),
        _of_model(transformer_1b(), "all"),
    ]


def _in_bf16(workload: Workload) -> Workload:
    name = f"{workload.name}, bf16"
    return replace(workload, name=name, constraints=MAIN, compiled=False, dtype=torch.bfloat16)


def _with_narrow_state(workload: Workload) -> Workload:
    name = f"{workload.name}, narrow state"
    return replace(workload, name=name, constraints=MAIN, compiled=False, narrow=True)


def _beside_a_busy_core(workload: Workload) -> Workload:
    name = f"{workload.name}, a core busy"
    return replace(workload, name=name, constraints=MAIN, compiled=False, busy=True)


@dataclass(frozen=True)
class Problem:
    """Tensors of a workload on their device; the first tensors of each list are tracked.

    Attributes:
        workload: the workload.
        thetas: weights, shared by all peers; d3fast keeps its own.
        grads: gradients.
        momenta: momentum buffers, shared by the peers that update them in place.
        references: theta_0 of the tracked tensors.
    """

    workload: Workload
    thetas: list[Tensor]
    grads: list[Tensor]
    momenta: list[Tensor]
    references: list[Tensor]

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.thetas[0].device


def draw(workload: Workload, device: torch.device) -> Problem:
    """Draw the tensors of a workload, the same in every run."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(shape: Shape, scale: float) -> Tensor:
        return torch.empty(shape, device=device).normal_(0, scale, generator=generator)

    references = [normal(shape, 0.02) for shape in workload.tracked]
    thetas = [r + normal(tuple(r.shape), 0.02) for r in references]
    thetas += [normal(shape, 0.02) for shape in workload.plain]
    # Gradients point outwards by far more than rounding, so that an active bound is reached in
    # every step, as in training.
    grads = [normal(tuple(t.shape), 0.01).sub_(t, alpha=0.05) for t in thetas]
    thetas, grads, references = (
        [t.to(workload.dtype) for t in ts] for ts in (thetas, grads, references)
    )
    return Problem(workload, thetas, grads, [torch.zeros_like(t) for t in thetas], references)

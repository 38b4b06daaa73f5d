# SPDX-License-Identifier: Apache-2.0
"""Rows of spectrum.json: curvature of the loss at each model, and the line between models."""

from typing import Annotated

from msgspec import Meta

from d3fast.results.schema.audit import LayerDistances, MetricFields
from d3fast.results.schema.fields import (
    Count,
    Drawn,
    Fraction,
    Label,
    NonNegative,
    Number,
    Positive,
    Record,
    Row,
)

_MAX_NODES = 20_000  # a density draws a bump for each
_Values = Annotated[tuple[Drawn, ...], Meta(min_length=1, max_length=1000)]
_Grid = Annotated[
    tuple[Annotated[tuple[Drawn, ...], Meta(min_length=1, max_length=_MAX_NODES)], ...],
    Meta(min_length=1, max_length=1000),
]


class SpectrumModelRow(MetricFields, Row, frozen=True, kw_only=True, tag="model"):
    """One model and its accuracy.

    Attributes:
        model: its name.
    """

    model: Label


class SpectrumRow(Row, frozen=True, kw_only=True, tag="spectrum"):
    """Eigenvalues of the Hessian of one loss at one model.

    Attributes:
        model: its name.
        loss: ``clean`` or ``backdoor``.
        value: of the loss, nats.
        gradient_norm: at the model.
        size: number of weights.
        eigenvalues: (k,) largest magnitude first.
        residuals: (k,) of the eigenpairs.
        converged: every residual is below the tolerance.
        trace: estimate.
        trace_error: standard error of the estimate.
        nodes: (probes, steps) of the stochastic Lanczos quadrature.
        weights: (probes, steps) of the nodes.
        products: Hessian-vector products.
    """

    model: Label
    loss: Label
    value: Number | None = None
    gradient_norm: NonNegative | None = None
    size: Positive
    eigenvalues: _Values
    residuals: _Values
    converged: bool
    trace: Number
    trace_error: NonNegative | None = None
    nodes: _Grid
    weights: _Grid
    products: Count | None = None

    def __post_init__(self) -> None:
        if len(self.eigenvalues) != len(self.residuals):
            raise ValueError(
                f"residuals must be of length {len(self.eigenvalues)}, one per eigenvalue, "
                f"got {len(self.residuals)}"
            )
        if min(map(min, self.weights)) < 0:
            raise ValueError(f"weights must be >= 0, got {min(map(min, self.weights)):g}")
        shape = [len(line) for line in self.nodes]
        if len(set(shape)) > 1 or shape != [len(line) for line in self.weights]:
            raise ValueError("nodes and weights must be two lists of lists of the same length")
        if sum(shape) > _MAX_NODES:
            raise ValueError(f"nodes must be at most {_MAX_NODES} numbers, got {sum(shape)}")


class PathPoint(Record, frozen=True, kw_only=True):
    """The model at one point of the line; a rate or loss that is not finite is ``None``.

    Attributes:
        at: coordinates; 0 is the suspect, 1 the repaired model.
        clean_loss: nats.
        acc: accuracy.
        backdoor_loss: nats; ``None`` without a trigger.
        asr: attack success rate.
        ra: robust accuracy.
    """

    at: Annotated[tuple[Drawn, ...], Meta(min_length=1, max_length=2)]
    clean_loss: Number | None = None
    acc: Fraction | None = None
    backdoor_loss: Number | None = None
    asr: Fraction | None = None
    ra: Fraction | None = None


class PathRow(Row, frozen=True, kw_only=True, tag="path"):
    """Losses on the straight line of weights from the suspect through a repaired model.

    Attributes:
        model: name of the repaired model.
        points: of the line.
        barrier: largest clean loss above the line between the ends, nats; ``None``: not finite.
    """

    model: Label
    points: Annotated[tuple[PathPoint, ...], Meta(min_length=1, max_length=1000)]
    barrier: Number | None = None


class PredictionRow(Row, frozen=True, kw_only=True, tag="prediction"):
    """The suspect's quadratic expansion of a loss at a repaired model.

    Attributes:
        model: name of the repaired model.
        loss: ``clean`` or ``backdoor``.
        start: loss at the suspect, nats.
        slope: of the loss along the displacement.
        curvature: along the displacement.
        predicted: start + slope + curvature / 2.
        actual: loss at the repaired weights with the suspect's batch-norm statistics.
        other: loss of the repaired model with its own statistics.
        distance: norm of the displacement.
        residual: of the curvature estimate.
    """

    model: Label
    loss: Label
    start: Number
    slope: Number
    curvature: Number
    predicted: Number
    actual: Number
    other: Number | None = None
    distance: NonNegative
    residual: NonNegative | None = None


class ModelDistances(LayerDistances, frozen=True, kw_only=True, tag="distance"):
    """Displacement per layer of one repaired model.

    Attributes:
        model: its name.
    """

    model: Label

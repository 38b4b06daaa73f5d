# SPDX-License-Identifier: Apache-2.0
r"""Curvature along one direction, and the quadratic prediction of a loss.

    L(theta_0 + delta)  ~  L + <grad L, delta> + 1/2 <delta, H delta>

At a minimum of the backdoor loss the linear term vanishes, and the loss grows with the curvature
along the displacement delta (arXiv 2411.09585, section 3).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.spectrum.curvature import Curvature
from d3fast.spectrum.samples import Data, Loss


@dataclass(frozen=True)
class DirectionalCurvature:
    """Second derivative along a unit direction.

    Attributes:
        value: ``<d, H d>`` for ``d`` of norm 1.
        residual: ``||H d - value d||``; 0 if the direction is an eigenvector.
        norm: norm of the direction before it was normalised.
    """

    value: float
    residual: float
    norm: float


def _along(curvature: Curvature, direction: Tensor) -> tuple[DirectionalCurvature, Tensor]:
    norm = float(direction.norm())
    if not 0 < norm < math.inf:
        raise ValueError(f"a direction must have a norm > 0 and finite, got {norm:g}")
    unit = direction / norm
    product = curvature @ unit
    value = float(unit @ product)
    residual = float((product - value * unit).norm())
    return DirectionalCurvature(value, residual, norm), unit


def directional_curvature(
    model: nn.Module, loss: Loss, data: Data, direction: Tensor | nn.Module, **options: Any
) -> DirectionalCurvature:
    """Compute the curvature of a model's loss along a direction.

    Args:
        model: see ``Curvature``, also for ``loss``, ``data`` and ``options``.
        loss: (scores, labels) -> mean over the batch.
        data: yields (inputs, labels), or a ``Difference``.
        direction: (size,) in the order of ``Curvature.names``, or a model of the same architecture
            to which the direction points. It is normalised.
        options: ``params``, ``kind``, ``dtype``, ``device``, ``keep``.

    Raises:
        ValueError: see ``Curvature``; a direction of norm 0 or of another shape.

    Example:
        >>> model = nn.Linear(1, 2, bias=False).double()
        >>> _ = nn.init.zeros_(model.weight)
        >>> data = [(torch.ones(1, 1), torch.tensor([0]))]
        >>> along = torch.tensor([1.0, -1.0], dtype=torch.float64)
        >>> round(directional_curvature(model, nn.CrossEntropyLoss(), data, along).value, 6)
        0.5
    """
    curvature = Curvature(model, loss, data, **{"keep": 0, **options})
    if isinstance(direction, nn.Module):
        direction = curvature.flat(direction) - curvature.flat(model)
    given = direction.to(curvature.device, curvature.dtype)
    curvature.pieces(given)  # check the shape before computing
    return _along(curvature, given)[0]


@dataclass(frozen=True)
class QuadraticPrediction:
    """Loss of another model as predicted by a quadratic expansion, beside the actual loss.

    Attributes:
        start: the loss at theta_0.
        slope: ``<grad L, delta>``.
        curvature: ``<delta, H delta>``; half of it enters the prediction.
        predicted: start + slope + curvature / 2.
        actual: the loss at the other model's tracked weights with everything else (batch-norm
            statistics, other weights) as in the first model: the function that is expanded.
        other: the loss of the other model.
        distance: ``||delta||``.
        residual: residual of the curvature along ``delta``; see ``DirectionalCurvature``.

    Example:
        >>> found = QuadraticPrediction(1.0, 0.0, 4.0, 3.0, 2.5, 2.6, 1.0, 0.0)
        >>> found.as_dict()["predicted"]
        3.0
    """

    start: float
    slope: float
    curvature: float
    predicted: float
    actual: float
    other: float
    distance: float
    residual: float

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        return asdict(self)


def quadratic_prediction(
    model: nn.Module, other: nn.Module, loss: Loss, data: Data, **options: Any
) -> QuadraticPrediction:
    """Compare the quadratic expansion at one model with the loss of another.

    Args:
        model: theta_0, where the loss is expanded; see ``Curvature``, also for the rest.
        other: theta, of the same architecture.
        loss: (scores, labels) -> mean over the batch.
        data: yields (inputs, labels), or a ``Difference``.
        options: ``params``, ``kind``, ``dtype``, ``device``, ``keep``.

    Raises:
        ValueError: see ``Curvature``; models of different architectures or with equal weights.

    Example:
        >>> start, end = nn.Linear(1, 2).double(), nn.Linear(1, 2).double()
        >>> data = [(torch.ones(1, 1), torch.tensor([0]))]
        >>> square = lambda scores, labels: scores.square().mean()
        >>> found = quadratic_prediction(start, end, square, data)
        >>> abs(found.predicted - found.actual) < 1e-12
        True
    """
    curvature = Curvature(model, loss, data, **{"keep": 0, **options})
    delta = curvature.flat(other) - curvature.flat(model)
    along, unit = _along(curvature, delta)
    value, gradient = curvature.value_and_gradient()
    slope = float(gradient @ delta)
    quadratic = along.value * along.norm**2
    with torch.no_grad():
        for param, part in zip(curvature.params, curvature.pieces(unit), strict=True):
            param.add_(part, alpha=along.norm)
    at_other = Curvature(other, loss, data, **{"keep": 0, **options})
    return QuadraticPrediction(
        start=value,
        slope=slope,
        curvature=quadratic,
        predicted=value + slope + quadratic / 2,
        actual=curvature.value_and_gradient()[0],
        other=at_other.value_and_gradient()[0],
        distance=along.norm,
        residual=along.residual,
    )

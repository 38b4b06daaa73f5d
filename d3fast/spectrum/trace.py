# SPDX-License-Identifier: Apache-2.0
r"""The trace of the curvature, from products with random vectors.

    tr A  =  tr(Q^T A Q)  +  E[ z^T P A P z ],     P = I - Q Q^T,     z of random signs

Q spans A times a few random vectors. It captures the large eigenvalues, whose contribution is then
exact; the remainder has a small variance (Hutch++: Meyer, Musco, Musco, Woodruff, SOSA 2021). With
an empty Q this is Hutchinson's estimator (1990).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.runtime.checks import check_integer
from d3fast.runtime.seeding import generator as seeded
from d3fast.spectrum.curvature import Curvature, Symmetric
from d3fast.spectrum.estimates import Estimate
from d3fast.spectrum.samples import Data, Loss


def _signs(operator: Symmetric, count: int, draws: torch.Generator) -> Tensor:
    signs = torch.randint(2, (count, operator.size), generator=draws, dtype=torch.int8)
    return signs.mul_(2).sub_(1).to(operator.device, operator.dtype)


def estimate_trace(
    operator: Symmetric, *, probes: int = 20, sketch: int = 20, seed: int = 0
) -> Estimate:
    """Estimate the trace of a symmetric matrix.

    Args:
        operator: the matrix; see ``Symmetric``.
        probes: number of random vectors, >= 2; one product each.
        sketch: columns of Q, two products each. A sketch of ``size`` or more gives the exact
            trace, 0 is Hutchinson's estimator. Memory: ``sketch`` + 3 vectors.
        seed: draws the vectors.

    Returns:
        The trace with its standard error over the probes.

    Raises:
        ValueError: an option out of range; NaN in a product.

    Example:
        >>> class Ones:
        ...     size, dtype, device = 3, torch.float64, torch.device("cpu")
        ...     def __matmul__(self, v):
        ...         return v.sum().expand(3)
        >>> trace = estimate_trace(Ones(), sketch=1)
        >>> round(trace.value, 6), trace.standard_error < 1e-6
        (3.0, True)
    """
    check_integer("probes", probes, 2)
    check_integer("sketch", sketch, 0)
    draws = seeded(seed, "probes of the trace")
    if operator.size <= sketch:
        basis = torch.eye(operator.size, dtype=operator.dtype, device=operator.device)
    else:
        basis = _signs(operator, sketch, draws)
        for row in basis:
            row.copy_(operator @ row)
        basis = torch.linalg.qr(basis.T).Q.T
    exact = sum(float(row @ (operator @ row)) for row in basis)
    rest = []
    for _ in range(probes if len(basis) < operator.size else 0):
        probe = _signs(operator, 1, draws)[0]
        probe -= basis.T @ (basis @ probe)
        rest.append(float(probe @ (operator @ probe)))
    if not math.isfinite(sum(rest, exact)):
        raise ValueError("a product with the curvature holds NaN or inf")
    return Estimate.of(rest, offset=exact) if rest else Estimate(exact, 0.0)


def trace(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    probes: int = 20,
    sketch: int = 20,
    seed: int = 0,
    **options: Any,
) -> Estimate:
    """Estimate the trace of the curvature of a model's loss.

    Args:
        model: see ``Curvature``, also for ``loss``, ``data`` and ``options``.
        loss: (scores, labels) -> mean over the batch.
        data: yields (inputs, labels), or a ``Difference``.
        probes: number of random vectors; see ``estimate_trace``.
        sketch: columns of Q; see ``estimate_trace``.
        seed: draws the vectors.
        options: ``params``, ``kind``, ``dtype``, ``device``, ``keep``.

    Returns:
        The trace with its standard error.

    Raises:
        ValueError: see ``Curvature`` and ``estimate_trace``.

    Example:
        >>> model = nn.Linear(1, 2, bias=False).double()
        >>> _ = nn.init.zeros_(model.weight)
        >>> found = trace(model, nn.CrossEntropyLoss(), [(torch.ones(1, 1), torch.tensor([0]))])
        >>> round(found.value, 6), found.standard_error
        (0.5, 0.0)
    """
    curvature = Curvature(model, loss, data, **options)
    return estimate_trace(curvature, probes=probes, sketch=sketch, seed=seed)

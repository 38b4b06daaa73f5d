# SPDX-License-Identifier: Apache-2.0
r"""Spectral density of the curvature by stochastic Lanczos quadrature.

    (1/n) sum_i f(lambda_i)  =  E[ z^T f(A) z ]  ~  mean over probes of  sum_j w_j f(theta_j)

for a random unit vector z; theta_j are the Ritz values of m Lanczos steps from z, w_j the squared
first entries of their vectors. For each probe the quadrature is exact for polynomials f up to
degree 2 m - 1 (Ubaru, Chen, Saad, SIAM J. Matrix Anal. Appl. 38, 2017; Ghorbani, Krishnan, Xiao,
ICML 2019).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.runtime.checks import check_integer, check_number
from d3fast.spectrum.curvature import Curvature, Symmetric
from d3fast.spectrum.estimates import Estimate
from d3fast.spectrum.lanczos import Krylov
from d3fast.spectrum.samples import Data, Loss


@dataclass(frozen=True, eq=False)
class Density:
    """Spectral density as weighted nodes, one set per probe.

    Attributes:
        nodes: (probes, m) float64 on the CPU; eigenvalue estimates, ascending.
        weights: (probes, m) float64; share of the eigenvalues at a node. Every row sums to 1.
        size: number of eigenvalues.

    Example:
        >>> density = Density(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.75, 0.25]]), size=8)
        >>> density.moment(1), density.share_below(-1.0).value
        (Estimate(value=0.5, standard_error=None), 0.0)
    """

    nodes: Tensor
    weights: Tensor
    size: int

    def moment(self, power: int) -> Estimate:
        """Return the mean of ``lambda ** power``; ``size`` times the first moment is the trace."""
        return Estimate.of((self.weights * self.nodes**power).sum(dim=1).tolist())

    def share_below(self, bound: float) -> Estimate:
        """Return the share of eigenvalues below a bound, up to the spacing of the nodes."""
        return Estimate.of((self.weights * (self.nodes < bound)).sum(dim=1).tolist())

    def curve(self, at: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """Return the density smoothed by a Gaussian kernel, and its standard error.

        Args:
            at: (n,) eigenvalues at which the density is evaluated.
            width: standard deviation of the kernel, in units of eigenvalues, > 0.

        Returns:
            Mean over the probes and standard error, (n,) float64 each, per unit of eigenvalue; the
            error is 0 for a single probe.
        """
        check_number("width", width)
        if not width:
            raise ValueError("width must be > 0, got 0")
        distance = (at.double() - self.nodes[..., None]) / width
        kernel = torch.exp(-(distance**2) / 2) / (width * math.sqrt(2 * math.pi))
        rows = (self.weights[..., None] * kernel).sum(dim=1)
        spread = rows.std(dim=0) if len(rows) > 1 else torch.zeros_like(rows[0])
        return rows.mean(dim=0), spread / len(rows) ** 0.5

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        return {
            "nodes": self.nodes.tolist(),
            "weights": self.weights.tolist(),
            "size": self.size,
            "mean": self.moment(1).as_dict(),
        }


def estimate_density(
    operator: Symmetric, *, probes: int = 4, steps: int = 40, seed: int = 0
) -> Density:
    """Estimate the spectral density of a symmetric matrix.

    Args:
        operator: the matrix; see ``Symmetric``.
        probes: number of random vectors; the standard error is over them.
        steps: Lanczos steps per probe, one product each; at most ``size``. Memory: ``steps`` + 2
            vectors, for any number of probes.
        seed: draws the vectors.

    Returns:
        The density with ``steps`` nodes per probe.

    Raises:
        ValueError: an option out of range; NaN in a product.

    Example:
        >>> class Diagonal:
        ...     size, dtype, device = 4, torch.float64, torch.device("cpu")
        ...     def __matmul__(self, v):
        ...         return torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64) * v
        >>> estimate_density(Diagonal(), probes=1).nodes.round(decimals=6).abs().tolist()
        [[0.0, 1.0, 2.0, 3.0]]
    """
    check_integer("probes", probes, 1)
    check_integer("steps", steps, 1)
    capacity = min(steps, operator.size)
    space = Krylov.start(operator, capacity, seed, "probes of the density")
    nodes, weights = [], []
    for probe in range(probes):
        if probe:
            space.reset()
        while space.filled < capacity:
            space.step()
        values, vectors, _ = space.ritz()
        nodes.append(values)
        weights.append(vectors[0] ** 2)
    return Density(torch.stack(nodes), torch.stack(weights), operator.size)


def density(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    probes: int = 4,
    steps: int = 40,
    seed: int = 0,
    **options: Any,
) -> Density:
    """Estimate the spectral density of the curvature of a model's loss.

    Args:
        model: see ``Curvature``, also for ``loss``, ``data`` and ``options``.
        loss: (scores, labels) -> mean over the batch.
        data: yields (inputs, labels), or a ``Difference``.
        probes: number of random vectors; see ``estimate_density``.
        steps: Lanczos steps per probe; see ``estimate_density``.
        seed: draws the vectors.
        options: ``params``, ``kind``, ``dtype``, ``device``, ``keep``.

    Returns:
        The density; ``Density.curve`` evaluates it.

    Raises:
        ValueError: see ``Curvature`` and ``estimate_density``.

    Example:
        >>> model = nn.Linear(1, 2, bias=False).double()
        >>> _ = nn.init.zeros_(model.weight)
        >>> found = density(model, nn.CrossEntropyLoss(), [(torch.ones(1, 1), torch.tensor([0]))])
        >>> found.nodes[0].round(decimals=6).abs().tolist()
        [0.0, 0.5]
    """
    curvature = Curvature(model, loss, data, **options)
    return estimate_density(curvature, probes=probes, steps=steps, seed=seed)

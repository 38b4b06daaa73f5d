# SPDX-License-Identifier: Apache-2.0
r"""Extreme eigenvalues of the curvature, with eigenvectors and residuals.

    H v = lambda v,      residual = ||H v - lambda v||

H has an eigenvalue within the residual of every lambda. Method: Lanczos with full
reorthogonalisation and thick restarts (Wu, Simon, *Thick-restart Lanczos method for large symmetric
eigenvalue problems*, SIAM J. Matrix Anal. Appl. 22, 2000).
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.spectrum.curvature import Curvature, Symmetric
from d3fast.spectrum.lanczos import Krylov
from d3fast.spectrum.samples import Data, Loss

WHICH = ("magnitude", "largest", "smallest")


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenvalues in the requested order, the extreme one first.

    Attributes:
        values: (k,) float64 on the CPU.
        vectors: (k, size), orthonormal rows, on the device.
        residuals: (k,) float64, ``||H v - lambda v||`` from the recurrence, exact up to rounding.
        converged: True if every residual is within the tolerance.
        products: number of products with the curvature.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: bool
    products: int

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON, without the vectors."""
        return {
            "values": self.values.tolist(),
            "residuals": self.residuals.tolist(),
            "converged": self.converged,
            "products": self.products,
        }


def _keys(values: Tensor, which: str) -> Tensor:
    return {"magnitude": -values.abs(), "largest": -values, "smallest": values}[which]


def _done(space: Krylov, chosen: Tensor, keys: Tensor, within: Tensor, coordinates: Tensor) -> bool:
    """Return True if the chosen Ritz pairs, all converged, are the extreme ones."""
    if space.exhausted or not space.block:
        return space.exhausted or not space.closed
    # Outside an invariant subspace there may be further copies of an eigenvalue: the best pair of
    # the newest block must have converged and be no better than the chosen ones.
    newest = space.newest(coordinates).nonzero().flatten()
    best = newest[keys[newest].argmin()]
    rounding = 1e-9 * float(keys.abs().max())
    return bool(within[best]) and bool(keys[best] >= keys[chosen[-1]] - rounding)


def eigenpairs(
    operator: Symmetric,
    k: int = 10,
    *,
    which: str = "magnitude",
    tol: float = 1e-4,
    steps: int | None = None,
    max_products: int = 1000,
    seed: int = 0,
) -> Eigenpairs:
    """Compute the k extreme eigenpairs of a symmetric matrix.

    Args:
        operator: the matrix; see ``Symmetric``.
        k: number of pairs.
        which: ``"magnitude"``, ``"largest"`` or ``"smallest"``.
        tol: relative tolerance: a pair has converged if its residual is at most ``tol`` times its
            eigenvalue, or ``tol`` times 1e-6 of the largest eigenvalue found. A loose tolerance
            may miss an eigenvalue that has a small component in the first direction.
        steps: size of the basis, k + 2 <= ``steps`` <= ``size``; ``4 k + 20`` if ``None``. Memory:
            ``steps`` + 2 vectors; fewer steps need more products.
        max_products: stop after this many products; the current pairs are returned with
            ``converged=False``.
        seed: draws the first direction.

    Returns:
        The pairs. No other computed pair could, within its residual, be more extreme. A multiple
        eigenvalue may be listed fewer times than it occurs, because a Krylov space contains one
        copy unless rounding or an exhausted space reveals more.

    Raises:
        ValueError: k larger than the matrix; an option out of range; NaN in a product.

    Example:
        >>> import torch
        >>> class Diagonal:
        ...     size, dtype, device = 4, torch.float64, torch.device("cpu")
        ...     def __matmul__(self, v):
        ...         return torch.tensor([3.0, -5.0, 1.0, 0.0], dtype=torch.float64) * v
        >>> [round(value, 6) for value in eigenpairs(Diagonal(), k=2).values.tolist()]
        [-5.0, 3.0]
    """
    check_choice("which", which, WHICH)
    check_number("tol", tol)
    check_integer("k", k, 1)
    check_integer("max_products", max_products, 1)
    if k > operator.size:
        raise ValueError(f"k must be at most the {operator.size} weights, got {k}")
    capacity = min(4 * k + 20 if steps is None else steps, operator.size)
    check_integer("steps", capacity, min(k + 2, operator.size))
    space = Krylov.start(operator, capacity, seed, "first direction of the eigenpairs")
    while True:
        space.step()
        values, coordinates, residuals = space.ritz()
        keys = _keys(values, which)
        order = keys.argsort(stable=True)
        chosen = order[:k]
        within = residuals <= tol * values.abs().clamp_min(1e-6 * float(values.abs().max()))
        done = len(chosen) == k and bool(within[chosen].all())
        # A pair that has not converged could still become more extreme than the last chosen one.
        rest = order[k:]
        last = float(keys[chosen[-1]])
        done = done and bool((keys[rest] - residuals[rest] >= last - tol * abs(last)).all())
        done = done and _done(space, chosen, keys, within, coordinates)
        if done or space.products == max_products or space.exhausted:
            break
        if space.filled == capacity:
            kept = order[: k + (capacity - k) // 2]
            space.restart(values[kept], coordinates[:, kept])
    space.rotate(coordinates[:, chosen])
    return Eigenpairs(
        values[chosen], space.basis[: len(chosen)], residuals[chosen], done, space.products
    )


def top_eigenpairs(
    model: nn.Module,
    loss: Loss,
    data: Data,
    k: int = 10,
    *,
    which: str = "magnitude",
    tol: float = 1e-4,
    steps: int | None = None,
    max_products: int = 1000,
    seed: int = 0,
    **options: Any,
) -> Eigenpairs:
    """Compute the k extreme eigenpairs of the curvature of a model's loss.

    Args:
        model: see ``Curvature``, also for ``loss``, ``data`` and ``options``.
        loss: (scores, labels) -> mean over the batch.
        data: yields (inputs, labels), or a ``Difference``.
        k: number of pairs; see ``eigenpairs``, also for the rest.
        which: ``"magnitude"``, ``"largest"`` or ``"smallest"``.
        tol: relative tolerance of the residuals.
        steps: size of the basis.
        max_products: stop after this many products.
        seed: draws the first direction.
        options: ``params``, ``kind``, ``dtype``, ``device``, ``keep``.

    Returns:
        The pairs with their residuals.

    Raises:
        ValueError: see ``Curvature`` and ``eigenpairs``.

    Example:
        >>> import torch
        >>> model = nn.Linear(3, 2).double()
        >>> data = [(torch.eye(3), torch.tensor([0, 1, 0]))]
        >>> found = top_eigenpairs(model, nn.CrossEntropyLoss(), data, k=1)
        >>> found.converged, found.vectors.shape
        (True, torch.Size([1, 8]))
    """
    curvature = Curvature(model, loss, data, **options)
    return eigenpairs(
        curvature, k, which=which, tol=tol, steps=steps, max_products=max_products, seed=seed
    )

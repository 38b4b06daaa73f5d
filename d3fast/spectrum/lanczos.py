# SPDX-License-Identifier: Apache-2.0
r"""Lanczos method with full reorthogonalisation and thick restarts.

    A V_m = V_m T_m + beta_m v_{m+1} e_m^T,      V_m^T V_m = I

Every new direction is orthogonalised twice against all earlier ones (Parlett: twice is enough). So
rounding produces no spurious copies of eigenvalues, and the estimate |beta_m s_m| of a residual is
accurate. T is stored as a full matrix, because after a thick restart (Wu, Simon 2000) it is not
tridiagonal. Used by ``top_eigenpairs`` and ``density``.

Memory: the basis of m + 1 vectors and the current product.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d3fast.runtime.seeding import generator as seeded
from d3fast.spectrum.curvature import Symmetric

# Columns per matrix product in ``Krylov.rotate``: bounds its memory at little cost in calls.
_CHUNK = 1 << 16


def random_vector(operator: Symmetric, draws: torch.Generator) -> Tensor:
    """Return a unit vector (size,) in a uniformly random direction, the same on every device."""
    vector = torch.randn(operator.size, generator=draws, dtype=torch.float64)
    return (vector / vector.norm()).to(operator.device, operator.dtype)


@dataclass
class Krylov:
    """Growing orthonormal basis of a Krylov space.

    Attributes:
        operator: the matrix.
        basis: (m + 1, size); the first ``filled`` + 1 rows are in use.
        projected: (m, m) float64 on the CPU, V^T A V.
        draws: a CPU generator of random directions.
        filled: number of basis vectors that have been multiplied by the matrix.
        beta: norm of the last product's component outside the basis; 0 if the space is invariant.
        products: number of products computed.
        block: first row of the newest block, which starts where an invariant subspace was
            extended by a random direction; 0 if there was none.
        closed: True if the last step found an invariant subspace.
    """

    operator: Symmetric
    basis: Tensor
    projected: Tensor
    draws: torch.Generator
    filled: int = 0
    beta: float = 0.0
    products: int = 0
    block: int = 0
    closed: bool = False

    @classmethod
    def start(cls, operator: Symmetric, steps: int, seed: int, stream: str) -> "Krylov":
        """Allocate a basis for ``steps`` directions and draw the first one."""
        draws = seeded(seed, stream)
        basis = torch.empty(
            min(steps + 1, operator.size),
            operator.size,
            dtype=operator.dtype,
            device=operator.device,
        )
        basis[0] = random_vector(operator, draws)
        return cls(operator, basis, torch.zeros(steps, steps, dtype=torch.float64), draws)

    def reset(self) -> None:
        """Restart from another random direction in the same memory."""
        self.basis[0] = random_vector(self.operator, self.draws)
        self.projected.zero_()
        self.filled, self.beta, self.block, self.closed = 0, 0.0, 0, False

    @property
    def exhausted(self) -> bool:
        """True if the basis spans the whole space."""
        return self.filled == self.operator.size

    def _orthogonalise(self, vector: Tensor, count: int) -> Tensor:
        """Orthogonalise a vector against ``count`` basis vectors in place; return (count,)."""
        rows = self.basis[:count]
        coefficients = torch.zeros(count, dtype=torch.float64)
        for _ in range(2):
            part = rows @ vector
            vector.addmv_(rows.T, part, alpha=-1)
            coefficients += part.to("cpu", torch.float64)
        return coefficients

    def step(self) -> None:
        """Multiply the newest basis vector by the matrix and append the next one.

        Raises:
            ValueError: NaN or inf in the product.
        """
        j = self.filled
        if self.closed:
            self.block, self.closed = j, False
        product = self.operator @ self.basis[j]
        self.products += 1
        inside = self._orthogonalise(product, j + 1)
        self.beta = float(product.norm())
        if not torch.isfinite(inside).all() or self.beta != self.beta:
            raise ValueError("a product with the curvature holds NaN or inf")
        self.projected[: j + 1, j] = inside
        self.projected[j, : j + 1] = inside
        self.filled = j + 1
        if self.exhausted:
            self.beta = 0.0
            return
        rounding = 100 * torch.finfo(self.operator.dtype).eps
        if self.beta <= rounding * float(self.projected.abs().max()):
            # Continue outside the invariant subspace, where copies of eigenvalues may lie.
            self.beta, self.closed = 0.0, True
            product = random_vector(self.operator, self.draws)
            self._orthogonalise(product, j + 1)
        self.basis[j + 1] = product.div_(product.norm())
        if self.filled < len(self.projected):
            self.projected[j + 1, j] = self.projected[j, j + 1] = self.beta

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return Ritz values (filled,), coordinates (filled, filled) as columns, residuals."""
        # Invariant subspaces are solved separately: if they share an eigenvalue, eigenvectors of
        # the whole matrix could mix the blocks.
        parts = [(0, self.block), (self.block, self.filled)] if self.block else [(0, self.filled)]
        solved = [torch.linalg.eigh(self.projected[a:b, a:b]) for a, b in parts]
        values, order = torch.cat([part for part, _ in solved]).sort(stable=True)
        vectors = torch.block_diag(*[part for _, part in solved])  # type: ignore[no-untyped-call]
        vectors = vectors[:, order]
        return values, vectors, self.beta * vectors[-1].abs()

    def rotate(self, coordinates: Tensor) -> None:
        """Replace the first n rows of the basis by combinations of its filled rows, in place.

        Args:
            coordinates: (filled, n), orthonormal columns.
        """
        rotation = coordinates.T.to(self.operator.device, self.operator.dtype)
        count = len(rotation)
        for start in range(0, self.operator.size, _CHUNK):
            part = self.basis[: self.filled, start : start + _CHUNK]
            self.basis[:count, start : start + _CHUNK] = rotation @ part

    def newest(self, coordinates: Tensor) -> Tensor:
        """Return (n,) bool: True for Ritz vectors (columns) that belong to the newest block."""
        return coordinates[self.block :].square().sum(dim=0) > 0.5

    def restart(self, values: Tensor, coordinates: Tensor) -> None:
        """Keep the chosen Ritz vectors and the newest direction (thick restart)."""
        first = self.newest(coordinates).int().argsort(stable=True)  # older blocks first
        values, coordinates = values[first], coordinates[:, first]
        self.block = len(values) - int(self.newest(coordinates).sum())
        count, newest = len(values), self.filled
        self.rotate(coordinates)
        self.basis[count] = self.basis[newest]
        self.projected.zero_()
        self.projected[range(count), range(count)] = values
        self.filled = count

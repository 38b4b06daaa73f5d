# SPDX-License-Identifier: Apache-2.0
r"""Lanczos' method with full reorthogonalisation: an orthonormal basis, and a matrix in it.

    A V_m = V_m T_m + beta_m v_{m+1} e_m^T,      V_m^T V_m = I

Every new direction is orthogonalised twice against all earlier ones (Parlett: twice is enough), so
no eigenvalue is found twice because of rounding, and the estimate |beta_m s_m| of a residual is the
residual. T is kept whole instead of as a tridiagonal: after a thick restart (Wu, Simon 2000) it is
none. Used by ``top_eigenpairs`` and ``density``.

Memory: the basis of m + 1 vectors and the product that is being made.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d3fast.runtime.seeding import generator as seeded
from d3fast.spectrum.curvature import Symmetric

# Columns that a basis is rotated by at a time: small beside the basis, large beside a call.
_CHUNK = 1 << 16


def random_vector(operator: Symmetric, draws: torch.Generator) -> Tensor:
    """A unit vector (size,) in a uniformly random direction; the same on every device."""
    vector = torch.randn(operator.size, generator=draws, dtype=torch.float64)
    return (vector / vector.norm()).to(operator.device, operator.dtype)


@dataclass
class Krylov:
    """A growing basis of a matrix' Krylov space.

    Attributes:
        operator: the matrix.
        basis: (m + 1, size), of which the first ``filled`` + 1 rows are in use, orthonormal.
        projected: (m, m) float64 on the CPU, V^T A V.
        draws: where directions come from when a space is exhausted.
        filled: number of directions that have been multiplied.
        beta: norm of what the last product had outside of the basis; 0 if nothing.
        products: how many were computed.
        block: first row of the newest block: where the space went on after it had closed, 0 if
            it never did.
        closed: whether the last step left nothing outside of the basis.
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
        """Room for ``steps`` directions, the first one random."""
        draws = seeded(seed, stream)
        basis = torch.empty(
            min(steps + 1, operator.size),
            operator.size,
            dtype=operator.dtype,
            device=operator.device,
        )
        basis[0] = random_vector(operator, draws)
        return cls(operator, basis, torch.zeros(steps, steps, dtype=torch.float64), draws)

    def again(self) -> None:
        """Begin anew with another random direction, in the same memory."""
        self.basis[0] = random_vector(self.operator, self.draws)
        self.projected.zero_()
        self.filled, self.beta, self.block, self.closed = 0, 0.0, 0, False

    @property
    def exhausted(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.filled == self.operator.size

    def _orthogonalise(self, vector: Tensor, count: int) -> Tensor:
        """Take the first ``count`` directions out of a vector, in place; what was in it."""
        rows = self.basis[:count]
        found = torch.zeros(count, dtype=torch.float64)
        for _ in range(2):
            share = rows @ vector
            vector.addmv_(rows.T, share, alpha=-1)
            found += share.to("cpu", torch.float64)
        return found

    def step(self) -> None:
        """Multiply the newest direction and add the next one.

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
            # What lies beside a closed space, copies of eigenvalues too, is begun anew.
            self.beta, self.closed = 0.0, True
            product = random_vector(self.operator, self.draws)
            self._orthogonalise(product, j + 1)
        self.basis[j + 1] = product.div_(product.norm())
        if self.filled < len(self.projected):
            self.projected[j + 1, j] = self.projected[j, j + 1] = self.beta

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values (filled,), their vectors in the basis as columns, residuals (filled,)."""
        # Closed spaces are taken by themselves: where they share an eigenvalue, which vectors come
        # out of the whole matrix is up to rounding, and may belong to no block.
        parts = [(0, self.block), (self.block, self.filled)] if self.block else [(0, self.filled)]
        solved = [torch.linalg.eigh(self.projected[a:b, a:b]) for a, b in parts]
        values, order = torch.cat([found for found, _ in solved]).sort(stable=True)
        vectors = torch.block_diag(*[turn for _, turn in solved])  # type: ignore[no-untyped-call]
        vectors = vectors[:, order]
        return values, vectors, self.beta * vectors[-1].abs()

    def rotate(self, coordinates: Tensor) -> None:
        """Replace the first rows of the basis by combinations of its filled rows, in place.

        Args:
            coordinates: (filled, n), orthonormal columns.
        """
        turn = coordinates.T.to(self.operator.device, self.operator.dtype)
        count = len(turn)
        for start in range(0, self.operator.size, _CHUNK):
            part = self.basis[: self.filled, start : start + _CHUNK]
            self.basis[:count, start : start + _CHUNK] = turn @ part

    def newest(self, coordinates: Tensor) -> Tensor:
        """Which Ritz vectors, columns of coordinates, belong to the newest block."""
        return coordinates[self.block :].square().sum(dim=0) > 0.5

    def restart(self, values: Tensor, coordinates: Tensor) -> None:
        """Go on with the chosen Ritz vectors and the newest direction (thick restart)."""
        first = self.newest(coordinates).int().argsort(stable=True)  # older blocks stay in front
        values, coordinates = values[first], coordinates[:, first]
        self.block = len(values) - int(self.newest(coordinates).sum())
        count, newest = len(values), self.filled
        self.rotate(coordinates)
        self.basis[count] = self.basis[newest]
        self.projected.zero_()
        self.projected[range(count), range(count)] = values
        self.filled = count

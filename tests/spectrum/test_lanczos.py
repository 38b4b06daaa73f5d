# SPDX-License-Identifier: Apache-2.0
"""Lanczos: the recurrence, invariant subspaces and thick restarts on dense matrices."""

import pytest
import torch

from d3fast.runtime.seeding import generator
from d3fast.spectrum.lanczos import Krylov, random_vector
from tests.spectrum.conftest import with_eigenvalues


def _space(operator, capacity, steps):
    space = Krylov.start(operator, capacity, 0, "test")
    for _ in range(steps):
        space.step()
    return space


def test_the_basis_is_orthonormal_and_the_projection_that_of_the_matrix():
    operator = with_eigenvalues(torch.linspace(-3, 5, 40))
    space = _space(operator, 12, 10)
    basis = space.basis[:11]
    torch.testing.assert_close(basis @ basis.T, torch.eye(11).double())
    projected = basis[:10] @ operator.matrix @ basis[:10].T
    torch.testing.assert_close(space.projected[:10, :10], projected)
    assert space.products == operator.products == 10


def test_the_residuals_are_those_of_the_ritz_pairs():
    operator = with_eigenvalues(torch.linspace(-3, 5, 40))
    space = _space(operator, 12, 10)
    values, coordinates, residuals = space.ritz()
    vectors = coordinates.T @ space.basis[:10]
    exact = (vectors @ operator.matrix - values[:, None] * vectors).norm(dim=1)
    torch.testing.assert_close(residuals, exact)


def test_a_restart_keeps_the_chosen_pairs_and_the_recurrence():
    operator = with_eigenvalues(torch.linspace(-3, 5, 40))
    space = _space(operator, 12, 12)
    values, coordinates, _ = space.ritz()
    space.restart(values[-4:], coordinates[:, -4:])
    assert space.filled == 4
    for _ in range(4):
        space.step()
    basis = space.basis[:8]
    torch.testing.assert_close(space.projected[:8, :8], basis @ operator.matrix @ basis.T)
    assert space.ritz()[0][-1] >= values[-1] - 1e-12


def test_an_invariant_subspace_is_extended_until_the_space_is_exhausted():
    operator = with_eigenvalues([2.0] * 5 + [1.0])
    space = _space(operator, 6, 6)
    assert space.exhausted
    torch.testing.assert_close(space.ritz()[0], torch.tensor([1.0, *[2.0] * 5]).double())


def test_a_reset_continues_the_stream_of_random_directions():
    operator = with_eigenvalues(torch.linspace(0, 1, 20))
    space = _space(operator, 5, 5)
    first = space.basis[0].clone()
    space.reset()
    assert (space.filled, space.beta) == (0, 0.0)
    assert not torch.equal(space.basis[0], first)
    assert space.basis[0].norm() == pytest.approx(1)


def test_random_vectors_have_norm_one_and_depend_on_the_generator():
    operator = with_eigenvalues(torch.linspace(0, 1, 20))
    first, again, other = (random_vector(operator, generator(seed, "v")) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.norm() == pytest.approx(1)

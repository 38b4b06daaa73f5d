"""Eigenpairs of matrices whose spectrum is known, and of a model with a dense Hessian."""

import copy

import pytest
import torch
from torch import nn

from d3fast.spectrum import Curvature, eigenpairs, top_eigenpairs
from d3fast.spectrum.lanczos import Krylov
from tests.spectrum.conftest import dense_hessian, with_eigenvalues

SPECTRA = {
    "spread": torch.linspace(-1, 5, 60),
    "clustered": torch.cat([torch.tensor([9.0, 8.999, 8.99, -8.9]), torch.linspace(-1, 1, 76)]),
    "negative": -torch.linspace(1, 100, 50),
    "zeros": torch.cat([torch.tensor([4.0, -3.0, 2.0]), torch.zeros(57)]),
    "repeated": torch.tensor([5.0] * 3 + [-2.0] * 3 + [1.0] * 4),
    "one value": torch.full((12,), 2.5),
    "nothing": torch.zeros(8),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest"])
@pytest.mark.parametrize("steps", [None, 14])
def test_the_outermost_eigenvalues_are_found(spectrum, which, steps):
    values = SPECTRA[spectrum].double()
    key = {"magnitude": -values.abs(), "largest": -values, "smallest": values}[which]
    operator = with_eigenvalues(values)
    found = eigenpairs(operator, k=5, which=which, steps=steps, tol=1e-8)
    assert found.converged
    torch.testing.assert_close(
        found.values.abs(), values[key.argsort(stable=True)][:5].abs(), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("steps", [None, 14])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_residuals_and_vectors_are_true(steps, dtype):
    operator = with_eigenvalues(SPECTRA["clustered"], dtype)
    found = eigenpairs(operator, k=6, steps=steps, tol=1e-3)
    vectors = found.vectors
    rounding = 50 * torch.finfo(dtype).eps * 9
    torch.testing.assert_close(
        vectors @ vectors.T, torch.eye(6, dtype=dtype), atol=rounding, rtol=0
    )
    true = (vectors @ operator.matrix - found.values.to(dtype)[:, None] * vectors).norm(dim=1)
    torch.testing.assert_close(true.double(), found.residuals, atol=rounding, rtol=0.01)


def test_products_are_counted_and_bounded():
    operator = with_eigenvalues(torch.linspace(0, 1, 200))
    found = eigenpairs(operator, k=3, tol=1e-12, max_products=17)
    assert (found.products, operator.products, found.converged) == (17, 17, False)
    assert (found.residuals > 0).any()


def test_a_loose_tolerance_needs_fewer_products():
    spectrum = torch.linspace(0, 1, 200) ** 3
    few, many = (eigenpairs(with_eigenvalues(spectrum), k=3, tol=tol) for tol in (1e-1, 1e-8))
    assert few.products < many.products


def test_a_loose_tolerance_passes_over_none_that_lies_further_out():
    values = torch.cat(
        [
            torch.linspace(6, 1, 8),
            torch.tensor([0.53, 0.50, 0.48]),
            0.45 * torch.linspace(-1, 1, 400),
        ]
    )
    for seed in range(10):
        found = eigenpairs(with_eigenvalues(values), k=9, tol=1e-2, seed=seed)
        torch.testing.assert_close(found.values[-1], torch.tensor(0.53).double(), rtol=0.01, atol=0)


def test_memory_is_that_of_the_steps_whatever_the_number_of_products():
    operator = with_eigenvalues(torch.linspace(0, 1, 300))
    space = Krylov.start(operator, 12, 0, "test")
    assert space.basis.shape == (13, 300)
    found = eigenpairs(operator, k=3, steps=12, tol=1e-6)
    assert found.products > 24
    assert found.vectors._base.shape == (13, 300)


def test_the_same_seed_gives_the_same_bits():
    operator = with_eigenvalues(SPECTRA["spread"])
    first, second, other = (eigenpairs(operator, k=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.vectors, second.vectors)
    assert not torch.equal(first.vectors, other.vectors)


def test_the_eigenvalues_of_a_model_are_those_of_its_dense_hessian(net, batches):
    dense = dense_hessian(copy.deepcopy(net).eval(), batches)
    values = torch.linalg.eigvalsh(dense)
    expected = values[values.abs().argsort(descending=True)][:10]
    found = top_eigenpairs(net, nn.CrossEntropyLoss(), batches, k=10, tol=1e-7)
    torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=1e-6)


def test_a_class_of_their_own_is_ready_for_json():
    found = eigenpairs(with_eigenvalues([3.0, 1.0]), k=1).as_dict()
    assert found["values"] == pytest.approx([3.0])
    assert set(found) == {"values", "residuals", "converged", "products"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 61}, "k must be at most the 60 weights, got 61"),
        ({"k": 0}, "k must be an integer >= 1"),
        ({"which": "middle"}, "which must be one of"),
        ({"tol": float("nan")}, "tol must be finite"),
        ({"k": 5, "steps": 6}, "steps must be an integer >= 7"),
        ({"max_products": 0}, "max_products must be an integer >= 1"),
    ],
)
def test_an_option_out_of_range_gets_one_line(options, said):
    with pytest.raises(ValueError, match=said):
        eigenpairs(with_eigenvalues(SPECTRA["spread"]), **options)


def test_nan_in_a_product_gets_one_line():
    operator = with_eigenvalues(SPECTRA["spread"])
    operator.matrix[0, 0] = float("nan")
    with pytest.raises(ValueError, match="holds NaN or inf"):
        eigenpairs(operator, k=1)


def test_all_of_a_small_matrix_can_be_asked_for(net, batches):
    curvature = Curvature(net, nn.CrossEntropyLoss(), batches, params="^1")
    found = eigenpairs(curvature, k=curvature.size, which="smallest")
    dense = dense_hessian(copy.deepcopy(net).eval(), batches, ["1.weight", "1.bias"])
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(dense))

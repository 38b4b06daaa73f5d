"""The trace, and whether its error bar can be believed."""

import copy
import math

import pytest
import torch
from torch import nn

from d3fast.spectrum import estimate_trace, trace
from tests.spectrum.conftest import dense_hessian, with_eigenvalues

SPECTRUM = torch.cat([torch.tensor([50.0, -20.0, 10.0]), torch.linspace(-1, 1, 97) + 0.1])


@pytest.mark.parametrize("sketch", [0, 10])
def test_the_error_bar_covers_the_truth_as_often_as_it_should(sketch):
    operator, truth = with_eigenvalues(SPECTRUM), float(SPECTRUM.double().sum())
    runs = [estimate_trace(operator, probes=20, sketch=sketch, seed=seed) for seed in range(100)]
    within = sum(abs(run.value - truth) <= 2 * run.standard_error for run in runs)
    assert within >= 85  # 95 of a hundred are expected, and 19 degrees of freedom cost two of them
    mean = sum(run.value for run in runs) / 100
    error = math.sqrt(sum(run.standard_error**2 for run in runs)) / 100
    assert abs(mean - truth) < 4 * error


def test_a_sketch_narrows_the_error_bar():
    operator = with_eigenvalues(SPECTRUM)
    plain, sketched = (estimate_trace(operator, probes=20, sketch=n) for n in (0, 10))
    assert sketched.standard_error < plain.standard_error / 3


def test_it_is_exact_where_the_sketch_is_everything():
    found = estimate_trace(with_eigenvalues([3.0, -1.0, 0.5]), sketch=3)
    assert found.value == pytest.approx(2.5)
    assert found.standard_error == 0


def test_it_takes_two_products_per_direction_and_one_per_probe():
    operator = with_eigenvalues(SPECTRUM)
    estimate_trace(operator, probes=7, sketch=5)
    assert operator.products == 17


def test_the_trace_of_a_model_is_that_of_its_dense_hessian(net, batches):
    truth = float(dense_hessian(copy.deepcopy(net).eval(), batches).trace())
    found = trace(net, nn.CrossEntropyLoss(), batches, sketch=30, probes=40)
    assert abs(found.value - truth) <= 4 * found.standard_error
    assert found.standard_error < 0.05 * abs(truth)


@pytest.mark.parametrize("options", [{"probes": 1}, {"sketch": -1}])
def test_an_option_out_of_range_gets_one_line(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be an integer"):
        estimate_trace(with_eigenvalues([1.0]), **options)


def test_nan_in_a_product_gets_one_line():
    operator = with_eigenvalues(SPECTRUM)
    operator.matrix[0, 0] = float("nan")
    with pytest.raises(ValueError, match="holds NaN or inf"):
        estimate_trace(operator, sketch=0)

"""The spectral density against the eigenvalues themselves."""

import copy

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn

from d3fast.spectrum import density, estimate_density
from tests.spectrum.conftest import dense_hessian, with_eigenvalues

SPECTRUM = torch.cat([torch.tensor([6.0, -2.0]), torch.linspace(-0.5, 1, 298)]).double()


def distance(found, values):
    weights = found.weights.flatten().numpy()
    return wasserstein_distance(found.nodes.flatten().numpy(), values.numpy(), weights)


@pytest.mark.parametrize("power", [0, 1, 2, 3, 6])
def test_moments_are_within_their_error_bars(power):
    found = estimate_density(with_eigenvalues(SPECTRUM), probes=30, steps=20).moment(power)
    assert abs(found.value - float((SPECTRUM**power).mean())) <= 4 * found.standard_error + 1e-9


@pytest.mark.parametrize("power", [1, 2, 5, 9])
def test_five_steps_give_the_ninth_moment_of_a_probe_exactly(power):
    operator = with_eigenvalues(SPECTRUM)
    few, many = (estimate_density(operator, probes=1, steps=steps) for steps in (5, 60))
    assert few.moment(power).value == pytest.approx(many.moment(power).value, rel=1e-9)


def test_it_is_near_the_eigenvalues_in_wasserstein_distance():
    found = estimate_density(with_eigenvalues(SPECTRUM), probes=30, steps=40)
    assert distance(found, SPECTRUM) < 0.05


def test_the_shares_of_every_probe_add_up_to_one():
    found = estimate_density(with_eigenvalues(SPECTRUM), probes=3, steps=10)
    assert found.nodes.shape == found.weights.shape == (3, 10)
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(3).double())
    assert found.share_below(10.0).value == pytest.approx(1)
    negative = float((SPECTRUM < 0).double().mean())
    assert found.share_below(0.0).value == pytest.approx(negative, abs=0.1)


def test_the_curve_integrates_to_one_and_has_an_error():
    found = estimate_density(with_eigenvalues(SPECTRUM), probes=3, steps=10)
    at = torch.linspace(-5, 9, 2001)
    height, error = found.curve(at, width=0.1)
    assert float(torch.trapezoid(height, at.double())) == pytest.approx(1, abs=1e-3)
    assert (error >= 0).all()
    assert error.max() > 0
    with pytest.raises(ValueError, match="width must be > 0"):
        found.curve(at, width=0)


def test_repeated_and_zero_eigenvalues_do_not_disturb_it():
    values = torch.tensor([3.0] * 10 + [0.0] * 30).double()
    found = estimate_density(with_eigenvalues(values), probes=40, steps=6)
    assert distance(found, values) < 0.2
    assert estimate_density(with_eigenvalues(torch.zeros(9)), probes=2).moment(2).value < 1e-12


def test_the_density_of_a_model_is_that_of_its_dense_hessian(net, batches):
    values = torch.linalg.eigvalsh(dense_hessian(copy.deepcopy(net).eval(), batches))
    found = density(net, nn.CrossEntropyLoss(), batches, probes=20, steps=30)
    assert found.size == len(values)
    assert distance(found, values) < 0.1 * float(values.max() - values.min())
    mean = found.moment(1)
    assert abs(mean.value - float(values.mean())) <= 4 * mean.standard_error


@pytest.mark.parametrize("options", [{"probes": 0}, {"steps": 0}])
def test_an_option_out_of_range_gets_one_line(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be an integer"):
        estimate_density(with_eigenvalues([1.0]), **options)

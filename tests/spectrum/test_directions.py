"""Curvature along a direction, and what it predicts."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from d3fast.spectrum import directional_curvature, quadratic_prediction
from tests.spectrum.conftest import dense_hessian

CE = nn.CrossEntropyLoss()


def moved(net, by):
    other = copy.deepcopy(net)
    torch.manual_seed(1)
    with torch.no_grad():
        for param in other.parameters():
            param.add_(by * torch.randn_like(param))
    return other


def test_it_is_the_rayleigh_quotient_with_its_residual(net, batches):
    dense = dense_hessian(copy.deepcopy(net).eval(), batches)
    direction = torch.randn(len(dense)).double()
    unit = direction / direction.norm()
    found = directional_curvature(net, CE, batches, direction)
    assert found.value == pytest.approx(float(unit @ dense @ unit))
    assert found.norm == pytest.approx(float(direction.norm()))
    assert found.residual == pytest.approx(float((dense @ unit - found.value * unit).norm()))


def test_along_an_eigenvector_it_is_the_eigenvalue(net, batches):
    values, vectors = torch.linalg.eigh(dense_hessian(copy.deepcopy(net).eval(), batches))
    found = directional_curvature(net, CE, batches, 3 * vectors[:, -1])
    assert found.value == pytest.approx(float(values[-1]))
    assert found.residual < 1e-9


def test_a_model_stands_for_the_direction_to_it(net, batches):
    other = moved(net, 0.3)
    pairs = zip(other.parameters(), net.parameters(), strict=True)
    delta = torch.cat([(a - b).detach().flatten() for a, b in pairs])
    by_model = directional_curvature(net, CE, batches, other)
    assert by_model.value == pytest.approx(directional_curvature(net, CE, batches, delta).value)


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        (torch.zeros(177).double(), "a direction must have a norm > 0"),
        (torch.ones(3).double(), "a vector must be"),
        (nn.Linear(2, 2), r"the model has no 0\.weight of shape"),
    ],
)
def test_a_direction_that_is_none_gets_one_line(net, batches, direction, said):
    if isinstance(direction, torch.Tensor) and len(direction) == 177:
        direction = torch.zeros(sum(p.numel() for p in net.parameters())).double()
    with pytest.raises(ValueError, match=said):
        directional_curvature(net, CE, batches, direction)


def test_a_small_step_is_predicted_to_third_order(net, batches):
    errors = []
    for by in (1e-2, 5e-3):
        found = quadratic_prediction(net, moved(net, by), CE, batches)
        errors.append(abs(found.predicted - found.actual))
    assert errors[0] < 1e-2
    assert errors[1] < errors[0] / 5  # eight in the limit


def test_its_parts_are_those_of_the_expansion(net, batches):
    other = moved(net, 0.1)
    found = quadratic_prediction(net, other, CE, batches)
    start, end = copy.deepcopy(net).eval(), copy.deepcopy(other).eval()
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    pairs = zip(end.parameters(), start.parameters(), strict=True)
    delta = torch.cat([(a - b).detach().flatten() for a, b in pairs])
    loss = cross_entropy(start(inputs), labels)
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(start.parameters()))])
    bent = float(delta @ dense_hessian(start, batches) @ delta)
    assert found.start == pytest.approx(loss.item())
    assert found.slope == pytest.approx(float(slope @ delta))
    assert found.curvature == pytest.approx(bent)
    assert found.predicted == pytest.approx(loss.item() + float(slope @ delta) + bent / 2)
    assert found.actual == pytest.approx(cross_entropy(end(inputs), labels).item())
    assert found.distance == pytest.approx(float(delta.norm()))


def test_statistics_of_batch_norm_move_the_other_model_alone(net, batches):
    other = moved(net, 0.1)
    other[1].running_mean.add_(1)
    found = quadratic_prediction(net, other, CE, batches)
    with_ours = copy.deepcopy(other)
    with_ours[1].running_mean.copy_(net[1].running_mean)
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert found.actual == pytest.approx(cross_entropy(with_ours.eval()(inputs), labels).item())
    assert found.other == pytest.approx(cross_entropy(other.eval()(inputs), labels).item())
    assert found.actual != pytest.approx(found.other)

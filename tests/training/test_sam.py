"""Sharpness-aware gradients: against formulas written out, and what they leave behind."""

import pytest
import torch
from torch import nn

from d3fast.training.sam import ETA, path_aware, sharpness_aware

INPUTS, LABELS = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), torch.tensor([0, 1])


def _square(logits, labels):
    """A loss whose gradient is known by hand: half the squared weights, through the identity."""
    return 0.5 * logits.square().sum()


class Diagonal(nn.Module):
    """Answers its own two weights for every input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))

    def forward(self, inputs):
        return self.weight.expand(len(inputs), 2)


@pytest.mark.parametrize("adaptive", [False, True], ids=["SAM", "ASAM"])
def test_the_gradient_is_that_of_the_perturbed_point(adaptive):
    model = Diagonal()
    weight = model.weight.detach().clone()
    logits, labels, value = sharpness_aware(0.5, adaptive=adaptive)(
        model, INPUTS[:1], LABELS[:1], _square
    )
    scale = (weight.abs() + ETA) if adaptive else torch.ones(2)
    # The gradient of half the square is the point itself.
    perturbed = weight + 0.5 * scale**2 * weight / torch.linalg.vector_norm(scale * weight)
    torch.testing.assert_close(model.weight.grad, perturbed)
    assert torch.equal(model.weight.detach(), weight)
    assert torch.equal(logits.detach()[0], weight)
    assert labels is not None
    assert value.item() == 12.5


def test_a_perturbation_of_zero_is_the_plain_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    loss = nn.CrossEntropyLoss()
    loss(model(INPUTS), LABELS).backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    sharpness_aware(0.0)(model, INPUTS, LABELS, loss)
    for gradient, param in zip(plain, model.parameters(), strict=True):
        torch.testing.assert_close(param.grad, gradient)


def test_batch_norm_remembers_the_unperturbed_pass_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).train()
    twin = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).train()
    twin.load_state_dict(model.state_dict())
    sharpness_aware(2.0)(model, INPUTS, LABELS, nn.CrossEntropyLoss())
    twin(INPUTS)
    for ours, theirs in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert model[1].track_running_stats


def test_frozen_parameters_stay_out_of_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    sharpness_aware(1.0)(model, INPUTS, LABELS, nn.CrossEntropyLoss())
    assert model[0].weight.grad is None
    assert model[1].weight.grad is not None


def test_weights_come_back_when_the_perturbed_pass_fails():
    model = Diagonal()
    passes = []

    def failing(logits, labels):
        passes.append(1)
        if len(passes) == 2:
            raise RuntimeError("second pass")
        return _square(logits, labels)

    with pytest.raises(RuntimeError, match="second pass"):
        sharpness_aware(1.0)(model, INPUTS, LABELS, failing)
    assert model.weight.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("rho", [-1.0, float("nan"), "1"])
def test_a_bad_rho_is_named(rho):
    with pytest.raises(ValueError, match="rho must be"):
        sharpness_aware(rho)


def test_a_share_below_1_is_a_mean_of_both_gradients():
    model = Diagonal()
    weight = model.weight.detach().clone()
    sharpness_aware(0.5, adaptive=False, share=0.25)(model, INPUTS[:1], LABELS[:1], _square)
    perturbed = weight + 0.5 * weight / weight.norm()
    torch.testing.assert_close(model.weight.grad, 0.75 * weight + 0.25 * perturbed)


def test_a_share_above_1_is_refused():
    with pytest.raises(ValueError, match=r"share must be <= 1, got 1\.5"):
        sharpness_aware(0.5, share=1.5)


@pytest.mark.parametrize(("rho", "moved"), [(0.0, 0.0), (1.0, 1.0), (99.0, 5.0)])
def test_path_aware_gradients_are_those_of_a_point_on_the_way_back(rho, moved):
    start, model = Diagonal(), Diagonal()
    with torch.no_grad():
        start.weight.zero_()  # five units from (3, 4)
    weight = model.weight.detach().clone()
    path_aware(start, rho)(model, INPUTS[:1], LABELS[:1], _square)
    torch.testing.assert_close(model.weight.grad, weight * (1 - moved / 5))
    assert torch.equal(model.weight.detach(), weight)


def test_at_the_start_path_aware_gradients_are_the_plain_ones():
    start, model = Diagonal(), Diagonal()
    path_aware(start, 0.5)(model, INPUTS[:1], LABELS[:1], _square)
    torch.testing.assert_close(model.weight.grad, model.weight.detach())


def test_weights_are_restored_after_an_error_on_the_way_back():
    start, model = Diagonal(), Diagonal()
    with torch.no_grad():
        start.weight.zero_()
    with pytest.raises(TypeError):
        path_aware(start, 1.0)(model, INPUTS[:1], LABELS[:1], None)
    assert model.weight.tolist() == [3.0, 4.0]

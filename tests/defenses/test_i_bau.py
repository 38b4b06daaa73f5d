"""IBAU: its gradient is the exact derivative of the minimax, and it unlearns a planted trigger."""

import copy

import pytest
import torch
from torch import nn

from d3fast.defenses.i_bau import IBAU, ascend, hypergradient, inner_loss
from d3fast.models import make_model


def _quadratic(dtype=torch.float64):
    """L_in = d'Ad/2 - d'B theta, so d* = A^-1 B theta; L_out = |d - c|^2/2 + |theta - e|^2/2."""
    draw = torch.Generator().manual_seed(0)
    root, b = (torch.randn(4, 4, generator=draw, dtype=dtype) for _ in range(2))
    a = root @ root.T / 8 + 0.5 * torch.eye(4, dtype=dtype)
    theta = torch.randn(4, generator=draw, dtype=dtype, requires_grad=True)
    c, e = torch.randn(2, 4, generator=draw, dtype=dtype)
    d = torch.linalg.solve(a, b @ theta).detach().requires_grad_()
    inner = d @ a @ d / 2 - d @ b @ theta
    outer = (d - c).square().sum() / 2 + (theta - e).square().sum() / 2
    return a, b, c, e, d, theta, inner, outer


def test_the_hypergradient_is_the_exact_derivative_of_the_bilevel_problem():
    a, b, c, e, d, theta, inner, outer = _quadratic()
    (found,) = hypergradient(inner, outer, d, [theta], step=0.5, iterations=200)
    start = theta.detach().requires_grad_()
    at_optimum = torch.linalg.solve(a, b @ start)
    exact = (at_optimum - c).square().sum() / 2 + (start - e).square().sum() / 2
    (wanted,) = torch.autograd.grad(exact, start)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_k_iterations_are_the_first_k_terms_of_the_neumann_series(iterations):
    a, b, c, e, d, theta, inner, outer = _quadratic()
    turn = torch.eye(4, dtype=a.dtype) - 0.5 * a  # dPhi/dd
    series = sum(torch.linalg.matrix_power(turn, k) for k in range(iterations))
    wanted = (theta - e + 0.5 * b.T @ series @ (d - c)).detach()
    (found,) = hypergradient(inner, outer, d, [theta], step=0.5, iterations=iterations)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_weights_that_neither_loss_depends_on_get_no_gradient():
    *_, d, theta, inner, outer = _quadratic()
    unused = torch.ones(3, requires_grad=True)
    gradients = hypergradient(inner, outer, d, [unused, theta], step=0.5, iterations=2)
    assert gradients[0] is None
    assert gradients[1].shape == theta.shape


def test_the_inner_loss_by_hand():
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    d = torch.tensor([[0.0, 2.0]])
    found = inner_loss(model, torch.tensor([[1.0, 0.0]]), torch.tensor([0]), d, penalty=0.5)
    assert found.item() == pytest.approx(0.5 * 4 - torch.tensor([1.0, 2.0]).exp().sum().log() + 1)


UNLEARN = IBAU(rounds=10, lr=0.01, radius=0.1, share=0.1, ascent_steps=10)


def test_the_ascent_finds_the_trigger_and_stays_in_the_ball(planted, trigger):
    suspect, clean, _ = planted
    d = ascend(suspect, clean, UNLEARN)
    assert d.shape == (1, 16)
    assert d.square().mean().sqrt() <= 0.1 * 1.00001
    pattern = trigger(torch.zeros(16))
    assert torch.cosine_similarity(d[0], pattern, dim=0) > 0.8
    inputs, labels = clean[0]
    zero = inner_loss(suspect, inputs, labels, torch.zeros_like(d), 0.0)
    assert inner_loss(suspect, inputs, labels, d, 0.0) < zero


def test_the_radius_is_a_root_mean_square_and_does_not_depend_on_the_size_of_the_input():
    """With a gradient that never vanishes the ascent ends on the sphere."""
    options = IBAU(radius=0.2, ascent_steps=5, penalty=0.0)
    for side in (4, 16):
        linear = nn.Linear(side * side, 2, bias=False)
        model = nn.Sequential(nn.Flatten(), linear)
        d = ascend(model, [(torch.zeros(3, 1, side, side), torch.tensor([0, 0, 0]))], options)
        assert d.square().mean().sqrt() == pytest.approx(0.2, rel=1e-4)


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_an_ascent_takes_so_many_batches_however_many_there_are(planted, steps):
    suspect, clean, _ = planted
    counted = Counted(suspect)
    ascend(counted, clean[:3], IBAU(ascent_steps=steps))
    assert counted.calls == steps


class Counted(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, inputs):
        self.calls += 1
        return self.model(inputs)


def test_a_planted_trigger_that_outlives_fine_tuning_is_unlearned(check_unlearned):
    check_unlearned(UNLEARN)


def test_batch_norm_keeps_its_statistics_and_frozen_weights_stay(planted):
    suspect, clean, _ = planted
    suspect = copy.deepcopy(suspect)
    suspect[0].weight.requires_grad_(False)
    repaired = IBAU(rounds=2)(suspect, clean, None, progress=False).model
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(repaired[1], name), getattr(suspect[1], name))
    assert torch.equal(repaired[0].weight, suspect[0].weight)
    assert not torch.equal(repaired[3].weight, suspect[3].weight)


def test_the_seed_decides_which_inputs_carry_the_perturbation(planted):
    suspect, clean, _ = planted
    first, again, other = (
        IBAU(rounds=1, seed=seed)(suspect, clean, None, progress=False).model[3].weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_attention_whose_fast_kernel_has_no_second_derivative_is_no_obstacle():
    model = make_model("vit_tiny", 3, 1)
    draw = torch.Generator().manual_seed(0)
    loader = [(torch.rand(3, 1, 28, 28, generator=draw), torch.arange(3))]
    repaired = IBAU(rounds=1)(model, loader, None, progress=False).model
    assert not torch.equal(repaired.head.weight, model.head.weight)


def test_bad_data_is_reported_by_the_batch_it_came_in(planted):
    suspect, clean, _ = planted
    (inputs, labels), *rest = clean
    with pytest.raises(ValueError, match="clean_loader holds NaN or inf in batch 2 of epoch 1"):
        IBAU()(suspect, [rest[0], (inputs * torch.nan, labels)], None, progress=False)


def test_its_defaults_are_those_of_the_released_program():
    d = IBAU()
    assert (d.rounds, d.iterations, d.lr, d.ascent_lr) == (5, 5, 1e-3, 10.0)
    assert (d.map_lr, d.penalty, d.share, d.ascent_steps) == (0.1, 1e-3, 0.01, 50)
    assert d.radius * 3072**0.5 == pytest.approx(10.0, rel=0.01)

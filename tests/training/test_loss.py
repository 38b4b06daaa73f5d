"""The hinge on the cross-entropy: values and gradients by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from d3fast import CleanLoss
from d3fast.training.loss import distilled, next_tokens


def _logits(*entropies):
    """Two-class logits whose cross-entropy for label 0 is as given."""
    rows = [[-math.log(math.expm1(ce)), 0.0] for ce in entropies]
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


def _label(count):
    return torch.zeros(count, dtype=torch.long)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("per_sample", 2.0 * ((0.5 - 0.1) + 0 + (0.3 - 0.1)) / 3),
        ("batch_mean", 2.0 * ((0.5 + 0.02 + 0.3) / 3 - 0.1)),
    ],
)
def test_the_value_is_the_weighted_excess_over_epsilon(reduction, expected):
    loss = CleanLoss(epsilon=0.1, weight=2.0, reduction=reduction)
    assert loss(_logits(0.5, 0.02, 0.3), _label(3)).item() == pytest.approx(expected)


def test_the_result_has_no_dimensions():
    for reduction in ("per_sample", "batch_mean"):
        assert CleanLoss(reduction=reduction)(_logits(0.5, 0.2), _label(2)).shape == ()


def test_per_sample_only_samples_above_epsilon_pull():
    logits = _logits(0.5, 0.02, 0.3)
    CleanLoss(epsilon=0.1, weight=2.0)(logits, _label(3)).backward()
    plain = _logits(0.5, 0.02, 0.3)
    (2.0 * cross_entropy(plain, _label(3), reduction="none") / 3).sum().backward()
    assert torch.equal(logits.grad[1], torch.zeros(2, dtype=torch.float64))
    assert torch.allclose(logits.grad[[0, 2]], plain.grad[[0, 2]])


def test_on_the_batch_mean_every_sample_pulls_while_the_mean_is_above_epsilon():
    logits = _logits(0.5, 0.02, 0.3)
    CleanLoss(epsilon=0.1, weight=2.0, reduction="batch_mean")(logits, _label(3)).backward()
    plain = _logits(0.5, 0.02, 0.3)
    (2.0 * cross_entropy(plain, _label(3))).backward()
    assert torch.allclose(logits.grad, plain.grad)
    assert (logits.grad != 0).all()


def test_one_bad_sample_among_good_ones_tells_the_reductions_apart():
    logits, target = _logits(0.25, 0.01, 0.01, 0.01), _label(4)
    assert CleanLoss(reduction="batch_mean")(logits, target).item() == 0
    assert CleanLoss(reduction="per_sample")(logits, target).item() == pytest.approx(10 * 0.15 / 4)


@pytest.mark.parametrize("reduction", ["per_sample", "batch_mean"])
def test_below_epsilon_value_and_gradient_are_zero(reduction):
    logits = _logits(0.05, 0.09, 0.001)
    value = CleanLoss(epsilon=0.1, reduction=reduction)(logits, _label(3))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@given(
    entropies=st.lists(st.floats(1e-3, 5), min_size=1, max_size=8),
    epsilon=st.floats(0, 2),
    weight=st.floats(0, 20),
)
def test_with_one_bound_the_hinge_per_sample_is_never_below_that_on_the_mean(
    entropies, epsilon, weight
):
    logits, target = _logits(*entropies), _label(len(entropies))
    each = CleanLoss(epsilon, weight, "per_sample")(logits, target)
    mean = CleanLoss(epsilon, weight, "batch_mean")(logits, target)
    assert each >= mean - 1e-9
    assert mean >= 0


def test_the_gradient_is_that_of_finite_differences():
    logits = _logits(0.5, 0.02, 0.3)
    for reduction in ("per_sample", "batch_mean"):
        loss = CleanLoss(0.1, 3.0, reduction)
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, _label(3)), logits)


def test_epsilon_0_and_weight_1_are_plain_cross_entropy():
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    for reduction in ("per_sample", "batch_mean"):
        value = CleanLoss(0.0, 1.0, reduction)(logits, target)
        assert value.item() == pytest.approx(cross_entropy(logits, target).item())


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"epsilon": -0.1}, r"epsilon must be finite and >= 0, got -0\.1"),
        ({"epsilon": math.nan}, "epsilon must be finite and >= 0, got nan"),
        ({"epsilon": "0.1"}, r"epsilon must be a number, got '0\.1'"),
        ({"epsilon": None}, "epsilon must be a number, got None"),
        ({"weight": -1.0}, r"weight must be finite and >= 0, got -1\.0"),
        ({"weight": math.inf}, "weight must be finite and >= 0, got inf"),
        ({"weight": True}, "weight must be a number, got True"),
        ({"reduction": "mean"}, "reduction must be one of 'per_sample', 'batch_mean', got 'mean'"),
    ],
)
def test_options_out_of_range_are_refused_by_name_and_value(options, error_text):
    with pytest.raises(ValueError, match=f"^{error_text}$"):
        CleanLoss(**options)


def test_the_soft_loss_is_the_hinge_on_the_kl_divergence_by_hand():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]])
    answers = torch.tensor([[0.0, 3.0, 0.0], [0.5, 2.1, 0.1]])
    p, q = answers.softmax(dim=1), logits.softmax(dim=1)
    divergence = (p * (p / q).log()).sum(dim=1)
    assert divergence[0] > 0.1 > divergence[1]
    per_sample = CleanLoss(0.1, 3.0).soft(logits, answers)
    torch.testing.assert_close(per_sample, 3.0 * (divergence[0] - 0.1) / 2)
    mean = CleanLoss(0.1, 3.0, "batch_mean").soft(logits, answers)
    torch.testing.assert_close(mean, 3.0 * (divergence.mean() - 0.1))


def test_the_other_models_answers_get_no_gradient():
    logits = torch.zeros(2, 3, requires_grad=True)
    answers = torch.eye(3)[:2].requires_grad_()
    CleanLoss(0.0, 1.0).soft(logits, answers).backward()
    assert answers.grad is None
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_distilled_gradients_are_those_of_the_mixed_loss(share):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        inputs, labels = torch.rand(8, 4), torch.arange(8) % 3
    loss = CleanLoss(0.05, 2.0)
    logits, seen, value = distilled(teacher, share)(model, inputs, labels, loss)
    grad = model.weight.grad.clone()
    model.zero_grad()
    mixed = (1 - share) * loss(model(inputs), labels)
    mixed = mixed + share * loss.soft(model(inputs), teacher(inputs))
    mixed.backward()
    torch.testing.assert_close(grad, model.weight.grad)
    torch.testing.assert_close(value, mixed)
    assert torch.equal(seen, labels)
    assert logits.shape == (8, 3)
    assert teacher.weight.grad is None


def test_unlabelled_inputs_count_as_much_as_labelled_ones_in_the_soft_loss():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        inputs, labels, others = torch.rand(8, 4), torch.arange(8) % 3, torch.rand(4, 4)
    loss = CleanLoss(0.05, 2.0)
    _, _, value = distilled(teacher, 0.25, iter([others]))(model, inputs, labels, loss)
    every = torch.cat([inputs, others])
    want = 0.75 * loss(model(inputs), labels) + 0.25 * loss.soft(model(every), teacher(every))
    torch.testing.assert_close(value, want)
    (grad,) = torch.autograd.grad(want, [model.weight])
    torch.testing.assert_close(model.weight.grad, grad)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("per_sample", 2.0 * 0.4 / 2), ("batch_mean", 2.0 * (0.52 / 2 - 0.1))],
)
def test_samples_that_are_ignored_count_for_nothing(reduction, expected):
    logits, target = _logits(0.5, 3.0, 0.02, 4.0), torch.tensor([0, -100, 0, -100])
    value = CleanLoss(0.1, 2.0, reduction)(logits, target)
    value.backward()
    assert value.item() == pytest.approx(expected)
    assert not logits.grad[target == -100].any()
    assert logits.grad[0].any()


@pytest.mark.parametrize("reduction", ["per_sample", "batch_mean"])
def test_where_all_are_ignored_the_loss_is_0_and_so_is_its_gradient(reduction):
    logits = _logits(0.5, 3.0)
    value = CleanLoss(0.0, 1.0, reduction)(logits, torch.full((2,), -100))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_a_half_type_are_taken_in_float32(dtype):
    logits = _logits(0.5, 0.02, 0.3).detach().to(dtype)
    loss = CleanLoss(0.1, 2.0)
    for got, want in (
        (loss(logits, _label(3)), loss(logits.float(), _label(3))),
        (loss.soft(logits, -logits), loss.soft(logits.float(), -logits.float())),
    ):
        assert got.dtype == torch.float32
        assert torch.equal(got, want)


@pytest.mark.parametrize("reduction", ["per_sample", "batch_mean"])
def test_the_loss_of_a_language_model_by_hand(reduction):
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    tokens = torch.tensor([[2, 0, 1, 2], [1, 1, -100, 0]])
    losses = []
    for row in range(2):
        for t in range(1, 4):
            label = int(tokens[row, t])
            if label != -100:
                scores = logits[row, t - 1].tolist()
                losses.append(math.log(sum(map(math.exp, scores))) - scores[label])
    assert len(losses) == 5
    epsilon = sorted(losses)[2]  # some below, some above
    mean = lambda values: sum(values) / 5  # noqa: E731
    want = {
        "per_sample": mean([max(0, each - epsilon) for each in losses]),
        "batch_mean": max(0, mean(losses) - epsilon),
    }
    got = CleanLoss(epsilon, 3.0, reduction)(*next_tokens(logits, tokens))
    assert got.item() == pytest.approx(3.0 * want[reduction])


@pytest.mark.parametrize(
    ("logits", "labels"), [((2, 3), (2,)), ((2, 4, 3), (2, 3)), ((4, 3), (4,))]
)
def test_next_tokens_refuses_other_shapes(logits, labels):
    with pytest.raises(ValueError, match=r"logits must be \(B, T, C\) and labels \(B, T\), got"):
        next_tokens(torch.zeros(logits), torch.zeros(labels, dtype=torch.long))

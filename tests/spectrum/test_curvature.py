"""Products with the curvature against the dense matrix from autodiff."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

from d3fast.models import make_model
from d3fast.spectrum import Curvature, Difference
from tests.spectrum.conftest import dense_gauss_newton, dense_hessian

CE = nn.CrossEntropyLoss()


def matrix_of(curvature):
    return torch.stack([curvature @ row for row in torch.eye(curvature.size).to(curvature.dtype)])


def test_its_products_are_those_of_the_hessian(net, batches):
    found = matrix_of(Curvature(net, CE, batches))
    torch.testing.assert_close(found, dense_hessian(copy.deepcopy(net).eval(), batches))


def test_its_products_are_those_of_the_gauss_newton_matrix(net, batches):
    found = matrix_of(Curvature(net, CE, batches, kind="gauss-newton"))
    torch.testing.assert_close(found, dense_gauss_newton(copy.deepcopy(net).eval(), batches))


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ("head", ["5.weight"]),
        ("conv+linear", ["0.weight", "5.weight"]),
        ("^1", ["1.weight", "1.bias"]),
    ],
)
def test_a_subset_of_the_weights_is_a_block_of_it(net, batches, params, names):
    curvature = Curvature(net, CE, batches, params=params)
    assert list(curvature.names) == names
    expected = dense_hessian(copy.deepcopy(net).eval(), batches, names)
    torch.testing.assert_close(matrix_of(curvature), expected)


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("keep", [0, 6000, 2**30])
def test_what_is_kept_between_products_changes_none(net, batches, kind, keep):
    vector = torch.randn(Curvature(net, CE, batches).size).double()
    whole = [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]
    expected = Curvature(net, CE, whole, kind=kind, keep=0) @ vector
    curvature = Curvature(net, CE, batches, kind=kind, keep=keep)
    for _ in range(3):
        torch.testing.assert_close(curvature @ vector, expected)


def test_a_budget_keeps_some_batches_and_streams_the_rest(net, batches):
    class Counted(list):
        passes = 0

        def __iter__(self):
            type(self).passes += 1
            return super().__iter__()

    data = Counted(batches)
    vector = torch.ones(Curvature(net, CE, batches).size).double()
    kept = Curvature(net, CE, data)
    before = Counted.passes
    for _ in range(3):
        kept @ vector
    assert Counted.passes == before + 1
    streamed = Curvature(net, CE, data, keep=0)
    before = Counted.passes
    for _ in range(3):
        streamed @ vector
    assert Counted.passes == before + 3


def test_a_difference_is_the_difference_of_the_matrices(net, batches):
    others = [(inputs + 1, (labels + 1) % 3) for inputs, labels in batches[:2]]
    vector = torch.randn(Curvature(net, CE, batches).size).double()
    expected = Curvature(net, CE, others) @ vector - Curvature(net, CE, batches) @ vector
    found = Curvature(net, CE, Difference(others, batches))
    torch.testing.assert_close(found @ vector, expected)
    parts = Curvature(net, CE, others), Curvature(net, CE, batches)
    values = [part.value_and_gradient()[0] for part in parts]
    assert found.value_and_gradient()[0] == pytest.approx(values[0] - values[1])


def test_loss_and_gradient_are_means_over_all_samples(net, batches):
    value, gradient = Curvature(net, CE, batches).value_and_gradient()
    model = copy.deepcopy(net).eval()
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    loss = cross_entropy(model(inputs), labels)
    assert value == pytest.approx(loss.item())
    expected = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(gradient, torch.cat([part.flatten() for part in expected]))


def test_the_model_is_not_changed(net, batches):
    before = copy.deepcopy(net.state_dict())
    curvature = Curvature(net, CE, batches)
    curvature @ torch.ones(curvature.size).double()
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_float_model_can_be_looked_at_in_double(net, batches):
    single = net.float()
    data = [(inputs.float(), labels) for inputs, labels in batches]
    vector = torch.ones(Curvature(single, CE, data).size)
    exact = Curvature(single, CE, data, dtype=torch.float64)
    assert (exact @ vector.double()).dtype == torch.float64
    torch.testing.assert_close(
        Curvature(single, CE, data) @ vector, (exact @ vector.double()).float()
    )


def test_attention_has_a_second_derivative_here():
    torch.manual_seed(0)
    model = make_model("vit_tiny", 3, 1)
    data = [(torch.rand(2, 1, 28, 28), torch.tensor([0, 1]))]
    curvature = Curvature(model, CE, data, params="head")
    found = curvature @ torch.ones(curvature.size)
    assert found.isfinite().all()


def test_a_tied_weight_counts_once(batches):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(torch.tanh(self.first(x.flatten(1)[:, :3])))

    model = Tied().double()
    curvature = Curvature(model, CE, batches)
    assert curvature.names == ("first.weight",)
    expected = dense_hessian(model, batches, ["first.weight"])
    torch.testing.assert_close(matrix_of(curvature), expected)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return 2 * grad


def _in_place(scores, labels):
    squared = scores.exp()
    loss = squared.square().mean()
    squared.add_(1)
    return loss


@pytest.mark.parametrize(
    "loss",
    [
        lambda scores, labels: (scores.argmax(1) != labels).double().mean(),
        lambda scores, labels: _Once.apply(scores).square().mean(),
        _in_place,
    ],
    ids=["no gradient", "once", "in place"],
)
@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
def test_a_loss_without_second_derivative_gets_one_line(net, batches, loss, kind):
    curvature = Curvature(net, loss, batches, kind=kind)
    with pytest.raises(ValueError, match="cannot be differentiated twice") as caught:
        curvature @ torch.ones(curvature.size).double()
    assert "\n" not in str(caught.value)


def test_a_linear_loss_gets_one_line(batches):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    curvature = Curvature(model, lambda scores, labels: scores.mean(), batches)
    with pytest.raises(ValueError, match="its gradient is the same for all weights"):
        curvature @ torch.ones(curvature.size).double()


@pytest.mark.parametrize(
    "loss", [lambda s, y: s.sum() * float("nan"), lambda s, y: (1e6 * s.square()).exp().mean()]
)
def test_a_loss_of_nan_or_inf_is_named_with_its_batch(net, batches, loss):
    curvature = Curvature(net, loss, [(1e3 * inputs, labels) for inputs, labels in batches])
    with pytest.raises(ValueError, match="NaN or inf in batch 1"):
        curvature @ torch.ones(curvature.size).double()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "fisher"}, "kind must be one of"),
        ({"keep": -1}, "keep must be an integer >= 0"),
        ({"dtype": torch.float16}, "dtype must be float32 or float64"),
        ({"params": "nothing"}, "selects no trainable parameter"),
    ],
)
def test_an_option_that_is_none_gets_one_line(net, batches, options, said):
    with pytest.raises(ValueError, match=said):
        Curvature(net, CE, batches, **options)


def test_weights_of_nan_are_refused(net, batches):
    net[5].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"5\.weight holds NaN or inf"):
        Curvature(net, CE, batches)


@pytest.mark.parametrize("vector", [torch.ones(3).double(), torch.ones(178)])
def test_a_vector_of_another_shape_or_type_is_refused(net, batches, vector):
    with pytest.raises(ValueError, match="a vector must be"):
        Curvature(net, CE, batches) @ vector


def test_a_loss_that_is_no_mean_is_refused(net, batches):
    curvature = Curvature(net, nn.CrossEntropyLoss(reduction="none"), batches)
    with pytest.raises(ValueError, match="must be a 0-dim tensor"):
        curvature.value_and_gradient()


def test_a_model_that_does_not_fit_the_data_says_so_itself(batches):
    curvature = Curvature(nn.Linear(7, 3).double(), CE, batches)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        curvature @ torch.ones(curvature.size).double()

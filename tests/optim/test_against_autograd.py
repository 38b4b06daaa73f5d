"""The step against its definition: the whole D3 objective left to autograd and torch.optim."""

import copy

import pytest
import torch

import d3fast
from d3fast import CleanLoss, D3FusedAdamW, D3FusedSGD

# Ours, torch's, and their options. eps: a bias before a batch norm has a gradient of rounding only.
SGD = D3FusedSGD, torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}
# Autograd adds the push to the gradient.
_COUPLED = {"lr": 0.005, "eps": 1e-3, "weight_decay": 0.1, "decoupled_push": False}
ADAMW = D3FusedAdamW, torch.optim.AdamW, _COUPLED
RULES = pytest.mark.parametrize("rule", [SGD, ADAMW], ids=["sgd", "adamw"])


def by_hand(model, batch, theta_0, scope, rule, steps=20):
    """Descends ``lambda * hinge - sum ||W - W_0||``, then rescales to the sphere by ``.data``."""
    images, labels = batch
    head = [p for n, p in model.named_parameters() if n in theta_0]
    before = [theta_0[n] for n, _ in model.named_parameters() if n in theta_0]
    _, theirs, options = rule
    options = {name: value for name, value in options.items() if name != "decoupled_push"}
    opt = theirs(model.parameters(), **options)
    clean = CleanLoss(epsilon=0.1, weight=10.0)
    for _ in range(steps):
        opt.zero_grad()
        squares = [(p - b).square().sum() for p, b in zip(head, before, strict=True)]
        distance = sum(s.sqrt() for s in squares) if scope == "tensor" else sum(squares).sqrt()
        (clean(model(images), labels) - distance).backward()
        opt.step()
        if scope == "tensor":
            for p, b in zip(head, before, strict=True):
                p.data *= b.norm() / p.data.norm()
        else:
            joint = lambda ts: torch.cat([t.flatten() for t in ts]).norm()  # noqa: E731
            factor = joint(before) / joint([p.data for p in head])
            for p in head:
                p.data *= factor
    return list(model.parameters())


def by_optimizer(model, batch, backend, scope, track, warm, rule, steps=20):
    images, labels = batch
    ours, _, options = rule
    opt = ours(d3fast.param_groups(model, track), scope=scope, backend=backend, **options)
    opt.warm_start(warm, generator=torch.Generator().manual_seed(3))
    warmed = copy.deepcopy(model)
    clean = CleanLoss(epsilon=0.1, weight=10.0)
    for _ in range(steps):
        opt.zero_grad()
        clean(model(images), labels).backward()
        opt.step()
    return warmed, list(model.parameters())


@RULES
@pytest.mark.parametrize("warm", ["far", "random", "noise"])
@pytest.mark.parametrize(
    ("track", "scope"), [("head", "tensor"), ("linear", "tensor"), ("linear", "group")]
)
def test_20_steps_equal_autograd_and_a_rescale_by_hand(
    classifier, backend, track, scope, warm, rule, relative_error
):
    model, batch = classifier(torch.float64)
    group = d3fast.param_groups(model, track)[0]
    pairs = zip(group["param_names"], group["params"], strict=True)
    theta_0 = {name: p.detach().clone() for name, p in pairs}
    warmed, got = by_optimizer(model, batch, backend, scope, track, warm, rule)
    want = by_hand(warmed, batch, theta_0, scope, rule)
    assert relative_error(got, want) <= 1e-10


@RULES
def test_float32_stays_close_on_the_same_model(classifier, backend, rule, relative_error):
    model, batch = classifier(torch.float32)
    theta_0 = {"6.weight": model[6].weight.detach().clone()}
    warmed, got = by_optimizer(model, batch, backend, "tensor", "head", "far", rule)
    assert relative_error(got, by_hand(warmed, batch, theta_0, "tensor", rule)) <= 1e-5


def test_the_push_is_the_gradient_of_the_distance(backend, dtype):
    g = torch.Generator().manual_seed(0)
    theta, theta_0 = torch.randn(2, 6, 4, generator=g, dtype=torch.float64).to(dtype)
    for power in (1.0, 2.0):
        p = torch.nn.Parameter(theta.clone())
        distance = torch.linalg.vector_norm(p - theta_0, power)
        (push,) = torch.autograd.grad(distance, p)
        opt = D3FusedSGD(
            [p],
            track="all",
            lr=0.5,
            distance_weight=3.0,
            distance_p=power,
            constraint=None,
            reference=[theta_0],
            backend=backend,
        )
        p.grad = torch.zeros_like(p)
        opt.step()
        torch.testing.assert_close(p.detach(), theta + 0.5 * 3.0 * push)

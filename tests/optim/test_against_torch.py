"""Without distance and constraint a group follows torch.optim.SGD or torch.optim.AdamW."""

import itertools

import pytest
import torch
from torch import nn

from d3fast import D3FusedAdamW, D3FusedSGD

SGD = D3FusedSGD, torch.optim.SGD
ADAMW = D3FusedAdamW, torch.optim.AdamW
COMBINATIONS = [
    {"momentum": m, "dampening": d, "weight_decay": w, "nesterov": n, "maximize": x}
    for m, d, w, n, x in itertools.product(
        (0.0, 0.9), (0.0, 0.3), (0.0, 0.1), (False, True), (False, True)
    )
    if not n or (m > 0 and d == 0)
]
ADAMW_COMBINATIONS = [
    {"betas": b, "eps": e, "weight_decay": w, "maximize": x, "lr": lr}
    for b, e, w, x, lr in itertools.product(
        ((0.9, 0.999), (0.0, 0.9), (0.8, 0.0)),
        (1e-8, 1e-2),
        (0.0, 0.1),
        (False, True),
        (0.01, torch.tensor(0.01, dtype=torch.float64)),
    )
]


def twins(dtype, classes=SGD, **options):
    g = torch.Generator().manual_seed(0)
    starts = [torch.randn(s, generator=g, dtype=torch.float64) for s in ((37, 61), (), (0,), (9,))]
    first, second = ([nn.Parameter(s.to(dtype, copy=True)) for s in starts] for _ in range(2))
    plain = {"distance_weight": 0.0, "constraint": None}
    backend = options.pop("backend")
    options.setdefault("lr", 0.1)
    ours, theirs = classes
    return ours(first, backend=backend, **plain, **options), theirs(second, **options)


@pytest.mark.parametrize("options", COMBINATIONS, ids=str)
def test_trajectory_is_that_of_torch_sgd(options, backend, dtype, descend, relative_error):
    ours, theirs = twins(dtype, backend=backend, **options)
    bound = 1e-6 if dtype == torch.float32 else 1e-14
    assert relative_error(descend(ours, 20), descend(theirs, 20)) <= bound


@pytest.mark.parametrize("options", ADAMW_COMBINATIONS, ids=str)
def test_trajectory_is_that_of_torch_adamw(options, backend, dtype, descend, relative_error):
    ours, theirs = twins(dtype, ADAMW, backend=backend, **options)
    bound = 1e-6 if dtype == torch.float32 else 1e-14
    assert relative_error(descend(ours, 20), descend(theirs, 20)) <= bound


@pytest.mark.parametrize(
    "options",
    [
        {"capturable": False},
        {"foreach": False},
        {"fused": True},
        {"differentiable": False},
        {"amsgrad": False},
    ],
    ids=str,
)
def test_options_of_torch_that_change_nothing_are_taken(options, descend, relative_error):
    ours, theirs = twins(torch.float32, ADAMW, backend="fused", **options)
    assert relative_error(descend(ours, 20), descend(theirs, 20)) <= 1e-6


@pytest.mark.parametrize("classes", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("option", ["foreach", "differentiable"])
def test_options_of_torch_that_would_change_the_step_are_refused(option, classes):
    with pytest.raises(ValueError, match=f"{option}=True is not supported"):
        classes[0]([nn.Parameter(torch.ones(2, 2))], **{option: True})


@pytest.mark.parametrize(
    ("classes", "options"),
    [(SGD, {"momentum": 0.9, "dampening": 0.3}), (ADAMW, {})],
    ids=["sgd", "adamw"],
)
def test_skipped_gradients_leave_what_torch_leaves(
    classes, options, backend, dtype, descend, relative_error
):
    def sometimes(t, params):
        for i, p in enumerate(params):
            if (t + i) % 3 == 0:
                p.grad = None

    ours, theirs = twins(dtype, classes, backend=backend, **options)
    got, want = (descend(opt, 10, between=sometimes) for opt in (ours, theirs))
    assert relative_error(got, want) <= 1e-6


def test_momentum_switched_on_late_starts_as_in_torch(backend, dtype, descend, relative_error):
    ours, theirs = twins(dtype, backend=backend, momentum=0.0, dampening=0.3)
    results = []
    for opt in (ours, theirs):
        descend(opt, 3)
        opt.param_groups[0]["momentum"] = 0.9
        results.append(descend(opt, 3, start=3))
    assert relative_error(*results) <= 1e-6


@pytest.mark.parametrize(
    ("classes", "options"), [(SGD, {"momentum": 0.9}), (ADAMW, {})], ids=["sgd", "adamw"]
)
def test_plain_groups_keep_no_reference_and_no_distance(classes, options, backend, descend):
    ours, theirs = twins(torch.float32, classes, backend=backend, **options)
    descend(ours, 2)
    descend(theirs, 2)
    keys = lambda opt: [set(opt.state[p]) for p in opt.param_groups[0]["params"]]  # noqa: E731
    assert keys(ours) == keys(theirs)

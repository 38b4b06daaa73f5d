"""Without distance and constraint a group is plain SGD and follows torch.optim.SGD."""

import itertools

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD

COMBINATIONS = [
    {"momentum": m, "dampening": d, "weight_decay": w, "nesterov": n, "maximize": x}
    for m, d, w, n, x in itertools.product(
        (0.0, 0.9), (0.0, 0.3), (0.0, 0.1), (False, True), (False, True)
    )
    if not n or (m > 0 and d == 0)
]


def twins(dtype, **options):
    g = torch.Generator().manual_seed(0)
    starts = [torch.randn(s, generator=g, dtype=torch.float64) for s in ((37, 61), (), (0,), (9,))]
    first, second = ([nn.Parameter(s.to(dtype, copy=True)) for s in starts] for _ in range(2))
    plain = {"distance_weight": 0.0, "constraint": None}
    backend = options.pop("backend")
    ours = D3FusedSGD(first, lr=0.1, backend=backend, **plain, **options)
    return ours, torch.optim.SGD(second, lr=0.1, **options)


@pytest.mark.parametrize("options", COMBINATIONS, ids=str)
def test_trajectory_is_that_of_torch_sgd(options, backend, dtype, descend, relative_error):
    ours, theirs = twins(dtype, backend=backend, **options)
    bound = 1e-6 if dtype == torch.float32 else 1e-14
    assert relative_error(descend(ours, 20), descend(theirs, 20)) <= bound


def test_skipped_gradients_leave_what_torch_leaves(backend, dtype, descend, relative_error):
    def sometimes(t, params):
        for i, p in enumerate(params):
            if (t + i) % 3 == 0:
                p.grad = None

    ours, theirs = twins(dtype, backend=backend, momentum=0.9, dampening=0.3)
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


def test_plain_groups_keep_no_reference_and_no_distance(backend, descend):
    ours, theirs = twins(torch.float32, backend=backend, momentum=0.9)
    descend(ours, 2)
    descend(theirs, 2)
    keys = lambda opt: [set(opt.state[p]) for p in opt.param_groups[0]["params"]]  # noqa: E731
    assert keys(ours) == keys(theirs)

"""Which groups are tracked, and which values the options take; refusals: test_bad_input.py."""

import copy

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD
from d3fast.optim.options import check_group, is_tracked


@pytest.mark.parametrize(
    ("distance_weight", "constraint", "tracked"),
    [
        (1.0, "norm_sphere", True),
        (1.0, None, True),
        (0.0, "norm_ball", True),  # only projected
        (0.0, None, False),
    ],
)
def test_a_group_is_tracked_if_pushed_or_projected(distance_weight, constraint, tracked):
    group = {"distance_weight": distance_weight, "constraint": constraint}
    assert is_tracked(group) == tracked
    p = nn.Parameter(torch.ones(2))
    opt = D3FusedSGD([p], track="all", **group)
    assert ("reference" in opt.state[p]) == tracked


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0},
        {"lr": 1},
        {"lr": torch.tensor([0.1])},
        {"dampening": -0.5},  # torch.optim.SGD takes it too
        {"momentum": 1.5},
        {"distance_p": 1},
        {"radius": 0},
        {"radius": torch.tensor(2.0)},
        {"constraint": "distance_shell", "radius": [1.0, 1.0]},
        {"constraint": "distance_shell", "radius": (torch.tensor(1.0), 2)},
        {"reference_dtype": torch.float32},
        {"reference_device": "cpu"},
        {"momentum": 0.9, "momentum_dtype": torch.float32},
    ],
    ids=str,
)
def test_accepted(options, descend):
    opt = D3FusedSGD([nn.Parameter(torch.ones(2))], track="all", **options)
    check_group(opt.param_groups[0])
    (theta,) = descend(opt, 2)
    assert torch.isfinite(theta).all()


def test_the_defaults_are_those_of_the_paper_s_step():
    defaults = D3FusedSGD([nn.Parameter(torch.ones(2, 2))]).defaults
    assert defaults == {
        "lr": 1e-3,
        "momentum": 0.0,
        "dampening": 0.0,
        "weight_decay": 0.0,
        "nesterov": False,
        "maximize": False,
        "distance_weight": 1.0,
        "distance_p": 2.0,
        "scope": "tensor",
        "constraint": "norm_sphere",
        "radius": None,
        "radius_unit": "relative",
        "reference_dtype": None,
        "reference_device": None,
        "momentum_dtype": None,
        "capturable": False,
        "backend": "auto",
        "track": None,
    }


def test_options_of_torch_that_change_nothing_are_accepted():
    for options in ({"foreach": None}, {"foreach": False}, {"fused": False}, {"fused": None}):
        opt = D3FusedSGD([nn.Parameter(torch.ones(2, 2))], differentiable=False, **options)
        assert opt.defaults["backend"] == "auto"


def test_fused_asks_for_the_fused_backend():
    opt = D3FusedSGD([nn.Parameter(torch.ones(2, 2))], fused=True)
    assert opt.param_groups[0]["backend"] == "fused"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"foreach": True}, "foreach=True"),
        ({"differentiable": True}, "differentiable=True"),
        ({"fused": True, "backend": "reference"}, "fused=True contradicts backend='reference'"),
    ],
    ids=str,
)
def test_options_of_torch_that_cannot_be_met_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        D3FusedSGD([nn.Parameter(torch.ones(2, 2))], **options)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
@pytest.mark.parametrize("first", [True, False])
def test_integer_parameters_of_a_quantised_model_are_passed_over(dtype, first, backend):
    frozen = nn.Parameter(torch.ones(2).to(dtype), requires_grad=False)
    moving, twin = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    params = [frozen, moving] if first else [moving, frozen]
    opt = D3FusedSGD(params, track="all", lr=0.1, momentum=0.9, backend=backend)
    for one in (opt, D3FusedSGD([twin], track="all", lr=0.1, momentum=0.9, backend=backend)):
        one.warm_start("random", generator=torch.Generator().manual_seed(0))
        for _ in range(2):
            moving.grad = twin.grad = torch.tensor([1.0, 2.0, 3.0])
            one.step()
    assert torch.equal(moving, twin)
    assert torch.equal(frozen, torch.ones(2).to(dtype))
    assert list(opt.distances()) == [1 if first else 0]
    assert opt.total_distance() > 0
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))


def test_a_group_of_integers_alone_is_passed_over(backend):
    opt = D3FusedSGD(
        [nn.Parameter(torch.ones(2).long(), requires_grad=False)], track="all", backend=backend
    )
    opt.step()
    assert opt.total_distance() == 0

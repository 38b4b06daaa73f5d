"""Bad input gets one clear ValueError that names the option and its value."""

import math
import re

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD

# The options of a constructor, the name that its error gives, and the value.
OPTIONS = [
    ({"lr": -0.5}, "lr", "-0.5"),
    ({"lr": math.nan}, "lr", "nan"),
    ({"lr": math.inf}, "lr", "inf"),
    ({"lr": "fast"}, "lr", "'fast'"),
    ({"lr": True}, "lr", "True"),
    ({"lr": torch.tensor(-0.5)}, "lr", "-0.5"),
    ({"lr": torch.tensor(math.nan)}, "lr", "nan"),
    ({"lr": torch.ones(2)}, "lr", "(2,)"),
    ({"momentum": -0.9}, "momentum", "-0.9"),
    ({"momentum": math.nan}, "momentum", "nan"),
    ({"momentum": torch.tensor(0.9)}, "momentum", "tensor"),
    ({"dampening": math.nan}, "dampening", "nan"),
    ({"dampening": -math.inf}, "dampening", "-inf"),
    ({"weight_decay": -1e-4}, "weight_decay", "-0.0001"),
    ({"weight_decay": math.nan}, "weight_decay", "nan"),
    ({"nesterov": True}, "nesterov", "momentum=0.0"),
    ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov", "dampening=0.1"),
    ({"distance_weight": -1.0}, "distance_weight", "-1.0"),
    ({"distance_weight": math.nan}, "distance_weight", "nan"),
    ({"distance_p": 0.5}, "distance_p", "0.5"),
    ({"distance_p": math.nan}, "distance_p", "nan"),
    ({"scope": "layer"}, "scope", "'layer'"),
    ({"constraint": "cube"}, "constraint", "'cube'"),
    ({"radius": -0.5}, "radius", "-0.5"),
    ({"radius": math.nan}, "radius", "nan"),
    ({"radius": math.inf}, "radius", "inf"),
    ({"radius": (1.0, 2.0)}, "radius", "(1.0, 2.0)"),
    ({"radius": torch.tensor(-2.0)}, "radius", "-2.0"),
    ({"radius_unit": "metres"}, "radius_unit", "'metres'"),
    ({"constraint": "distance_ball"}, "'distance_ball'", "radius=None"),
    ({"constraint": "distance_floor"}, "'distance_floor'", "radius=None"),
    ({"constraint": "distance_shell"}, "'distance_shell'", "radius=None"),
    ({"constraint": "distance_shell", "radius": 1.0}, "radius=(lower, upper)", "1.0"),
    ({"constraint": "distance_shell", "radius": (2.0, 1.0)}, "radius", "2.0"),
    ({"constraint": "distance_shell", "radius": (-2.0, 1.0)}, "radius[0]", "-2.0"),
    ({"constraint": "distance_shell", "radius": (0.0, math.inf)}, "radius[1]", "inf"),
    (
        {"constraint": "distance_shell", "radius": (torch.tensor(2.0), torch.tensor(1.0))},
        "radius",
        "tensor(2.)",
    ),
    ({"reference_dtype": torch.int32}, "reference_dtype", "torch.int32"),
    ({"reference_dtype": "float64"}, "reference_dtype", "'float64'"),
    ({"reference_device": "cuda"}, "reference_device", "'cuda'"),
    ({"momentum_dtype": torch.int32}, "momentum_dtype", "torch.int32"),
    ({"backend": "cuda"}, "backend", "'cuda'"),
    ({"reference": [torch.zeros(3)]}, "reference of parameter 0", "(3,)"),
    ({"reference": [0.0]}, "reference of parameter 0", "float"),
    ({"reference": []}, "reference", "0"),
    ({"reference": {"w": torch.zeros(4, 2)}}, "reference", "no names"),
]


def named(option, value):
    """A pattern of a message that names an option and, after it, its value."""
    return f"{re.escape(option)}.*{re.escape(value)}"


@pytest.mark.parametrize(("options", "option", "value"), OPTIONS)
def test_the_message_names_option_and_value(options, option, value):
    with pytest.raises(ValueError, match=named(option, value)):
        D3FusedSGD([nn.Parameter(torch.ones(4, 2))], track="all", **options)


@pytest.mark.parametrize(("options", "option", "value"), OPTIONS)
def test_the_options_of_a_single_group_are_checked_alike(options, option, value):
    opt = D3FusedSGD([nn.Parameter(torch.ones(3))], track="all")
    with pytest.raises(ValueError, match=named(option, value)):
        opt.add_param_group({"params": [nn.Parameter(torch.ones(4, 2))], **options})


def test_a_mapping_that_lacks_a_tracked_parameter():
    with pytest.raises(ValueError, match=r"reference .*bias"):
        D3FusedSGD(
            nn.Linear(3, 2).named_parameters(), track="all", reference={"weight": torch.zeros(2, 3)}
        )


def test_a_group_on_several_devices():
    params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, device="meta"))]
    with pytest.raises(ValueError, match=r"params .*cpu, meta"):
        D3FusedSGD(params, track="all")


def test_complex_parameters():
    with pytest.raises(ValueError, match=r"params .*torch.complex64"):
        D3FusedSGD([nn.Parameter(torch.ones(2, dtype=torch.complex64))], track="all")


def test_a_sparse_gradient(backend):
    embedding = nn.Embedding(5, 2, sparse=True)
    other = nn.Parameter(torch.ones(2))
    opt = D3FusedSGD(
        [{"params": [other]}, {"params": embedding.parameters()}], track="all", backend=backend
    )
    other.grad = torch.ones(2)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"gradients.*torch.sparse_coo"):
        opt.step()
    assert torch.equal(other, torch.ones(2))  # nor has a group before it moved


@pytest.mark.parametrize("options", [{"distance_p": 3.0}, {"reference_dtype": torch.float64}])
def test_what_has_no_kernel_is_refused_by_the_fused_backend(options):
    with pytest.raises(ValueError, match=r"backend='fused' .*group 0.*(3.0|float64)"):
        D3FusedSGD([nn.Parameter(torch.ones(2))], track="all", backend="fused", **options)


def test_warm_start_mode():
    opt = D3FusedSGD([nn.Parameter(torch.ones(2))], track="all")
    with pytest.raises(ValueError, match=r"mode .*'hot'"):
        opt.warm_start("hot")


def test_no_parameters():
    with pytest.raises(ValueError, match="empty parameter list"):
        D3FusedSGD([], track="all")


def test_a_parameter_in_two_groups():
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="more than one parameter group"):
        D3FusedSGD([{"params": [p]}, {"params": [p]}], track="all")

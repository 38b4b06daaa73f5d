"""Bad input gets one clear ValueError that names the option and its value."""

import math

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD

OPTIONS = [
    ({"lr": -0.1}, "lr must be finite and >= 0, got -0.1"),
    ({"lr": math.nan}, "lr must be finite and >= 0, got nan"),
    ({"lr": math.inf}, "lr must be finite and >= 0, got inf"),
    ({"lr": "fast"}, "lr must be a number, got 'fast'"),
    ({"lr": True}, "lr must be a number, got True"),
    ({"lr": torch.tensor(-0.5)}, "lr must be finite and >= 0, got -0.5"),
    ({"lr": torch.tensor(math.nan)}, "lr must be finite and >= 0, got nan"),
    ({"lr": torch.ones(2)}, r"lr must be a 1-element tensor, got shape \(2,\)"),
    ({"momentum": -0.9}, "momentum must be finite and >= 0, got -0.9"),
    ({"momentum": math.nan}, "momentum must be finite and >= 0, got nan"),
    ({"momentum": torch.tensor(0.9)}, "momentum must be a number, got a tensor"),
    ({"dampening": math.nan}, "dampening must be finite .* got nan"),
    ({"dampening": -math.inf}, "dampening must be finite .* got -inf"),
    ({"weight_decay": -1e-4}, "weight_decay must be finite and >= 0, got -0.0001"),
    ({"weight_decay": math.nan}, "weight_decay must be finite and >= 0, got nan"),
    ({"nesterov": True}, r"nesterov needs momentum > 0 .* got momentum=0.0"),
    ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov needs .* dampening=0.1"),
    ({"distance_weight": -1.0}, "distance_weight must be finite and >= 0, got -1.0"),
    ({"distance_weight": math.nan}, "distance_weight must be finite and >= 0, got nan"),
    ({"distance_p": 0.5}, "distance_p must be finite and >= 1, got 0.5"),
    ({"distance_p": math.nan}, "distance_p must be finite and >= 1, got nan"),
    ({"scope": "layer"}, "scope must be one of 'tensor', 'group', got 'layer'"),
    ({"constraint": "cube"}, "constraint must be one of 'norm_sphere', .* None, got 'cube'"),
    ({"radius": -0.5}, "radius must be a finite number >= 0, got -0.5"),
    ({"radius": math.nan}, "radius must be a finite number >= 0, got nan"),
    ({"radius": math.inf}, "radius must be a finite number >= 0, got inf"),
    ({"radius": (1.0, 2.0)}, r"radius must be a finite number >= 0, got \(1.0, 2.0\)"),
    ({"radius": torch.tensor(-2.0)}, "radius must be a finite number >= 0, got -2.0"),
    ({"radius_unit": "metres"}, "radius_unit must be one of .* got 'metres'"),
    ({"constraint": "distance_ball"}, "'distance_ball' needs radius=..., got radius=None"),
    ({"constraint": "distance_floor"}, "'distance_floor' needs radius=..., got radius=None"),
    ({"constraint": "distance_shell"}, r"needs radius=\(lower, upper\), got radius=None"),
    ({"constraint": "distance_shell", "radius": 1.0}, r"radius=\(lower, upper\), got 1.0"),
    (
        {"constraint": "distance_shell", "radius": (2.0, 1.0)},
        "radius: the ball 1.0 is smaller than the floor 2.0",
    ),
    ({"constraint": "distance_shell", "radius": (-2.0, 1.0)}, r"radius\[0\] must be .* got -2.0"),
    ({"constraint": "distance_shell", "radius": (0.0, math.inf)}, r"radius\[1\] must .* got inf"),
    (
        {"constraint": "distance_shell", "radius": (torch.tensor(2.0), torch.tensor(1.0))},
        "the ball .*1.* is smaller than the floor .*2",
    ),
    ({"reference_dtype": torch.int32}, "reference_dtype must be a floating .* got torch.int32"),
    ({"reference_dtype": "float64"}, "reference_dtype must be a floating .* got 'float64'"),
    ({"reference_device": "cuda"}, "reference_device must be None or 'cpu', got 'cuda'"),
    ({"momentum_dtype": torch.int32}, "momentum_dtype must be a floating .* got torch.int32"),
    ({"backend": "cuda"}, "backend must be one of 'auto', 'fused', 'reference', got 'cuda'"),
    (
        {"reference": [torch.zeros(3)]},
        r"reference of parameter 0 must have shape \(4, 2\), got \(3,\)",
    ),
    ({"reference": [0.0]}, "reference of parameter 0 must have shape .* got float"),
    ({"reference": []}, "reference must hold 1 tensors, one per tracked parameter, got 0"),
    (
        {"reference": {"w": torch.zeros(4, 2)}},
        "reference is a mapping, but the parameters have no names",
    ),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=lambda v: str(v)[:50])
def test_the_message_names_option_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        D3FusedSGD([nn.Parameter(torch.ones(4, 2))], **options)


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=lambda v: str(v)[:50])
def test_the_options_of_a_single_group_are_checked_alike(options, message):
    opt = D3FusedSGD([nn.Parameter(torch.ones(3))])
    with pytest.raises(ValueError, match=message.replace("per tracked", "per")):
        opt.add_param_group({"params": [nn.Parameter(torch.ones(4, 2))], **options})


def test_a_mapping_that_lacks_a_tracked_parameter():
    with pytest.raises(ValueError, match="reference has no tensor for bias"):
        D3FusedSGD(nn.Linear(3, 2).named_parameters(), reference={"weight": torch.zeros(2, 3)})


def test_a_group_on_several_devices():
    params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, device="meta"))]
    with pytest.raises(
        ValueError, match="params of one group must be on one device, got cpu, meta"
    ):
        D3FusedSGD(params)


def test_complex_parameters():
    with pytest.raises(ValueError, match=r"real floating point, got .* torch.complex64"):
        D3FusedSGD([nn.Parameter(torch.ones(2, dtype=torch.complex64))])


def test_a_sparse_gradient(backend):
    embedding = nn.Embedding(5, 2, sparse=True)
    other = nn.Parameter(torch.ones(2))
    opt = D3FusedSGD([{"params": [other]}, {"params": embedding.parameters()}], backend=backend)
    other.grad = torch.ones(2)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"dense gradients, got one of layout torch.sparse_coo"):
        opt.step()
    assert torch.equal(other, torch.ones(2))  # nor has a group before it moved


@pytest.mark.parametrize("options", [{"distance_p": 3.0}, {"reference_dtype": torch.float64}])
def test_what_has_no_kernel_is_refused_by_the_fused_backend(options):
    with pytest.raises(
        ValueError, match=r"backend='fused' cannot serve param group 0: .*(3.0|float64)"
    ):
        D3FusedSGD([nn.Parameter(torch.ones(2))], backend="fused", **options)


def test_warm_start_mode():
    opt = D3FusedSGD([nn.Parameter(torch.ones(2))])
    with pytest.raises(ValueError, match=r"mode must be one of 'near', .*, got 'hot'"):
        opt.warm_start("hot")


def test_no_parameters():
    with pytest.raises(ValueError, match="empty parameter list"):
        D3FusedSGD([])


def test_a_parameter_in_two_groups():
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="more than one parameter group"):
        D3FusedSGD([{"params": [p]}, {"params": [p]}])

"""``reference_device="cpu"``: references in memory of the host, copied in for each step.

Without a GPU the meta device stands for it: it has no numbers, but mixing it with another raises.
tests/gpu has the numbers.
"""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD


def moved_to_meta(**options):
    """Parameters that left the host after their optimizer was built there."""
    params = [nn.Parameter(torch.ones(s)) for s in ((4, 3), (5,))]
    options = {"momentum": 0.9, "backend": "reference", **options}
    opt = D3FusedSGD(params, track="all", lr=0.1, reference_device="cpu", **options)
    for p in params:
        torch.utils.swap_tensors(p, nn.Parameter(torch.ones_like(p, device="meta")))
        p.grad = torch.ones_like(p)
    return params, opt


@pytest.mark.parametrize("kind", [None, torch.bfloat16], ids=["own", "bf16"])
@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize(
    "options", [{}, {"constraint": "distance_ball", "radius": 1.0}, {"distance_p": 3.0}], ids=str
)
def test_the_reference_stays_on_the_host_and_the_step_on_the_device(options, scope, kind):
    params, opt = moved_to_meta(scope=scope, reference_dtype=kind, **options)
    for _ in range(2):
        opt.step()
    for p in params:
        devices = {name: tensor.device.type for name, tensor in opt.state[p].items()}
        assert devices == {"reference": "cpu", "momentum_buffer": "meta"}
    assert opt.total_distance().device.type == "meta"


def test_beside_parameters_on_the_host_it_changes_nothing(far_apart, backend, descend, same_bits):
    results = []
    for device in (None, "cpu"):
        _, opt = far_apart(momentum=0.9, backend=backend, reference_device=device)
        opt.load_state_dict(opt.state_dict())
        results.append(descend(opt, 4))
    assert same_bits(*results)

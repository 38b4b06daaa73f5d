"""State before and after the first step of a momentum buffer."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD
from d3fast.optim.buffers import is_first_step

PLAIN = {"distance_weight": 0.0, "constraint": None}


def test_an_optimizer_with_references_has_its_buffers_before_the_first_step(backend):
    p = nn.Parameter(torch.ones(3))
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend=backend)
    assert is_first_step(p, opt.state)
    assert torch.equal(opt.state[p]["momentum_buffer"], torch.zeros(3))
    p.grad = torch.ones(3)
    opt.step()
    assert not is_first_step(p, opt.state)
    assert "step" not in opt.state[p]


def test_frozen_parameters_have_no_buffers():
    p = nn.Parameter(torch.ones(3), requires_grad=False)
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9)
    assert set(opt.state[p]) == {"reference"}


@pytest.mark.parametrize("tracked", [True, False])
def test_the_first_step_of_a_buffer_is_not_dampened(tracked, backend):
    weights = []
    for dampening in (0.0, 0.7):
        p = nn.Parameter(torch.ones(3))
        options = {"constraint": None} if tracked else PLAIN
        opt = D3FusedSGD(
            [p], track="all", lr=0.1, momentum=0.9, dampening=dampening, backend=backend, **options
        )
        p.grad = torch.ones(3)
        opt.step()
        weights.append(p.detach())
    assert torch.equal(*weights)


def test_dampening_may_change_before_the_first_step(backend):
    p, q = (nn.Parameter(torch.ones(3)) for _ in range(2))
    late = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend=backend)
    late.param_groups[0]["dampening"] = 0.5
    early = D3FusedSGD([q], track="all", lr=0.1, momentum=0.9, dampening=0.5, backend=backend)
    for _ in range(2):
        p.grad = q.grad = torch.tensor([1.0, 2.0, -3.0])
        late.step()
        early.step()
    assert torch.equal(p, q)


def test_a_plain_step_without_momentum_leaves_no_state(backend):
    p = nn.Parameter(torch.ones(3))
    opt = D3FusedSGD([p], **PLAIN, backend=backend)
    for _ in range(2):
        p.grad = torch.ones(3)
        opt.step()
    assert p not in opt.state


def test_a_momentum_buffer_of_none_starts_anew(backend):
    p, q = (nn.Parameter(torch.ones(3)) for _ in range(2))
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, dampening=0.5, backend=backend)
    new = D3FusedSGD([q], track="all", lr=0.1, momentum=0.9, dampening=0.5, backend=backend)
    p.grad = torch.tensor([1.0, 2.0, 3.0])
    opt.step()
    opt.state[p]["momentum_buffer"] = None
    with torch.no_grad():
        p.fill_(1.0)
    for one, its in ((opt, p), (new, q)):
        its.grad = torch.tensor([1.0, -2.0, 3.0])
        one.step()
    torch.testing.assert_close(p, q)

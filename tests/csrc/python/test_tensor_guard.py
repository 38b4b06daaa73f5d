"""The guard of a plan, and the step of several groups in one call."""

import pytest
import torch
from torch import nn

from d3fast import _C, D3FusedSGD
from d3fast.optim.backends import native


@pytest.fixture(params=["exchange", "methods"])
def guarded(request):
    """Two parameters of which the first has a gradient, their state, and a guard over them."""
    exchange = native.TENSOR_EXCHANGE if request.param == "exchange" else None
    params = [nn.Parameter(torch.ones(4, 3)) for _ in range(2)]
    params[0].grad = torch.ones(4, 3)
    state = {p: {"momentum_buffer": torch.zeros(4, 3)} for p in params}
    guard = _C.TensorGuard(
        params=params, state=state, columns=["momentum_buffer"], exchange=exchange
    )
    return guard, params, state


def test_what_it_was_made_for_matches(guarded):
    guard, params, state = guarded
    assert guard.matches(params, state)
    assert guard.readable
    assert guard.gradients == [params[0].grad.data_ptr()]


CHANGES = {
    "a_gradient_more": lambda params, state: setattr(params[1], "grad", torch.ones(4, 3)),
    "a_gradient_less": lambda params, state: setattr(params[0], "grad", None),
    "a_parameter_less": lambda params, state: params.pop(),
    "no_state": lambda params, state: state.pop(params[0]),
    "another_buffer": lambda params, state: state[params[0]].update(
        momentum_buffer=torch.ones(4, 3)
    ),
    "moved_data": lambda params, state: setattr(params[0], "data", torch.ones(4, 3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_outdates_it(guarded, change):
    guard, params, state = guarded
    CHANGES[change](params, state)
    assert not guard.matches(params, state)
    assert not guard.readable


GRADIENTS = {
    "transposed": lambda: torch.ones(3, 4).t(),
    "negative_view": lambda: torch.complex(torch.ones(4, 3), torch.ones(4, 3)).conj().imag,
    "without_memory": lambda: torch._efficientzerotensor((4, 3)),
}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_a_gradient_that_kernels_cannot_read_in_place_is_not_readable(guarded, kind):
    guard, params, state = guarded
    params[0].grad = GRADIENTS[kind]()
    guard.matches(params, state)
    assert not guard.readable


def test_edits_are_told_from_the_versions_it_recorded(guarded):
    guard, params, state = guarded
    assert guard.matches(params, state)
    assert guard.edited  # nothing was recorded yet
    guard.record_versions()
    assert guard.matches(params, state)
    assert not guard.edited
    params[0].detach().mul_(2)
    assert guard.matches(params, state)
    assert guard.edited


def two_groups():
    params = [nn.Parameter(torch.full((5,), float(i + 1))) for i in range(2)]
    opt = D3FusedSGD(
        [{"params": [p], "reference": [torch.zeros(5)]} for p in params],
        track="all",
        lr=0.1,
        momentum=0.9,
        backend="fused",
    )
    for p in params:
        p.grad = torch.ones(5)
    return params, opt


def test_all_groups_are_stepped_in_one_call(monkeypatch):
    params, opt = two_groups()
    opt.step()
    calls = []
    real = _C.step_groups
    monkeypatch.setattr(_C, "step_groups", lambda **given: calls.append(given) or real(**given))
    versions = [p._version for p in params]
    opt.step()
    assert [len(call["groups"]) for call in calls] == [2]
    assert [p._version - v for p, v in zip(params, versions, strict=True)] == [1, 1]


def test_no_group_moves_where_one_is_refused():
    params, opt = two_groups()
    opt.step()
    before = [p.detach().clone() for p in params]
    params[1].grad = torch.eye(5)[0].to_sparse()
    with pytest.raises(ValueError, match=r"torch\.sparse_coo"):
        opt.step()
    assert all(torch.equal(p.detach(), b) for p, b in zip(params, before, strict=True))

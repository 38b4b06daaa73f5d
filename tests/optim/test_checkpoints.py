"""State dicts before the first step, and through ``torch.distributed.checkpoint``'s functions."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import d3fast
from d3fast import D3FusedAdamW, D3FusedSGD

OPTIONS = {
    "heavy_ball": {"momentum": 0.9},
    "dampened": {"momentum": 0.9, "dampening": 0.3},
    "without_momentum": {},
    "adamw": {"optimizer": D3FusedAdamW},
}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))


def training(model, backend, optimizer=D3FusedSGD, **options):
    """An optimizer over the model, and a function that takes steps with it."""
    opt = optimizer(d3fast.param_groups(model), lr=0.05, backend=backend, **options)
    batch = torch.linspace(-1, 1, 72).view(12, 6), torch.arange(12) % 5

    def train(steps):
        for _ in range(steps):
            opt.zero_grad()
            nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
            opt.step()

    return opt, train


@pytest.mark.parametrize("flow", ["set", "get_load_set"])
@pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flattened"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_goes_on_through_the_functions_of_distributed_checkpoint(
    name, flatten, flow, backend
):
    kind = StateDictOptions(flatten_optimizer_state_dict=flatten)
    first = network()
    opt, train = training(first, backend, **OPTIONS[name])
    train(3)
    saved = copy.deepcopy(get_optimizer_state_dict(first, opt, options=kind))
    weights = copy.deepcopy(first.state_dict())
    train(3)

    second = network()
    opt, train = training(second, backend, **OPTIONS[name])
    second.load_state_dict(weights)
    if flow == "get_load_set":  # as torch.distributed.checkpoint.load does, in place
        target = get_optimizer_state_dict(second, opt, options=kind)
        assert set(target) <= set(saved)  # a saved norm may be recomputed
        load_in_place(target, saved)
        saved = target
    set_optimizer_state_dict(second, opt, saved, options=kind)
    train(3)
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def load_in_place(target, saved):
    for key, value in target.items() if isinstance(target, dict) else enumerate(target):
        if isinstance(value, torch.Tensor):
            value.copy_(saved[key])
        elif isinstance(value, (dict, list)):
            load_in_place(value, saved[key])
        else:
            target[key] = saved[key]


@pytest.mark.parametrize("dampening", [0.0, 0.3])
def test_a_state_dict_taken_before_the_first_step_changes_no_later_step(
    dampening, backend, far_apart, descend, same_bits
):
    ends = []
    for takes in (False, True):
        _, opt = far_apart(momentum=0.9, backend=backend)
        if takes:
            opt.state_dict()
        opt.param_groups[0]["dampening"] = dampening
        ends.append(descend(opt, 3))
    assert same_bits(*ends)


@pytest.mark.parametrize("dampening", [0.0, 0.3])
def test_a_run_starts_from_a_state_dict_taken_before_the_first_step(
    dampening, backend, far_apart, descend, same_bits
):
    options = {"momentum": 0.9, "dampening": dampening, "backend": backend}
    _, opt = far_apart(**options)
    _, loaded = far_apart(**options)
    loaded.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert same_bits(descend(loaded, 3), descend(opt, 3))


def test_a_plain_optimizer_has_no_state_before_its_first_step():
    opt = D3FusedSGD(
        [nn.Parameter(torch.ones(3))], momentum=0.9, distance_weight=0, constraint=None
    )
    assert opt.state_dict()["state"] == {}
    assert opt.state == {}


def test_hooks_of_users_get_the_complete_state_dict():
    opt = D3FusedSGD([nn.Parameter(torch.ones(3))], track="all", momentum=0.9)

    def by_name(_, state_dict):
        return {**state_dict, "state": {f"p{i}": s for i, s in state_dict["state"].items()}}

    opt.register_state_dict_post_hook(by_name)
    state = opt.state_dict()["state"]
    assert list(state) == ["p0"]
    assert set(state["p0"]) == {"reference", "momentum_buffer"}

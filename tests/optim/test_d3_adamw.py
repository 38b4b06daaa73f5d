"""The contract of torch.optim.Optimizer, kept by D3FusedAdamW: state, checkpoints, scaling."""

import copy

import pytest
import torch
from torch import nn

from d3fast import D3FusedAdamW, D3FusedSGD

DECOUPLED = [False, True]
pushes = pytest.mark.parametrize("decoupled_push", DECOUPLED, ids=["coupled", "decoupled"])


def small(backend="fused", dtype=torch.float32, **options):
    g = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(s, generator=g).to(dtype)) for s in ((4, 3), (5,))]
    opt = D3FusedAdamW(params, track="all", lr=0.1, backend=backend, **options)
    opt.warm_start("far")
    return params, opt


def test_a_first_step_goes_by_lr_along_the_sign_of_gradient_minus_push(backend):
    p = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 4.0]))
    theta_0 = p.detach() - torch.tensor([3.0, 0.0, 4.0, 0.0])
    options = {"track": "all", "constraint": None, "weight_decay": 0.0, "backend": backend}
    options |= {"distance_weight": 5.0, "decoupled_push": False}
    opt = D3FusedAdamW([p], lr=0.01, reference=[theta_0], **options)
    p.grad = torch.tensor([1.0, 1.0, 5.0, -1.0])  # the push is (3, 0, 4, 0)
    before = p.detach().clone()
    opt.step()
    torch.testing.assert_close(p.detach() - before, torch.tensor([0.01, -0.01, -0.01, 0.01]))


def test_a_decoupled_push_is_added_to_the_step_of_adamw(backend):
    theta = torch.tensor([1.0, -2.0, 3.0])
    push = torch.tensor([3.0, 0.0, 4.0]) / 5
    moved = []
    for weight in (0.0, 2.0):
        p = nn.Parameter(theta.clone())
        opt = D3FusedAdamW(
            [p],
            lr=0.01,
            distance_weight=weight,
            decoupled_push=True,
            constraint=None,
            track="all",
            reference=[theta - 5 * push],
            backend=backend,
        )
        p.grad = torch.tensor([0.5, 1.0, -2.0])
        opt.step()
        moved.append(p.detach())
        assert torch.equal(opt.state[p]["exp_avg_sq"], 0.001 * p.grad**2)
    torch.testing.assert_close(moved[1] - moved[0], 0.01 * 2.0 * push)


@pushes
def test_state_dict_goes_through_a_round_trip(decoupled_push, backend, descend, same_bits):
    _, first = small(backend, decoupled_push=decoupled_push)
    descend(first, 3)
    params, second = small(backend)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.state_dict()["param_groups"] == first.state_dict()["param_groups"]
    for p, q in zip(params, first.param_groups[0]["params"], strict=True):
        assert second.state[p].keys() == first.state[q].keys()
        p.data.copy_(q)
    assert same_bits(descend(second, 3, start=3), descend(first, 3, start=3))


def test_a_loaded_state_shares_no_step_count_with_what_was_saved(backend, descend):
    _, first = small(backend)
    descend(first, 2)
    saved = first.state_dict()
    params, second = small(backend)
    second.load_state_dict(saved)
    descend(second, 1)
    assert float(saved["state"][0]["step"]) == 2
    assert float(second.state[params[0]]["step"]) == 3


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=str)
def test_loading_plain_adamw_takes_its_moments_and_leaves_the_rest(
    options, backend, descend, relative_error
):
    g = torch.Generator().manual_seed(0)
    start = torch.randn(6, 3, generator=g)
    theirs, ours = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    adamw = torch.optim.AdamW([theirs], lr=0.03, betas=(0.8, 0.9), **options)
    descend(adamw, 3)
    opt = D3FusedAdamW([ours], lr=0.1, distance_weight=0.0, constraint="norm_ball", radius=9.0)
    opt.param_groups[0]["backend"] = backend
    opt.load_state_dict(copy.deepcopy(adamw.state_dict()))
    ours.data.copy_(theirs)
    group = opt.param_groups[0]
    assert (group["lr"], group["betas"], group["radius"]) == (0.03, (0.8, 0.9), 9.0)
    assert torch.equal(opt.state[ours]["reference"], start)
    assert relative_error(descend(opt, 3, start=3), descend(adamw, 3, start=3)) <= 1e-6


def test_the_state_of_another_optimizer_is_refused_by_name():
    p = nn.Parameter(torch.ones(2, 2))
    states = {
        "momentum": torch.optim.SGD([p]).state_dict(),
        "betas": D3FusedAdamW([p]).state_dict(),
    }
    for optimizer, option in ((D3FusedAdamW, "momentum"), (D3FusedSGD, "betas")):
        with pytest.raises(ValueError, match=f"it has the option '{option}'"):
            optimizer([p]).load_state_dict(states[option])


def test_a_saved_amsgrad_is_refused_at_the_next_step(descend):
    params, opt = small()
    theirs = torch.optim.AdamW([nn.Parameter(p.detach().clone()) for p in params], amsgrad=True)
    opt.load_state_dict(theirs.state_dict())
    with pytest.raises(ValueError, match="amsgrad=True is not supported"):
        descend(opt, 1)


def test_on_overflow_nothing_moves_and_no_step_is_counted(backend, descend, set_gradients):
    params, opt = small(backend)
    descend(opt, 2)
    before = [{k: v.clone() for k, v in opt.state[p].items()} for p in params]
    weights = [p.detach().clone() for p in params]
    set_gradients(params, 2)
    opt.grad_scale, opt.found_inf = torch.tensor(8.0), torch.tensor(1.0)
    opt.step()
    assert all(torch.equal(p, w) for p, w in zip(params, weights, strict=True))
    for p, state in zip(params, before, strict=True):
        assert all(torch.equal(opt.state[p][k], v) for k, v in state.items())


def test_gradients_are_divided_by_grad_scale_in_place(backend, set_gradients, same_bits):
    params, opt = small(backend)
    twins, plain = small(backend)
    set_gradients(params, 0)
    set_gradients(twins, 0)
    for p in params:
        p.grad *= 1024.0
    opt.grad_scale, opt.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    opt.step()
    plain.step()
    assert same_bits(params, twins)
    assert same_bits([p.grad for p in params], [p.grad for p in twins])


def test_betas_and_eps_may_change_between_steps(backend, descend, relative_error):
    options = {"betas": (0.5, 0.9), "eps": 1e-3}

    def change(t, params):
        if t == 2:
            opt.param_groups[0].update(options)

    ends = []
    for kind in (backend, "reference"):
        _, opt = small(kind, torch.float64)
        ends.append(descend(opt, 5, between=change))
    assert relative_error(*ends) <= 1e-13


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("momentum_dtype", [None, torch.float32])
def test_half_types_follow_float32_and_keep_a_float32_second_moment(
    half, momentum_dtype, backend, descend, relative_error
):
    options = {"momentum_dtype": momentum_dtype, "weight_decay": 0.1}
    params, opt = small(backend, half, **options)
    wide = [nn.Parameter(p.detach().float()) for p in params]
    references = [opt.state[p]["reference"].float() for p in params]
    exact = D3FusedAdamW(wide, track="all", lr=0.1, weight_decay=0.1, reference=references)
    assert relative_error(descend(opt, 8), descend(exact, 8)) <= 0.01
    for p in params:
        assert opt.state[p]["exp_avg_sq"].dtype == torch.float32
        assert opt.state[p]["exp_avg"].dtype == (momentum_dtype or half)


@pushes
def test_a_compiled_step_takes_the_steps_of_an_eager_one(
    decoupled_push, backend, compiled, graphs, set_gradients, same_bits
):
    (params, eager), (twins, traced) = (
        small(backend, decoupled_push=decoupled_push) for _ in range(2)
    )
    step = compiled(traced.step)
    for t in range(4):
        for opt in (eager, traced):
            opt.param_groups[0]["betas"] = (0.9 - 0.1 * (t > 2), 0.99)
        set_gradients(params, t)
        set_gradients(twins, t)
        eager.step()
        step()
    assert same_bits(params, twins)
    assert [float(traced.state[p]["step"]) for p in twins] == [4.0, 4.0]
    assert graphs() <= 2

"""What a step that writes through raw pointers and carries norms from step to step can get wrong.

DESIGN, section 2, "Traps that must be handled, each with a test".
"""

import os

import numpy as np
import pytest
import torch
from torch import nn

from d3fast import D3FusedAdamW, D3FusedSGD

RULES = {
    "sgd": {},
    "heavy_ball": {"momentum": 0.9, "dampening": 0.1},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "adamw": {"optimizer": D3FusedAdamW, "betas": (0.8, 0.9), "decoupled_push": False},
    "decoupled_push": {"optimizer": D3FusedAdamW, "decoupled_push": True},
}


def weight(*shape, seed=0, dtype=torch.float32):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype))


# ---------------------------------------------------------------- version counter


def test_backward_through_weights_that_a_step_overwrote_raises(backend):
    w = weight(4, 3)
    opt = D3FusedSGD([w], track="all", lr=0.1, backend=backend)
    x = torch.ones(2, 4, requires_grad=True)
    stale = (x @ w).square().sum()
    w.grad = torch.ones_like(w)
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


# ---------------------------------------------------------------- stale norms

EDITS = {
    "in_place": lambda p: p.detach().mul_(3.0),
    "through_data": lambda p: p.data.mul_(3.0),
    "closer_through_data": lambda p: p.data.mul_(0.3),
    "to_zero_through_data": lambda p: p.data.zero_(),
    "one_element_through_data": lambda p: p.data.view(-1)[:1].add_(50.0),
    "new_data": lambda p: setattr(p, "data", p.data * 1.7),
    "new_layout": lambda p: setattr(p, "data", (p.data + 1).T.contiguous().T),
    "swapped": lambda p: torch.utils.swap_tensors(p, nn.Parameter(p.detach() + 2)),
}


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("edit", EDITS)
def test_a_norm_that_an_edit_made_stale_is_put_right(
    edit, rule, scope, dtype, far_apart, descend, relative_error
):
    def between(t, params):
        if t in (2, 5):
            for p in (params[0], params[4]):
                if p.dim() == 2 or "layout" not in edit:
                    grad, p.grad = p.grad, None
                    EDITS[edit](p)
                    p.grad = grad

    options = {"scope": scope, "weight_decay": 0.01, **RULES[rule]}
    _, fused = far_apart(dtype, **options)
    _, oracle = far_apart(torch.float64, backend="reference", **options)
    got, want = (descend(opt, 8, between=between) for opt in (fused, oracle))
    assert relative_error(got, want) <= (1e-5 if dtype == torch.float32 else 1e-13)


def test_after_an_in_place_edit_a_step_has_the_bits_of_a_new_optimizer(
    backend, dtype, far_apart, descend, same_bits
):
    params, old = far_apart(dtype, backend=backend)
    descend(old, 2)
    with torch.no_grad():
        for p in params:
            p.mul_(3.0)
    starts = [nn.Parameter(p.detach().clone()) for p in params]
    references = [old.state[p]["reference"] for p in params]
    new = D3FusedSGD(starts, track="all", lr=0.05, reference=references, backend=backend)
    assert same_bits(descend(old, 1, start=2), descend(new, 1, start=2))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("weight_decay", [9.0, 10.0, 11.0, 20.0])
def test_strong_weight_decay_leaves_no_norm_stale(
    weight_decay, rule, far_apart, descend, relative_error
):
    # lr * weight_decay = 1 forgets theta: the update cannot be undone to mend it.
    def between(t, params):
        if t == 2:
            params[4].data.mul_(3.0)

    options = {"lr": 0.1, "weight_decay": weight_decay, **RULES[rule]}
    _, fused = far_apart(**options)
    _, oracle = far_apart(torch.float64, backend="reference", **options)
    got, want = (descend(opt, 6, between=between) for opt in (fused, oracle))
    assert relative_error(got, want) <= 1e-5


def test_the_last_bit_of_a_weight_edited_under_full_weight_decay_is_no_nan():
    # theta moves by one unit in the last place, within the rounding of its reference, and the
    # update leaves a tiny theta, beside which the same difference is large.
    theta_0 = torch.full((1,), 1024.0)
    p = nn.Parameter(theta_0.clone())
    opt = D3FusedSGD(
        [p],
        track="all",
        lr=1.0,
        constraint=None,
        reference=[theta_0],
        backend="fused",
        weight_decay=0.0,
    )
    p.grad = torch.zeros(1)
    opt.step()
    opt.param_groups[0]["weight_decay"] = 1.0
    p.data.copy_(torch.nextafter(theta_0, torch.tensor(torch.inf)))
    opt.step()
    assert torch.isfinite(p).all()


def test_refresh_distances_sees_an_edit_through_data_before_the_next_step(backend):
    p = weight(9)
    opt = D3FusedSGD([p], track="all", lr=0.1, backend=backend)
    theta_0 = p.detach().clone()
    p.grad = torch.ones(9)
    opt.step()
    p.data.mul_(2.0)
    opt.refresh_distances()
    torch.testing.assert_close(opt.distances()[0], (p.detach() - theta_0).norm())


def test_a_reference_edited_in_place_moves_its_radius(backend):
    p = weight(9)
    opt = D3FusedSGD([p], track="all", lr=0.1, backend=backend)
    p.grad = torch.ones(9)
    opt.step()
    opt.state[p]["reference"].mul_(2.0)
    opt.step()
    torch.testing.assert_close(p.detach().norm(), opt.state[p]["reference"].norm())


def test_a_view_of_the_same_storage_with_other_strides_is_noticed(backend, set_gradients):
    results = []
    for kind in (backend, "reference"):
        p = weight(6, 6)
        opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend=kind)
        set_gradients([p], 0)
        opt.step()
        p.data = p.data.T
        set_gradients([p], 1)
        opt.step()
        results.append(p.detach())
    torch.testing.assert_close(*results)


def test_weights_that_outgrew_their_state_are_refused(backend):
    p = weight(4, 6)
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend=backend)
    p.grad = torch.ones_like(p)
    opt.step()
    old, p.grad = p.grad, None
    p.data = torch.zeros(800, 6)
    p.grad = torch.ones_like(p)
    with pytest.raises((ValueError, RuntimeError)):
        opt.step()
    p.data = torch.zeros(4, 6)
    p.grad = old
    p.data = torch.zeros(800, 6)
    with pytest.raises(ValueError, match=r"gradient has shape \(4, 6\)"):
        opt.step()


# ---------------------------------------------------------------- loading


def test_loading_keeps_the_carried_norm_in_float64(descend, far_apart, same_bits):
    _, first = far_apart()
    descend(first, 3)
    _, second = far_apart()
    second.load_state_dict(first.state_dict())
    for p, q in zip(first.param_groups[0]["params"], second.param_groups[0]["params"], strict=True):
        assert second.state[q]["distance"].dtype == torch.float64
        assert torch.equal(second.state[q]["distance"], first.state[p]["distance"])


def test_loading_keeps_a_reference_of_another_dtype():
    make = lambda: D3FusedSGD(  # noqa: E731
        [weight(5)],
        track="all",
        reference_dtype=torch.float64,
        reference=[theta_0],
        backend="reference",
    )
    theta_0 = torch.full((5,), 1 / 3, dtype=torch.float64)
    first, second = make(), make()
    second.load_state_dict(first.state_dict())
    (state,) = second.state.values()
    assert torch.equal(state["reference"], theta_0)


# ---------------------------------------------------------------- strides and shapes


def test_gradients_with_other_strides_than_their_parameter(backend, relative_error):
    values = torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(1))
    layouts = [
        values,
        values.contiguous(memory_format=torch.channels_last),
        values.transpose(0, 3).contiguous().transpose(0, 3),
        torch.stack([values, values], -1)[..., 0],
    ]
    results = []
    for grad in layouts:
        for memory_format in (torch.contiguous_format, torch.channels_last):
            p = nn.Parameter(weight(4, 3, 5, 2).detach().contiguous(memory_format=memory_format))
            opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend=backend)
            opt.warm_start("far")
            p.grad = grad.clone(memory_format=torch.preserve_format)
            opt.step()
            assert p.is_contiguous(memory_format=memory_format)
            results.append(p.detach())
    assert all(relative_error([r], results[:1]) <= 1e-6 for r in results)


def test_an_expanded_gradient_is_read_right(backend):
    p = weight(3, 4)
    start = p.detach().clone()
    p.grad = torch.full((1,), 2.0).expand(3, 4)
    D3FusedSGD([p], lr=0.5, distance_weight=0.0, constraint=None, backend=backend).step()
    torch.testing.assert_close(p.detach(), start - 1.0)


def test_a_parameter_without_gradient_is_left_whole(backend):
    still, moving = weight(4, 3), weight(5, seed=1)
    theta_0 = moving.detach().clone()
    opt = D3FusedSGD(
        [still, moving], track="all", lr=0.1, momentum=0.9, scope="group", backend=backend
    )
    still.data.mul_(2.0)  # off the sphere: a projection would move it
    before = still.detach().clone()
    moving.grad = torch.ones(5)
    opt.step()
    assert torch.equal(still, before)
    assert set(opt.state[still]) == {"reference"}
    # The radius, too, is that of the tensors taking part.
    torch.testing.assert_close(moving.detach().norm(), theta_0.norm())


def test_gradients_that_come_and_go_follow_the_reference(far_apart, descend, relative_error):
    def between(t, params):
        for i, p in enumerate(params):
            if (t + i) % 3 == 0:
                p.grad = None

    options = {"momentum": 0.9, "dampening": 0.2, "scope": "group"}
    results = []
    for kind, dtype in (("fused", torch.float32), ("reference", torch.float64)):
        _, opt = far_apart(dtype, backend=kind, **options)
        results.append(descend(opt, 12, between=between))
    assert relative_error(*results) <= 1e-5


@pytest.mark.parametrize("first", [(0,), (2, 0, 3)])
@pytest.mark.parametrize("options", [{}, {"scope": "group"}, {"constraint": None}])
def test_an_empty_tensor_may_come_first(first, options, backend, any_dtype):
    empty, other = weight(*first, dtype=any_dtype), weight(5, dtype=any_dtype)
    opt = D3FusedSGD([empty, other], track="all", lr=0.1, momentum=0.9, backend=backend, **options)
    opt.warm_start("far")
    for p in (empty, other):
        p.grad = torch.ones_like(p)
    opt.step()
    assert float(opt.distances()[0]) == 0
    assert torch.isfinite(other).all()


def test_a_0_dim_tensor_walks_on_its_sphere(backend, any_dtype):
    p = nn.Parameter(torch.tensor(3.0, dtype=any_dtype))
    opt = D3FusedSGD([p], track="all", lr=10.0, backend=backend)
    p.grad = torch.tensor(1.0, dtype=any_dtype)
    opt.step()  # 3 - 10 lies beyond 0: rescaled, it is -3
    assert p.item() == -3.0
    assert opt.distances()[0].item() == 6.0


@pytest.mark.skipif(
    os.environ.get("D3FAST_TEST_HUGE") != "1", reason="needs 9 GB: set D3FAST_TEST_HUGE=1"
)
def test_tensors_past_2_to_the_31_elements():
    # numpy's zeros take no memory until they are written; reference and gradient are one array.
    theta, other = (torch.from_numpy(np.zeros(2**31 + 5, dtype=np.float32)) for _ in range(2))
    p = nn.Parameter(theta)
    opt = D3FusedSGD([p], lr=1.0, distance_weight=0.0, constraint=None, backend="fused")
    opt.param_groups[0]["distance_weight"] = 1.0
    p.grad = opt.state[p]["reference"] = other
    p.grad[-2] = 2.0
    opt.step()  # delta = -2, so the push is -1
    assert p.detach()[-3:].tolist() == [0.0, -3.0, 0.0]
    assert opt.distances()[0].item() == 5.0


# ---------------------------------------------------------------- no NaN, ever


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize(
    "constraint", [None, "norm_sphere", "norm_ball", "distance_ball", "distance_floor"]
)
def test_zero_distance_zero_weights_and_zero_reference_give_no_nan(
    constraint, power, scope, backend, any_dtype
):
    for theta, theta_0 in ((1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (1e-30, 0.0)):
        p = nn.Parameter(torch.full((5,), theta, dtype=any_dtype))
        opt = D3FusedSGD(
            [p],
            track="all",
            lr=0.1,
            momentum=0.9,
            distance_p=power,
            scope=scope,
            constraint=constraint,
            radius=0.5,
            reference=[torch.full((5,), theta_0, dtype=any_dtype)],
            backend=backend,
        )
        for grad in (0.0, 0.0, 1.0):
            p.grad = torch.full((5,), grad, dtype=any_dtype)
            opt.step()
            assert torch.isfinite(p).all()
            assert torch.isfinite(opt.total_distance())


def test_weights_at_their_reference_are_not_pushed(backend, any_dtype):
    p = weight(7, dtype=any_dtype)
    before = p.detach().clone()
    opt = D3FusedSGD([p], track="all", lr=0.1, constraint=None, backend=backend)
    p.grad = torch.zeros_like(p)
    opt.step()
    assert torch.equal(p, before)


def test_a_nan_gradient_shows_and_spoils_no_other_tensor(backend, any_dtype):
    sick, well = weight(4, dtype=any_dtype), weight(4, seed=1, dtype=any_dtype)
    opt = D3FusedSGD([sick, well], track="all", lr=0.1, backend=backend)
    sick.grad, well.grad = torch.full_like(sick, torch.nan), torch.ones_like(well)
    opt.step()
    opt.step()
    assert torch.isnan(sick).all()
    assert torch.isfinite(well).all()

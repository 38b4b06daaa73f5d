"""The step alone under ``torch.compile``: no breaks, and the bits of an eager step.

``aot_eager`` runs the traced graph as it is, on copies of what the step writes to.
"""

import copy
import math

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from d3fast import D3FusedSGD

pytestmark = [
    pytest.mark.usefixtures("graphs"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

OPTIONS = {
    "defaults": {},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov_ball": {"momentum": 0.8, "nesterov": True, "constraint": "norm_ball"},
    "joint_shell": {"scope": "group", "constraint": "distance_shell", "radius": (0.5, 0.9)},
    "floor_p1": {"momentum": 0.9, "distance_p": 1.0, "constraint": "distance_floor", "radius": 2},
    "plain_uphill": {"maximize": True, "constraint": None, "distance_weight": 0.0},
    "tensors": {"lr": torch.tensor(0.03), "radius": torch.tensor(0.9)},
    "capturable": {"capturable": True, "radius": 0.9, "constraint": "norm_ball"},
}


CASES = [
    *(("fused", torch.float32, name) for name in OPTIONS),
    ("fused", torch.float64, "momentum"),
    ("reference", torch.float64, "joint_shell"),
    ("reference", torch.float32, "tensors"),
]


@pytest.mark.parametrize(("kind", "dtype", "options"), CASES)
def test_a_compiled_step_has_the_bits_of_an_eager_one(
    kind, dtype, options, far_apart, set_gradients, same_bits, compiled, graphs
):
    results = []
    for run in (lambda f: f, compiled):
        params, opt = far_apart(dtype, backend=kind, **copy.deepcopy(OPTIONS[options]))
        step = run(opt.step)
        for t in range(4):
            set_gradients(params, t)
            step()
        states = [t for p in params for _, t in sorted(opt.state[p].items())]
        results.append([*params, *states])
    assert graphs() == 1
    assert same_bits(*results)


@pytest.mark.filterwarnings("ignore:param group . runs on the slower:UserWarning")
def test_half_type_weights_keep_their_remainder_in_a_graph(
    far_apart, set_gradients, same_bits, compiled, graphs
):
    results = []
    for run in (lambda f: f, compiled):
        options = {"momentum": 0.9, "momentum_dtype": torch.float32, "lr": 1e-3}
        params, opt = far_apart(torch.bfloat16, backend="auto", **options)
        step = run(opt.step)
        for t in range(4):
            set_gradients(params, t)
            step()
        results.append([*params, *(opt.state[p]["compensation"] for p in params)])
    assert graphs() == 1
    assert same_bits(*results)


def test_gradients_that_come_and_go_cost_a_graph_each(
    far_apart, set_gradients, same_bits, compiled, graphs
):
    results = []
    for run in (lambda f: f, compiled):
        params, opt = far_apart(momentum=0.9, scope="group")
        step = run(opt.step)
        for t in range(6):
            set_gradients(params, t)
            if t % 2:
                params[0].grad = None
            step()
        results.append(params)
    assert graphs() == 2
    assert same_bits(*results)


def test_gradients_of_other_strides_are_read_right(same_bits, compiled):
    results = []
    for run in (lambda f: f, compiled):
        p = nn.Parameter(torch.arange(12.0).view(3, 4))
        opt = D3FusedSGD([p], track="all", lr=0.1, backend="fused")
        step = run(opt.step)
        for grad in (torch.ones(4, 3).T, torch.full((1,), 2.0).expand(3, 4)):
            p.grad = grad
            step()
        results.append([p])
    assert same_bits(*results)


def test_the_first_dampened_step_is_taken_outside_the_graph(far_apart, set_gradients, same_bits):
    results = []
    for run in (lambda f: f, torch.compile):
        params, opt = far_apart(momentum=0.9, dampening=0.2)
        step = run(opt.step, backend="aot_eager") if run is torch.compile else opt.step
        breaks = []
        for t in range(4):
            set_gradients(params, t)
            step()
            breaks.append(sum(counters["graph_break"].values()))
        results.append(params)
    assert breaks[0] > 0
    assert breaks[1:] == breaks[:1] * 3
    assert same_bits(*results)


def test_a_group_tracked_without_reference_is_refused_while_tracing(compiled):
    p = nn.Parameter(torch.ones(3))
    opt = D3FusedSGD([p], constraint=None, distance_weight=0.0)
    opt.param_groups[0]["distance_weight"] = 1.0
    p.grad = torch.ones(3)
    with pytest.raises(Exception, match="was added untracked, without reference="):
        compiled(opt.step)()
    assert torch.equal(p, torch.ones(3))


# ---------------------------------------------------------------- options that change


@pytest.mark.parametrize(
    ("make", "count"), [(float, 2), (torch.tensor, 1)], ids=["float", "tensor"]
)
def test_a_schedule_of_numbers_costs_one_recompilation_and_one_of_tensors_none(
    make, count, far_apart, set_gradients, same_bits, compiled, graphs
):
    results = []
    for run in (lambda f: f, compiled):
        params, opt = far_apart(lr=make(0.05), momentum=0.9)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
        step = run(opt.step)
        for t in range(6):
            set_gradients(params, t)
            step()
            scheduler.step()
        results.append(params)
    assert graphs() == count
    assert same_bits(*results)


def test_all_numbers_may_move_at_once(far_apart, set_gradients, same_bits, compiled, graphs):
    results = []
    for run in (lambda f: f, compiled):
        params, opt = far_apart(momentum=0.9, constraint="distance_ball", radius=3.0)
        step = run(opt.step)
        for t in range(6):
            moved = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "radius": 2.0}
            moved["distance_weight"] = 1.5
            opt.param_groups[0].update({k: v / (t + 1) for k, v in moved.items()})
            set_gradients(params, t)
            step()
        results.append(params)
    assert graphs() == 2
    assert same_bits(*results)


def test_an_option_scheduled_out_of_its_range_is_refused_as_in_an_eager_step(
    far_apart, set_gradients, compiled, graphs
):
    params, opt = far_apart(constraint="norm_ball")
    step = compiled(opt.step)
    for t, radius in enumerate((1.0, 0.9, 0.8)):
        opt.param_groups[0]["radius"] = radius
        set_gradients(params, t)
        step()
    before = params[0].detach().clone()
    opt.param_groups[0]["radius"] = -1.0
    with pytest.raises(ValueError, match=r"radius .*-1.0"):
        step()
    assert torch.equal(params[0], before)
    assert graphs() == 2


# ---------------------------------------------------------------- between steps


def test_eager_and_compiled_steps_can_alternate(far_apart, set_gradients, same_bits, compiled):
    params, opt = far_apart(momentum=0.9)
    twins, eager = far_apart(momentum=0.9)
    step = compiled(opt.step)
    for t in range(6):
        set_gradients(params, t)
        set_gradients(twins, t)
        (step if t % 2 else opt.step)()
        eager.step()
    assert same_bits(params, twins)
    for got, want in zip(opt.distances().values(), eager.distances().values(), strict=True):
        torch.testing.assert_close(got, want)


EDITS = {
    "in_place": lambda opt, p: p.detach().mul_(3.0),
    "through_data": lambda opt, p: p.data.mul_(0.3),
    "refreshed": lambda opt, p: (p.data.mul_(2.0), opt.refresh_distances()),
    "set_reference": lambda opt, p: opt.set_reference(),
    "reference_in_place": lambda opt, p: opt.state[p]["reference"].mul_(2.0),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_happens_between_steps_is_seen_without_recompiling(
    edit, far_apart, set_gradients, relative_error, compiled, graphs
):
    results = []
    for run in (lambda f: f, compiled):
        params, opt = far_apart(momentum=0.9)
        step = run(opt.step)
        for t in range(6):
            set_gradients(params, t)
            step()
            if t in (1, 3):
                EDITS[edit](opt, params[4])
        results.append(params)
    assert graphs() == 1
    assert relative_error(*results) <= 1e-6


def test_a_run_that_is_resumed_has_the_bits_of_one_that_is_not(
    far_apart, set_gradients, same_bits, compiled
):
    def run(opt, steps):
        params = opt.param_groups[0]["params"]
        step = compiled(opt.step)
        for t in steps:
            set_gradients(params, t)
            step()
        return params

    _, whole = far_apart(momentum=0.9)
    want = run(whole, range(6))
    _, first = far_apart(momentum=0.9)
    weights = run(first, range(3))
    second = D3FusedSGD(
        [nn.Parameter(w.detach().clone()) for w in weights], track="all", backend="fused"
    )
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert same_bits(run(second, range(3, 6)), want)


def test_backward_through_weights_that_a_compiled_step_overwrote_raises(backend, compiled):
    w = nn.Parameter(torch.ones(4, 3))
    opt = D3FusedSGD([w], track="all", lr=0.1, backend=backend)
    stale = (torch.ones(2, 4, requires_grad=True) @ w).square().sum()
    w.grad = torch.ones_like(w)
    compiled(opt.step)()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


# ---------------------------------------------------------------- mixed precision


def test_gradients_are_unscaled_and_an_overflow_moves_nothing(
    backend, far_apart, set_gradients, same_bits, compiled, graphs
):
    results = []
    for run in (lambda f: f, compiled):
        params, opt = far_apart(momentum=0.9, backend=backend)
        step = run(opt.step)
        for t in range(3):
            set_gradients(params, t)
            for p in params:
                p.grad *= 1024.0
            before = [p.detach().clone() for p in params]
            opt.grad_scale = torch.tensor(1024.0)
            opt.found_inf = torch.tensor(1.0 if t == 1 else 0.0)
            step()
            assert same_bits(params, before) == (opt.found_inf.item() == 1)
        results.append([*params, *(p.grad for p in params)])
    assert graphs() == 1
    assert same_bits(*results)


def test_grad_scaler_drives_a_compiled_step(far_apart, same_bits, compiled, graphs):
    results = []
    for run in (lambda f: f, compiled):
        params, opt = far_apart(momentum=0.9)
        opt.step = run(opt.step)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
        for t in range(5):
            opt.zero_grad()
            scaler.scale(sum(p.square().sum() for p in params)).backward()
            if t == 2:
                params[0].grad[0, 0] = math.inf
            scaler.step(opt)
            scaler.update()
        results.append(params)
    assert graphs() == 1
    assert same_bits(*results)

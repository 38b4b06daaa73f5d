"""Steps in graphs that ``torch.compile`` makes: no breaks, and the bits of an eager step.

``aot_eager`` runs the traced graph as it is; one test compiles it with inductor.
"""

import copy
import math

import pytest
import torch
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters

import d3fast
from d3fast import D3FusedSGD

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

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


@pytest.fixture(autouse=True)
def fresh():
    """Counts from zero, and ``loss.backward()`` within the graph where torch can."""
    torch._dynamo.reset()
    counters.clear()
    can = hasattr(torch._dynamo.config, "trace_autograd_ops")
    with torch._dynamo.config.patch(**({"trace_autograd_ops": True} if can else {})):
        yield


needs_backward = pytest.mark.skipif(
    not hasattr(torch._dynamo.config, "trace_autograd_ops"),
    reason="this torch breaks the graph at loss.backward()",
)


def compiled(function, backend="aot_eager"):
    return torch.compile(function, backend=backend, fullgraph=True)


def graphs():
    """How many graphs were compiled; none was broken."""
    assert sum(counters["graph_break"].values()) == 0
    return counters["stats"]["unique_graphs"]


def network():
    """A model and a batch; small, because most of what a test takes is the compilation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
        return model, (torch.randn(12, 6), torch.arange(12) % 5)


def training(model, order="first", **options):
    """The model's whole step as a function of a batch, and the optimizer."""
    opt = D3FusedSGD(d3fast.param_groups(model), lr=0.05, momentum=0.9, **options)
    opt.warm_start("random", generator=torch.Generator().manual_seed(0))
    loss_function = d3fast.CleanLoss()

    def step(x, y):
        if order == "first":
            opt.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        opt.step()
        if order == "last":
            opt.zero_grad()
        return loss.detach()

    return step, opt


# ---------------------------------------------------------------- the whole training step


@needs_backward
@pytest.mark.parametrize(
    ("order", "kind"), [("first", "fused"), ("last", "fused"), ("last", "reference")]
)
def test_a_whole_training_step_is_one_graph(order, kind, same_bits):
    results = []
    for run in (lambda f: f, compiled):
        model, batch = network()
        step, _ = training(model, order, backend=kind)
        step = run(step)
        results.append([*[step(*batch) for _ in range(4)], *model.parameters()])
    assert graphs() == 1
    assert same_bits(*results)


@needs_backward
def test_inductor_compiles_the_whole_step(relative_error):
    results = []
    for run in (lambda f: f, lambda f: compiled(f, "inductor")):
        model, batch = network()
        step, _ = training(model, "first")
        step = run(step)
        for _ in range(3):
            step(*batch)
        results.append(list(model.parameters()))
    assert graphs() == 1
    assert relative_error(*results) <= 1e-4


@needs_backward
def test_explain_finds_no_break():
    model, batch = network()
    step, _ = training(model, "last")
    found = torch._dynamo.explain(step)(*batch)
    assert (found.graph_count, found.graph_break_count) == (1, 0)


@needs_backward
def test_parts_of_a_batch_accumulate_in_the_graph_under_autocast(relative_error):
    results = []
    for run in (lambda f: f, compiled):
        model, batch = network()
        _, opt = training(model)

        def step(x, y, model=model, opt=opt):
            for part in (slice(0, 6), slice(6, 12)):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = nn.functional.cross_entropy(model(x[part]).float(), y[part]) / 2
                loss.backward()
            opt.step()
            opt.zero_grad()

        step = run(step)
        for _ in range(3):
            step(*batch)
        results.append(list(model.parameters()))
    assert graphs() == 1
    assert relative_error(*results) <= 1e-3


@needs_backward
def test_a_closure_is_part_of_the_graph_and_zero_grad_can_keep_the_memory(same_bits):
    results = []
    for run in (lambda f: f, compiled):
        model, batch = network()
        _, opt = training(model)

        def step(x, y, model=model, opt=opt):
            def closure():
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss.detach()

            loss = opt.step(closure)
            opt.zero_grad(set_to_none=False)
            return loss

        step = run(step)
        results.append([*[step(*batch) for _ in range(3)], *model.parameters()])
        assert all((p.grad == 0).all() for p in model.parameters())
    assert same_bits(*results)


@needs_backward
def test_a_backward_that_passes_over_the_parameters_is_noticed():
    # Dynamo does that once the function has read the optimizer's param_groups.
    model, batch = network()
    _, opt = training(model)

    def step(x, y):
        for group in opt.param_groups:
            for p in group["params"]:
                p.grad = None
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()

    with pytest.warns(UserWarning, match="no parameter of the optimizer has a gradient"):
        compiled(step)(*batch)


# ---------------------------------------------------------------- the optimizer's step alone


CASES = [
    *(("fused", torch.float32, name) for name in OPTIONS),
    ("fused", torch.float64, "momentum"),
    ("reference", torch.float64, "joint_shell"),
    ("reference", torch.float32, "tensors"),
]


@pytest.mark.parametrize(("kind", "dtype", "options"), CASES)
def test_a_compiled_step_has_the_bits_of_an_eager_one(
    kind, dtype, options, far_apart, set_gradients, same_bits
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


def test_half_type_weights_keep_their_remainder_in_a_graph(far_apart, set_gradients, same_bits):
    results = []
    for run in (lambda f: f, compiled):
        options = {"momentum": 0.9, "momentum_dtype": torch.float32, "lr": 1e-3}
        params, opt = far_apart(torch.bfloat16, backend="reference", **options)
        step = run(opt.step)
        for t in range(4):
            set_gradients(params, t)
            step()
        results.append([*params, *(opt.state[p]["compensation"] for p in params)])
    assert graphs() == 1
    assert same_bits(*results)


def test_gradients_that_come_and_go_cost_a_graph_each(far_apart, set_gradients, same_bits):
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


def test_gradients_of_other_strides_are_read_right(same_bits):
    results = []
    for run in (lambda f: f, compiled):
        p = nn.Parameter(torch.arange(12.0).view(3, 4))
        opt = D3FusedSGD([p], lr=0.1, backend="fused")
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


def test_a_group_tracked_without_reference_is_refused_while_tracing():
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
    make, count, far_apart, set_gradients, same_bits
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


def test_all_numbers_may_move_at_once(far_apart, set_gradients, same_bits):
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
    far_apart, set_gradients
):
    params, opt = far_apart(constraint="norm_ball")
    step = compiled(opt.step)
    for t, radius in enumerate((1.0, 0.9, 0.8)):
        opt.param_groups[0]["radius"] = radius
        set_gradients(params, t)
        step()
    before = params[0].detach().clone()
    opt.param_groups[0]["radius"] = -1.0
    with pytest.raises(ValueError, match=r"radius must be a finite number >= 0, got -1.0"):
        step()
    assert torch.equal(params[0], before)
    assert graphs() == 2


# ---------------------------------------------------------------- between steps


def test_eager_and_compiled_steps_can_alternate(far_apart, set_gradients, same_bits):
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
    edit, far_apart, set_gradients, relative_error
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


def test_a_run_that_is_resumed_has_the_bits_of_one_that_is_not(far_apart, set_gradients, same_bits):
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
    second = D3FusedSGD([nn.Parameter(w.detach().clone()) for w in weights], backend="fused")
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert same_bits(run(second, range(3, 6)), want)


def test_backward_through_weights_that_a_compiled_step_overwrote_raises(backend):
    w = nn.Parameter(torch.ones(4, 3))
    opt = D3FusedSGD([w], lr=0.1, backend=backend)
    stale = (torch.ones(2, 4, requires_grad=True) @ w).square().sum()
    w.grad = torch.ones_like(w)
    compiled(opt.step)()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


# ---------------------------------------------------------------- mixed precision


def test_gradients_are_unscaled_and_an_overflow_moves_nothing(
    backend, far_apart, set_gradients, same_bits
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


def test_grad_scaler_drives_a_compiled_step(far_apart, same_bits):
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


# ---------------------------------------------------------------- the operator


def scalars(*values):
    """lr, momentum, dampening, weight decay, distance weight, then the radius."""
    return [torch.tensor(v, dtype=torch.float64) for v in values]


def arguments(kind=torch.float32, **given):
    """Of ``torch.ops.d3fast.step``, for two tensors with momentum 0.9."""
    g = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (5,))
    column = lambda: [torch.randn(s, generator=g).to(kind) for s in shapes]  # noqa: E731
    half = kind in (torch.bfloat16, torch.float16)
    own = {
        "params": column(),
        "grads": column(),
        "scaled_grads": [],
        "references": column(),
        "momenta": column(),
        "distances": [torch.tensor(math.nan, dtype=torch.float64) for _ in shapes],
        "compensations": [torch.zeros(s, dtype=kind) for s in shapes] if half else [],
        "numbers": scalars(0.1, 0.9, 0.0, 0.01, 1.0),
        "grad_scale": None,
        "found_inf": None,
        "nesterov": False,
        "maximize": False,
        "capturable": False,
        "distance_p": 2.0,
        "scope": "tensor",
        "constraint": "norm_sphere",
        "radius_unit": "relative",
        "backend": "reference" if half else "fused",
        "cache": -1,
        "group": 0,
    }
    return {**own, **given}


SCALED = {
    "grads": [],
    "scaled_grads": [torch.ones(3, 4), torch.ones(5)],
    "grad_scale": torch.tensor(8.0),
    "found_inf": torch.tensor(0.0),
}


@pytest.mark.parametrize(
    "given",
    [
        arguments(),
        arguments(torch.bfloat16),
        arguments(**SCALED),
        arguments(numbers=scalars(0.1, 0.9, 0.0, 0.0, 1.0, 0.5, 2.0), constraint="distance_shell"),
    ],
    ids=["fused", "bf16", "scaled", "shell"],
)
def test_the_operator_keeps_torchs_rules(given):
    torch.library.opcheck(torch.ops.d3fast.step.default, (), given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"grads": [torch.ones(3, 4), torch.ones(6)]}, r"a gradient has shape \(6,\)"),
        ({"references": [torch.ones(3, 4), torch.ones(6)]}, r"reference has shape \(6,\)"),
        ({"momenta": [torch.ones(4, 3).T, torch.ones(5)]}, r"momentum has strides \(1, 3\)"),
        ({"references": [torch.ones(3, 4)]}, "reference: 2 tensors or none, got 1"),
        (
            {"numbers": scalars(-1.0, 0.9, 0.0, 0.0, 1.0)},
            "lr must be finite and >= 0",
        ),
    ],
)
def test_the_operator_refuses_tensors_that_do_not_fit(wrong, message):
    given = arguments(**wrong)
    before = [p.clone() for p in given["params"]]
    with pytest.raises(ValueError, match=message):
        torch.ops.d3fast.step(**given)
    assert all(torch.equal(p, q) for p, q in zip(given["params"], before, strict=True))

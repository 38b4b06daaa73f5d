"""What may happen to an optimizer between two steps, and must not be missed by a plan that is kept.

Every test runs twice: where torch tells the extension by a function of its own where a tensor lies,
and where the extension has to call the tensor's methods, as with an older torch.
"""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD
from d3fast.optim.backends import group_plan, native

OPTIONS = {"momentum": 0.9, "weight_decay": 0.01}


@pytest.fixture(params=["exchange", "methods"], autouse=True)
def reader(request, monkeypatch):
    if request.param == "methods":
        monkeypatch.setattr(native, "TENSOR_EXCHANGE", None)
    elif native.TENSOR_EXCHANGE is None:
        pytest.skip("this torch exports no functions")


@pytest.fixture
def walk(set_gradients):
    """Eight steps; ``change(optimizer)`` comes before the third and the sixth."""

    def run(opt, change=lambda opt: None):
        for t in range(8):
            if t in (2, 5):
                change(opt)
            params = [p for group in opt.param_groups for p in group["params"]]
            set_gradients(params, t)
            opt.step()
        return params

    return run


def first(opt):
    return opt.param_groups[0]["params"][0]


def set_state(name, function):
    """Replaces one tensor in the state of the first parameter."""

    def change(opt):
        state = opt.state[first(opt)]
        state[name] = function(state[name])

    return change


def edit_state(name, function):
    """Edits one tensor in the state of the first parameter."""

    def change(opt):
        function(opt.state[first(opt)][name])

    return change


def move(tensor):
    tensor.data = tensor.data * 1.5


def transpose(tensor):
    tensor.data = tensor.data.T.contiguous().T * 1.5


def forget_momenta(opt):
    for state in opt.state.values():
        state.pop("momentum_buffer", None)


def replace_parameter(opt):
    old = first(opt)
    new = nn.Parameter(old.detach() * 1.5)
    opt.param_groups[0]["params"][0] = new
    opt.state[new] = opt.state.pop(old)


def swap_states(opt):
    a, b = nn.Parameter(first(opt).detach() + 1), first(opt)
    opt.param_groups[0]["params"].append(a)
    opt.state[a] = {name: t.clone() for name, t in opt.state[b].items()}
    opt.state[a], opt.state[b] = opt.state[b], opt.state[a]
    opt.state[b]["reference"] += 1


def rebuild_state(opt):
    entries = [(p, dict(state)) for p, state in opt.state.items()]
    opt.state.clear()
    opt.state.update(reversed(entries))


def add_group(opt):
    p = nn.Parameter(first(opt).detach() + 1)
    opt.add_param_group({"params": [p], "reference": [p.detach() * 2]})


def load_itself(opt):
    state = copy.deepcopy(opt.state_dict())
    state["state"][0]["momentum_buffer"] *= 0.5
    opt.load_state_dict(state)


CHANGES = {
    "nothing": lambda opt: None,
    "a_weight_in_place": lambda opt: first(opt).detach().mul_(1.5),
    "a_weight_through_data": lambda opt: first(opt).data.mul_(1.5),
    "the_data_of_a_weight": lambda opt: move(first(opt)),
    "the_strides_of_a_weight": lambda opt: transpose(first(opt)),
    "a_parameter": replace_parameter,
    "the_order_of_parameters": lambda opt: opt.param_groups[0]["params"].reverse(),
    "one_parameter_less": lambda opt: opt.param_groups[0]["params"].pop(),
    "one_more_group": add_group,
    "the_order_of_states": rebuild_state,
    "states_swapped": swap_states,
    "a_momentum": set_state("momentum_buffer", lambda v: v * 0.5),
    "a_momentum_in_place": edit_state("momentum_buffer", lambda v: v.mul_(0.5)),
    "the_data_of_a_momentum": edit_state("momentum_buffer", move),
    "the_strides_of_a_momentum": edit_state("momentum_buffer", transpose),
    "all_momenta": forget_momenta,
    "a_reference": set_state("reference", lambda t: t * 1.5),
    "a_reference_in_place": edit_state("reference", lambda t: t.mul_(1.5)),
    "the_data_of_a_reference": edit_state("reference", move),
    "the_strides_of_a_reference": edit_state("reference", transpose),
    "all_references": lambda opt: opt.set_reference(),
    "a_whole_state": load_itself,
}


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_steps_is_seen(change, scope, dtype, far_apart, walk, relative_error):
    results = []
    for kind, backend in ((dtype, "fused"), (torch.float64, "reference")):
        _, opt = far_apart(kind, scope=scope, backend=backend, **OPTIONS)
        if change == "all_references":  # a distance near 0 has no stable direction
            opt.param_groups[0]["distance_weight"] = 0.0
        results.append(walk(opt, CHANGES[change]))
    assert relative_error(*results) <= (1e-5 if dtype == torch.float32 else 1e-13)


def test_a_cleared_state_starts_the_momentum_anew(walk, far_apart, relative_error):
    results = []
    for kind, backend in ((torch.float32, "fused"), (torch.float64, "reference")):
        plain = {"distance_weight": 0.0, "constraint": None, "dampening": 0.5}
        _, opt = far_apart(kind, backend=backend, **OPTIONS, **plain)
        results.append(walk(opt, lambda opt: opt.state.clear()))
    assert relative_error(*results) <= 1e-5


def test_a_cleared_state_of_a_tracked_group_raises_at_every_step(walk, far_apart):
    params, opt = far_apart(**OPTIONS)
    walk(opt)
    opt.state.clear()
    before = [p.detach().clone() for p in params]
    for _ in range(2):
        with pytest.raises(ValueError, match="set_reference"):
            opt.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_a_group_tracked_without_reference_raises_at_every_step(walk):
    p = nn.Parameter(torch.ones(4))
    opt = D3FusedSGD([p], lr=0.1, distance_weight=0.0, constraint=None, backend="fused")
    walk(opt)
    opt.param_groups[0]["distance_weight"] = 1.0
    before = p.detach().clone()
    for _ in range(2):
        with pytest.raises(ValueError, match="set_reference"):
            opt.step()
    assert torch.equal(p, before)


def test_an_option_out_of_range_raises_at_every_step(walk, far_apart):
    params, opt = far_apart(**OPTIONS)
    walk(opt)
    opt.param_groups[0]["lr"] = -1.0
    before = [p.detach().clone() for p in params]
    for _ in range(2):
        with pytest.raises(ValueError, match="lr must be"):
            opt.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_a_radius_changed_within_its_list_is_seen(walk, far_apart, relative_error):
    results = []
    for kind, backend in ((torch.float32, "fused"), (torch.float64, "reference")):
        shell = {"constraint": "distance_shell", "radius": [0.5, 0.6]}
        _, opt = far_apart(kind, backend=backend, **OPTIONS, **shell)
        results.append(walk(opt, lambda opt: opt.param_groups[0]["radius"].__setitem__(0, 0.55)))
    assert relative_error(*results) <= 1e-5


@pytest.mark.parametrize("to", [torch.float64, torch.bfloat16])
def test_weights_moved_to_another_dtype_are_stepped_in_it(to, walk, far_apart, relative_error):
    def convert(opt):
        for p in opt.param_groups[0]["params"]:
            p.grad, p.data = None, p.data.to(to)

    results = []
    for backend in ("auto", "reference"):
        _, opt = far_apart(backend=backend, **OPTIONS)
        results.append(walk(opt, convert))
    assert all(p.dtype == to for params in results for p in params)
    assert relative_error(*results) <= (1e-5 if to == torch.float64 else 2e-2)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_a_copy_steps_its_own_weights(copied, walk, far_apart, same_bits):
    params, opt = far_apart(**OPTIONS)
    walk(opt)
    twin = copied(opt)
    before = [p.detach().clone() for p in params]
    moved = walk(twin)
    assert same_bits(params, before)
    assert same_bits(walk(opt), moved)


def test_gradients_of_another_order_or_dtype_come_and_go(far_apart, set_gradients, relative_error):
    results = []
    for kind, backend in ((torch.float32, "fused"), (torch.float64, "reference")):
        params, opt = far_apart(kind, shapes=((7, 5), (4, 6), (9,)), backend=backend, **OPTIONS)
        for t in range(9):
            set_gradients(params, t)
            if t % 3 == 1:
                params[0].grad = params[0].grad.T.contiguous().T
            if t % 3 == 2:
                params[2].grad.data = params[2].grad.data.double()
            opt.step()
        results.append(params)
    assert relative_error(*results) <= 1e-5


def test_parameters_of_one_shape_change_places(walk, far_apart, relative_error):
    results = []
    for kind, backend in ((torch.float32, "fused"), (torch.float64, "reference")):
        _, opt = far_apart(kind, shapes=((3, 4), (3, 4)), backend=backend, **OPTIONS)
        results.append(walk(opt, CHANGES["the_order_of_parameters"]))
    assert relative_error(*results) <= 1e-5


def test_a_gradient_that_lost_its_storage_is_refused(far_apart, set_gradients):
    params, opt = far_apart(**OPTIONS)
    for t in range(2):
        set_gradients(params, t)
        opt.step()
    params[0].grad.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"grads\[0\] must be an address, got 0"):
        opt.step()


def test_parameters_may_be_given_as_a_tuple(walk, far_apart, relative_error):
    results = []
    for kind, backend in ((torch.float32, "fused"), (torch.float64, "reference")):
        _, opt = far_apart(kind, backend=backend, **OPTIONS)
        opt.param_groups[0]["params"] = tuple(opt.param_groups[0]["params"])
        results.append(walk(opt))
    assert relative_error(*results) <= 1e-5


KEEPING = {
    "lr": lambda opt: opt.param_groups[0].update(lr=0.02),
    "weight_decay": lambda opt: opt.param_groups[0].update(weight_decay=0.02),
    "radius": lambda opt: opt.param_groups[0].update(radius=0.9),
    "constraint": lambda opt: opt.param_groups[0].update(constraint="norm_ball"),
    "a_weight_in_place": CHANGES["a_weight_in_place"],
    "another_group": CHANGES["one_more_group"],
}


@pytest.mark.parametrize("change", KEEPING)
def test_a_plan_outlives_what_does_not_concern_it(change, far_apart, walk):
    _, opt = far_apart(**OPTIONS)
    walk(opt)
    plan = opt._stepper._plans[0]
    KEEPING[change](opt)
    walk(opt)
    assert opt._stepper._plans[0] is plan


def test_a_plan_knows_every_option():
    opt = D3FusedSGD([nn.Parameter(torch.ones(2))], track="all")
    # Every part of a group has its own plan, and so no need of `track`.
    names = opt.defaults.keys() - {"track"}
    assert len(group_plan.read_options(opt.param_groups[0])) == len(names)
    values = {name: object() for name in names}
    assert set(map(id, group_plan.read_options(values))) == set(map(id, values.values()))


def test_an_optimizer_that_its_own_parameters_refer_to_is_collected():
    def train():
        p = nn.Parameter(torch.ones(4))
        opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend="fused")
        p.register_hook(lambda grad: opt and None)
        p.sum().backward()
        opt.step()
        assert opt._stepper._plans
        return weakref.ref(opt)

    gone = train()
    gc.collect()
    assert gone() is None


def test_versions_are_raised_one_by_one_where_torch_takes_no_list(monkeypatch, far_apart, walk):
    monkeypatch.setattr(native, "INCREMENTS_MANY", False)
    params, opt = far_apart(**OPTIONS)
    before = [p._version for p in params]
    walk(opt)
    assert [p._version - b for p, b in zip(params, before, strict=True)] == [8] * len(params)

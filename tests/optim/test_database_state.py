"""State, copies and hooks with the inputs of torch's database of optimizers."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from tests.optim.torch_database import (
    USUAL,
    cases,
    descend,
    of,
    parameters,
    plain_cases,
    relative_error,
    same_bits,
    set_gradients,
)


def params_of(opt):
    return [p for group in opt.param_groups for p in group["params"]]


def saved(opt):
    """A state as a file would have it: torch's shares its tensors with the optimizer."""
    return copy.deepcopy(opt.state_dict())


def copies(opt):
    return [nn.Parameter(p.detach().clone()) for p in params_of(opt)]


def equal_states(first, second):
    a, b = (torch.utils._pytree.tree_flatten(dict(s)) for s in (first, second))
    same = lambda x, y: torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y  # noqa: E731
    return str(a[1]) == str(b[1]) and all(map(same, a[0], b[0]))


@cases
def test_a_loaded_state_continues_with_the_same_bits(case):
    opt = case.make(parameters(torch.float32))
    descend(opt)
    other = case.make(copies(opt))
    other.load_state_dict(saved(opt))
    assert same_bits(descend(other, start=3), descend(opt, start=3))


@cases
def test_a_file_is_read_with_weights_only(case, tmp_path):
    opt = case.make(parameters(torch.float32))
    descend(opt)
    torch.save(opt.state_dict(), tmp_path / "state.pt")
    other = case.make(copies(opt))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same_bits(descend(other, start=3), descend(opt, start=3))


@cases
@pytest.mark.parametrize("steps", [0, 2])
def test_reading_the_state_changes_nothing(case, steps):
    first, second = case.make(parameters()), case.make(parameters())
    descend(first, steps)
    descend(second, steps)
    assert equal_states(first.state_dict(), first.state_dict())
    assert same_bits(descend(first, start=2), descend(second, start=2))


@plain_cases
@pytest.mark.parametrize("steps", [0, 3])
def test_a_plain_state_has_the_entries_of_torch(case, steps):
    ours, theirs = case.make(parameters()), case.make_theirs(parameters())
    descend(ours, steps)
    descend(theirs, steps)
    names = lambda opt: {i: set(own) for i, own in opt.state_dict()["state"].items()}  # noqa: E731
    dampened = {"step"} if ours.param_groups[0].get("dampening", 0) else set()
    want = {i: own | dampened for i, own in names(theirs).items()}
    assert {i: own | dampened for i, own in names(ours).items()} == want


@plain_cases
def test_a_state_of_torch_is_continued_as_torch_does(case):
    theirs = case.make_theirs(parameters())
    descend(theirs)
    ours = case.make(copies(theirs))
    ours.load_state_dict(saved(theirs))
    assert relative_error(descend(ours, start=3), descend(theirs, start=3)) <= 1e-13


@plain_cases
def test_torch_continues_a_plain_state(case):
    ours = case.make(parameters())
    descend(ours)
    theirs = case.make_theirs(copies(ours))
    theirs.load_state_dict(saved(ours))
    assert relative_error(descend(theirs, start=3), descend(ours, start=3)) <= 1e-13


@cases
def test_a_state_without_the_newer_options_of_torch_is_loaded(case):
    opt = case.make(parameters(torch.float32))
    descend(opt)
    state = saved(opt)
    for group in state["param_groups"]:
        for name in case.entry.info.not_og_supported_flags:
            group.pop(name, None)
    other = case.make(copies(opt))
    other.load_state_dict(state)
    assert same_bits(descend(other, start=3), descend(opt, start=3))


@of(USUAL)
@pytest.mark.parametrize("named", [True, False])
def test_a_state_with_names_is_loaded_without_and_the_reverse(case, named):
    with_names = lambda ps: [(f"p{i}", p) for i, p in enumerate(ps)]  # noqa: E731
    opt = case.make(with_names(parameters()) if named else parameters())
    descend(opt)
    other = case.make(copies(opt) if named else with_names(copies(opt)))
    other.load_state_dict(saved(opt))
    assert relative_error(descend(other, start=3), descend(opt, start=3)) <= 1e-15


@of(USUAL)
def test_groups_that_do_not_fit_are_refused(case):
    opt, other = case.make(parameters()), case.make(parameters()[:2])
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        other.load_state_dict(saved(opt))


@cases
@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_steps_alike_and_alone(case, clone):
    opt = case.make(parameters())
    descend(opt)
    other = clone(opt)
    assert other.defaults.keys() == opt.defaults.keys()
    assert equal_states(other.state_dict(), opt.state_dict())
    before = [p.detach().clone() for p in params_of(opt)]
    moved = descend(other, start=3)
    assert same_bits(params_of(opt), before)
    assert relative_error(moved, descend(opt, start=3)) <= 1e-14


@of(USUAL)
def test_entries_of_the_user_in_a_group_survive(case):
    opt = case.make([{"params": parameters(), "label": "trunk"}])
    other = case.make([{"params": parameters(), "label": "head"}])
    other.load_state_dict(saved(opt))
    assert other.param_groups[0]["label"] == "trunk"


@cases
def test_a_group_may_be_added_between_steps(case):
    opt, more = case.make(parameters()), parameters(seed=1)
    descend(opt)
    opt.add_param_group({"params": more, "lr": 0.05})
    descend(opt, start=3)
    alone = case.make(parameters(seed=1), lr=0.05)
    # Gradients depend on the position in the list.
    for step in range(3, 6):
        every = [*parameters(), *params_of(alone)]
        set_gradients(every, step)
        alone.step()
    assert same_bits(more, params_of(alone))


@cases
def test_a_state_takes_the_dtype_of_the_parameters_it_is_loaded_for(case):
    opt = case.make(parameters(torch.float32))
    descend(opt)
    half = [nn.Parameter(p.detach().bfloat16()) for p in params_of(opt)]
    other = case.make(half)
    other.load_state_dict(saved(opt))
    kept = {"distance", "step", "reference", "exp_avg_sq"}  # of a dtype of their own
    dtypes = {t.dtype for own in other.state.values() for n, t in own.items() if n not in kept}
    assert dtypes <= {torch.bfloat16}
    descend(other)


@of(USUAL)
def test_zero_grad_drops_or_zeroes(case):
    params = parameters()
    opt = case.make(params)
    set_gradients(params, 0)
    opt.zero_grad(set_to_none=False)
    assert all(bool((p.grad == 0).all()) for p in params)
    opt.zero_grad()
    assert all(p.grad is None for p in params)


@of(USUAL)
def test_its_text_names_the_class_and_options(case):
    text = repr(case.make(parameters()))
    assert text.startswith(f"{case.entry.ours.__name__} (")
    assert "weight_decay" in text


@of(USUAL)
def test_hooks_of_a_step_run_before_and_after_and_can_be_removed(case):
    params, seen = parameters(), []
    opt = case.make(params)
    handles = [
        opt.register_step_pre_hook(lambda o, args, kwargs: seen.append("before")),
        opt.register_step_post_hook(lambda o, args, kwargs: seen.append("after")),
        register_optimizer_step_pre_hook(lambda o, args, kwargs: seen.append("all before")),
        register_optimizer_step_post_hook(lambda o, args, kwargs: seen.append("all after")),
    ]
    descend(opt, 1)
    for handle in handles:
        handle.remove()
    descend(opt, 1)
    assert sorted(seen) == ["after", "all after", "all before", "before"]
    assert set(seen[:2]) == {"before", "all before"}


@of(USUAL)
def test_a_hook_before_a_step_may_replace_its_arguments(case):
    opt, called = case.make(parameters()), []
    opt.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: called.append(1)), {}))
    opt.step()
    assert called == [1]


@of(USUAL)
def test_hooks_of_state_dict_see_it_and_may_replace_it(case):
    opt = case.make(parameters())
    descend(opt, 1)
    seen = []
    opt.register_state_dict_pre_hook(lambda o: seen.append("before"))
    opt.register_state_dict_post_hook(lambda o, state: {**state, "more": 1})
    opt.register_state_dict_post_hook(lambda o, state: seen.append("more" in state), prepend=True)
    assert opt.state_dict()["more"] == 1
    assert seen == ["before", False]


@of(USUAL)
def test_hooks_of_load_state_dict_see_it_and_may_replace_it(case):
    opt = case.make(parameters())
    descend(opt, 1)
    other, seen = case.make(copies(opt)), []

    def faster(_, state):
        groups = [{**group, "lr": 0.5} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    other.register_load_state_dict_pre_hook(faster)
    other.register_load_state_dict_post_hook(lambda o: seen.append(o.param_groups[0]["lr"]))
    other.load_state_dict(saved(opt))
    assert seen == [0.5]
    assert opt.param_groups[0]["lr"] != 0.5

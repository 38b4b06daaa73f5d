"""Steps with the inputs of torch's database of optimizers: those of torch, and no surprises."""

import inspect
import warnings

import pytest
import torch
from torch import nn

from tests.optim.torch_database import (
    USUAL,
    cases,
    database,
    descend,
    entries,
    fused_cases,
    of,
    parameters,
    plain_cases,
    relative_error,
    same_bits,
    set_gradients,
)

BOUNDS = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@entries
def test_arguments_have_torchs_names_places_and_defaults(entry):
    ours, theirs = (inspect.signature(c).parameters for c in (entry.ours, entry.theirs))
    by_place = lambda ps: [n for n, p in ps.items() if p.kind is p.POSITIONAL_OR_KEYWORD]  # noqa: E731
    assert by_place(ours) == by_place(theirs)
    assert set(theirs) <= set(ours)
    assert {n: ours[n].default for n in theirs} == {n: p.default for n, p in theirs.items()}


@entries
def test_every_input_can_be_combined_with_every_flag_it_knows(entry):
    every = database._get_optim_inputs_including_global_cliquey_kwargs(
        "cpu", torch.float32, entry.info
    )
    accepted = [i for i in every if not any(i.kwargs.get(name) for name in entry.refused)]
    assert len(accepted) >= 2 * len(entry.inputs())
    for given in accepted:
        entry.ours(parameters(torch.float32), **given.kwargs)


@entries
def test_inputs_that_are_refused_name_the_argument(entry):
    for given in entry.inputs(refused=True):
        with pytest.raises(ValueError, match="|".join(entry.refused)):
            entry.ours(parameters(), **given.kwargs)


@entries
def test_what_torch_refuses_is_refused_with_the_same_kind_of_error(entry):
    for given in entry.info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
        params, kwargs = given.optimizer_error_input.params, given.optimizer_error_input.kwargs
        params = parameters() if params is None else params
        if given.error_type is UserWarning:
            with pytest.warns(UserWarning, match=given.error_regex):
                entry.ours(params, **kwargs)
            continue
        with pytest.raises((given.error_type, ValueError)):
            entry.ours(params, **kwargs)


@plain_cases
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_a_plain_step_is_that_of_torch(case, dtype):
    make = lambda: [*parameters(dtype), nn.Parameter(torch.ones((), dtype=dtype))]  # noqa: E731
    ours, theirs = case.make(make()), case.make_theirs(make())
    assert relative_error(descend(ours, 5), descend(theirs, 5)) <= BOUNDS[dtype]


@fused_cases
def test_both_backends_take_the_same_steps(case):
    fused = case.make(parameters())
    reference = case.make(parameters(), backend="reference")
    assert relative_error(descend(fused, 5), descend(reference, 5)) <= 1e-10


@plain_cases
def test_parameters_of_another_layout_take_the_same_steps(case):
    contiguous = parameters()
    others = [nn.Parameter(strided(p.detach())) for p in contiguous]
    assert not all(p.is_contiguous() for p in others)
    want, got = descend(case.make(contiguous)), descend(case.make(others))
    assert relative_error(got, want) <= 1e-14


def strided(tensor):
    """The same values in other memory: dimensions in reverse order."""
    backwards = tuple(reversed(range(tensor.dim())))
    return tensor.permute(backwards).clone(memory_format=torch.contiguous_format).permute(backwards)


@cases
def test_a_slice_of_larger_memory_is_stepped_and_its_neighbours_are_not(case):
    memory = torch.ones(6, 10, dtype=torch.float64)
    param = nn.Parameter(memory[:, ::2])
    opt = case.make([param], backend="reference" if case.backend == "fused" else case.backend)
    descend(opt)
    assert bool((memory[:, 1::2] == 1).all())
    assert bool((memory[:, ::2] != 1).all())


@cases
def test_an_lr_in_a_tensor_is_that_number(case):
    lr = 0.01
    number, tensor = (case.make(parameters(), lr=x) for x in (lr, torch.tensor(lr)))
    assert relative_error(descend(tensor), descend(number)) <= 1e-7  # the tensor is float32


@cases
def test_maximize_climbs_what_the_negative_gradient_descends(case):
    down = case.make(parameters(), maximize=False)
    up = case.make(parameters(), maximize=True)
    for step in range(3):
        for opt, sign in ((down, 1), (up, -1)):
            params = opt.param_groups[0]["params"]
            set_gradients(params, step)
            for p in params:
                p.grad.mul_(sign)
            opt.step()
    assert same_bits(down.param_groups[0]["params"], up.param_groups[0]["params"])


@of(USUAL)
def test_without_gradients_nothing_moves_and_nothing_is_said(case):
    params = parameters()
    opt, before = case.make(params), [p.detach().clone() for p in params]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.step()
    assert same_bits(params, before)


@cases
def test_a_parameter_without_gradient_stays_where_it_is(case):
    params = parameters()
    opt, before = case.make(params), params[1].detach().clone()
    for step in range(3):
        set_gradients(params, step)
        params[1].grad = None
        opt.step()
    assert torch.equal(params[1], before)
    assert not torch.equal(params[0], parameters()[0])


@plain_cases
def test_gradients_of_zero_do_what_they_do_in_torch(case):
    ours, theirs = case.make(parameters()), case.make_theirs(parameters())
    for opt in (ours, theirs):
        for p in opt.param_groups[0]["params"]:
            p.grad = torch.zeros_like(p)
        opt.step()
    got, want = (opt.param_groups[0]["params"] for opt in (ours, theirs))
    assert relative_error(got, want) <= 1e-15


@of(USUAL)
def test_complex_parameters_are_refused_by_name(case):
    with pytest.raises(ValueError, match="complex64"):
        case.make([nn.Parameter(torch.ones(2, dtype=torch.complex64))])


@of(USUAL)
def test_sparse_gradients_are_refused_before_anything_moves(case):
    params = parameters()
    opt = case.make(params)
    set_gradients(params, 0)
    params[-1].grad = torch.zeros(3, 2, 2, dtype=torch.float64).to_sparse()
    with pytest.raises(ValueError, match=r"torch\.sparse_coo"):
        opt.step()
    assert same_bits(params, parameters())


@cases
def test_groups_have_their_own_lr_and_weight_decay(case):
    own = [{"lr": 0.02, "weight_decay": 0.0}, {"lr": 0.005, "weight_decay": 0.3}]
    together, apart = parameters(), parameters()
    opts = [
        case.make(
            [{"params": together[:2], **own[0]}, {"params": together[2:], **own[1]}],
        ),
        case.make(apart[:2], **own[0]),
        case.make(apart[2:], **own[1]),
    ]
    for step in range(3):
        for params in (together, apart):
            set_gradients(params, step)
        for opt in opts:
            opt.step()
    assert same_bits(together, apart)


@of(USUAL)
def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned(case):
    params, calls = parameters(), []
    opt = case.make(params)

    def closure():
        calls.append(torch.is_grad_enabled())
        opt.zero_grad()
        loss = sum(p.square().sum() for p in params)
        loss.backward()
        return loss

    with torch.no_grad():
        loss = opt.step(closure)
        assert not torch.is_grad_enabled()
    assert calls == [True]
    assert loss.item() == pytest.approx(sum(p.square().sum().item() for p in parameters()))


@plain_cases
def test_the_loss_of_a_linear_layer_goes_the_right_way(case):
    for scheduler in case.entry.info.scheduler_inputs[0]:
        torch.manual_seed(0)
        layer, x, y = nn.Linear(10, 5), torch.randn(10), torch.randn(5)
        opt = case.make(layer.parameters(), lr=0.01)
        schedule = scheduler(opt)
        losses = []
        for _ in range(20):
            opt.zero_grad()
            loss = (layer(x) - y).square().sum()
            loss.backward()
            opt.step()
            by_loss = isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau)
            schedule.step(*([loss.item()] if by_loss else []))
            losses.append(loss.item())
        if opt.param_groups[0]["maximize"]:
            assert losses[-1] > losses[0]
        else:
            assert losses[-1] < losses[0]


@cases
def test_gradients_of_torch_func_can_be_stepped_along(case):
    torch.manual_seed(0)
    x, layers = torch.randn(4, 3, dtype=torch.float64), []
    for through in ("backward", "func"):
        torch.manual_seed(1)
        layer = nn.Linear(3, 2, dtype=torch.float64)
        opt = case.make(layer.parameters())
        named = dict(layer.named_parameters())
        loss = lambda p, layer=layer: torch.func.functional_call(layer, p, x).square().sum()  # noqa: E731
        for _ in range(3):
            if through == "func":
                detached = {name: p.detach() for name, p in named.items()}
                for name, grad in torch.func.grad(loss)(detached).items():
                    named[name].grad = grad
            else:
                opt.zero_grad()
                loss(named).backward()
            opt.step()
        layers.append(list(layer.parameters()))
    assert relative_error(*layers) <= 1e-14


@cases
def test_the_default_dtype_has_no_part_in_a_step(case):
    want = descend(case.make(parameters()))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert same_bits(descend(case.make(parameters())), want)
    finally:
        torch.set_default_dtype(before)

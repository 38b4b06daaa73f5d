"""What trainings put around an optimizer, with the inputs of torch's database of optimizers.

LR schedulers, averaged weights, gradient scalers, clipping and accumulation.
"""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils

from tests.optim.torch_database import (
    DRIVEN,
    USUAL,
    cases,
    descend,
    fused_cases,
    of,
    parameters,
    plain_cases,
    relative_error,
    same_bits,
    set_gradients,
)


def has_momentum(opt):
    """Return whether OneCycleLR finds a momentum to cycle."""
    return "betas" in opt.defaults or opt.defaults.get("momentum", 0) > 0


SCHEDULERS = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda opt: lr_scheduler.MultiplicativeLR(opt, lambda epoch: 0.9),
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, step_size=2),
    "MultiStepLR": lambda opt: lr_scheduler.MultiStepLR(opt, milestones=[1, 3]),
    "ConstantLR": lambda opt: lr_scheduler.ConstantLR(opt, total_iters=2),
    "LinearLR": lambda opt: lr_scheduler.LinearLR(opt, total_iters=3),
    "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, gamma=0.8),
    "PolynomialLR": lambda opt: lr_scheduler.PolynomialLR(opt, total_iters=4, power=2.0),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=4),
    "CosineAnnealingWarmRestarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 2),
    "CyclicLR": lambda opt: lr_scheduler.CyclicLR(opt, 0.001, 0.01, step_size_up=2),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(
        opt, max_lr=0.01, total_steps=8, cycle_momentum=has_momentum(opt)
    ),
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=0),
    "SequentialLR": lambda opt: lr_scheduler.SequentialLR(
        opt,
        [lr_scheduler.ConstantLR(opt, total_iters=2), lr_scheduler.ExponentialLR(opt, gamma=0.9)],
        milestones=[2],
    ),
    "ChainedScheduler": lambda opt: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(opt, total_iters=2), lr_scheduler.ExponentialLR(opt, gamma=0.9)]
    ),
    "SWALR": lambda opt: swa_utils.SWALR(opt, swa_lr=0.05, anneal_epochs=3),
}
schedulers = pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
OPTIONS = ("lr", "momentum", "betas")


def test_all_schedulers_of_torch_are_here():
    assert set(lr_scheduler.__all__) - {"LRScheduler"} <= set(SCHEDULERS)


def scheduled(opt, make, steps=6, schedule=None, start=0):
    """Take steps, the scheduler's after each; return what it set, the weights, the scheduler."""
    schedule = make(opt) if schedule is None else schedule
    group, values = opt.param_groups[0], []
    for step in range(start, start + steps):
        weights = descend(opt, 1, start=step)
        by_loss = isinstance(schedule, lr_scheduler.ReduceLROnPlateau)
        schedule.step(*([1.0] if by_loss else []))
        values.append([copy.deepcopy(group[name]) for name in OPTIONS if name in group])
    return values, weights, schedule


def test_schedules_drive_an_lr_in_a_number_and_in_a_tensor():
    kinds = {type(p.values[0].kwargs.get("lr")) for p in DRIVEN}
    assert {torch.Tensor, type(None)} <= kinds


@of(DRIVEN, configuration="plain")
@schedulers
def test_a_schedule_is_that_of_torch(case, make):
    ours, theirs = case.make(parameters()), case.make_theirs(parameters())
    got, want = scheduled(ours, make), scheduled(theirs, make)
    assert got[0] == want[0]
    assert relative_error(got[1], want[1]) <= 1e-13


@of(DRIVEN, backend="fused")
@schedulers
def test_both_backends_follow_a_schedule_alike(case, make):
    fused, reference = case.make(parameters()), case.make(parameters(), backend="reference")
    got, want = scheduled(fused, make), scheduled(reference, make)
    assert got[0] == want[0]
    assert relative_error(got[1], want[1]) <= 1e-10


@of(DRIVEN)
@pytest.mark.parametrize("name", ["CosineAnnealingLR", "SequentialLR", "ReduceLROnPlateau"])
def test_optimizer_and_schedule_are_resumed_to_the_same_bits(case, name):
    make = SCHEDULERS[name]
    opt = case.make(parameters())
    _, weights, schedule = scheduled(opt, make, 3)
    other = case.make([nn.Parameter(w) for w in weights])
    resumed = make(other)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    resumed.load_state_dict(copy.deepcopy(schedule.state_dict()))
    got = scheduled(other, make, 3, resumed, start=3)
    want = scheduled(opt, make, 3, schedule, start=3)
    assert got[0] == want[0]
    assert same_bits(got[1], want[1])


@of(USUAL)
def test_a_schedule_before_the_first_step_is_warned_about_and_after_it_is_not(case):
    opt = case.make(parameters())
    schedule = lr_scheduler.StepLR(opt, step_size=2)
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        schedule.step()
    opt = case.make(parameters())
    schedule = lr_scheduler.StepLR(opt, step_size=2)
    descend(opt, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()


def network():
    """Without a bias before the batch norm: its gradient would be rounding errors alone."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 2)).double()


def batches():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(5, 4, generator=g, dtype=torch.float64) for _ in range(4)]


def average(make, ema):
    """Train a network, average its weights and update the statistics of the average."""
    model = network()
    function = swa_utils.get_ema_multi_avg_fn(0.9) if ema else None
    averaged = swa_utils.AveragedModel(model, multi_avg_fn=function)
    opt = make(model.parameters())
    for x in batches():
        opt.zero_grad()
        (model(x) - 1).square().sum().backward()
        opt.step()
        averaged.update_parameters(model)
    swa_utils.update_bn(batches(), averaged)
    return list(averaged.state_dict().values())


@plain_cases
@pytest.mark.parametrize("ema", [False, True], ids=["swa", "ema"])
def test_averaged_weights_are_those_of_torch(case, ema):
    assert relative_error(average(case.make, ema), average(case.make_theirs, ema)) <= 1e-12


@fused_cases
def test_both_backends_have_the_same_average(case):
    reference = lambda params: case.make(params, backend="reference")  # noqa: E731
    assert relative_error(average(case.make, False), average(reference, False)) <= 1e-9


def scaled(make, overflow, fresh):
    """Train with a gradient scaler; one batch may overflow. Return the weights and the scale."""
    params = parameters(torch.float32)
    opt = make(params)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2, enabled=True)
    for step in range(4):
        set_gradients(params, step)
        factor = scaler.scale(torch.ones(()))
        for p in params:
            p.grad.mul_(factor)
        if step == overflow:
            params[1].grad.view(-1)[0] = float("inf")
        if fresh:
            scaler.unscale_(opt)
        scaler.step(opt)
        scaler.update()
    return [p.detach().clone() for p in params], scaler.get_scale()


@of(USUAL, configuration="plain")
@pytest.mark.parametrize("overflow", [None, 0, 2])
@pytest.mark.parametrize("unscaled", [False, True])
def test_a_gradient_scaler_does_what_it_does_to_torch(case, overflow, unscaled):
    got, want = (scaled(make, overflow, unscaled) for make in (case.make, case.make_theirs))
    assert got[1] == want[1]
    assert relative_error(got[0], want[0]) <= 1e-6


@cases
@pytest.mark.parametrize("overflow", [None, 1])
def test_scaling_by_a_power_of_two_changes_no_bit(case, overflow):
    weights, _ = scaled(case.make, overflow, False)
    params = parameters(torch.float32)
    opt = case.make(params)
    for step in range(4):
        set_gradients(params, step)
        if step != overflow:
            opt.step()
    assert same_bits(weights, params)


@plain_cases
def test_clipped_and_accumulated_gradients_are_stepped_along_as_by_torch(case):
    def train(make):
        model = network()
        opt = make(model.parameters())
        for first, second in zip(batches()[::2], batches()[1::2], strict=True):
            opt.zero_grad()
            for x in (first, second):
                (model(x).square().sum() / 2).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            opt.step()
        return list(model.parameters())

    assert relative_error(train(case.make), train(case.make_theirs)) <= 1e-13

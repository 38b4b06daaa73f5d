"""Distance schedules: their values, what they touch, how they resume, what they refuse."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from d3fast import D3FusedSGD
from d3fast.optim.schedules import SHAPES, DistanceSchedule

values = st.floats(0, 1e6)
counts = st.integers(1, 200)


def over(*shapes, **options):
    """An optimizer over one group of fresh parameters."""
    g = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(s, generator=g)) for s in shapes or [(3, 2)]]
    return D3FusedSGD(params, track="all", lr=0.05, backend="reference", **options)


def trail(schedule, count):
    """The first driven group's value at construction and after each of ``count`` steps."""
    got = schedule.get_last_value()
    for _ in range(count):
        schedule.step()
        got += schedule.get_last_value()
    return got


CLOSED = {
    "linear": lambda k, n, m: k / n,
    "cosine": lambda k, n, m: (1 - math.cos(math.pi * k / n)) / 2,
    "step": lambda k, n, m: (m * k // n) / m,
}


@pytest.mark.parametrize("shape", SHAPES)
@given(start=values, end=values, steps=counts, stages=counts, k=st.integers(0, 250))
def test_values_are_those_of_the_closed_formula(shape, start, end, steps, stages, k):
    opt = over()
    schedule = DistanceSchedule(opt, shape=shape, start=start, end=end, steps=steps, stages=stages)
    for _ in range(k):
        schedule.step()
    share = CLOSED[shape](min(k, steps), steps, stages)
    want = start + share * (end - start)
    assert opt.param_groups[0]["distance_weight"] == pytest.approx(want, rel=1e-9, abs=1e-9)
    assert schedule.last_epoch == k


@pytest.mark.parametrize("shape", SHAPES)
@given(start=values, end=values, steps=counts)
def test_both_ends_are_exact_and_no_value_lies_outside(shape, start, end, steps):
    got = trail(DistanceSchedule(over(), shape=shape, start=start, end=end, steps=steps), steps + 2)
    assert got[0] == start
    assert got[steps:] == [end] * 3
    assert all(min(start, end) <= value <= max(start, end) for value in got)
    assert got == sorted(got, reverse=end < start)


@given(
    start=st.tuples(values, values).map(sorted),
    end=st.tuples(values, values).map(sorted),
    steps=counts,
    share=st.floats(0, 1),
)
def test_a_shell_never_has_its_ball_inside_its_floor(start, end, steps, share):
    opt = over(constraint="distance_shell", radius=(0.5, 0.9))
    schedule = DistanceSchedule(
        opt, "radius", "cosine", start=tuple(start), end=tuple(end), steps=steps
    )
    for _ in range(int(share * steps)):
        schedule.step()
    lower, upper = opt.param_groups[0]["radius"]
    assert 0 <= lower <= upper


def test_stages_are_leaps_of_one_size():
    schedule = DistanceSchedule(over(), shape="step", start=0.0, end=1.0, steps=8, stages=4)
    assert trail(schedule, 8) == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0]


def test_leaps_of_many_stages_are_not_lost_to_rounding():
    schedule = DistanceSchedule(over(), shape="step", start=0.0, end=1.0, steps=100, stages=100)
    assert trail(schedule, 29)[-1] == 0.29


def test_without_an_end_every_group_goes_to_its_own_value():
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    opt = D3FusedSGD([{"params": [a], "distance_weight": 2.0}, {"params": [b]}], track="all")
    schedule = DistanceSchedule(opt, start=0.0, steps=2)
    schedule.step()
    assert [g["distance_weight"] for g in opt.param_groups] == [1.0, 0.5]


def test_a_radius_by_default_ends_at_the_norm_of_theta_0():
    opt = over(constraint="norm_sphere")
    trail(DistanceSchedule(opt, "radius", start=0.5, steps=2), 2)
    assert opt.param_groups[0]["radius"] == 1.0


def test_untracked_groups_are_left_alone():
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    plain = {"params": [b], "distance_weight": 0.0, "constraint": None}
    opt = D3FusedSGD([{"params": [a]}, plain], track="all")
    before = dict(opt.param_groups[1])
    for what in ("distance_weight", "radius"):
        schedule = DistanceSchedule(opt, what, start=0.5, end=3.0, steps=2)
        assert trail(schedule, 3)[-1] == 3.0
        assert len(schedule.get_last_value()) == 1
    assert opt.param_groups[1] == before


def test_only_the_groups_asked_for_are_driven():
    opt = D3FusedSGD([{"params": [nn.Parameter(torch.ones(2))]} for _ in range(3)], track="all")
    DistanceSchedule(opt, start=0.25, steps=2, groups=[1])
    assert [g["distance_weight"] for g in opt.param_groups] == [1.0, 0.25, 1.0]


def test_a_tracked_group_added_later_joins_at_the_next_step():
    opt = over()
    schedule = DistanceSchedule(opt, start=0.0, steps=4)
    schedule.step()
    opt.add_param_group({"params": [nn.Parameter(torch.ones(2))], "distance_weight": 2.0})
    plain = {"distance_weight": 0.0, "constraint": None}
    opt.add_param_group({"params": [nn.Parameter(torch.ones(2))], **plain})
    schedule.step()
    assert [g["distance_weight"] for g in opt.param_groups] == [0.5, 1.0, 0.0]


def test_an_unconstrained_group_is_driven_through_the_zero_it_starts_at(descend):
    opt = over(constraint=None)
    schedule = DistanceSchedule(opt, start=0.0, steps=2)
    for t in range(3):
        descend(opt, 1, start=t)
        schedule.step()
    assert opt.param_groups[0]["distance_weight"] == 1.0
    assert float(opt.total_distance()) > 0


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_radius_tensor_is_filled_in_place(shape, backend, descend):
    radius = torch.full(shape, 2.0)
    p = nn.Parameter(torch.tensor([3.0, 4.0]))
    opt = D3FusedSGD(
        [p], track="all", lr=0.1, radius=radius, radius_unit="absolute", backend=backend
    )
    schedule = DistanceSchedule(opt, "radius", start=1.0, steps=4)
    assert opt.param_groups[0]["radius"] is radius
    for want in (1.0, 1.25, 1.5, 1.75, 2.0, 2.0):
        descend(opt, 1)
        assert float(p.detach().norm()) == pytest.approx(want, rel=1e-6)
        schedule.step()


def test_tensors_of_a_shell_are_filled_in_place():
    radii = torch.tensor(0.5), torch.tensor(0.9)
    opt = over(constraint="distance_shell", radius=radii)
    DistanceSchedule(opt, "radius", start=(0.25, 0.5), steps=2).step()
    assert all(a is b for a, b in zip(opt.param_groups[0]["radius"], radii, strict=True))
    assert [float(r) for r in radii] == pytest.approx([0.375, 0.7])


def test_no_step_reads_a_tensor(monkeypatch):
    opt = over(radius=torch.tensor(2.0))
    schedule = DistanceSchedule(opt, "radius", start=1.0, steps=3)

    def refuse(*args):
        raise AssertionError("the host read a tensor")

    for name in ("item", "__float__", "__bool__", "__int__", "tolist", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    schedule.step()
    assert schedule.get_last_value() == [pytest.approx(4 / 3)]
    schedule.load_state_dict(schedule.state_dict())


def test_lr_schedulers_work_beside_it(descend):
    opt = over(momentum=0.9)
    lr = lr_scheduler.CosineAnnealingLR(opt, T_max=4)
    schedule = DistanceSchedule(opt, start=0.0, steps=4)
    for t in range(2):
        descend(opt, 1, start=t)
        lr.step()
        schedule.step()
    group = opt.param_groups[0]
    assert (group["lr"], group["distance_weight"]) == (pytest.approx(0.025), 0.5)


RUNS = {
    "weight": ({"momentum": 0.9}, {"what": "distance_weight", "start": 0.0}),
    "free": ({"constraint": None}, {"what": "distance_weight", "start": 0.0, "end": 3.0}),
    "sphere": ({"momentum": 0.9}, {"what": "radius", "start": 0.5, "end": 1.5}),
    "floor": (
        {"constraint": "distance_floor", "radius": 1.0},
        {"what": "radius", "start": 0.1, "end": 1.4},
    ),
    "shell": (
        {"constraint": "distance_shell", "radius": (0.5, 0.9), "scope": "group"},
        {"what": "radius", "start": (0.1, 0.3)},
    ),
}


def scheduled(run, shape, backend, dtype=torch.float32):
    options, ramp = RUNS[run]
    g = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(s, generator=g).to(dtype)) for s in ((7, 5), (), (300,))]
    opt = D3FusedSGD(params, track="all", lr=0.05, backend=backend, **options)
    opt.warm_start("far")  # drawn from nothing, the same in every dtype
    return opt, DistanceSchedule(opt, shape=shape, steps=12, **ramp)


def advance(opt, schedule, descend, first, last):
    for t in range(first, last):
        got = descend(opt, 1, start=t)
        schedule.step()
    return got


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("run", RUNS)
def test_fused_and_reference_backends_agree_on_a_scheduled_trajectory(
    run, shape, descend, relative_error
):
    results = [
        advance(*scheduled(run, shape, kind, dtype), descend, 0, 16)
        for kind, dtype in (("fused", torch.float32), ("reference", torch.float64))
    ]
    assert relative_error(*results) <= 1e-5


@pytest.mark.parametrize("schedule_first", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("run", RUNS)
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    run, shape, schedule_first, backend, descend, same_bits
):
    want = advance(*scheduled(run, shape, backend), descend, 0, 16)
    opt, schedule = scheduled(run, shape, backend)
    weights = advance(opt, schedule, descend, 0, 7)
    saved, state = opt.state_dict(), json.loads(json.dumps(schedule.state_dict()))
    again = D3FusedSGD(
        [nn.Parameter(w) for w in weights], track="all", lr=0.5, backend=backend, **RUNS[run][0]
    )
    ramp = {"shape": "linear", "steps": 99, **RUNS[run][1]}
    resumed = DistanceSchedule(again, **ramp)
    for target, content in [(resumed, state), (again, saved)][:: 1 if schedule_first else -1]:
        target.load_state_dict(content)
    assert resumed.get_last_value() == schedule.get_last_value()
    assert same_bits(advance(again, resumed, descend, 7, 16), want)


def test_a_restored_optimizer_is_driven_on(descend):
    opt = over()
    schedule = DistanceSchedule(opt, start=0.0, steps=4)
    saved = opt.state_dict()
    schedule.step()
    opt.load_state_dict(saved)  # new group objects, with the weight of the start
    schedule.step()
    assert opt.param_groups[0]["distance_weight"] == 0.5


def test_last_epoch_goes_on_without_a_saved_state():
    opt = over()
    schedule = DistanceSchedule(opt, start=0.0, end=1.0, steps=4, last_epoch=1)
    assert (schedule.last_epoch, schedule.get_last_value()) == (2, [0.5])


def test_another_end_holds_at_once_and_is_saved():
    opt = over()
    schedule = DistanceSchedule(opt, start=0.0, steps=4)
    schedule.step()
    schedule.retarget(4.0)
    assert opt.param_groups[0]["distance_weight"] == 1.0
    other = DistanceSchedule(over(), start=0.0, steps=4)
    other.load_state_dict(schedule.state_dict())
    assert trail(other, 3) == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"what": "lr"}, "what .*'lr'"),
        ({"shape": "sine"}, "shape .*'sine'"),
        ({"steps": 0}, "steps .*0"),
        ({"steps": 2.0}, r"steps .*2\.0"),
        ({"stages": 0}, "stages .*0"),
        ({"start": -0.5}, r"start .*-0\.5"),
        ({"end": -1.0}, r"end .*-1\.0"),
        ({"end": math.nan}, "end .*nan"),
        ({"start": "0"}, "start .*'0'"),
        ({"start": (0.5, 0.1)}, r"start .*\(0\.5, 0\.1\)"),
        ({"start": (0.5, 0.1, 0.2)}, r"start .*\(0\.5, 0\.1, 0\.2\)"),
        ({"start": (0.1, 0.5)}, r"start .*distance_weight of param group 0.*\(0\.1, 0\.5\)"),
        ({"what": "radius", "end": (0.1, 0.5)}, r"end .*radius of param group 0.*\(0\.1, 0\.5\)"),
        ({"groups": [1]}, "groups .*1"),
        ({"groups": []}, "no tracked param group"),
        ({"last_epoch": 3, "end": None}, "end .*last_epoch=3"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_in_one_line(options, message):
    opt = over()
    before = dict(opt.param_groups[0])
    with pytest.raises(ValueError, match=message) as caught:
        DistanceSchedule(opt, **{"start": 0.0, "end": 1.0, "steps": 4, **options})
    assert "\n" not in str(caught.value)
    assert opt.param_groups[0] == before


def test_a_constraint_that_takes_no_radius_is_refused():
    with pytest.raises(ValueError, match=r"param group 0 .*constraint=None"):
        DistanceSchedule(over(constraint=None), "radius", start=0.0, end=1.0, steps=4)


def test_a_shell_needs_a_pair():
    opt = over(constraint="distance_shell", radius=(0.5, 0.9))
    with pytest.raises(ValueError, match=r"start .*radius"):
        DistanceSchedule(opt, "radius", start=0.1, steps=4)


def test_a_relative_default_is_no_absolute_end():
    opt = over(radius_unit="absolute")
    with pytest.raises(ValueError, match=r"end .*param group 0 .*radius=None"):
        DistanceSchedule(opt, "radius", start=0.1, steps=4)


def test_an_optimizer_that_is_no_d3_is_refused():
    opt = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(ValueError, match=r"optimizer .*SGD"):
        DistanceSchedule(opt, start=0.0, steps=4)


def test_nothing_to_drive_is_refused():
    opt = over(distance_weight=0.0, constraint=None)
    with pytest.raises(ValueError, match="no tracked param group"):
        DistanceSchedule(opt, start=0.0, end=1.0, steps=4)


def test_a_group_added_later_that_does_not_fit_stops_the_step_before_anything_changes():
    opt = over()
    schedule = DistanceSchedule(opt, "radius", start=0.5, steps=4)
    opt.add_param_group({"params": [nn.Parameter(torch.ones(2))], "constraint": None})
    with pytest.raises(ValueError, match="param group 1 has constraint=None"):
        schedule.step()
    assert (schedule.last_epoch, opt.param_groups[0]["radius"]) == (0, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"what": "radius"}, "the state is of 'radius', the schedule of 'distance_weight'"),
        ({"ends": [1.0, 1.0]}, "ends must list at most 1 param groups"),
        ({"ends": None}, "ends must list"),
        ({"ends": ["much"]}, "end must be a number"),
        ({"ends": [[0.1, 0.2]]}, "start and end must have one form"),
        ({"last_epoch": -4}, "last_epoch must be an integer >= 0"),
        ({"shape": "sine"}, "shape must be one of"),
        ({"start": math.inf}, "start must be finite"),
        ({"steps": None}, "steps must be an integer"),
        ({"groups": [7]}, "groups must be below 1"),
    ],
)
def test_a_state_that_cannot_be_is_refused(changes, message):
    opt = over()
    schedule = DistanceSchedule(opt, start=0.0, steps=4)
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=message):
        schedule.load_state_dict({**before, **changes})
    assert schedule.state_dict() == before

"""What captured CUDA graphs address stays alive, and where it is, whatever is called in between.

The launcher is faked: it steps on the host and believes in a capture when the test says so.
"""

import copy
import gc
import pickle
import weakref

import pytest
import torch

from d3fast import D3FusedSGD
from d3fast.optim.backends import cpu, group_plan
from d3fast.optim.backends.plans import Plans


class Plan:
    def __init__(self, captured):
        self.captured = captured


def test_a_dropped_plan_is_kept_where_a_graph_holds_its_step():
    captured = []
    plans = Plans(captured)
    held, free = Plan(True), Plan(False)
    plans[0], plans[1] = held, free
    assert len(plans) == 2
    assert plans.get(0) is held
    assert plans.get(2) is None
    plans.clear()
    assert len(plans) == 0
    assert captured == [held]


def test_a_replaced_plan_is_kept_where_a_graph_holds_its_step():
    captured = []
    plans = Plans(captured)
    for plan in (held := Plan(True), Plan(False), last := Plan(True)):
        plans[3] = plan
    assert captured == [held]
    assert plans[3] is last
    plans.drop(4)
    assert captured == [held]


class FakeLauncher(cpu.CpuLauncher):
    """The launcher of the host with memory of its own, as on a GPU."""

    capturing = False

    def __init__(self, tensors, joint_norm, shard=None):
        super().__init__(tensors, joint_norm, shard)
        self.memory = torch.zeros(3)

    def executor(self):
        self.captured = self.captured or FakeLauncher.capturing
        return super().executor()


@pytest.fixture
def capture(monkeypatch):
    """Takes a step that the launchers believe is captured; returns what its graph addresses."""
    monkeypatch.setattr(group_plan, "make_launcher", FakeLauncher)

    def step(opt):
        with monkeypatch.context() as patched:
            patched.setattr(FakeLauncher, "capturing", True)
            opt.step()
        launchers = [opt._stepper._plans[i]._launcher for i in range(len(opt._stepper._plans))]
        states = [t for state in opt.state.values() for t in state.values()]
        storages = [t.untyped_storage() for t in (*states, *(la.memory for la in launchers))]
        return [(weakref.ref(s), s.data_ptr()) for s in storages], launchers

    return step


def other_gradients(opt):
    params = opt.param_groups[0]["params"]
    kept, params[0].grad = params[0].grad, None
    opt.step()
    params[0].grad = kept
    opt.step()


def other_scope(opt):
    opt.param_groups[0]["scope"] = "group"
    opt.step()


def new_reference(opt):
    opt.set_reference([p.detach() * 2 for p in opt.param_groups[0]["params"]])
    opt.step()


def loaded(opt):
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    opt.step()


def refreshed(opt):
    opt.refresh_distances()
    opt.step()


BETWEEN = {
    "refresh_distances": refreshed,
    "set_reference": new_reference,
    "load_state_dict": loaded,
    "other_gradients": other_gradients,
    "another_scope": other_scope,
}
REPLACING = ("set_reference", "load_state_dict")


@pytest.mark.filterwarnings("ignore:CUDA graphs captured before")
@pytest.mark.parametrize("between", BETWEEN)
def test_what_a_graph_addresses_stays_alive_and_where_it_is(
    between, capture, far_apart, set_gradients
):
    params, opt = far_apart(momentum=0.9)
    set_gradients(params, 0)
    opt.step()
    addressed, launchers = capture(opt)
    launchers = [weakref.ref(launcher) for launcher in launchers]
    for _ in range(2):
        BETWEEN[between](opt)
        gc.collect()
        assert all(launcher() is not None for launcher in launchers)
        assert [s() is not None and s().data_ptr() for s, _ in addressed] == [
            a for _, a in addressed
        ]


def test_what_no_graph_addresses_is_freed(capture, far_apart, set_gradients):
    params, opt = far_apart(momentum=0.9)
    set_gradients(params, 0)
    opt.step()
    launcher = weakref.ref(opt._stepper._plans[0]._launcher)
    refreshed(opt)
    gc.collect()
    assert launcher() is None
    assert opt._captured == []


def test_a_graph_goes_with_its_optimizer(capture, far_apart, set_gradients):
    params, opt = far_apart()
    set_gradients(params, 0)
    opt.step()
    launchers = [weakref.ref(launcher) for launcher in capture(opt)[1]]
    refreshed(opt)
    del opt
    gc.collect()
    assert [launcher() for launcher in launchers] == [None]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_no_graphs(copied, capture, far_apart, set_gradients):
    params, opt = far_apart()
    set_gradients(params, 0)
    opt.step()
    capture(opt)
    refreshed(opt)
    assert len(opt._captured) == 1
    assert copied(opt)._captured == []


@pytest.mark.parametrize("between", BETWEEN)
def test_only_a_replaced_state_is_warned_of(between, capture, far_apart, set_gradients):
    params, opt = far_apart(momentum=0.9)
    set_gradients(params, 0)
    opt.step()
    BETWEEN[between](opt)  # no graph yet: no warning
    capture(opt)
    if between in REPLACING:
        with pytest.warns(UserWarning, match=rf"before {between}\(\)"):
            BETWEEN[between](opt)
    else:
        BETWEEN[between](opt)


def test_a_distance_is_forgotten_in_place(far_apart, set_gradients):
    params, opt = far_apart()
    set_gradients(params, 0)
    opt.step()
    kept = [opt.state[p]["distance"] for p in params]
    addresses = [t.data_ptr() for t in kept]
    opt.refresh_distances()
    assert all(torch.isnan(t) == bool(p.numel()) for t, p in zip(kept, params, strict=True))
    opt.step()
    assert all(opt.state[p]["distance"] is t for p, t in zip(params, kept, strict=True))
    assert [t.data_ptr() for t in kept] == addresses


def test_a_compiled_step_keeps_its_captured_plan(monkeypatch, far_apart, set_gradients, compiled):
    monkeypatch.setattr(group_plan, "make_launcher", FakeLauncher)
    params, opt = far_apart(momentum=0.9)
    set_gradients(params, 0)
    step = compiled(opt.step)
    step()
    monkeypatch.setattr(FakeLauncher, "capturing", True)
    monkeypatch.setattr(FakeLauncher, "step", _stepping_with_executor)
    step()
    monkeypatch.setattr(FakeLauncher, "capturing", False)
    launcher = opt._graph_step.cache.plans[0].launcher
    opt.refresh_distances()
    assert [plan.launcher for plan in opt._captured] == [launcher]
    assert opt._captured[0]._addressed["distance"]


def _stepping_with_executor(self, *arguments):
    self.executor()  # as the launcher of a GPU does
    cpu.CpuLauncher.step(self, *arguments)


def test_the_optimizer_starts_without_graphs():
    opt = D3FusedSGD([torch.nn.Parameter(torch.ones(2, 2))], lr=0.1)
    assert opt._captured == []

"""The plan of a group's local parts on a mesh of two ranks, of which this process is the first."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD
from d3fast.optim.backends import shard_plan
from d3fast.optim.backends.shard_plan import BEFORE, WEIGHT, LocalPlan, ShardPlan

if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

from torch.distributed.tensor import Shard, distribute_tensor


@pytest.fixture
def mesh():
    """A mesh of two ranks whose collectives do nothing."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=fake.FakeStore())
    yield torch.distributed.init_device_mesh("cpu", (2,))
    torch.distributed.destroy_process_group()


@pytest.fixture
def optimizer(mesh):
    """Make an optimizer over a sharded matrix of ones with reference 2 and gradient 1."""

    def make(dtype=torch.float32, **options):
        place = lambda t: distribute_tensor(t, mesh, [Shard(0)], src_data_rank=None)  # noqa: E731
        p = nn.Parameter(place(torch.ones(4, 3, dtype=dtype)))
        reference = [torch.full((4, 3), 2.0, dtype=dtype)]
        opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, reference=reference, **options)
        p.grad = place(torch.ones(4, 3, dtype=dtype))
        return p, opt

    return make


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def prepared(opt):
    """A plan that is ready, with the sums of this rank doubled as those of both."""
    group, state = opt.param_groups[0], opt.state
    shard = ShardPlan(group, state)
    sums = torch.empty(1, shard.columns, dtype=torch.float64)
    shard.measure(sums)
    shard.prepare(state, 2 * sums)
    shard.update(None, sums)
    shard.project(group, state, 2 * sums)
    return shard


def test_measured_are_the_squares_of_the_local_part(optimizer):
    _, opt = optimizer()
    sums = torch.empty(1, ShardPlan.columns, dtype=torch.float64)
    ShardPlan(opt.param_groups[0], opt.state).measure(sums)
    assert sums[0, BEFORE] == 6
    assert sums[0, WEIGHT] == 24


def test_the_step_is_that_of_the_whole_tensor(optimizer):
    p, opt = optimizer()
    prepared(opt)
    whole = nn.Parameter(torch.ones(4, 3))
    other = D3FusedSGD(
        [whole], lr=0.1, momentum=0.9, reference=[torch.full((4, 3), 2.0)], backend="reference"
    )
    whole.grad = torch.ones(4, 3)
    other.step()
    torch.testing.assert_close(p.to_local(), whole[:2].detach())
    assert p._version == 1
    assert opt.state[p]["step"] == 1


def test_a_plan_is_ready_until_something_it_rests_on_changes(optimizer):
    p, opt = optimizer()
    group, state = opt.param_groups[0], opt.state
    shard = prepared(opt)
    assert shard.ready(group, state)
    group["lr"] = 0.2
    assert shard.ready(group, state)
    p.mul_(2)
    assert not shard.ready(group, state)


@pytest.mark.parametrize("name", ["reference", "momentum_buffer"])
def test_a_replaced_state_is_noticed(name, optimizer):
    p, opt = optimizer()
    shard = prepared(opt)
    opt.state[p][name] = opt.state[p][name].clone()
    assert not shard.ready(opt.param_groups[0], opt.state)


def test_a_step_that_cannot_be_undone_needs_measured_norms(optimizer):
    _, opt = optimizer()
    shard, group = prepared(opt), opt.param_groups[0]
    group.update(nesterov=True, lr=1.0, weight_decay=0.6)
    assert not shard.ready(group, opt.state)


def test_local_parts_do_not_keep_gradients(optimizer):
    p, opt = optimizer()
    prepared(opt)
    assert p._local_tensor.grad is None


def test_buffers_of_another_dtype_are_replaced_in_the_state(optimizer):
    p, opt = optimizer(distance_weight=0.0, constraint=None)
    opt.state[p]["momentum_buffer"] = torch.ones_like(p, dtype=torch.float64)
    plan = LocalPlan(opt.param_groups[0], opt.state)
    plan.step(opt.param_groups[0], opt.state, None)
    buffer = opt.state[p]["momentum_buffer"]
    assert buffer.dtype == torch.float32
    assert buffer.placements == p.placements
    assert buffer.shape == p.shape
    torch.testing.assert_close(buffer.to_local(), torch.full((2, 3), 1.9))
    torch.testing.assert_close(p.to_local(), torch.full((2, 3), 1 - 0.19))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_squared_distances_take_the_compensation(dtype):
    theta = torch.full((70_000,), 1.5, dtype=dtype)
    compensation = torch.full_like(theta, 2**-9) if dtype == torch.bfloat16 else None
    delta = 0.5 + (0 if compensation is None else 2**-9)
    got = shard_plan.squared_distance(theta, torch.ones_like(theta), compensation)
    assert float(got) == pytest.approx(70_000 * delta**2, rel=1e-12)

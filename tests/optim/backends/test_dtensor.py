"""DTensors on a mesh of two ranks, of which this process is the first; nothing is sent."""

import pytest
import torch
from torch import nn

from d3fast.optim.backends import dtensor

if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor


@pytest.fixture
def mesh():
    """A mesh of two ranks whose collectives do nothing."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=fake.FakeStore())
    yield torch.distributed.init_device_mesh("cpu", (2,))
    torch.distributed.destroy_process_group()


def distributed(tensor, mesh, placement):
    return distribute_tensor(tensor, mesh, [placement], src_data_rank=None)


def test_a_plain_tensor_is_its_own_local_part():
    tensor = torch.ones(4)
    assert not dtensor.is_dtensor(tensor)
    assert dtensor.local(tensor) is tensor
    assert dtensor.mesh_of(tensor) is None
    assert dtensor.counts_here(tensor)


def test_a_shard_is_half_of_the_tensor_and_shares_its_memory(mesh):
    whole = distributed(torch.arange(4.0), mesh, Shard(0))
    part = dtensor.local(whole)
    assert torch.equal(part, torch.tensor([0.0, 1.0]))
    part.zero_()
    assert torch.equal(whole.to_local(), torch.zeros(2))
    assert dtensor.is_sharded({"params": [torch.ones(1), whole]})


def test_the_local_part_of_a_parameter_is_one_object(mesh):
    param = nn.Parameter(distributed(torch.ones(4), mesh, Shard(0)))
    assert dtensor.local(param) is dtensor.local(param)
    (part,) = dtensor.local_group({"params": [param], "lr": 1})["params"]
    assert part is dtensor.local(param)


def test_another_local_part_keeps_shape_and_placements(mesh):
    uneven = distributed(torch.arange(5.0), mesh, Shard(0))
    other = dtensor.with_local(torch.zeros(3, dtype=torch.float64), uneven)
    assert (other.shape, other.placements) == (uneven.shape, uneven.placements)
    assert dtensor.local(other).dtype == torch.float64
    plain = torch.ones(2)
    assert dtensor.with_local(plain, torch.zeros(2)) is plain


@pytest.mark.parametrize("placement", [Shard(0), Replicate()])
def test_the_first_rank_counts_shards_and_replicas(mesh, placement):
    assert dtensor.counts_here(distributed(torch.ones(4), mesh, placement))


def test_a_plain_tensor_is_placed_like_its_parameter(mesh):
    param = nn.Parameter(distributed(torch.ones(4), mesh, Shard(0)))
    placed = dtensor.placed(torch.arange(4.0), param, "reference")
    assert placed.placements == param.placements
    assert torch.equal(dtensor.local(placed), torch.tensor([0.0, 1.0]))


def test_a_dtensor_beside_a_plain_parameter_is_refused_by_name(mesh):
    given = distributed(torch.ones(4), mesh, Shard(0))
    with pytest.raises(ValueError, match="reference is on a mesh of 2 ranks"):
        dtensor.placed(given, torch.ones(4), "reference")


def test_partial_placements_are_refused(mesh):
    partial = DTensor.from_local(torch.ones(4), mesh, [Partial()])
    with pytest.raises(ValueError, match="Partial"):
        dtensor.check_placements({"params": [partial], "scope": "tensor"})


def test_a_joint_norm_needs_one_mesh(mesh):
    mixed = [torch.ones(4), distributed(torch.ones(4), mesh, Shard(0))]
    dtensor.check_placements({"params": mixed, "scope": "tensor"})
    with pytest.raises(ValueError, match="scope='group'"):
        dtensor.check_placements({"params": mixed, "scope": "group"})


def test_a_step_without_gradients_is_an_error_in_a_distributed_run(mesh):
    with pytest.raises(ValueError, match="fully_shard"):
        dtensor.check_not_replaced()


def test_numbers_of_one_process_are_their_own_sum():
    dtensor.check_not_replaced()
    numbers = torch.arange(3.0)
    assert dtensor.all_reduce(numbers, None) is numbers
    rows, footer = torch.arange(6.0).view(2, 3), torch.tensor([1.0, 0.0, 2.0])
    sums = dtensor.all_reduce_rows(rows, [torch.ones(1), torch.ones(1)], footer)
    assert torch.equal(sums, torch.cat([rows, footer[None]]))

"""Buckets, and counts that are read late; ``tests/distributed`` sends the messages."""

import math
import types

import pytest
import torch

from d3fast.optim.backends import shard_messages
from d3fast.optim.backends.shard_messages import Buckets, LateCounts, Message, cuts


def part(index, sizes, scope="tensor", **more):
    params = [torch.ones(n) for n in sizes]
    return index, 7, {"params": params, "scope": scope, "lr": index, **more}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(shard_messages, "BUCKET_BYTES", {"cpu": 40.0})


def test_without_a_limit_all_parts_share_one_bucket_and_stay_as_they_are():
    parts = [part(0, (5, 5)), part(3, (100,))]
    assert math.isinf(shard_messages.BUCKET_BYTES["cpu"])
    ((first, second),) = Buckets().of(parts)
    assert first == ((0, 0), 7, parts[0][2])
    assert second == ((3, 0), 7, parts[1][2])


def test_nothing_tracked_is_one_empty_bucket():
    assert Buckets().of([]) == [[]]


def test_a_bucket_ends_at_the_limit_and_goes_on_over_parts(small):
    parts = [part(0, (5, 5, 5), param_names=["a", "b", "c"]), part(1, (3, 20, 1))]
    buckets = Buckets().of(parts)
    keys = [[key for key, _, _ in bucket] for bucket in buckets]
    assert keys == [[(0, 0)], [(0, 2), (1, 0)], [(1, 2)]]
    names = [piece[2]["param_names"] for bucket in buckets for piece in bucket if piece[0][0] == 0]
    assert names == [["a", "b"], ["c"]]
    assert buckets[1][1][2]["params"][1] is parts[1][2]["params"][1]


def test_a_part_with_one_norm_is_not_divided(small):
    assert [len(b) for b in Buckets().of([part(0, (50, 50, 50), "group"), part(1, (2,))])] == [1, 1]


def test_options_are_those_of_the_present_step(small):
    buckets, parts = Buckets(), [part(0, (20, 20))]
    buckets.of(parts)
    parts[0][2]["lr"] = 0.25
    assert [piece[2]["lr"] for bucket in buckets.of(parts) for piece in bucket] == [0.25, 0.25]


def test_a_replaced_parameter_is_divided_anew(small):
    buckets, parts = Buckets(), [part(0, (20, 20))]
    assert len(buckets.of(parts)) == 2
    parts[0][2]["params"][:] = [torch.ones(1), torch.ones(1)]
    assert len(buckets.of(parts)) == 1


def test_bytes_of_a_rank_are_those_of_the_dimensions_that_cut():
    sharded, replicated = (types.SimpleNamespace(is_shard=lambda y=y: y) for y in (True, False))

    class Fake(torch.Tensor):
        device_mesh = types.SimpleNamespace(shape=(2, 4))
        placements = (replicated, sharded)

    p = torch.ones(16).as_subclass(Fake)
    original = shard_messages.mesh_of
    shard_messages.mesh_of = lambda t: getattr(t, "device_mesh", None)
    try:
        assert cuts([{"params": [p, p], "scope": "tensor"}], 16.0) == [[(0, 0, 1)], [(0, 1, 2)]]
        assert len(cuts([{"params": [p, p], "scope": "tensor"}], 17.0)) == 1
    finally:
        shard_messages.mesh_of = original


def test_a_message_without_meshes_is_what_this_process_says():
    message = Message({}, [], torch.device("cpu"))
    assert message.send(waiting=True).wait().tolist() == [1.0, 0.0]
    assert message.send(refused=True).wait().tolist() == [0.0, 1.0]
    assert message.sums.tolist() == [0.0, 0.0]


def test_late_counts_are_taken_once():
    late, counts = LateCounts(), torch.tensor([1.0, 2.0])
    late.keep(counts)
    counts.zero_()
    assert late.pending
    assert late.take() == [1.0, 2.0]
    assert not late.pending
    assert late.take() == [0.0, 0.0]

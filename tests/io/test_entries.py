"""Contents of weight files: what is read, how often, and up to which limit."""

import pytest
import torch

from d3fast.io.entries import OtherEntry, TensorEntry, read_entries


def entry(count, reads=None):
    def read():
        if reads is not None:
            reads.append(count)
        return torch.ones(count)

    return TensorEntry((count,), torch.float32, read)


def nested(levels):
    held = []
    for _ in range(levels):
        held = [held, held]
    return held


def test_the_size_of_a_tensor_follows_from_shape_and_dtype():
    assert TensorEntry((2, 3), torch.float64, lambda: None).nbytes == 48
    assert TensorEntry((), torch.bool, lambda: None).nbytes == 1


def test_tensors_are_read_wherever_they_are():
    held = {"a": entry(2), "b": [1, "x", (entry(1),)], "c": OtherEntry("a sparse tensor")}
    read = read_entries(held, max_bytes=12)
    assert torch.equal(read["a"], torch.ones(2))
    assert read["b"][:2] == [1, "x"]
    assert torch.equal(read["b"][2][0], torch.ones(1))
    assert read["c"] == held["c"]


def test_an_object_that_is_referred_to_twice_is_read_once_and_shared():
    reads = []
    tensor = entry(3, reads)
    inner = [tensor]
    read = read_entries([tensor, inner, inner], max_bytes=12)
    assert reads == [3]
    assert read[0] is read[1][0]
    assert read[1] is read[2]


def test_tensors_of_more_bytes_than_the_limit_are_refused():
    reads = []
    with pytest.raises(ValueError, match="more than 20 bytes"):
        read_entries([entry(3, reads), entry(3, reads)], max_bytes=20)
    assert reads == [3]


def test_twenty_levels_are_read_and_more_are_refused():
    assert read_entries(nested(20), max_bytes=0) == nested(20)
    endless = []
    endless.append(endless)
    for held in (nested(21), endless):
        with pytest.raises(ValueError, match="more than 20 levels"):
            read_entries(held, max_bytes=0)


def test_a_million_objects_are_refused():
    with pytest.raises(ValueError, match="objects"):
        read_entries([0] * 2**20, max_bytes=0)

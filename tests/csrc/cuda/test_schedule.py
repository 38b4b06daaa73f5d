"""The order in which a step with projection takes its work: the scheduling logic on the host."""

import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

SOURCE = """
#include "cuda/schedule.h"
extern "C" int64_t order(int64_t tensors, const int64_t* numel, bool joint_norm, int64_t chunk,
                         int64_t lag, int64_t* items, int64_t* groups) {
  std::vector<d3::Segment> segments(tensors);
  for (int64_t i = 0; i < tensors; ++i) segments[i].numel = numel[i];
  const d3::Partition plan = d3::make_partition(segments, joint_norm, chunk);
  const std::vector<int64_t> order = d3::work_order(plan, lag);
  std::copy(order.begin(), order.end(), items);
  for (size_t i = 0; i < plan.chunks.size(); ++i) groups[i] = plan.chunks[i].norm_group;
  return static_cast<int64_t>(plan.chunks.size());
}
"""


@pytest.fixture(scope="module")
def work_order(shared_library, tmp_path_factory):
    source = tmp_path_factory.mktemp("order") / "order.cpp"
    source.write_text("#include <algorithm>\n" + SOURCE)
    library = shared_library(Path(source), "common/partition.cpp")

    def order(numel, joint, chunk, lag):
        most = sum(-(-n // chunk) for n in numel)
        items, groups = (ctypes.c_int64 * (2 * most + 1))(), (ctypes.c_int64 * (most + 1))()
        library.order.restype = ctypes.c_int64
        count = library.order(
            ctypes.c_int64(len(numel)),
            (ctypes.c_int64 * len(numel))(*numel),
            ctypes.c_bool(joint),
            ctypes.c_int64(chunk),
            ctypes.c_int64(lag),
            items,
            groups,
        )
        return list(items)[: 2 * count], list(groups)[:count]

    return order


PARTITIONS = {
    "numel": st.lists(st.integers(0, 40), min_size=1, max_size=12),
    "joint": st.booleans(),
    "chunk": st.integers(1, 12),
    "lag": st.integers(1, 30),
}


@given(**PARTITIONS)
def test_every_chunk_is_updated_and_projected_once(work_order, numel, joint, chunk, lag):
    items, groups = work_order(numel, joint, chunk, lag)
    assert [i for i in items if i >= 0] == list(range(len(groups)))
    assert sorted(~i for i in items if i < 0) == list(range(len(groups)))


@given(**PARTITIONS)
def test_a_projection_stands_behind_all_updates_of_its_group(work_order, numel, joint, chunk, lag):
    """Or a block could wait for work that nobody has begun."""
    items, groups = work_order(numel, joint, chunk, lag)
    updated = [0] * (len(numel) + 1)
    for item in items:
        if item >= 0:
            updated[groups[item]] += 1
        else:
            assert updated[groups[~item]] == groups.count(groups[~item])


@given(**PARTITIONS)
def test_a_group_is_projected_once_enough_updates_are_in_between(
    work_order, numel, joint, chunk, lag
):
    items, groups = work_order(numel, joint, chunk, lag)
    position = {item: at for at, item in enumerate(items)}
    last = len(groups) - 1
    for group in set(groups):
        own = [i for i, u in enumerate(groups) if u == group]
        first = position[~own[-1]]  # the last chunk written is the first projected
        assert [items[first + k] for k in range(len(own))] == [~i for i in reversed(own)]
        between = [i for i in items[position[own[-1]] : first] if i > own[-1]]
        assert len(between) == min(lag, last - own[-1])

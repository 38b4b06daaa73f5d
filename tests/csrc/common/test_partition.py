"""Tensors are partitioned into chunks and norm groups, the same for both backends."""

from hypothesis import given
from hypothesis import strategies as st

from d3fast import _C


@given(
    numel=st.lists(st.integers(0, 5000), min_size=1, max_size=8),
    joint_norm=st.booleans(),
    chunk_length=st.integers(1, 3000),
)
def test_chunks_cover_every_element_once_and_in_order(numel, joint_norm, chunk_length):
    chunks, groups = _C.partition(numel, joint_norm, chunk_length)
    covered = [[] for _ in numel]
    for segment, offset, length in chunks:
        assert 0 < length <= chunk_length
        covered[segment].append((offset, length))
    for size, parts in zip(numel, covered, strict=True):
        ends = [0, *(offset + length for offset, length in parts)]
        assert [offset for offset, _ in parts] == ends[:-1]
        assert ends[-1] == size
    assert [s for s, _, _ in chunks] == sorted(s for s, _, _ in chunks)
    assert sum(g[1] for g in groups) == len(numel)
    assert sum(g[3] for g in groups) == len(chunks)
    assert len(groups) == (1 if joint_norm else len(numel))


def test_offsets_pass_two_to_the_31():
    chunks, _ = _C.partition([2**33 + 1], False, 2**30)
    assert chunks[-1] == (0, 2**33, 1)

"""How tensors are cut into chunks and units: the scheduling logic of both backends."""

from hypothesis import given
from hypothesis import strategies as st

from d3fast import _C


@given(
    numel=st.lists(st.integers(0, 5000), min_size=1, max_size=8),
    joint=st.booleans(),
    chunk_length=st.integers(1, 3000),
)
def test_chunks_cover_every_element_once_and_in_order(numel, joint, chunk_length):
    chunks, units = _C.cut(numel, joint, chunk_length)
    covered = [[] for _ in numel]
    for segment, offset, length in chunks:
        assert 0 < length <= chunk_length
        covered[segment].append((offset, length))
    for size, parts in zip(numel, covered, strict=True):
        ends = [0, *(offset + length for offset, length in parts)]
        assert [offset for offset, _ in parts] == ends[:-1]
        assert ends[-1] == size
    assert [s for s, _, _ in chunks] == sorted(s for s, _, _ in chunks)
    assert sum(u[1] for u in units) == len(numel)
    assert sum(u[3] for u in units) == len(chunks)
    assert len(units) == (1 if joint else len(numel))


def test_offsets_pass_two_to_the_31():
    chunks, _ = _C.cut([2**33 + 1], False, 2**30)
    assert chunks[-1] == (0, 2**33, 1)

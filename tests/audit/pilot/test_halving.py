"""Successive halving for two objectives, against the definitions read aloud."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3fast.audit.pilot.halving import dominates, ladder, ranks, survivors

rates = st.integers(0, 6).map(lambda count: count / 6)
clouds = st.lists(st.tuples(rates, rates), min_size=1, max_size=12)


def better(one, other):
    """By words: no worse in both, strictly better in one."""
    no_worse = one[0] >= other[0] and one[1] <= other[1]
    return no_worse and (one[0] > other[0] or one[1] < other[1])


@given(st.tuples(rates, rates), st.tuples(rates, rates))
def test_dominance_is_no_worse_in_both_and_better_in_one(one, other):
    assert dominates(one, other) == better(one, other)


@given(clouds)
def test_rank_is_the_longest_chain_of_points_each_better_than_the_next(points):
    def chain(point):
        return max((1 + chain(other) for other in points if better(other, point)), default=0)

    assert ranks(points) == [chain(point) for point in points]


@given(clouds, st.integers(1, 12))
def test_no_one_goes_on_while_a_better_ranked_one_stays_behind(points, count):
    on = survivors(points, count)
    assert on == sorted(set(on))
    assert len(on) == min(count, len(points))
    rank = ranks(points)
    behind = set(range(len(points))) - set(on)
    for kept, left in itertools.product(on, behind):
        assert (rank[kept], -points[kept][0]) <= (rank[left], -points[left][0])


def test_of_one_rank_the_more_accurate_go_on():
    assert survivors([(0.8, 0.0), (0.9, 0.1), (0.95, 0.2)], 2) == [1, 2]


def test_equals_go_on_in_their_order():
    assert survivors([(0.9, 0.1)] * 4, 2) == [0, 1]


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 5), st.integers(2, 4))
def test_the_ladder_narrows_lengthens_and_ends_with_all_epochs(trials, epochs, rungs, factor):
    steps = ladder(trials, epochs, rungs, factor)
    assert 1 <= len(steps) <= rungs
    assert (steps[0][0], steps[-1][1]) == (trials, epochs)
    for (many, short), (few, long) in itertools.pairwise(steps):
        assert few < many <= few * factor
        assert 1 <= short < long


@pytest.mark.parametrize(
    ("given_", "steps"),
    [
        ((9, 40, 3, 2), [(9, 10), (5, 20), (3, 40)]),
        ((9, 27, 3, 3), [(9, 3), (3, 9), (1, 27)]),
        ((2, 40, 3, 2), [(2, 20), (1, 40)]),
        ((9, 1, 3, 2), [(9, 1)]),
    ],
)
def test_ladders_by_hand(given_, steps):
    assert ladder(*given_) == steps

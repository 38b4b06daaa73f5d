"""95 % intervals against published tables and SciPy."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from d3fast.training.intervals import difference_interval, paired_difference_interval, wilson


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_intervals_are_those_of_scipy(counts):
    successes, trials = counts
    theirs = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_wilson_interval_reaches_0_and_1_exactly():
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_counts_that_cannot_be_have_no_interval(successes, trials):
    with pytest.raises(ValueError, match=f"got {successes}/{trials}"):
        wilson(successes, trials)


@pytest.mark.parametrize(
    ("counts", "published"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((0, 10, 0, 10), (-0.2775, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_difference_of_proportions_is_newcombes(counts, published):
    """Table II of Newcombe (1998), method 10."""
    assert difference_interval(*counts) == pytest.approx(published, abs=5e-5)


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
)
def test_difference_interval_holds_the_difference_and_turns_with_the_sides(a, b):
    low, high = difference_interval(*a, *b)
    assert -1 <= low <= a[0] / a[1] - b[0] / b[1] <= high <= 1
    assert difference_interval(*b, *a) == pytest.approx((-high, -low))


@pytest.mark.parametrize("counts", [(2, 1, 0, 1), (0, 1, 0, 0), (-1, 3, 0, 1)])
def test_difference_of_impossible_counts_is_refused(counts):
    with pytest.raises(ValueError, match="need 0 <= successes"):
        difference_interval(*counts)


@pytest.mark.parametrize(
    ("table", "published"),
    [
        # both, first only, second only, neither: Altman et al. (2000), table 6.2
        ((14, 5, 0, 22), (0.011, 0.226)),
        # correlation 0 after the correction for continuity
        ((36, 12, 2, 0), (0.0569, 0.3404)),
    ],
)
def test_difference_of_paired_proportions_is_newcombes(table, published):
    both, first, second, _ = table
    found = paired_difference_interval(both + first, both + second, both, sum(table))
    assert found == pytest.approx(published, abs=5e-4)


TABLES = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@given(TABLES)
def test_paired_interval_holds_the_difference_and_turns_with_the_sides(table):
    both, first, second, _ = table
    one, two, trials = both + first, both + second, sum(table)
    low, high = paired_difference_interval(one, two, both, trials)
    assert -1 <= low <= (one - two) / trials <= high <= 1
    turned = paired_difference_interval(two, one, both, trials)
    assert turned == pytest.approx((-high, -low))


def test_answers_that_agree_give_a_narrower_interval_than_independent_ones():
    low, high = paired_difference_interval(30, 20, 20, 100)
    wide = difference_interval(30, 100, 20, 100)
    assert wide[0] < low < 0.1 < high < wide[1]


@pytest.mark.parametrize(("both", "trials"), [(4, 10), (-1, 10), (0, 5)])
def test_a_table_that_cannot_be_has_no_interval(both, trials):
    with pytest.raises(ValueError, match=f"both must be possible .* got {both}"):
        paired_difference_interval(3, 3, both, trials)


def test_coverage_of_the_paired_interval_is_near_95_percent():
    """Exact: a sum over all tables of 30 samples."""
    chances, trials, covered = (0.15, 0.2, 0.1, 0.55), 30, 0.0
    for both, first, second in product(range(trials + 1), repeat=3):
        neither = trials - both - first - second
        if neither < 0:
            continue
        counts = (both, first, second, neither)
        ways = math.factorial(trials) / math.prod(map(math.factorial, counts))
        weight = ways * math.prod(p**n for p, n in zip(chances, counts, strict=True))
        low, high = paired_difference_interval(both + first, both + second, both, trials)
        covered += weight * (low <= 0.1 <= high)
    assert 0.94 < covered < 0.97

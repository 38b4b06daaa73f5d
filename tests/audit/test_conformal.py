"""p-values of scores: uniform for clean models, whatever the detectors measure."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from d3fast.audit.conformal import (
    adjusted_p_values,
    per_class_scores,
    resolved_rate,
    score_test,
)

SCORES = st.one_of(st.floats(0, 50), st.sampled_from([0.0, 1.0, math.inf]))


def alarms(draw, models, detectors, rate, trials=1000):
    """Share of clean models whose smallest adjusted p-value is at most a rate."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(trials):
        pool = draw(generator, (models + 1, detectors))
        hits += min(adjusted_p_values(pool[0], pool[1:])) <= rate
    return hits / trials


def skewed(generator, size):
    return generator.pareto(1.0, size) * np.array([1, 100, 1e-3, 1])[: size[1]]


def dependent(generator, size):
    return generator.gamma(1.0, 1.0, (size[0], 1)) + 0.1 * generator.random(size)


def tied(generator, size):
    return np.where(generator.random(size) < 0.1, np.inf, generator.integers(0, 3, size))


@pytest.mark.parametrize("draw", [skewed, dependent, tied])
@pytest.mark.parametrize(("models", "rate"), [(39, 0.05), (19, 0.1)])
def test_clean_models_are_flagged_no_more_often_than_stated(draw, models, rate):
    slack = 3 * math.sqrt(rate * (1 - rate) / 1000)
    assert alarms(draw, models, 4, rate) <= rate + slack


@pytest.mark.parametrize("draw", [skewed, dependent])
def test_without_ties_the_stated_rate_is_the_true_one(draw):
    assert alarms(draw, 39, 4, 0.05) == pytest.approx(0.05, abs=0.02)


def test_a_class_that_is_large_in_every_model_has_no_large_score():
    draws = np.random.default_rng(0)
    pool = draws.normal(size=(40, 10)) + 50 * (np.arange(10) == 3)
    pool[0, 7] += 20
    scores, classes = per_class_scores(pool)
    assert classes[0] == 7
    assert scores[0] > 15
    assert scores[1:].max() < 6


@settings(max_examples=30, deadline=None)
@given(arrays(float, (9, 4), elements=st.floats(-50, 50)), st.permutations(range(9)))
def test_scores_of_classes_treat_every_model_alike(pool, order):
    scores, classes = per_class_scores(pool)
    again, likewise = per_class_scores(pool[order])
    assert np.array_equal(scores[order], again)
    assert np.array_equal(classes[order], likewise)


def test_equal_statistics_have_a_score_of_zero_and_one_that_differs_a_large_one():
    scores, _ = per_class_scores(np.ones((5, 3)))
    assert scores.tolist() == [0.0] * 5
    pool = np.ones((5, 3))
    pool[0, 2] = 1.5
    scores, classes = per_class_scores(pool)
    assert (scores[0], classes[0]) == (np.inf, 2)


def test_an_outlier_of_one_detector_of_four_has_the_smallest_p_value():
    clean = np.random.default_rng(0).gamma(2.0, 1.0, (39, 4))
    found = score_test([1.0, 1.0, 60.0, 1.0], clean.tolist(), 0.05)
    assert found.p_value == found.adjusted[2] == found.p_values[2] == 1 / 40
    assert min(found.adjusted[0], found.adjusted[1], found.adjusted[3]) > 0.05


def test_a_score_equal_to_that_of_a_clean_model_does_not_beat_it():
    clean = [[float(k)] for k in range(9)]
    assert score_test([8.0], clean, 0.1).p_values == (0.2,)
    assert score_test([math.inf], [[math.inf], [1.0], [2.0]], 0.1).p_values == (0.5,)


@settings(max_examples=30, deadline=None)
@given(arrays(float, (12, 3), elements=SCORES), st.permutations(range(1, 12)))
def test_p_values_are_shares_of_the_pool_and_know_no_order(pool, order):
    found = score_test(pool[0], pool[1:].tolist(), 0.2)
    for alone, adjusted in zip(found.p_values, found.adjusted, strict=True):
        assert 1 / 12 <= alone <= 1
        assert 1 / 12 <= adjusted <= 1
        assert round(12 * adjusted) == pytest.approx(12 * adjusted)
    assert adjusted_p_values(pool[0], pool[order].tolist()) == found.adjusted


@settings(max_examples=30, deadline=None)
@given(arrays(float, (20, 2), elements=st.floats(0, 50)))
def test_a_score_is_above_its_threshold_exactly_where_its_p_value_is_small(pool):
    found = score_test(pool[0], pool[1:].tolist(), 0.1)
    for score, adjusted, limit in zip(pool[0], found.adjusted, found.thresholds, strict=True):
        if score != pytest.approx(limit):  # but for rounding
            assert (score > limit) == (adjusted <= 0.1)


def test_equal_scores_are_no_sign():
    assert score_test([1.0, 1.0], [[1.0, 1.0]] * 19, 0.05).adjusted == (1.0, 1.0)
    assert score_test([2.0, 1.0], [[1.0, 1.0]] * 19, 0.05).adjusted == (0.05, 1.0)


def test_few_models_resolve_no_small_rate():
    assert resolved_rate(0.01, 40) == 1 / 41
    assert resolved_rate(0.05, 40) == 0.05


@pytest.mark.parametrize(
    ("scores", "clean"), [([], [[]]), ([1.0], []), ([1.0], [[1.0, 2.0]]), ([math.nan], [[1.0]])]
)
def test_scores_that_cannot_be_compared_are_refused(scores, clean):
    with pytest.raises(ValueError, match="scores must"):
        score_test(scores, clean, 0.05)

"""Areas under ROC curves, their intervals, and thresholds at a false-alarm rate."""

import numpy as np
import pytest

from benchmarks.studies.roc import auc, auc_interval, standardized, threshold_at


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    assert auc([3.0, 1.0], [2.0, 0.0]) == 0.75
    assert auc([1.0], [1.0, 1.0]) == 0.5


@pytest.mark.parametrize("area", [0.5, 0.8, 0.95, 1.0])
def test_the_interval_holds_the_area_and_shrinks_with_more_models(area):
    few, many = auc_interval(area, 5, 20), auc_interval(area, 50, 200)
    assert few[0] < many[0] < area <= many[1] <= few[1] <= 1


def test_the_interval_covers_the_true_area_about_as_often_as_it_says():
    draws, truth = np.random.default_rng(0), 0.9214  # of normal scores two units apart
    held = 0
    for _ in range(200):
        low, high = auc_interval(auc(draws.normal(2, 1, 20), draws.normal(0, 1, 20)), 20, 20)
        held += low <= truth <= high
    assert 180 <= held <= 199


@pytest.mark.parametrize(("rate", "above"), [(0.01, 0), (0.05, 2), (0.5, 20)])
def test_at_most_the_asked_share_of_clean_models_is_above_the_threshold(rate, above):
    clean = [float(score) for score in range(40)]
    assert sum(score > threshold_at(clean, rate) for score in clean) == above


def test_scores_of_two_detectors_become_comparable():
    clean = np.array([[1.0, 100.0], [2.0, 200.0], [3.0, 300.0], [2.5, 240.0]])
    first, second = standardized(np.array([[2.2, 220.0]]), clean)[0]
    assert abs(first) < 1
    assert abs(second) < 1
    assert standardized(np.array([[9.0, 220.0]]), clean)[0, 0] > 4

"""Scores of detectors and their thresholds."""

import math

import pytest
import torch

from d3fast.audit.anomaly import anomaly_indices
from d3fast.audit.detectors.scores import outlier_score, threshold


def test_the_value_is_the_anomaly_index_of_the_largest():
    numbers = [3.0, 1.0, 7.0, 2.0, 2.5]
    assert outlier_score(numbers) == (pytest.approx(anomaly_indices(numbers)[2]), 2)


def test_a_small_number_does_not_stand_out():
    value, target = outlier_score([10.0, 11.0, -50.0, 10.5, 10.2])
    assert target == 1
    assert value < 2


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (1.0, -100.0), (0.01, 5.0)])
def test_the_value_depends_on_neither_unit_nor_origin(scale, offset):
    numbers = [3.0, 1.0, 7.0, 2.0, 2.5]
    moved = outlier_score([scale * number + offset for number in numbers])
    assert moved == (pytest.approx(outlier_score(numbers)[0]), 2)


def test_equal_numbers_have_value_0_and_one_beside_equal_ones_is_infinite():
    assert outlier_score([4.0] * 5)[0] == 0
    assert outlier_score([4.0, 4.0, 4.0, 5.0]) == (math.inf, 3)


def test_where_the_others_are_nearly_equal_it_is_counted_in_the_least_unit():
    numbers = [4.0, 4.001, 3.999, 4.0, 4.2]
    assert outlier_score(numbers)[0] > 100
    assert outlier_score(numbers, spread=0.1) == (pytest.approx(2.0), 4)
    wide = [3.0, 1.0, 7.0, 2.0, 2.5]
    assert outlier_score(wide, spread=0.1) == outlier_score(wide)


@pytest.mark.parametrize("numbers", [[1.0], [1.0, 100.0]])
def test_of_fewer_than_three_none_can_be_said_to_stand_out(numbers):
    assert outlier_score(numbers) == (None, None)


@pytest.mark.parametrize("numbers", [[], [1.0, math.nan, 2.0], [1.0, math.inf, 2.0]])
def test_what_cannot_be_compared_is_refused(numbers):
    with pytest.raises(ValueError, match=r"norms|statistics"):
        outlier_score(numbers)


@pytest.mark.parametrize("classes", [3, 4, 10, 43])
def test_normal_numbers_exceed_the_threshold_at_its_rate(classes):
    numbers = torch.randn(3000, classes, generator=torch.Generator().manual_seed(7))
    limit = threshold(classes, 0.1)
    above = sum(outlier_score(row)[0] > limit for row in numbers.tolist())
    assert 0.08 < above / 3000 < 0.12


def test_the_threshold_falls_with_the_rate():
    assert threshold(10, 0.01) > threshold(10, 0.05) > threshold(10, 0.2)


@pytest.mark.parametrize(
    ("classes", "rate", "error_text"),
    [
        (2, 0.1, "classes must be an integer >= 3"),
        (10, 0.0, "rate must be > 0 and < 1, got 0.0"),
        (10, 1, "rate must be > 0"),
        (10, math.nan, "rate must be finite"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(classes, rate, error_text):
    with pytest.raises(ValueError, match=error_text):
        threshold(classes, rate)

"""When a class stands out, and by how much it has to."""

import math

import pytest
import torch
from torch import nn

from d3fast.audit.anomaly import anomaly_indices
from d3fast.audit.detectors.base import ask, short, standing_out, threshold
from d3fast.audit.detectors.context import Subject


def test_the_value_is_the_anomaly_index_of_the_largest():
    numbers = [3.0, 1.0, 7.0, 2.0, 2.5]
    assert standing_out(numbers) == (pytest.approx(anomaly_indices(numbers)[2]), 2)


def test_a_small_number_does_not_stand_out():
    value, target = standing_out([10.0, 11.0, -50.0, 10.5, 10.2])
    assert target == 1
    assert value < 2


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (1.0, -100.0), (0.01, 5.0)])
def test_the_value_depends_on_neither_unit_nor_origin(scale, offset):
    numbers = [3.0, 1.0, 7.0, 2.0, 2.5]
    moved = standing_out([scale * number + offset for number in numbers])
    assert moved == (pytest.approx(standing_out(numbers)[0]), 2)


def test_equal_numbers_have_value_0_and_one_beside_equal_ones_is_infinite():
    assert standing_out([4.0] * 5)[0] == 0
    assert standing_out([4.0, 4.0, 4.0, 5.0]) == (math.inf, 3)


def test_where_the_others_are_nearly_equal_it_is_counted_in_the_least_unit():
    numbers = [4.0, 4.001, 3.999, 4.0, 4.2]
    assert standing_out(numbers)[0] > 100
    assert standing_out(numbers, spread=0.1) == (pytest.approx(2.0), 4)
    wide = [3.0, 1.0, 7.0, 2.0, 2.5]
    assert standing_out(wide, spread=0.1) == standing_out(wide)


@pytest.mark.parametrize("numbers", [[1.0], [1.0, 100.0]])
def test_of_fewer_than_three_none_can_be_said_to_stand_out(numbers):
    assert standing_out(numbers) == (None, None)


@pytest.mark.parametrize("numbers", [[], [1.0, math.nan, 2.0], [1.0, math.inf, 2.0]])
def test_what_cannot_be_compared_is_refused(numbers):
    with pytest.raises(ValueError, match=r"norms|statistics"):
        standing_out(numbers)


@pytest.mark.parametrize("classes", [3, 4, 10, 43])
def test_normal_numbers_exceed_the_threshold_at_its_rate(classes):
    numbers = torch.randn(3000, classes, generator=torch.Generator().manual_seed(7))
    limit = threshold(classes, 0.1)
    above = sum(standing_out(row)[0] > limit for row in numbers.tolist())
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


class Says:
    """A sign that says what it was told."""

    name, title, spread = "says", "What it was told", 0.0

    def __init__(self, *statistics):
        self.statistics = statistics

    def __call__(self, subject):
        return self.statistics


@pytest.fixture
def subject():
    return Subject(nn.Flatten(), torch.rand(6, 1, 1, 3), torch.arange(6) % 3, 3)


def test_a_sign_is_raised_above_the_threshold_of_its_number_of_classes(subject):
    names = "abcdefghij"
    quiet = (1.0, 2.0, 3.0, 4.0, 5.0, 1.5, 2.5, 3.5, 4.5)
    loud = ask(Says(*quiet, 60.0), subject, names, 0.025)
    assert (loud.raised, loud.target, loud.threshold) == (True, 9, threshold(10, 0.025))
    assert loud.meaning == "What it was told: 'j' is furthest above the others and stands out."
    assert not ask(Says(*quiet, 6.0), subject, names, 0.025).raised


def test_with_two_classes_a_sign_says_that_it_cannot_tell(subject):
    found = ask(Says(1.0, 1e9), subject, "ab", 0.025)
    assert (found.value, found.target, found.raised) == (None, None, False)
    assert "fewer than 3 classes" in found.meaning


def test_a_sign_that_breaks_is_named(subject):
    with pytest.raises(ValueError, match="sign says: statistics must be finite"):
        ask(Says(1.0, math.nan, 2.0), subject, "abc", 0.025)


def test_names_of_classes_are_cut_and_escaped():
    assert len(short("x" * 1000)) < 40
    assert "\n" not in short("a\nb")
    assert "\x1b" not in short("a\x1b[2J")

"""``run_detector``: from the statistics of a detector to its result."""

import math

import pytest
import torch
from torch import nn

from d3fast.audit.detectors.base import run_detector, short_name
from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.scores import threshold

QUIET = (1.0, 2.0, 3.0, 4.0, 5.0, 1.5, 2.5, 3.5, 4.5)


class Fixed:
    """A detector with given statistics."""

    name, title, spread = "fixed", "A given number", 0.0

    def __init__(self, *statistics):
        self.statistics = statistics

    def __call__(self, context):
        return self.statistics


@pytest.fixture
def context():
    return InspectionContext(nn.Flatten(), torch.rand(6, 1, 1, 3), torch.arange(6) % 3, 3)


def test_a_model_is_flagged_above_the_threshold_of_its_number_of_classes(context):
    names = "abcdefghij"
    loud = run_detector(Fixed(*QUIET, 60.0), context, names, 0.025)
    assert (loud.flagged, loud.target, loud.threshold) == (True, 9, threshold(10, 0.025))
    assert loud.meaning == "A given number: highest for 'j', which is above the threshold."
    assert not run_detector(Fixed(*QUIET, 6.0), context, names, 0.025).flagged


def test_with_two_classes_there_is_no_score(context):
    result = run_detector(Fixed(1.0, 1e9), context, "ab", 0.025)
    assert (result.value, result.target, result.flagged) == (None, None, False)
    assert "fewer than 3 classes" in result.meaning


def test_a_detector_with_a_statistic_that_is_not_finite_is_named(context):
    with pytest.raises(ValueError, match="detector fixed: statistics must be finite"):
        run_detector(Fixed(1.0, math.nan, 2.0), context, "abc", 0.025)


def test_class_names_are_cut_and_escaped():
    assert len(short_name("x" * 1000)) < 40
    assert "\n" not in short_name("a\nb")
    assert "\x1b" not in short_name("a\x1b[2J")

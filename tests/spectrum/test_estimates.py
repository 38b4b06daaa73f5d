# SPDX-License-Identifier: Apache-2.0
"""Estimates: mean and standard error of the mean."""

import statistics

import pytest

from d3fast.spectrum.estimates import Estimate


def test_an_estimate_is_the_mean_and_its_standard_error():
    samples = [1.0, 2.0, 4.0, 9.0]
    found = Estimate.of(samples, offset=10.0)
    assert found.value == pytest.approx(14.0)
    assert found.standard_error == pytest.approx(statistics.stdev(samples) / 2)


def test_a_single_sample_has_no_standard_error():
    assert Estimate.of([3.0]) == Estimate(3.0, None)
    assert Estimate.of([3.0]).as_dict() == {"value": 3.0, "standard_error": None}

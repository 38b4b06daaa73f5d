"""The names and the order of the detectors, and those of other packages."""

import pytest

from d3fast.audit import InspectOptions
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS, DETECTORS
from tests.plugins import install, site

__all__ = ["site"]


def test_the_detectors_run_in_the_order_of_the_registry():
    assert InspectOptions().for_images() == DEFAULT_DETECTORS
    assert tuple(DETECTORS.builtin)[: len(DEFAULT_DETECTORS)] == DEFAULT_DETECTORS


def test_a_detector_that_does_not_run_by_default_runs_where_it_is_named():
    assert InspectOptions(detectors=("differential",)).for_images() == ("differential",)


def test_a_detector_of_another_package_runs_only_where_it_is_named(site):
    points = {"d3fast.detectors": {"mine": "detectors_of_others:Mine"}}
    install(site, "other", points, detectors_of_others="class Mine: ...\n")
    assert "mine" not in InspectOptions().for_images()
    named = ("mine", "head", "detectors_of_others:Mine")
    assert InspectOptions(detectors=named).for_images() == named
    with pytest.raises(ValueError, match="detectors_of_others has no 'Other'"):
        InspectOptions(detectors=("detectors_of_others:Other",))
    with pytest.raises(ValueError, match=r"detectors must be one of 'patch', .*, got 'other'"):
        InspectOptions(detectors=("other",))

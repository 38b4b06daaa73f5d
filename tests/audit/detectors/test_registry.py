"""The names and the order of the detectors, and those of other packages."""

import pytest

from d3fast.audit import InspectOptions
from d3fast.audit.detectors.registry import DETECTORS
from tests.plugins import install, site

__all__ = ["site"]


def test_the_detectors_run_in_the_order_of_the_registry():
    names = ("patch", "head", "shift", "margin")
    assert InspectOptions().for_images() == tuple(DETECTORS.builtin) == names


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

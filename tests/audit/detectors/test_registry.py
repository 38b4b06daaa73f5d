"""The names and the order of the detectors."""

from d3fast.audit import InspectOptions
from d3fast.audit.detectors.registry import DETECTORS


def test_the_detectors_run_in_the_order_of_the_registry():
    assert InspectOptions().for_images() == tuple(DETECTORS) == ("patch", "head", "shift", "margin")

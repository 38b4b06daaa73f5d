"""Contract of every detector of images; a new one needs one line, its registration."""

import dataclasses

import pytest

from d3fast.audit.detectors.registry import DETECTORS, WEIGHT_DETECTORS
from d3fast.testing import DetectorCase

ALL = {**DETECTORS.builtin, **WEIGHT_DETECTORS}


def case(make):
    """Return a case with few steps; those that search draw their start."""
    searches = any(field.name == "steps" for field in dataclasses.fields(make))
    return DetectorCase(make, {"steps": 2} if searches else {}, draws=searches)


CASES = {name: case(make) for name, make in ALL.items()}


def test_detectors_are_listed_under_their_names():
    assert [made().name for made in ALL.values()] == list(ALL)


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, rule) for name, case in CASES.items() for rule in case.rules()],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_contract(name, rule):
    rule(CASES[name])

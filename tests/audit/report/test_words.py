"""Numbers and names on the page of an audit."""

import math

import pytest

from d3fast.audit.report.words import figure_label, index, size


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.inf, "∞"), (-0.01, "0.0"), (4.41, "4.4"), (1e7, "1e+07")],
)
def test_an_index_of_any_size_is_short(value, text):
    assert index(value) == text


def test_a_size_has_its_unit():
    assert size(99.94) == "99.9\xa0px"
    assert size(100.4) == "100\xa0px"


@pytest.mark.parametrize(("name", "label"), [("$x$", "＄x＄"), ("__x", "x"), ("_", "?"), ("", "?")])
def test_a_label_is_neither_mathematics_nor_hidden(name, label):
    assert figure_label(name) == label

"""Means and ranges as they are shown."""

import io
import re

import pytest
from rich.console import Console

from d3fast.results.table import Column, spread, summary_table


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([0.97, 0.98, 0.99], {"scale": 100}, "98.0\n97.0–99.0"),
        ([3.0], {}, "3.0"),
        ([1.04, 1.0], {}, "1.0"),
        ([1.06, 1.0], {}, "1.0\n1.0–1.1"),
        ([None, 2.0, None], {}, "2.0"),
        ([None, None], {}, "–"),
        ([], {}, "–"),
        ([1, 2], {"digits": 0}, "2\n1–2"),
        ([0.12345], {"digits": 3}, "0.123"),
        ([-1.5, 0.5], {}, "−0.5\n−1.5 to 0.5"),
        ([0.0, 1.0], {}, "0.5\n0.0–1.0"),
        ([-0.001, 0.0], {}, "0.0"),
        ([0.0], {}, "0.0"),
    ],
    ids=[
        "percent",
        "one value",
        "alike as shown",
        "different as shown",
        "gaps",
        "gaps alone",
        "nothing",
        "no decimals",
        "three decimals",
        "negative",
        "from zero",
        "no minus zero",
        "zero",
    ],
)
def test_a_spread_is_the_mean_and_below_it_the_range_if_it_shows(values, options, expected):
    assert spread(values, **options) == expected


def _lines(table):
    """What is printed, without the frame."""
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    unframed = re.sub("[\u2500-\u257f]", " ", out.getvalue())
    return [" ".join(line.split()) for line in unframed.splitlines() if line.strip()]


COLUMNS = (Column("acc", "ACC %", scale=100), Column("seconds", "seconds", digits=2))


def test_a_table_has_a_line_per_group_and_a_column_per_key():
    rows = [{"acc": 0.9, "seconds": 1.0}, {"acc": 0.8, "seconds": 1.0}]
    groups = {"before": rows, "after": rows[:1]}
    headings = [column.header for column in summary_table("Title", COLUMNS, groups).columns]
    assert headings == ["", "ACC %", "seconds"]
    assert _lines(summary_table("Title", COLUMNS, groups, "Caption")) == [
        "Title",
        "ACC % seconds",
        "before 85.0 1.00",
        "80.0–90.0",
        "after 90.0 1.00",
        "Caption",
    ]


def test_numbers_a_row_does_not_have_are_a_dash():
    groups = {"floor": [{"acc": 0.9, "seconds": None}, {}]}
    assert "floor 90.0 –" in _lines(summary_table("Title", COLUMNS, groups))

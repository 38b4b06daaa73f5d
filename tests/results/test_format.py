"""Numbers as text."""

import math

import pytest

from d3fast.results.format import (
    fixed,
    mean_and_range,
    percent,
    seconds,
    shortest,
    signed,
    significant,
    value_range,
)

NB = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fixed(1.25, 2), "1.25"),
        (fixed(-1.25, 2), "−1.25"),
        (fixed(-0.001), "0.0"),
        (fixed(None), "–"),
        (fixed(math.inf), "∞"),
        (fixed(-math.inf), "−∞"),
        (fixed(3, 0, "px"), f"3{NB}px"),
        (percent(0.12345), "12.3"),
        (percent(-0.0001), "0.0"),
        (percent(None, unit="%"), "–"),
        (percent(1.0, 0, "%"), f"100{NB}%"),
        (seconds(9.94), f"9.9{NB}s"),
        (seconds(9.96), f"10{NB}s"),
        (signed(0.0), "0.0"),
        (signed(-0.04), "0.0"),
        (signed(2), "+2.0"),
        (significant(0.0), "0"),
        (significant(0.999), "0.999"),
        (significant(1.0), "1.00"),
        (significant(12345.6), "12346"),
        (significant(2.5e7), "2.5e+07"),
        (significant(-4.24e-5), "−4.24e−05"),
        (significant(0.0123456, 2), "0.012"),
        (shortest(-0.5), "−0.5"),
        (value_range(0, 1, 0), "0–1"),
        (value_range(-1, 1, 0, "points"), f"−1 to 1{NB}points"),
    ],
)
def test_numbers(text, expected):
    assert text == expected


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([0.97, 0.98, 0.99], {"scale": 100}, ("98.0", "97.0–99.0")),
        ([3.0], {}, ("3.0", "")),
        ([1.04, 1.0], {}, ("1.0", "")),
        ([1.06, 1.0], {}, ("1.0", "1.0–1.1")),
        ([None, 2.0, None], {}, ("2.0", "")),
        ([None, None], {}, ("–", "")),
        ([], {}, ("–", "")),
        ([1, 2], {"digits": 0}, ("2", "1–2")),
        ([0.12345], {"digits": 3}, ("0.123", "")),
        ([-1.5, 0.5], {}, ("−0.5", "−1.5 to 0.5")),
        ([-0.001, 0.0], {}, ("0.0", "")),
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
        "no minus zero",
    ],
)
def test_a_range_is_given_only_if_it_shows(values, options, expected):
    assert mean_and_range(values, **options) == expected

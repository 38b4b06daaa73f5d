"""Fields of a stranger's rows: what is wrong is said in one line, nothing odd gets through."""

import math

import pytest

from d3fast.results.rows import (
    digest,
    flag,
    integer,
    listed,
    maybe,
    number,
    numbers,
    of_kind,
    only,
    text,
)


@pytest.mark.parametrize(
    "value", ["1", None, True, math.nan, math.inf, -math.inf, [1], 10**400, -1, 2.5]
)
def test_a_number_is_finite_and_within_its_bounds(value):
    with pytest.raises(ValueError, match=r"^sign row: value must be a finite number >= 0 and <= 2"):
        number({"kind": "sign", "value": value}, "value", 0, 2)


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match=r"^sign row: value is missing$"):
        number({"kind": "sign"}, "value")


@pytest.mark.parametrize("value", [1.0, "1", None, True, -1, 8])
def test_a_whole_number_is_an_int_within_its_bounds(value):
    with pytest.raises(ValueError, match="whole number from 0 to 7"):
        integer({"at": value}, "at", 0, 7)


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_a_flag_is_true_or_false(value):
    with pytest.raises(ValueError, match="must be true or false"):
        flag({"raised": value}, "raised")


@pytest.mark.parametrize("value", ["A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", 5, None])
def test_a_digest_has_64_lower_case_hexadecimal_digits(value):
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        digest({"sha256": value}, "sha256")


def test_texts_print_in_one_line_of_bounded_length():
    assert text({"name": "a\x1b[2Jb\n"}, "name") == "a\\x1b[2Jb\\n"
    assert len(text({"name": "x" * 10_000}, "name", 50)) <= 50
    with pytest.raises(ValueError, match="must be a text"):
        text({"name": 5}, "name")


def test_a_list_is_bounded_and_its_numbers_are_numbers():
    assert numbers({"values": [1, 2.5]}, "values") == (1.0, 2.5)
    with pytest.raises(ValueError, match="trial row: values must be a finite number"):
        numbers({"kind": "trial", "values": [1, "2"]}, "values")
    with pytest.raises(ValueError, match="a list of at most 2"):
        listed({"values": [1, 2, 3]}, "values", 2)


def test_null_and_missing_are_none_where_they_may_be():
    assert maybe(number, {"asr": None}, "asr") is None
    assert maybe(number, {}, "asr") is None
    assert maybe(number, {"asr": 1}, "asr", low=0) == 1.0


def test_complaints_show_hostile_values_in_one_short_line():
    with pytest.raises(ValueError, match="norm must be") as caught:
        number({"kind": "\x1b]0;" + "k" * 500, "norm": "\n" * 5000}, "norm")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


def test_rows_are_found_by_kind_and_fields():
    rows = [{"kind": "sign", "role": "a"}, {"kind": "sign", "role": "b"}, {"kind": ["sign"]}, {}]
    assert of_kind(rows, "sign", role="b") == [rows[1]]
    assert only(rows, "model") is None
    with pytest.raises(ValueError, match="2 rows of kind sign, at most 1"):
        only(rows, "sign")

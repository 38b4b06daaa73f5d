"""Fields of an untrusted row: an error names row, field and value; texts become printable."""

import math
from typing import Annotated, Literal

import pytest
from msgspec import Meta

from d3fast.results.schema.fields import (
    Count,
    FileName,
    Fraction,
    Interval,
    Label,
    Name,
    NonNegative,
    Number,
    Record,
    Row,
    Sha256,
    read_only_row,
    read_record,
    read_rows,
    tag_of,
)


class Part(Record, frozen=True, kw_only=True):
    label: Label = ""
    share: Fraction | None = None


class Example(Row, frozen=True, kw_only=True, tag="example"):
    size: NonNegative = 0
    value: Number | None = None
    count: Count = 0
    flag: bool = False
    name: Name = ""
    names: tuple[Name, ...] = ()
    sha256: Sha256 = 64 * "0"
    file: FileName = "a"
    role: Literal["a", "b"] = "a"
    parts: Annotated[tuple[Part, ...], Meta(max_length=2)] = ()
    interval: Interval | None = None


class Required(Row, frozen=True, kw_only=True, tag="required"):
    size: NonNegative

    def __post_init__(self):
        if self.size == 7:
            raise ValueError("size must not be 7, got 7")


def refused(**fields):
    """The error text for a row with these fields."""
    with pytest.raises(ValueError, match="example row: ") as caught:
        read_record({"kind": "example", **fields}, Example, "example row")
    return str(caught.value).removeprefix("example row: ")


def read(**fields):
    return read_record({"kind": "example", **fields}, Example)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1", "size must be a number, got '1'"),
        (None, "size must be a number, got None"),
        (True, "size must be a number, got True"),
        ([1], "size must be a number, got a list of 1"),
        (-3, "size must be >= 0, got -3"),
        (-0.5, "size must be >= 0, got -0.5"),
        (1e301, "size must be <= 1e+300, got 1e+301"),
        (math.nan, "size must be >= 0, got nan"),
        (math.inf, "size must be <= 1e+300, got inf"),
    ],
)
def test_a_number_is_finite_and_within_its_bounds(value, text):
    assert refused(size=value) == text


def test_an_integer_that_no_float_holds_is_no_number():
    assert refused(size=10**400).startswith("size must be a finite number, got 1000")


def test_a_whole_number_may_stand_for_a_number_and_null_for_an_optional_one():
    assert read(size=3).size == 3.0
    assert read(value=None).value is None
    assert refused(value="x") == "value must be a number or null, got 'x'"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "count must be an integer, got 1.0"),
        ("1", "count must be an integer, got '1'"),
        (True, "count must be an integer, got True"),
        (-1, "count must be >= 0, got -1"),
        (2**60, f"count must be <= 9007199254740992, got {2**60}"),
    ],
)
def test_a_count_is_an_integer_within_its_bounds(value, text):
    assert refused(count=value) == text


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_a_flag_is_true_or_false(value):
    assert refused(flag=value) == f"flag must be true or false, got {value!r}"


@pytest.mark.parametrize("value", ["A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
def test_a_digest_has_64_lower_case_hexadecimal_digits(value):
    assert refused(sha256=value).startswith("sha256 must be 64 hexadecimal digits, got '")


@pytest.mark.parametrize("value", ["", ".", "..", "../a", "a/b", "a\\b", "a\nb", "\x00", 121 * "a"])
def test_a_file_name_is_no_path(value):
    assert refused(file=value).startswith("file must be the name of a file, got '")


def test_a_choice_is_one_of_the_known_values():
    assert refused(role="c") == "role must be one of the known values, got 'c'"


@pytest.mark.parametrize("value", [[], [1], [1, 2, 3], "12", [1, "2"]])
def test_an_interval_is_two_numbers(value):
    assert "interval" in refused(interval=value)


def test_a_list_is_bounded():
    assert refused(parts=[{}, {}, {}]) == "parts must be of length <= 2, got 3"
    assert refused(parts={}) == "parts must be a list, got an object of 0"


def test_a_nested_field_is_named_by_its_path():
    assert refused(parts=[{}, {"share": 2}]) == "parts[1].share must be <= 1, got 2"
    assert refused(parts=[{}, 5]) == "parts[1] must be an object, got 5"


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match=r"^required row: size is missing$"):
        read_rows([{"kind": "required"}], Required)


def test_the_check_of_a_record_speaks_for_itself():
    with pytest.raises(ValueError, match=r"^required row: size must not be 7, got 7$"):
        read_rows([{"kind": "required", "size": 7}], Required)


def test_texts_print_in_one_line_of_bounded_length():
    found = read(
        name="a\x1b[2Jb\n", names=["\u202e", "x" * 10_000], parts=[{"label": "\u200f" + 99 * "y"}]
    )
    assert found.name == "a\\x1b[2Jb\\n"
    assert found.names[0] == "\\u202e"
    assert len(found.names[1]) <= 80
    assert len(found.parts[0].label) <= 66
    assert found.parts[0].label.isprintable()


def test_a_written_row_keeps_its_texts():
    long = "x" * 1000 + "\n"
    assert Example(name=long).to_row()["name"] == long
    assert next(iter(Example().to_row())) == "kind"


@pytest.mark.parametrize("value", ["\n" * 5000, {"\x1b": 1}, 9999 * [1], -(10**4000)])
def test_errors_show_hostile_values_in_one_short_line(value):
    text = refused(size=value)
    assert text.isprintable()
    assert len(text) < 200


def test_a_hostile_value_cannot_move_the_path_of_an_error():
    assert refused(role="x' - at `$.size`").startswith("role must be one of the known values")


def test_rows_are_found_by_kind_and_fields():
    rows = [{"kind": "example", "role": r, "count": n} for n, r in enumerate("aab")]
    rows += [{"kind": ["example"]}, {}, {"kind": "required", "size": "x"}]
    assert [row.count for row in read_rows(rows, Example)] == [0, 1, 2]
    assert [row.count for row in read_rows(rows, Example, role="b")] == [2]
    assert read_only_row(rows, Example, role="c") is None
    assert tag_of(Example) == "example"


def test_there_is_a_largest_number_of_rows():
    rows = [{"kind": "example"}] * 3
    with pytest.raises(ValueError, match="rows of kind example must be at most 2, got 3"):
        read_rows(rows, Example, 2)
    with pytest.raises(ValueError, match="at most 1, got 3"):
        read_only_row(rows, Example)

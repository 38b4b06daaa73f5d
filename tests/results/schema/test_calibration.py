"""Rows of a calibration: what is written can be read, what cannot be is refused."""

import pytest

from d3fast.results.schema.calibration import CalibrationRow, ScoredModelRow
from d3fast.results.schema.fields import read_only_row, read_rows
from tests.audit.calibrations import calibration_rows


def rows():
    return [row.to_row() for row in calibration_rows(models=2)]


def test_rows_are_read_as_they_were_written():
    about, *models = calibration_rows(models=2)
    assert read_only_row(rows(), CalibrationRow) == about
    assert list(read_rows(rows(), ScoredModelRow)) == models


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (CalibrationRow, "architecture", "abc"),
        (CalibrationRow, "shape", [1, 2]),
        (ScoredModelRow, "acc", 2.0),
        (ScoredModelRow, "scores", []),
    ],
)
def test_a_field_out_of_its_bounds_is_refused(kind, field, value):
    given = [{**row, field: value} for row in rows()]
    with pytest.raises(ValueError, match=field):
        read_rows(given, kind)

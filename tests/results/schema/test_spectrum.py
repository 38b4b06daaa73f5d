"""Rows of spectrum.json: bounds of fields, checks across fields.

Further bounds are those of ``tests.hostile.audits``.
"""

import pytest

from d3fast.results.schema.fields import read_rows, tag_of
from d3fast.results.schema.spectrum import (
    ModelDistances,
    PathRow,
    PredictionRow,
    SpectrumModelRow,
    SpectrumRow,
)
from tests.audit.report.documents import spectrum_rows
from tests.results.schema.committed import check_committed, committed_rows, first

KINDS = (SpectrumModelRow, SpectrumRow, PathRow, PredictionRow, ModelDistances)


def read(kind, **changes):
    return first(kind, spectrum_rows(), **changes)


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (SpectrumModelRow, {"model": 5}, "model must be a text, got 5"),
        (SpectrumRow, {"nodes": [[1.0], [1.0, 2.0]]}, "nodes and weights must be two lists"),
        (SpectrumRow, {"nodes": []}, "nodes must be of length >= 1, got 0"),
        (SpectrumRow, {"nodes": [[]]}, r"nodes\[0\] must be of length >= 1, got 0"),
        (SpectrumRow, {"nodes": [[1e13]]}, r"nodes\[0\]\[0\] must be <= 1000000000000"),
        (SpectrumRow, {"weights": [[0.1]]}, "nodes and weights must be two lists"),
        (SpectrumRow, {"weights": [[0.1, -0.5, 0.1]] * 2}, "weights must be >= 0, got -0.5"),
        (SpectrumRow, {"eigenvalues": []}, "eigenvalues must be of length >= 1, got 0"),
        (SpectrumRow, {"residuals": [0.0]}, "residuals must be of length 3, one per eigenvalue"),
        (SpectrumRow, {"size": 0}, "size must be >= 1, got 0"),
        (PathRow, {"points": [{"at": []}]}, r"points\[0\]\.at must be of length >= 1, got 0"),
        (PredictionRow, {"distance": -1}, "distance must be >= 0, got -1"),
        (ModelDistances, {"model": None}, "model must be a text, got None"),
    ],
)
def test_an_error_names_the_row_the_field_and_the_value(kind, changes, says):
    with pytest.raises(ValueError, match=f"^{tag_of(kind)} row: {says}"):
        read(kind, **changes)


def test_a_grid_has_a_largest_number_of_nodes():
    grid = [[0.5] * 15_000] * 2
    with pytest.raises(ValueError, match="nodes must be at most 20000 numbers, got 30000"):
        read(SpectrumRow, nodes=grid, weights=grid)


def test_the_committed_file_is_read_whole_and_written_as_it_was():
    check_committed("own-model-spectrum", KINDS)


def test_the_rows_of_a_study_are_read_whole():
    rows = committed_rows("why-cpu")
    assert sum(len(read_rows(rows, kind)) for kind in KINDS) == len(rows)

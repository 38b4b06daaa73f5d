"""Rows of spectrum.json: bounds of each field, checks across fields."""

import pytest

from d3fast.results.schema.fields import read_rows
from d3fast.results.schema.spectrum import (
    ModelDistances,
    PathRow,
    PredictionRow,
    SpectrumModelRow,
    SpectrumRow,
)
from tests.audit.report.documents import spectrum_rows
from tests.results.schema.committed import committed_rows

KINDS = {
    "model": SpectrumModelRow,
    "spectrum": SpectrumRow,
    "path": PathRow,
    "prediction": PredictionRow,
    "distance": ModelDistances,
}


def read(kind, **changes):
    row = next(row for row in spectrum_rows() if row["kind"] == kind)
    (found,) = read_rows([{**row, **changes}], KINDS[kind])
    return found


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("model", {"model": 5}, "model must be a text, got 5"),
        ("spectrum", {"nodes": [[1.0], [1.0, 2.0]]}, "nodes and weights must be two lists"),
        ("spectrum", {"nodes": []}, "nodes must be of length >= 1, got 0"),
        ("spectrum", {"nodes": [[]]}, r"nodes\[0\] must be of length >= 1, got 0"),
        ("spectrum", {"nodes": [[0.0] * 20_001]}, r"nodes\[0\] must be of length <= 20000"),
        ("spectrum", {"nodes": [[0.0]] * 1001}, "nodes must be of length <= 1000, got 1001"),
        ("spectrum", {"nodes": [[1e13]]}, r"nodes\[0\]\[0\] must be <= 1000000000000"),
        ("spectrum", {"weights": [[0.1]]}, "nodes and weights must be two lists"),
        ("spectrum", {"weights": [[0.1, -0.5, 0.1]] * 2}, "weights must be >= 0, got -0.5"),
        ("spectrum", {"eigenvalues": []}, "eigenvalues must be of length >= 1, got 0"),
        ("spectrum", {"residuals": [0.0]}, "residuals must be of length 3, one per eigenvalue"),
        ("spectrum", {"size": 0}, "size must be >= 1, got 0"),
        ("path", {"points": [{"at": []}]}, r"points\[0\]\.at must be of length >= 1, got 0"),
        ("prediction", {"distance": -1}, "distance must be >= 0, got -1"),
        ("distance", {"model": None}, "model must be a text, got None"),
    ],
)
def test_an_error_names_the_row_the_field_and_the_value(kind, changes, says):
    with pytest.raises(ValueError, match=f"^{kind} row: {says}"):
        read(kind, **changes)


def test_a_grid_has_a_largest_number_of_nodes():
    grid = [[0.5] * 15_000] * 2
    with pytest.raises(ValueError, match="nodes must be at most 20000 numbers, got 30000"):
        read("spectrum", nodes=grid, weights=grid)


@pytest.mark.parametrize("name", ["own-model-spectrum", "why-cpu"])
def test_committed_files_are_read_whole(name):
    rows = committed_rows(name)
    assert sum(len(read_rows(rows, kind)) for kind in KINDS.values()) == len(rows)

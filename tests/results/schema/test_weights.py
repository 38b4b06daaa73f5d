"""Rows of weights.json and of a comparison of two models: bounds of fields."""

import pytest

from d3fast.results.schema.weights import (
    HeadRowDifference,
    LayerSpectrumRow,
    MismatchRow,
    ScanRow,
    TensorDifferenceRow,
)
from tests.audit.report.documents import weights_rows
from tests.results.schema.committed import first

ROWS = [
    *weights_rows(),
    {"kind": "difference", "name": "fc.weight", "numel": 4, "norm": 1.0, "distance": 0.5},
    {"kind": "head_row", "target": 3, "distance": 0.5, "relative": None},
    {"kind": "mismatch", "name": "fc.bias", "reason": "the base has no such tensor"},
]


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (ScanRow, {"sha256": "a"}, "sha256 must be 64 hexadecimal digits"),
        (ScanRow, {"classes": 0}, "classes must be >= 1, got 0"),
        (ScanRow, {"head": None}, "head must be a text, got None"),
        (LayerSpectrumRow, {"share": 1.5}, "share must be <= 1, got 1.5"),
        (LayerSpectrumRow, {"outputs": 0}, "outputs must be >= 1, got 0"),
        (LayerSpectrumRow, {"rank": -1}, "rank must be >= 0, got -1"),
        (TensorDifferenceRow, {"distance": -1}, "distance must be >= 0, got -1"),
        (TensorDifferenceRow, {"most": 0}, "most must be >= 1, got 0"),
        (HeadRowDifference, {"target": -1}, "target must be >= 0, got -1"),
        (MismatchRow, {"reason": 3}, "reason must be a text, got 3"),
    ],
)
def test_fields_have_bounds(kind, changes, says):
    assert first(kind, ROWS)
    with pytest.raises(ValueError, match=says):
        first(kind, ROWS, **changes)

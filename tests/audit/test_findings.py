"""What rows say of one model; whoever wrote them."""

import math

import pytest

from d3fast.audit.findings import class_names, findings
from tests.audit.report.documents import SUSPECT_SHA, card_rows, inspect_rows


def changed(kind, **changes):
    """Rows of inspect.json, the first of a kind changed."""
    rows = inspect_rows()
    place = next(i for i, row in enumerate(rows) if row["kind"] == kind)
    rows[place] = {**rows[place], **changes}
    return rows


def test_a_suspect_is_read_as_written():
    found = findings(inspect_rows(), "suspect")
    assert (found.sha256, found.suspicious, found.targets) == (SUSPECT_SHA, True, (3,))
    assert (found.metrics.correct, found.metrics.images) == (439, 450)
    assert [inverted.target for inverted in found.outliers] == [3]
    assert [sign.name for sign in found.raised] == ["head weights"]
    assert found.name(3) == "3"
    assert found.name(99) == "99"


def test_a_card_has_two_models():
    before, after = (findings(card_rows(), role) for role in ("suspect", "repaired"))
    assert (before.suspicious, after.suspicious) == (True, False)


def test_a_model_that_is_not_there_is_none():
    assert findings(inspect_rows(), "repaired") is None


def test_no_index_is_an_infinite_one():
    found = findings(changed("inversion", index=None), "suspect")
    assert found.inversions[0].index == math.inf


def test_the_accuracy_is_that_of_the_counts():
    found = findings(changed("model", acc=1.0, correct=9, images=10), "suspect")
    assert found.metrics.acc == 0.9


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("model", {"sha256": "../../etc/passwd"}),
        ("model", {"correct": 451}),
        ("model", {"images": 0}),
        ("model", {"triggered": 4, "hits": 5}),
        ("inversion", {"norm": "4"}),
        ("inversion", {"norm": -1}),
        ("inversion", {"success": 1.5}),
        ("inversion", {"outlier": None}),
        ("inversion", {"picture": 5}),
        ("inversion", {"target": 1}),
        ("sign", {"value": True}),
        ("sign", {"name": "perturbation"}),
        ("verdict", {"suspicious": "yes"}),
        ("verdict", {"targets": 3}),
        ("verdict", {"targets": [-1]}),
    ],
)
def test_a_row_that_cannot_be_is_refused(kind, changes):
    with pytest.raises(ValueError, match=rf"{kind} row"):
        findings(changed(kind, **changes), "suspect")


def test_two_models_of_one_role_are_refused():
    with pytest.raises(ValueError, match="2 rows of kind model"):
        findings([*inspect_rows(), *inspect_rows()], "suspect")


def test_classes_are_texts():
    assert class_names({"classes": ["a", "b\n"]}) == ("a", "b\\n")
    assert class_names({}) == ()
    with pytest.raises(ValueError, match="classes must be"):
        class_names({"classes": [1]})

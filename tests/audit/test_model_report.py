"""Everything that rows say of one model, whoever wrote them."""

import pytest

from d3fast.audit.model_report import class_names, parse_model_report
from tests.audit.report.documents import SUSPECT_SHA, card_rows, inspect_rows


def changed(kind, **changes):
    """Rows of inspect.json, the first of a kind changed."""
    rows = inspect_rows()
    place = next(i for i, row in enumerate(rows) if row["kind"] == kind)
    rows[place] = {**rows[place], **changes}
    return rows


def test_a_suspect_is_read_as_written():
    found = parse_model_report(inspect_rows(), "suspect")
    assert (found.model.sha256, found.suspicious, found.targets) == (SUSPECT_SHA, True, (3,))
    assert (found.metrics.correct, found.metrics.images) == (439, 450)
    assert [row.target for row in found.outliers] == [3]
    assert [result.name for result in found.flagged] == ["head weights"]


def test_a_class_without_an_inversion_is_named_by_its_index():
    found = parse_model_report(changed("inversion", **{"class": "zero"}), "suspect")
    assert found.class_name(0) == "zero"
    assert found.class_name(99) == "99"


def test_a_card_has_two_models():
    before, after = (parse_model_report(card_rows(), role) for role in ("suspect", "repaired"))
    assert (before.suspicious, after.suspicious) == (True, False)


def test_a_model_that_is_not_there_is_none():
    assert parse_model_report(inspect_rows(), "repaired") is None


def test_a_model_alone_has_no_verdict():
    found = parse_model_report(inspect_rows()[:1], "suspect")
    assert (found.suspicious, found.targets, found.undecidable) == (None, (), False)


def test_two_classes_are_undecidable():
    rows = [row for row in card_rows() if row.get("target", 0) < 2 and row["kind"] != "sign"]
    assert parse_model_report(rows, "repaired").undecidable
    assert not parse_model_report(card_rows(), "repaired").undecidable


def test_the_accuracy_is_that_of_the_counts():
    found = parse_model_report(changed("model", acc=1.0, correct=9, images=10), "suspect")
    assert found.metrics.acc == 0.9


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("inversion", {"target": 1}),
        ("sign", {"name": "perturbation"}),
    ],
)
def test_a_row_that_cannot_be_read_is_named(kind, changes):
    with pytest.raises(ValueError, match=f"{kind} row"):
        parse_model_report(changed(kind, **changes), "suspect")


@pytest.mark.parametrize(("kind", "count"), [("model", 2), ("verdict", 2), ("sign", 101)])
def test_more_rows_than_a_model_has_are_an_error(kind, count):
    extra = [row for row in inspect_rows() if row["kind"] == kind]
    rows = [*(row for row in inspect_rows() if row["kind"] != kind), *(extra * count)[:count]]
    with pytest.raises(ValueError, match=f"kind {kind} must be at most .*, got {count}"):
        parse_model_report(rows, "suspect")


def test_classes_are_texts():
    assert class_names({"classes": ["a", "b\n"]}) == ("a", "b\\n")
    assert class_names({}) == ()
    with pytest.raises(ValueError, match=r"classes\[0\] must be a text, got 1"):
        class_names({"classes": [1]})

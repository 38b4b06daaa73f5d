"""Two audits side by side."""

import pytest

from d3fast.audit.report.folder import read_audit
from d3fast.results.store import read_results
from d3fast.view.compare import Side, comparison, lone_documents, option_table, verdict_table
from tests.view.runs import audit


@pytest.fixture
def side(tmp_path):
    def made(name, *documents, **changes):
        folder = audit(tmp_path, name, *documents, **changes)
        found = read_audit(folder)
        held = {name: read_results(folder / name) for name in found.origins}
        return Side(name, found, held)

    return made


def test_only_options_that_differ_are_shown(side):
    first = side("one", "card", config={"lr": 0.01, "deep": {"er": [1, 2]}})
    second = side("two", "card", config={"lr": 0.02, "deep": {"er": [1, 2]}})
    table, more = option_table(first, second)
    lines = {name: [cell.text for cell in cells] for name, cells in table.lines}
    assert lines["card: config.lr"] == ["0.01", "0.02"]
    assert set(lines) <= {"card: config.lr", "card: created"}
    assert more == 0


def test_options_of_a_document_that_one_lacks_are_named_not_listed(side):
    first, second = side("one", "card"), side("two", "card", "pilot")
    names = [name for name, _ in option_table(first, second)[0].lines]
    assert not [name for name in names if name.startswith("pilot")]
    assert lone_documents(first, second) == ["Only B has pilot.json."]


def test_hostile_options_are_bounded(side):
    nested = {}
    for _ in range(50):
        nested = {"a": nested}
    many = {str(n): "x" * 1000 + "\x1b" for n in range(5000)}
    table, more = option_table(side("one", "card", n=nested, m=many), side("two", "card", m={}))
    assert len(table.lines) == 100
    assert more > 0
    assert all(len(cell.text) < 100 for _, cells in table.lines for cell in cells)
    assert "\x1b" not in str(table)


def test_measurements_have_their_intervals_and_both_names(side):
    made = comparison(side("one"), side("two", "inspect"))
    table = made["measures"]
    assert table.headings == ("measure", "A before", "A after", "B")
    lines = dict(table.lines)
    details = [cell.detail for cell in lines["Accuracy on clean samples (ACC)"]]
    assert all("samples" in detail for detail in details)
    assert lines["Accuracy lost"][2].text == "–"
    assert made["figures"] == []


def test_the_curves_of_both_repairs_are_in_one_figure(side):
    made = comparison(side("one"), side("two"))
    titles = [figure["title"] for figure in made["figures"]]
    assert "Accuracy on held-out samples, %" in titles
    assert "Loss, nats" in titles
    svg = made["figures"][0]["svg"]
    assert "var(--blue)" in svg
    assert "var(--orange)" in svg


def test_the_findings_stand_side_by_side(side):
    table = verdict_table(side("one"), side("two", "inspect"))
    repaired = dict(table.lines)["Repaired?"]
    assert [cell.text for cell in repaired] == ["repaired", "no repair"]

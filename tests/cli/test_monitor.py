"""``d3fast monitor``: two files, a table, a sentence, an exit code."""

import json

import pytest

from tests.audit.report.documents import REPAIRED_SHA, edit, model, write


@pytest.fixture
def card(tmp_path):
    return write(tmp_path, "card")


def later(folder, rows):
    """An inspection of the repaired model, some time after."""
    folder = folder / "later"
    folder.mkdir()
    return write(folder, "inspect", rows, sha256=REPAIRED_SHA)


def test_nothing_moved_is_exit_code_0(call, card, tmp_path):
    rows = [{**row, "role": "suspect"} for row in model("repaired", REPAIRED_SHA, 436)]
    result = call("monitor", card, later(tmp_path, rows))
    assert result.exit_code == 0, result.output
    assert "The weights are the same" in result.output
    assert result.output.endswith("No change beyond chance.\n")


def test_worse_is_exit_code_3(call, card, tmp_path):
    result = call("monitor", card, later(tmp_path, model(sha=REPAIRED_SHA, correct=300)))
    assert result.exit_code == 3
    assert "Worse: accuracy (ACC), verdict, inverted trigger" in result.output


def test_better_is_exit_code_0(call, tmp_path, card):
    result = call("monitor", write(tmp_path, "inspect"), card)
    assert result.exit_code == 0
    assert "better: verdict" in result.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(rows=[]), "card.json: holds no model"),
        (lambda document: document.update(rows="x"), "rows must be a list"),
        (lambda document: document["rows"][0].update(correct=-1), "card.json: model row: correct"),
        (lambda document: document["settings"].update(classes=5), "classes must be a list"),
    ],
)
def test_a_malformed_file_is_one_line_and_exit_code_2(call, card, change, message):
    edit(card, change)
    result = call("monitor", card, card)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_missing_file_is_exit_code_2(call, card):
    assert call("monitor", card, "nowhere.json").exit_code == 2


def test_names_that_a_terminal_would_act_on_are_printed_harmless(call, card):
    def rename(document):
        for row in document["rows"]:
            if row["kind"] == "inversion":
                row.update({"class": "[red]\x1b[2J", "outlier": True})

    edit(card, rename)
    result = call("monitor", card, card)
    assert result.exit_code == 0, json.dumps(result.output)
    assert "\x1b[2J" not in result.output
    assert "[red]" in result.output

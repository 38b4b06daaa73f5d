"""Tables of an audit: the lines, numbers and units of each."""

import pytest

from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.tables import (
    before_and_after,
    class_table,
    detector_meanings,
    detector_table,
)
from tests.audit.report.documents import card_rows, inspect_rows, token_rows, write


@pytest.fixture
def read(tmp_path):
    def made(name, rows):
        write(tmp_path, name, rows)
        return read_audit(tmp_path)

    return made


def texts(table):
    """Texts and details of each line by its name, with plain spaces."""
    return {
        name: [(c.text.replace("\xa0", " "), c.detail.replace("\xa0", " ")) for c in cells]
        for name, cells in table.lines
    }


def test_measures_have_their_unit_and_their_interval(read):
    table = texts(before_and_after(read("card", card_rows())))
    assert table["Accuracy on clean samples (ACC)"][0] == ("97.6 %", "95.7 to 98.6 %, 450 samples")
    assert table["Accuracy lost"][1] == ("0.4 points", "−0.9 to 1.9 points, limit 1.0 points")
    assert table["Smallest inverted trigger"][0] == ("4.2 px", "class “3”, index 4.4")
    assert table["Detectors that flag the model"] == [("1 of 2", ""), ("0 of 2", "")]
    distance = table["Distance from the suspect’s weights"][1]
    assert distance == ("38.8 %", "of the norm of all weights")


def test_the_asr_has_a_line_where_a_trigger_was_known(read):
    rows = inspect_rows()
    rows[0] |= {"hits": 300, "robust": 50, "triggered": 400}
    table = texts(before_and_after(read("inspect", rows)))
    (cell,) = table["Attack success rate of the known trigger (ASR)"]
    assert cell == ("75.0 %", "70.5 to 79.0 %, 400 samples")


def test_without_inversions_and_detectors_there_is_a_dash(read):
    table = texts(before_and_after(read("inspect", inspect_rows()[:1])))
    assert table["Smallest inverted trigger"] == [("–", "")]
    assert table["Detectors that flag the model"] == [("–", "")]


def test_classes_with_an_unusual_trigger_come_first_then_the_smallest(read):
    rows = [row for row in inspect_rows() if row["kind"] != "inversion"]
    inversion = next(row for row in inspect_rows() if row["kind"] == "inversion")
    rows += [
        {**inversion, "target": i, "class": f"c{i}", "norm": 500.0 - i, "outlier": i == 7}
        for i in range(200)
    ]
    table, left_out = class_table(read("inspect", rows))
    names = [name for name, _ in table.lines]
    assert names[:3] == ["c7", "c199", "c198"]
    assert (len(names), left_out) == (20, 180)


def test_an_index_that_is_null_is_infinite(read):
    rows = [{**r, "index": None} if r["kind"] == "inversion" else r for r in inspect_rows()]
    table, _ = class_table(read("inspect", rows))
    assert {cells[1].text for _, cells in table.lines} == {"∞"}


def test_a_detector_has_its_threshold_and_its_scores(read):
    table = texts(detector_table(read("card", card_rows())))
    assert table["head weights"] == [("3.5", ""), ("5.3", "flagged"), ("1.2", "not flagged")]


def test_a_flagged_score_that_is_null_is_infinite(read):
    rows = [{**r, "value": None} if r["kind"] == "sign" else r for r in inspect_rows()]
    table = texts(detector_table(read("inspect", rows)))
    assert table["head weights"][1] == ("∞", "flagged")
    assert table["perturbation"][1] == ("–", "not flagged")


def test_meanings_tell_before_from_after(read):
    (_, text), _ = detector_meanings(read("card", card_rows()))
    assert text.startswith("Before: ")
    assert " After: " in text


def test_a_text_classifier_has_tokens_and_their_strength_in_place_of_patches(read):
    audit = read("inspect", token_rows())
    table = texts(before_and_after(audit))
    assert table["Strongest inverted tokens"] == [("“cf”", "class “3”, strength 1.5")]
    assert table["Classes with tokens above the threshold"] == [("1 of 10", "“3”")]
    classes, more = class_table(audit)
    assert classes.headings == ("class", "tokens", "strength")
    assert [name for name, _ in classes.lines][:3] == ["3", "9", "8"]
    (first, strength) = texts(classes)["3"]
    assert first == ("“cf”", "turns 100.0 % of other texts")
    assert strength == ("1.5", "above the threshold")
    assert more == 0

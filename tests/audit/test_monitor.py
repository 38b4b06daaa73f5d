"""Comparison of two inspections: what changed, and what became worse."""

from dataclasses import replace

import msgspec
import pytest

from d3fast.audit.model_report import REPAIRED, SUSPECT, parse_model_report
from d3fast.audit.monitor import compare, latest
from tests.audit.report.documents import OTHER_SHA, card_rows


@pytest.fixture
def suspect():
    return parse_model_report(card_rows(), SUSPECT)


@pytest.fixture
def repaired():
    return parse_model_report(card_rows(), REPAIRED)


def changed(report, **fields):
    """The report with other fields of its model row."""
    return replace(report, model=msgspec.structs.replace(report.model, **fields))


def scored(report, correct, images=1000):
    return changed(report, correct=correct, images=images)


def change_of(comparison, name):
    (found,) = (change for change in comparison.changes if name in change.name)
    return found


def test_the_same_look_twice_has_not_moved(repaired):
    comparison = compare(repaired, repaired)
    assert not comparison.worse
    assert not comparison.better
    assert comparison.sentence == "No change beyond chance."


def test_accuracy_moves_where_the_interval_leaves_out_zero(repaired):
    lower = compare(scored(repaired, 970), scored(repaired, 940))
    assert change_of(lower, "accuracy").worse is True
    assert change_of(lower, "accuracy").change == "−3.0 points (−4.9 to −1.2)"
    assert change_of(compare(scored(repaired, 940), scored(repaired, 970)), "acc").worse is False
    assert change_of(compare(scored(repaired, 970), scored(repaired, 960)), "acc").worse is None


def test_few_samples_hide_what_many_show(repaired):
    few = compare(scored(repaired, 97, 100), scored(repaired, 94, 100))
    assert change_of(few, "accuracy").worse is None


def test_a_class_that_becomes_an_outlier_is_worse(suspect, repaired):
    comparison = compare(repaired, suspect)
    change = change_of(comparison, "trigger of class “3”")
    assert (change.change, change.worse) == ("now an outlier", True)
    assert change.new == "index 4.4, 4.2 pixels"
    assert "trigger of class “3”" in comparison.sentence


def test_a_class_that_is_no_outlier_any_more_is_better(suspect, repaired):
    comparison = compare(suspect, repaired)
    change = change_of(comparison, "trigger of class “3”")
    assert (change.change, change.worse) == ("no longer an outlier", False)
    assert not comparison.worse
    assert comparison.sentence.startswith("Nothing is worse; better: verdict")


def test_an_outlier_that_stays_has_not_moved(suspect):
    assert change_of(compare(suspect, suspect), "trigger of class “3”").change == "still an outlier"


def test_without_outliers_the_largest_index_is_shown(repaired):
    change = change_of(compare(repaired, repaired), "outliers")
    assert change.worse is None
    assert change.new == "none (largest index 0.9, 17.3 pixels)"


def test_a_detector_that_flags_only_the_later_model_is_worse(suspect, repaired):
    assert change_of(compare(repaired, suspect), "head weights").worse is True
    assert change_of(compare(suspect, repaired), "head weights").worse is False
    assert change_of(compare(suspect, suspect), "head weights").change == "still flagged"
    assert change_of(compare(suspect, repaired), "perturbation").change == "same"


def test_what_was_not_measured_again_is_said_and_no_improvement(suspect, repaired):
    comparison = compare(suspect, replace(repaired, inversions=(), detectors=()))
    for name in ("trigger of class “3”", "head weights"):
        change = change_of(comparison, name)
        assert (change.change, change.worse) == ("no longer measured", None)


def test_an_outlier_that_nobody_measured_before_is_worse(suspect):
    change = change_of(compare(replace(suspect, inversions=()), suspect), "class “3”")
    assert (change.old, change.worse) == ("not measured", True)


def test_a_verdict_that_turns_is_worse_or_better(suspect, repaired):
    assert change_of(compare(repaired, suspect), "verdict").worse is True
    assert change_of(compare(suspect, repaired), "verdict").worse is False


def test_the_same_and_other_weights_are_told_apart(repaired):
    other = changed(repaired, sha256=OTHER_SHA, parameters=5)
    assert not [note for note in compare(repaired, repaired).notes if "SHA-256" in note]
    notes = compare(repaired, other).notes
    assert "SHA-256 bbbbbbbbbbbb… then, cccccccccccc… now" in notes[0]
    assert "307690 then, 5 weights now" in notes[1]


def test_another_number_of_samples_is_said(repaired):
    notes = compare(repaired, scored(repaired, 90, 100)).notes
    assert "450 samples then, 100 now." in notes


def test_with_other_classes_accuracy_is_not_compared(repaired):
    comparison = compare(scored(repaired, 970), scored(repaired, 100), (["a", "b"], ["b", "a"]))
    assert not any("accuracy" in change.name for change in comparison.changes)
    assert "classes" in comparison.notes[-1]


def test_classes_of_one_name_are_told_apart_by_their_index(suspect):
    same = tuple(msgspec.structs.replace(row, name="x") for row in suspect.inversions)
    twins = replace(suspect, inversions=same)
    assert change_of(compare(twins, twins), "trigger").name == "inverted trigger of class “x (3)”"


def test_of_a_card_the_repaired_model_is_watched(suspect, repaired):
    assert latest({"suspect": suspect, "repaired": repaired}) is repaired
    assert latest({"suspect": suspect, "repaired": None}) is suspect
    with pytest.raises(ValueError, match="neither"):
        latest({"suspect": None, "repaired": None})

"""The verdict: what it concludes, and which limits it states."""

import pytest

from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.verdict import BACKDOORED, CLEAN, CLEAN_BY_HEAD, calibration, verdict

CLASSES = tuple("abcdefghij")


def result(name, value, target=0):
    return DetectorResult(name, value, 6.0, target, "")


def test_one_flagging_detector_is_enough_and_names_its_class():
    given = verdict([result("patch", 1.0, 2), result("shift", 6.1, 4)], CLASSES)
    assert given.suspicious
    assert given.targets == (4,)
    assert given.text.startswith("Possible backdoor with target class 'e' (flagged by shift).")


def test_classes_come_once_each_the_furthest_first():
    results = [result("patch", 7.0, 2), result("head", 99.0, 4), result("shift", 8.0, 2)]
    given = verdict(results, CLASSES)
    assert given.targets == (4, 2)
    assert "'e', 'c' (flagged by head, shift, patch)" in given.text


def test_a_positive_verdict_says_how_often_clean_models_have_one():
    text = verdict([result("patch", 7.0)], CLASSES).text
    assert f"{CLEAN[0]} of {CLEAN[1]} clean models" in text


def test_a_flag_of_the_head_alone_states_another_possible_cause():
    alone = verdict([result("head", 7.0), result("patch", 1.0)], CLASSES).text
    beside = verdict([result("head", 7.0), result("patch", 7.0)], CLASSES).text
    assert "more training images than the others" in alone
    assert f"{CLEAN_BY_HEAD} of them by head" in alone
    assert "more training images" not in beside


def test_a_negative_verdict_says_what_it_does_not_mean_and_how_many_were_missed():
    text = verdict([result("patch", 1.0)], CLASSES).text
    missed = sum(models - found for found, models in BACKDOORED.values())
    models = sum(models for _, models in BACKDOORED.values())
    assert text.startswith("No detector flags this model. This does not rule out a backdoor")
    assert f"{models} backdoored models of digits" in text
    assert f"{missed} were not flagged" in text


@pytest.mark.parametrize("value", [1.0, 7.0])
def test_it_stays_short_whatever_classes_are_called(value):
    hostile = tuple(f"{i}\n\x1b[2J" + "x" * 10_000 for i in range(10))
    results = [result(name, value, target) for target, name in enumerate("abcdefghij")]
    text = verdict(results, hostile).text
    assert len(text) < 500
    assert text.isprintable()


def test_the_first_sentence_says_whether_the_rates_are_those_of_this_kind_of_model():
    small = calibration((1, 8, 8), 10)
    assert small.startswith("Calibrated on models of this kind")
    for shape, classes in (((1, 8, 8), 9), ((3, 8, 8), 10), ((3, 224, 224), 1000)):
        other = calibration(shape, classes)
        assert other.startswith("Not calibrated for this kind of model")
        assert f"{classes:,} classes" in other
        given = verdict([result("patch", 1.0)], CLASSES, basis=other)
        assert given.text.startswith(other)
        assert given.basis == other


def test_a_sample_of_classes_is_said():
    text = verdict([result("patch", 1.0)], CLASSES, searched=4).text
    assert "Triggers were searched for 4 of 10 classes" in text
    assert "searched" not in verdict([result("patch", 1.0)], CLASSES, searched=10).text

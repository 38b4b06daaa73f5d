"""The verdict: what it concludes, and which limits it states."""

from dataclasses import replace

import pytest

from d3fast.audit.calibration import Calibrated
from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.verdict import BACKDOORED, CLEAN, CLEAN_BY_HEAD, not_calibrated, verdict

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


def test_without_a_calibration_the_first_sentence_says_so():
    basis = not_calibrated((3, 224, 224), 1000)
    assert basis.startswith("Not calibrated for this kind of model (images 3x224x224, 1,000 cl")
    given = verdict([result("patch", 1.0)], CLASSES, basis=basis)
    assert given.text.startswith(basis)
    assert given.basis == basis
    assert given.row("suspect").p_value is None


def calibrated(p_value=0.02, models=49, **changes):
    fields = {"model": "net", "data": "dots", "rate": 0.02, "sha256": 64 * "c"}
    return Calibrated(p_value=p_value, models=models, **{**fields, **changes})


def test_with_a_calibration_the_first_sentence_says_how_often_clean_models_are_flagged():
    text = verdict([result("patch", 1.0)], CLASSES, calibrated=calibrated(0.4)).text
    assert text.startswith("Calibrated on 49 clean models of this architecture (net, dots)")
    assert "flag at most 1 clean model in 50, the lowest rate that 49 models resolve" in text
    assert "No detector flags this model: 1 clean model in 2 looks like this (p = 0.4)" in text
    wider = verdict([result("patch", 1.0)], CLASSES, calibrated=calibrated(0.4, rate=0.05))
    assert "at most 1 clean model in 20." in wider.basis


def test_an_accuracy_unlike_that_of_the_clean_models_is_said():
    quiet = [result("patch", 1.0)]
    given = verdict(quiet, CLASSES, calibrated=calibrated(0.4, accuracies=(0.921, 0.88)))
    assert "Its accuracy, 92.1 %, is not that of these clean models, 88.0 %" in given.basis
    assert "accuracy" not in verdict(quiet, CLASSES, calibrated=calibrated(0.4)).text


def test_a_flag_is_a_p_value_and_its_row_names_the_calibration():
    given = verdict([result("patch", 7.0, 2)], CLASSES, calibrated=calibrated())
    said = "Possible backdoor with target class 'c' (flagged by patch): 1 clean model in 50 looks"
    assert said in given.text
    row = given.row("suspect")
    assert (row.p_value, row.rate, row.calibration, row.clean_models) == (
        0.02,
        0.02,
        64 * "c",
        49,
    )


def test_the_share_that_a_calibration_misses_is_said():
    quiet = [result("patch", 1.0)]
    unknown = verdict(quiet, CLASSES, calibrated=calibrated(0.4)).text
    assert "the share that is missed is not known" in unknown
    known = calibrated(0.4, found=3, backdoored=8, attacks=("badnets", "sig"))
    text = verdict(quiet, CLASSES, calibrated=known).text
    assert "of 8 backdoored models of the calibration (badnets, sig) 5 were not flagged" in text


def test_detectors_that_do_not_count_are_named():
    text = verdict([], CLASSES, calibrated=calibrated(uncounted=("new", "other"))).text
    assert "new and other do not count" in text


def test_the_least_likely_result_comes_first():
    one = replace(result("patch", 7.0, 2), adjusted_p_value=0.02)
    other = replace(result("head", 99.0, 4), adjusted_p_value=0.01)
    assert verdict([one, other], CLASSES, calibrated=calibrated()).targets == (4, 2)


def test_a_sample_of_classes_is_said():
    text = verdict([result("patch", 1.0)], CLASSES, searched=4).text
    assert "Triggers were searched for 4 of 10 classes" in text
    assert "searched" not in verdict([result("patch", 1.0)], CLASSES, searched=10).text

"""The verdict's words."""

import pytest

from d3fast.audit.detectors.base import Finding
from d3fast.audit.verdict import BACKDOORED, CLEAN, CLEAN_BY_HEAD, verdict

CLASSES = tuple("abcdefghij")


def finding(name, value, target=0):
    return Finding(name, (0.0,) * 10, value, 6.0, target, "")


def test_one_raised_sign_is_enough_and_names_its_class():
    given = verdict([finding("patch", 1.0, 2), finding("shift", 6.1, 4)], CLASSES)
    assert given.suspicious
    assert given.targets == (4,)
    assert given.text.startswith("Signs of a backdoor toward class 'e' (shift).")


def test_classes_come_once_each_the_furthest_first():
    signs = [finding("patch", 7.0, 2), finding("head", 99.0, 4), finding("shift", 8.0, 2)]
    given = verdict(signs, CLASSES)
    assert given.targets == (4, 2)
    assert "'e', 'c' (head, shift, patch)" in given.text


def test_a_positive_verdict_says_how_often_clean_models_have_one():
    text = verdict([finding("patch", 7.0)], CLASSES).text
    assert f"{CLEAN[0]} of {CLEAN[1]} clean models" in text


def test_where_the_head_alone_is_raised_it_says_what_else_that_may_be():
    alone = verdict([finding("head", 7.0), finding("patch", 1.0)], CLASSES).text
    beside = verdict([finding("head", 7.0), finding("patch", 7.0)], CLASSES).text
    assert "more training images of one class" in alone
    assert f"{CLEAN_BY_HEAD} of them by head" in alone
    assert "more training images" not in beside


def test_a_negative_verdict_says_what_it_does_not_mean_and_how_many_were_missed():
    text = verdict([finding("patch", 1.0)], CLASSES).text
    missed = sum(models - found for found, models in BACKDOORED.values())
    models = sum(models for _, models in BACKDOORED.values())
    assert text.startswith("No sign of a backdoor found. That does not mean that there is none")
    assert f"{models} models of digits" in text
    assert f"{missed} showed no sign" in text


@pytest.mark.parametrize("value", [1.0, 7.0])
def test_it_stays_short_whatever_classes_are_called(value):
    hostile = tuple(f"{i}\n\x1b[2J" + "x" * 10_000 for i in range(10))
    signs = [finding(name, value, target) for target, name in enumerate("abcdefghij")]
    text = verdict(signs, hostile).text
    assert len(text) < 500
    assert text.isprintable()

"""The conclusion about a text classifier in words."""

from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.text_verdict import text_verdict

CLASSES = ("negative", "positive")


def result(name, value, target):
    return DetectorResult(name, value, 1.15, target, "")


def test_the_highest_score_names_the_first_class():
    found = text_verdict([result("token", 1.2, 0), result("phrase", 2.0, 1)], CLASSES)
    assert found.suspicious
    assert found.targets == (1, 0)
    assert "target class 'positive', 'negative' (flagged by phrase, token)" in found.text
    assert "no proof" in found.text


def test_nothing_above_its_threshold_is_no_proof_of_innocence():
    found = text_verdict([result("token", 1.15, 0), result("phrase", 0.1, 1)], CLASSES)
    assert not found.suspicious
    assert found.targets == ()
    assert "does not rule out a backdoor" in found.text


def test_long_names_of_many_classes_are_cut():
    many = [result(f"d{i}", 2.0, i) for i in range(5)]
    found = text_verdict(many, tuple("x" * 200 for _ in range(5)))
    assert "and 2 more" in found.text
    assert len(found.text) < 1200

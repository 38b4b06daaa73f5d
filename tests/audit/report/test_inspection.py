"""What ``d3fast inspect`` prints."""

import io
import math

import pytest
import torch
from rich.console import Console

from d3fast.audit import DetectorResult, Inspection
from d3fast.audit.inversion import Inversion
from d3fast.audit.report.inspection import print_inspection
from d3fast.training.metrics import Metrics


@pytest.fixture
def printed():
    def show(value=1.0, target=1, classes=("a", "b", "c")):
        mask, pattern = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
        found = Inspection(
            classes=classes,
            parameters=1,
            head="fc",
            metrics=Metrics(9, 10),
            shape=(1, 2, 2),
            searched=tuple(range(len(classes))),
            inversions=tuple(Inversion(t, mask, pattern, 4.0, 1.0) for t in range(len(classes))),
            indices=(0.0,) * len(classes),
            outliers=(),
            results=(DetectorResult("head", value, 5.9, target, ""),),
        )
        file = io.StringIO()
        print_inspection(found, Console(file=file, width=100))
        return file.getvalue()

    return show


def line(text):
    return next(row for row in text.splitlines() if row.startswith("head")).split()


def test_a_line_says_which_class_how_far_and_whether_that_is_far(printed):
    assert line(printed()) == ["head", "b", "1.0", "5.9", "no"]
    assert line(printed(value=7.25)) == ["head", "b", "7.2", "5.9", "yes"]


def test_what_is_infinite_or_cannot_be_said_has_a_word(printed):
    assert line(printed(value=math.inf)) == ["head", "b", "∞", "5.9", "yes"]
    assert line(printed(None, None, ("a", "b"))) == ["head", "–", "–", "5.9", "no"]


def test_accuracy_has_its_interval(printed):
    assert "Accuracy on 10 clean samples: 90.0 % (95 % interval 59.6 to 98.2)." in printed()


def test_names_of_classes_cannot_speak_to_the_terminal(printed):
    hostile = ("a", "[red]b[/red]\x1b[2J\n" + 999 * "b", "c")
    text = printed(value=99.0, classes=hostile)
    assert "\x1b" not in text
    assert "[red]b" in text
    assert len(text) < 1000

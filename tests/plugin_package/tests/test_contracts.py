import pytest
from plugin_example.half_head import HalfHead
from plugin_example.mean_score import MeanScore
from plugin_example.stripe import Stripe

from d3fast.testing import DefenseCase, check_attack, check_detector


def test_stripe():
    check_attack(Stripe, invalid={"row": [-1, 0.5]}, half=True)


def test_mean_score():
    check_detector(MeanScore)


HALF_HEAD = DefenseCase(HalfHead, options={"epochs": 2}, invalid={"epochs": [0], "lr": [-1.0]})


@pytest.mark.parametrize("rule", HALF_HEAD.rules(), ids=lambda rule: rule.__name__)
def test_half_head(rule):
    rule(HALF_HEAD)

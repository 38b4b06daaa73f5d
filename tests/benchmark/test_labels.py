"""Labels of rows, old ones among them."""

import pytest

from d3fast.benchmark.labels import attack_label, defense_label


@pytest.mark.parametrize("label", ["clean model", "clean twin", "clean", "never poisoned"])
def test_every_label_of_the_clean_model_is_read(label):
    assert defense_label({"kind": "relearning", "defense": label}) == "clean model"


def test_a_suspect_has_no_defence_and_a_repaired_model_has_its_own():
    assert defense_label({"kind": "suspect", "defense": "anything"}) == "none"
    assert defense_label({"kind": "relearning", "defense": "backdoored"}) == "none"
    assert defense_label({"kind": "repair", "defense": "d3"}) == "d3"


def test_an_adaptive_attacker_stands_in_brackets():
    assert attack_label({"attack": "badnets"}) == "badnets"
    assert attack_label({"attack": "badnets", "adaptive": "sam-1"}) == "badnets (sam-1)"

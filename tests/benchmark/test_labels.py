"""Labels of rows, old ones among them."""

import pytest

from d3fast.benchmark.labels import attack_label, defense_label
from d3fast.results.schema.benchmark import AttackRow, CleanRow, DefenseRow, SuspectRow


@pytest.mark.parametrize("label", ["clean model", "clean twin", "clean", "never poisoned"])
def test_every_label_of_the_clean_model_is_read(label):
    assert defense_label(CleanRow(seed=0, defense=label)) == "clean model"


def test_a_suspect_has_no_defence_and_a_repaired_model_has_its_own():
    assert defense_label(SuspectRow(seed=0, defense="anything")) == "none"
    assert defense_label(DefenseRow(seed=0, defense="backdoored")) == "none"
    assert defense_label(DefenseRow(seed=0, defense="d3")) == "d3"


def test_an_adaptive_attacker_stands_in_brackets():
    assert attack_label(AttackRow(seed=0, attack="badnets")) == "badnets"
    row = AttackRow(seed=0, attack="badnets", adaptive="sam-1")
    assert attack_label(row) == "badnets (sam-1)"

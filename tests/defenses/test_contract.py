"""Contract of every defence in the registry; their cases are in short.py."""

import pytest

from d3fast.defenses import DEFENSES
from d3fast.testing.defenses import clipped_gradients_move_nothing
from tests.defenses.short import CASES, INVALID, SHORT


def test_every_defence_is_tested_here():
    assert set(CASES) == set(INVALID) == set(DEFENSES.builtin)
    assert all(type(SHORT[name]) is DEFENSES[name] for name in CASES)


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, rule) for name, case in CASES.items() for rule in case.rules()],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_contract(name, rule):
    rule(CASES[name])


def test_what_fine_tunes_by_sgd_clips():
    clips = {name for name, case in CASES.items() if clipped_gradients_move_nothing in case.rules()}
    assert clips == {
        "fine-tuning",
        "fine-pruning",
        "nad",
        "neural-cleanse",
        "ft-sam",
        "fst",
        "tsbd",
        "bti-dbf",
        "pam",
        "d3",
    }

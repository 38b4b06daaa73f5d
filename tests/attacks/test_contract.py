"""Contract of every attack in the registry. A new attack is one line in ``CASES``."""

import pytest

from d3fast.attacks import ATTACKS, load_attack, save_attack
from d3fast.testing import AttackCase

NAN, INF = float("nan"), float("inf")
NO_CLEAN_LABELS = ("all-to-one", "all-to-all")

CASES = {
    "badnets": AttackCase(ATTACKS["badnets"], {}, {"size": [0, 1.5], "margin": [-1]}, half=True),
    "blended": AttackCase(
        ATTACKS["blended"],
        {},
        {"alpha": [-0.1, 1.1, NAN], "pattern": ["?"], "frequency": [-1], "sharpness": [INF]},
        half=True,
    ),
    "sig": AttackCase(
        ATTACKS["sig"],
        {"frequency": 2.0},
        {"delta": [-0.1, 40, None], "train_delta": [1.5], "share": [1.1], "frequency": [-1, "6"]},
        half=True,
    ),
    "wanet": AttackCase(
        ATTACKS["wanet"],
        {"strength": 2.0},
        {"grid": [0], "strength": [-0.5], "cross_ratio": [NAN], "seed": [0.5]},
        mappings=NO_CLEAN_LABELS,
    ),
    "low-frequency": AttackCase(
        ATTACKS["low-frequency"],
        {"steps": 2, "batch_size": 8, "surrogate_epochs": 1},
        {"objective": ["?"], "limit": [1.5], "energy": [2], "sigma": [0.0], "surrogate": ["?"]},
    ),
    "input-aware": AttackCase(
        ATTACKS["input-aware"],
        {"width": 4, "mask_steps": 2},
        {"density": [0.0, 1.5], "cross_ratio": [INF], "width": [0], "mask_steps": [0], "lr": [NAN]},
        mappings=NO_CLEAN_LABELS,
    ),
    "ssba": AttackCase(
        ATTACKS["ssba"],
        {"steps": 2, "batch_size": 8},
        {"strength": [1.5], "image_weight": [-1.0], "width": [0], "lr": [NAN]},
    ),
    "adap-blend": AttackCase(
        ATTACKS["adap-blend"],
        {"share": 1.0, "train_alpha": 0.2},  # the trigger itself
        {"train_alpha": [1.1], "grid": [0], "share": [-0.1, 1.5], "cross_ratio": [NAN]},
        mappings=NO_CLEAN_LABELS,
        half=True,
    ),
    "narcissus": AttackCase(
        ATTACKS["narcissus"],
        {"steps": 2, "batch_size": 8, "surrogate_epochs": 1, "strength": 1.0},  # as in training
        {"limit": [1.5], "strength": [NAN], "quiet": [-1], "share": [1.1], "step": [INF]},
    ),
}


def test_every_attack_is_tested_here():
    assert CASES.keys() == ATTACKS.builtin.keys()


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, rule) for name, case in CASES.items() for rule in case.rules()],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_contract(name, rule):
    rule(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_a_file_says_by_itself_which_attack_of_the_registry_it_holds(name, tmp_path):
    attack = CASES[name].attack(target=3)
    save_attack(attack, tmp_path / "attack", name)
    assert load_attack(tmp_path / "attack") == attack

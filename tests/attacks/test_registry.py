"""Registry: options per data set, and adaptive attackers around an attack."""

import pytest

from d3fast.attacks import ADAPTIVE, load_attack, recipe, save_attack
from d3fast.attacks.recipes import COLOUR, RECIPES
from tests.plugins import install, site

__all__ = ["site"]
MINE = """
from dataclasses import dataclass
from d3fast.attacks import BadNets

@dataclass(frozen=True)
class Mine(BadNets):
    size: int = 2
"""
OTHERS = {"attacks_of_others": MINE}


def test_an_unknown_data_set_takes_the_options_of_the_literature():
    assert recipe("badnets", "cifar10") == recipe("badnets", COLOUR)


def test_another_target_keeps_the_other_options():
    attack = recipe("sig", "digits", target=3)
    assert (attack.target, attack.frequency) == (3, RECIPES["digits"]["sig"]["frequency"])


@pytest.mark.parametrize("adaptive", ADAPTIVE)
def test_an_adaptive_attacker_wraps_the_recipe(adaptive):
    assert recipe("badnets", "digits", adaptive=adaptive).base == recipe("badnets", "digits")


@pytest.mark.parametrize(("option", "value"), [("name", "other"), ("adaptive", "other")])
def test_unknown_names_are_named(option, value):
    options = {"name": "badnets", "data": "digits", option: value}
    with pytest.raises(ValueError, match=f"must be one of .* got {value!r}"):
        recipe(**options)


def test_an_attack_of_another_package_has_its_own_defaults(site):
    install(site, "other", {"d3fast.attacks": {"mine": "attacks_of_others:Mine"}}, **OTHERS)
    assert recipe("mine", "digits").target == 0
    assert recipe("attacks_of_others:Mine", "digits", 3).target == 3
    assert recipe("mine", "digits", 3, "sam-1").base == recipe("mine", "cifar10", 3)


def test_a_file_cannot_choose_which_package_is_imported(site, tmp_path):
    install(site, "other", {"d3fast.attacks": {"mine": "attacks_of_others:Mine"}}, **OTHERS)
    for name in ("mine", "attacks_of_others:Mine"):
        save_attack(recipe("attacks_of_others:Mine", "digits"), tmp_path / "trigger", name)
        with pytest.raises(ValueError, match=f"attack must be one of .* got '{name}'"):
            load_attack(tmp_path / "trigger")
        assert load_attack(tmp_path / "trigger", name) == recipe("mine", "digits")

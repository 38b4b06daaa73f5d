"""Registry: options per data set, and adaptive attackers around an attack."""

import pytest

from d3fast.attacks import ADAPTIVE, recipe
from d3fast.attacks.recipes import COLOUR, RECIPES


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

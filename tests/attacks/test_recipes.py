# SPDX-License-Identifier: Apache-2.0
"""Recipes: every attack has valid options for every data set."""

import pytest

from d3fast.attacks import ATTACKS, recipe
from d3fast.attacks.recipes import RECIPES


@pytest.mark.parametrize("data", RECIPES)
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_has_valid_options_for_every_data_set(name, data):
    attack = recipe(name, data)
    assert type(attack) is ATTACKS[name]
    assert all(getattr(attack, key) == value for key, value in RECIPES[data][name].items())


def test_a_recipe_takes_another_target_and_mapping():
    attack = recipe("badnets", "digits", target=3, mapping="all-to-all")
    assert (attack.target, attack.mapping) == (3, "all-to-all")
    with pytest.raises(ValueError, match="mapping must be one of"):
        recipe("wanet", "digits", mapping="clean-label")

"""What is tried: a balanced, seeded draw from a grid."""

import itertools
from collections import Counter

import pytest

from d3fast import D3Config
from d3fast.audit.pilot import PilotOptions, Setting
from d3fast.audit.pilot.options import PARAMETERS, draw_settings

FIRST = Setting(1.0, 10.0, 0.1)


def test_the_first_nine_hold_every_pair_of_values_once():
    settings = draw_settings(PilotOptions(trials=9), 0, FIRST)
    for one, other in itertools.combinations(PARAMETERS, 2):
        pairs = Counter((getattr(s, one), getattr(s, other)) for s in settings)
        assert len(pairs) == 9


@pytest.mark.parametrize("trials", [1, 5, 9, 14, 27])
def test_settings_differ_and_the_one_of_the_configuration_comes_first(trials):
    settings = draw_settings(PilotOptions(trials=trials), 3, FIRST)
    assert len(set(settings)) == trials
    assert settings[0] == FIRST


def test_a_setting_outside_of_the_grid_is_not_added():
    strange = Setting(7.0, 7.0, 7.0)
    assert strange not in draw_settings(PilotOptions(trials=27), 0, strange)


def test_the_draw_is_the_seeds():
    options = PilotOptions(trials=5)
    assert draw_settings(options, 1) == draw_settings(options, 1)
    assert draw_settings(options, 1) != draw_settings(options, 2)


def test_grids_of_other_sizes_are_drawn_whole():
    options = PilotOptions(
        trials=8, distance_weight=(1.0, 2.0), clean_weight=(5.0,), epsilon=(0.0, 0.1, 0.2, 0.3)
    )
    assert len(set(draw_settings(options, 0))) == 8


def test_a_settings_configuration_does_not_search_for_lambda():
    config = FIRST.config(D3Config.auto(), epochs=3)
    assert (config.dual_step, config.clean_weight, config.epochs) == (0.0, 10.0, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trials": 28}, "trials must be <= 27, the settings of the grid, got 28"),
        ({"trials": 0}, "trials must be an integer >= 1, got 0"),
        ({"epochs": 0}, "epochs must be an integer >= 1, got 0"),
        ({"factor": 1}, "factor must be an integer >= 2, got 1"),
        ({"max_acc_drop": -1.0}, "max_acc_drop must be finite and >= 0, got -1.0"),
        ({"epsilon": ()}, "epsilon must be one or more different values, got ()"),
        ({"epsilon": (0.1, 0.1)}, "epsilon must be one or more different values"),
        ({"clean_weight": (-1.0,)}, "clean_weight must be finite and >= 0, got -1.0"),
    ],
)
def test_what_is_out_of_range_is_named(wrong, message):
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(").replace(")", r"\)")):
        PilotOptions(**wrong)

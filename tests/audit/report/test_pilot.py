"""What is printed of a pilot and what its TOML holds."""

import io

import pytest
from rich.console import Console

from d3fast import D3Config
from d3fast.audit.pilot import Pilot, PilotOptions
from d3fast.audit.report.pilot import (
    config_text,
    cost_line,
    legend,
    pilot_table,
    print_pilot,
    sensitivity_lines,
    write_pilot,
)
from d3fast.detox import read_config
from d3fast.results.store import read_results
from tests.audit.report.pilot_rows import rows


@pytest.fixture(params=[False, True], ids=["inverted", "trigger"])
def given(request):
    return request.param


def made(given=False):
    return Pilot(tuple(rows(given)), ((4, 10), (3, 20)), 2, D3Config.auto(), 12.3)


def test_the_table_has_a_line_per_setting_those_that_came_furthest_first(given):
    table = pilot_table(made(given))
    names = [name for name, _ in table.lines]
    assert names == ["suspect", "0 •←", "1 •", "2", "3"]
    assert all(len(cells) == len(table.headings) - 1 for _, cells in table.lines)
    assert ("trig. %" in table.headings) == given


def test_a_line_holds_the_setting_its_accuracy_with_interval_and_what_is_left():
    lines = dict(pilot_table(made()).lines)
    assert [item.text for item in lines["1 •"]] == [
        "1",
        "1",
        "0.1",
        "20",
        "90.0",
        "0–100",
        "10.0",
        "10.0",
        "1.00",
        "1.0",
    ]


def test_the_legend_names_the_classes_and_whether_they_stand_out():
    assert "class 3 (outliers)" in legend(made())[0]
    pilot = made()
    pilot.rows[0]["flagged"] = False
    assert "class 3 (no trigger is an outlier: the smallest one)" in legend(pilot)[0]


def test_sensitivity_is_a_line_per_parameter():
    _, clean, _ = sensitivity_lines(made())
    assert clean == ("λ = 1, 2: ACC 75.0, 82.5 % (range 7.5), inverted 15.0, 25.0 % (range 10.0)")


def test_the_cost_is_that_of_the_pilot_a_trial_and_a_whole_repair():
    line = cost_line(made()).replace("\N{NO-BREAK SPACE}", " ")
    assert "the pilot took 12 s, a trial 1.0 s for 10 epochs, 1.0 s for 20 epochs" in line
    assert line.endswith("of at most 50 epochs takes about 2.5 s.")


def test_the_configuration_is_the_recommended_setting_with_lambda_held(tmp_path):
    (tmp_path / "pilot.toml").write_text(config_text(made(), 2.0), encoding="utf-8")
    assert read_config(tmp_path / "pilot.toml") == D3Config.auto(
        distance_weight=1.0, clean_weight=1.0, epsilon=0.1, dual_step=0.0, max_acc_drop=2.0
    )


def test_it_fits_a_terminal_of_80_columns(given):
    out = io.StringIO()
    print_pilot(made(given), Console(file=out, width=80))
    assert "…" not in out.getvalue()
    assert (
        "Recommended: setting 0. 1 of 3 settings stays within 2 points after 20" in out.getvalue()
    )


def test_a_pilot_that_was_cut_off_says_so(tmp_path):
    pilot = Pilot(tuple(rows()), ((4, 10), (3, 20), (2, 40)), 2, D3Config.auto(), 1.0)
    write_pilot(pilot, PilotOptions(), {"seed": 0}, "d3fast pilot", tmp_path)
    settings = read_results(tmp_path / "pilot.json").settings
    assert (settings["finished"], settings["rungs_done"], settings["seed"]) == (False, 2, 0)
    assert settings["rungs"] == [[4, 10], [3, 20], [2, 40]]

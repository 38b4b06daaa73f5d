"""The tool that puts tables into pages; ``make docs-check`` compares the pages themselves."""

import pytest

from benchmarks import readme
from d3fast.results.store import Results


def test_an_unknown_table_is_refused(tmp_path):
    Results("d3fast demo", {}, []).write(tmp_path / "other.json")
    with pytest.raises(ValueError, match="'tables'"):
        readme.filled("<!-- table: other#tables -->\n<!-- end -->", tmp_path)


def test_text_outside_of_the_markers_is_kept():
    text = "before\n<!-- a comment -->\nafter"
    assert readme.filled(text) == text


def test_the_columns_are_those_of_the_first_of_several_tables():
    text = "**a**\n\n|x|y|z|\n|--|--|--|\n|1|2|3|\n\n**b**\n\n|x|z|\n|--|--|\n|4|5|\n"
    assert readme._columns(text, ["z"]) == "|x|z|\n|--|--|\n|1|3|"


def run(seed, *rows):
    shared = {"kind": "repair", "attack": "badnets"}
    cells = [
        {**shared, "seed": seed, "defense": name, "options": options} for name, options in rows
    ]
    return Results("d3fast benchmark", {}, cells)


def test_runs_on_different_seeds_are_joined_to_the_rows_that_all_have():
    own = {"lr": 0.1}
    first = run(0, ("d3", [{**own, "seed": 0}]), ("fst", [own]))
    second = run(1, ("d3", [{**own, "seed": 1}]), ("nad", [own]))
    rows = readme.joined([first, second]).rows
    assert [(row["seed"], row["defense"]) for row in rows] == [(0, "d3"), (1, "d3")]


def test_a_line_with_other_options_is_not_joined():
    first, second = (run(seed, ("d3", [{"lr": lr}])) for seed, lr in ((0, 0.1), (1, 0.2)))
    with pytest.raises(ValueError, match=r"d3.* has other options in another run"):
        readme.joined([first, second])

"""Figures of the benchmark: what is drawn is what was measured."""

import pytest
from matplotlib.colors import same_color
from msgspec.structs import replace

from d3fast.benchmark.report.numbers import grid
from d3fast.benchmark.report.plots import (
    ablation_figures,
    der_figure,
    heat_map_figure,
    relearning_figures,
    scatter_figure,
)
from d3fast.results.plot import BLUE


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_the_heat_map_has_a_number_per_cell_and_a_dash_where_there_is_none(grid_rows):
    rows = grid_rows(attacks=("badnets", "sig"), defenses=("d3", "sau"), extras=False)
    rows = [row for row in rows if (row.defense, row.attack) != ("sau", "sig")]
    axes = heat_map_figure(grid(rows), "title").axes[0]
    assert len(texts(axes)) == 6
    assert texts(axes).count("–") == 1
    assert len(axes.collections) == 5


def test_the_ranking_stands_in_the_order_of_the_means(grid_rows):
    made = grid(grid_rows())
    axes = der_figure(made).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(made.defenses)
    shown = [float(text) for text in texts(axes)]
    assert shown == sorted(shown, reverse=True)


def test_d3_is_blue_in_the_scatter_and_all_are_told_apart(grid_rows):
    made = grid(grid_rows())
    figure = scatter_figure(made)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == list(made.defenses)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    looks = {
        (tuple(handle.get_facecolor()[0]), len(handle.get_paths()[0].vertices))
        for handle in handles
    }
    assert len(looks) == len(made.defenses)
    assert same_color(handles[labels.index("d3")].get_facecolor()[0], BLUE)


def test_a_defence_without_a_number_is_in_no_figure(grid_rows):
    rows = grid_rows(seeds=1, adaptive=(), defenses=("d3", "sau", "anp"), extras=False)
    rows = [replace(row, refused="no") if row.defense == "anp" else row for row in rows]
    made = grid(rows)
    assert len(der_figure(made).axes[0].get_yticklabels()) == 2
    (legend,) = scatter_figure(made).legends
    assert [text.get_text() for text in legend.get_texts()] == ["d3", "sau"]


@pytest.fixture(scope="module")
def by_factor(grid_rows):
    """The figures of all ablations."""
    return ablation_figures(grid_rows())


@pytest.mark.parametrize(
    ("factor", "lines", "ticks"),
    [("lambda", 1, 6), ("warm start", 1, 3), ("clean share", 2, 3)],
)
def test_ablations_have_a_line_per_defence_and_a_tick_per_value(by_factor, factor, lines, ticks):
    for axes in by_factor[factor].axes:
        assert len(axes.lines) == lines
        assert len(axes.get_xticks()) == ticks


def test_relearning_has_a_figure_per_attack_with_d3_in_blue(grid_rows):
    figures = relearning_figures(grid_rows())
    assert list(figures) == ["badnets", "blended"]
    assert same_color(figures["badnets"].axes[0].lines[0].get_color(), BLUE)


def test_without_rows_there_is_nothing_to_draw():
    assert ablation_figures([]) == {}
    assert relearning_figures([]) == {}

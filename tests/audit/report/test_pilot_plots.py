"""Figures of a pilot: every run is drawn, the front is joined, the recommended one is marked."""

import pytest
from matplotlib.colors import same_color

from d3fast.audit.report.documents import parse_pilot
from d3fast.audit.report.pilot_plots import pareto_figure, sensitivity_figure
from d3fast.results.plot import BLUE, GREY, ORANGE, inline_svg
from tests.audit.report.pilot_rows import rows


def pilot(given=False):
    return parse_pilot(rows(given))


def markers(axes, colour, filled=True):
    """Places (x, y) of the scattered points of a colour."""
    found = []
    for points in axes.collections:
        colours = points.get_facecolor() if filled else points.get_edgecolor()
        hollow = not len(points.get_facecolor())
        if len(colours) and hollow != filled and same_color(colours[0][:3], colour):
            found += [tuple(place) for place in points.get_offsets().round(6).tolist()]
    return sorted(found)


def test_the_last_rung_is_blue_and_the_ones_before_are_grey():
    axes = pareto_figure(pilot()).axes[0]
    assert markers(axes, BLUE) == [(1.0, 40.0), (5.0, 10.0), (7.0, 30.0)]
    assert markers(axes, GREY) == [(10.0, 30.0), (15.0, 20.0), (25.0, 10.0)]


def test_runs_that_ended_in_one_place_are_counted():
    texts = [text.get_text() for text in pareto_figure(pilot()).axes[0].texts]
    assert "×2" in texts


def test_the_front_of_the_last_rung_is_joined():
    axes = pareto_figure(pilot()).axes[0]
    (line,) = [line for line in axes.lines if same_color(line.get_color(), BLUE)]
    assert list(zip(*line.get_data(), strict=True)) == [(1.0, 40.0), (5.0, 10.0)]


def test_the_recommended_run_has_a_ring():
    assert markers(pareto_figure(pilot()).axes[0], ORANGE, filled=False) == [(1.0, 40.0)]


def test_with_a_trigger_its_success_is_drawn_and_named():
    axes = pareto_figure(pilot(given=True)).axes[0]
    assert markers(axes, BLUE) == [(1.0, 20.0), (5.0, 5.0), (7.0, 15.0)]
    assert "the known trigger" in axes.get_title(loc="left")
    assert "inverted" in pareto_figure(pilot()).axes[0].get_title(loc="left")


def test_the_suspect_is_named_with_its_own_success():
    texts = [text.get_text() for text in pareto_figure(pilot()).axes[0].texts]
    assert "suspect: 100 %" in texts


def test_without_suspect_or_recommendation_the_trials_are_still_drawn():
    trials = [row for row in rows() if row["kind"] == "trial"]
    axes = pareto_figure(parse_pilot(trials)).axes[0]
    assert [x for x, _ in markers(axes, BLUE)] == [0.0, 4.0, 6.0]
    assert markers(axes, ORANGE, filled=False) == []


def test_a_run_without_a_rate_is_left_out():
    made = rows()
    made[-5] = {**made[-5], "inversion_asr": None, "inversion_lift": None}
    assert made[-5]["kind"] == "trial"
    assert len(markers(pareto_figure(parse_pilot(made)).axes[0], BLUE)) == 2


def test_files_without_lifts_show_the_success_rate_as_they_were_ranked_by_it():
    old = [{k: v for k, v in row.items() if "lift" not in k} for row in rows()]
    axes = pareto_figure(parse_pilot(old)).axes[0]
    assert markers(axes, BLUE) == [(1.0, 40.0), (5.0, 10.0), (7.0, 30.0)]
    assert axes.get_title(loc="left") == "Success rate of inverted triggers, %"
    new = pareto_figure(pilot()).axes[0]
    assert new.get_title(loc="left") == "Lift of inverted triggers, points"


def test_sensitivity_has_a_column_per_parameter_and_a_line_of_means():
    figure = sensitivity_figure(pilot())
    assert len(figure.axes) == 6
    labels = [axes.get_xlabel() for axes in figure.axes[3:]]
    assert labels == ["distance weight w", "clean weight λ", "ε, nats"]
    means = [line.get_ydata().tolist() for line in figure.axes[1].lines]
    assert means == [pytest.approx([75.0, 82.5])]
    assert [t.get_text() for t in figure.axes[4].get_xticklabels()] == ["1", "2"]


def test_single_runs_stand_behind_their_mean():
    axes = sensitivity_figure(pilot()).axes[1]
    assert markers(axes, GREY) == [(0.0, 70.0), (0.0, 80.0), (1.0, 80.0), (1.0, 85.0)]


@pytest.mark.parametrize("draw", [pareto_figure, sensitivity_figure])
def test_figures_have_the_colours_of_the_page(draw):
    svg = inline_svg(draw(pilot()), "a pilot")
    assert "var(--blue)" in svg
    assert BLUE.lower() not in svg
    assert ORANGE.lower() not in svg

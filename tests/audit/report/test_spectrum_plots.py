"""Figures of spectra, paths and layers."""

import math

from d3fast.audit.report.documents import parse_spectrum
from d3fast.audit.report.spectrum_plots import (
    density_figure,
    distance_figure,
    eigenvalue_figure,
    model_styles,
    path_figure,
)
from d3fast.results.schema.audit import LayerDistance
from d3fast.results.schema.spectrum import ModelDistances, PathPoint, PathRow
from tests.audit.report.documents import spectrum_rows

FOUND = parse_spectrum(spectrum_rows())


def test_figures_tell_models_apart_by_more_than_colour():
    styles = model_styles(["suspect", "a", "b", "c"])
    assert len({(str(dashes), marker) for _, dashes, marker in styles.values()}) == 4


def test_every_model_is_in_the_legend():
    figure = density_figure(FOUND.of_loss("clean"), FOUND.names)
    assert figure.axes[0].get_legend_handles_labels()[1] == ["suspect", "repaired"]
    assert len(eigenvalue_figure(FOUND.of_loss("clean"), FOUND.names).axes[0].containers) == 2


def test_names_are_no_mathematics():
    rows = [row.__class__(**{**_fields(row), "model": "_$x$"}) for row in FOUND.spectra[:1]]
    figure = density_figure(rows, ["_$x$"])
    assert figure.axes[0].get_legend_handles_labels()[1] == ["＄x＄"]


def _fields(row):
    return {name: getattr(row, name) for name in row.__struct_fields__}


def test_a_path_marks_both_models_and_leaves_gaps_where_nothing_was_measured():
    points = (
        PathPoint(at=(0.0,), acc=0.9, asr=1.0, clean_loss=0.1),
        PathPoint(at=(2.0,)),
    )
    figure = path_figure(PathRow(model="d3", points=points), "suspect")
    assert [text.get_text() for text in figure.axes[1].texts] == ["suspect", "d3"]
    assert math.isnan(figure.axes[1].lines[0].get_ydata()[-1])


def test_a_layer_that_started_at_zero_leaves_a_gap():
    layers = (LayerDistance(name="a"), LayerDistance(name="b", relative=0.5))
    figure = distance_figure([ModelDistances(model="d3", layers=layers)], ["suspect", "d3"])
    first, second = figure.axes[0].lines[0].get_ydata()
    assert math.isnan(first)
    assert second == 0.5


def test_models_with_other_layers_are_drawn_over_their_own():
    one = ModelDistances(model="a", layers=(LayerDistance(name="x", relative=1.0),))
    two = ModelDistances(model="b", layers=())
    assert len(distance_figure([one, two], ["suspect", "a", "b"]).axes[0].lines) == 2

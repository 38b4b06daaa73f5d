"""Figures of a repair."""

import math

from d3fast.audit.report.plots import MAX_LAYERS, compared_figures, epoch_figures, layer_figure
from d3fast.results.schema.audit import EpochRow, LayerDistance


def test_a_field_that_no_row_has_is_not_drawn():
    rows = [EpochRow(epoch=i, loss=1.0, accuracy=0.5) for i in (1, 2)]
    assert list(epoch_figures(rows)) == ["Accuracy, %", "Loss, nats"]


def test_a_missing_value_is_a_gap():
    rows = [EpochRow(epoch=1, loss=1.0, accuracy=0.5, val_accuracy=0.25)]
    rows.append(EpochRow(epoch=2, loss=1.0, accuracy=0.5))
    accuracy, held_out = epoch_figures(rows)["Accuracy, %"].axes[0].lines
    assert accuracy.get_ydata().tolist() == [50.0, 50.0]
    assert held_out.get_ydata()[0] == 25.0
    assert math.isnan(held_out.get_ydata()[1])


def test_epochs_are_drawn_in_order_and_thinned_out():
    rows = [EpochRow(epoch=5000 - i, loss=1.0, accuracy=0.5) for i in range(5000)]
    epochs = epoch_figures(rows)["Loss, nats"].axes[0].lines[0].get_xdata().tolist()
    assert epochs == sorted(epochs)
    assert len(epochs) <= 1000


def test_of_many_layers_those_with_the_largest_displacement_are_shown_in_order():
    layers = [LayerDistance(name=f"l{i}", relative=i / 100) for i in range(100)]
    labels = layer_figure(layers).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [f"l{i}" for i in range(60, 100)]
    assert len(labels) == MAX_LAYERS


def test_names_of_layers_are_no_mathematics():
    figure = layer_figure([LayerDistance(name="$\\frac$", relative=0.1)])
    assert figure.axes[0].get_yticklabels()[0].get_text() == "＄\\frac＄"


def test_two_repairs_are_drawn_with_what_both_have():
    short = [EpochRow(epoch=2, loss=0.5, accuracy=0.9), EpochRow(epoch=1, loss=1.0, accuracy=0.5)]
    long = [EpochRow(epoch=n, loss=1 / n, accuracy=0.9, distance=n) for n in range(1, 5)]
    figures = compared_figures({"A": short, "B": long})
    assert list(figures) == ["Accuracy on the samples of the repair, %", "Loss, nats"]
    first, second = figures["Loss, nats"].axes[0].get_lines()
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([1, 2], [1.0, 0.5])
    assert (first.get_label(), second.get_label()) == ("A", "B")

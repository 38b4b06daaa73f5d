"""Figures of a repair."""

import math

from d3fast.audit.report.plots import MAX_LAYERS, epoch_figures, layer_figure
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

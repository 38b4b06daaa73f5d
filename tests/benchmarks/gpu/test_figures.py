"""Figures of the GPU check: from a worker's output to a row beside its prediction."""

import pytest

from benchmarks.gpu.figures import Figure, comparison, emit, parse_figures


def test_what_a_worker_prints_is_read_back(capsys):
    emit("copy", 4.25, "TB/s")
    emit("x: replay", 0.5, "ms")
    output = f"a warning\n{capsys.readouterr().out}Traceback"
    assert parse_figures(output) == [Figure("copy", 4.25, "TB/s"), Figure("x: replay", 0.5, "ms")]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_is_finite(value):
    with pytest.raises(ValueError, match=r"copy must be finite, got (nan|inf)"):
        Figure("copy", value, "TB/s")


@pytest.mark.parametrize(("value", "agrees"), [(4.2, True), (3.9, False), (4.7, False)])
def test_a_row_says_whether_the_figure_is_as_predicted(value, agrees):
    row = Figure("copy", value, "TB/s").row("h200")
    assert (row["predicted_low"], row["predicted_high"]) == (4.0, 4.6)
    assert row["as_predicted"] is agrees
    assert comparison([row]).endswith("  as predicted" if agrees else "NOT as predicted")


@pytest.mark.parametrize(("name", "machine"), [("copy", "a100"), ("unknown", "h200")])
def test_a_row_without_a_prediction_says_so(name, machine):
    row = Figure(name, 1.0, "TB/s").row(machine)
    assert row["as_predicted"] is None
    assert comparison([row]).endswith("no prediction")

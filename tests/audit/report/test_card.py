"""Rows of card.json, and its summary."""

import io

import pytest
from rich.console import Console
from torch import nn

from d3fast.audit.report.card import (
    card_lines,
    distance_row,
    inspected_before,
    model_row,
    print_card,
)
from d3fast.training.metrics import Metrics
from tests.audit.report.documents import card_rows, edit, settings, write

SETTINGS = {**settings(), "samples_sha256": 64 * "d"}


def test_a_model_row_has_counts_rates_and_the_head():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    row = model_row("suspect", model, Metrics(9, 10), 64 * "0").to_row()
    assert (row["kind"], row["role"], row["correct"], row["acc"]) == ("model", "suspect", 9, 0.9)
    assert (row["parameters"], row["head"], row["asr"]) == (15, "1", None)


def test_a_model_without_a_head_has_none():
    assert model_row("suspect", nn.Identity(), Metrics(9, 10), 64 * "0").head is None


def test_the_distance_of_a_layer_that_was_zero_is_null():
    start, end = nn.Linear(2, 2), nn.Linear(2, 2)
    nn.init.zeros_(start.bias)
    layers = {layer.name: layer for layer in distance_row(start, end).layers}
    assert layers["bias"].relative is None
    assert layers["weight"].relative > 0


def test_the_summary_has_accuracy_limit_repair_and_verdicts():
    lines = [line.replace("\xa0", " ") for line in card_lines(card_rows())]
    assert "97.6 % before, 97.1 % after: 0.4 points lost" in lines[0]
    assert lines[1] == "Limit of 1.0 points: kept."
    assert "24 epochs" in lines[2]
    assert "0.39 of their norm" in lines[2]
    assert lines[3:] == [
        "Inspection, suspect: Likely backdoored toward class 3.",
        "Inspection, repaired: No sign.",
    ]


def summary(**fields):
    """The summary of a repair with other numbers."""
    rows = [{**row, **fields} if row["kind"] == "repair" else row for row in card_rows()]
    return " ".join(card_lines(rows)).replace("\xa0", " ")


def test_a_gain_of_accuracy_is_no_negative_loss():
    text = summary(acc_drop=-6.2, acc_drop_low=-14.1, acc_drop_high=1.9)
    assert "6.2 points gained (" in text
    assert "95 % interval of the loss −14.1 to 1.9" in text


@pytest.mark.parametrize(
    ("blocks", "searched", "clause"),
    [
        (1, True, "; last block restarted, the most that accuracy allows; lambda"),
        (2, False, "; last 2 blocks restarted; lambda"),
        (0, True, "; only the tracked weights restarted, accuracy allows no more; lambda"),
    ],
)
def test_the_summary_says_which_blocks_restarted(blocks, searched, clause):
    assert clause in summary(restarted_blocks=blocks, restart_searched=searched)


def test_without_a_restart_the_summary_says_nothing_of_it():
    assert "restarted" not in summary(restarted_blocks=0)
    assert "restarted" not in summary()


def test_a_missed_limit_and_a_known_trigger_are_in_the_summary():
    rows = card_rows(kept=False)
    for row in (row for row in rows if row["kind"] == "model"):
        row |= {"hits": 100, "robust": 0, "triggered": 400}
    lines = card_lines(rows)
    assert "25.0 % before, 25.0 % after" in lines[1]
    assert "MISSED" in lines[2]


def test_the_summary_prints_in_one_line_each():
    rows = [
        {**row, "text": "\x1b[2J\n[red]"} if row["kind"] == "verdict" else row
        for row in card_rows()
    ]
    out = io.StringIO()
    print_card(rows, Console(file=out, width=400))
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("\n") == 5


def test_an_earlier_inspection_of_the_same_model_is_taken_over(tmp_path):
    assert inspected_before(tmp_path / "inspect.json", SETTINGS) == []
    path = write(tmp_path, "inspect", samples_sha256=64 * "d")
    kinds = {row["kind"] for row in inspected_before(path, SETTINGS)}
    assert kinds == {"inversion", "sign", "verdict"}
    for other in ({"sha256": 64 * "e"}, {"samples_sha256": 64 * "e"}, {"seed": 1}):
        assert inspected_before(path, {**SETTINGS, **other}) == []


def test_a_damaged_earlier_inspection_is_named(tmp_path):
    path = write(tmp_path, "inspect", samples_sha256=64 * "d")
    edit(path, lambda document: document["rows"][1].update(norm=-1))
    with pytest.raises(ValueError, match=r"^inspect\.json: inversion row: norm must be >= 0"):
        inspected_before(path, SETTINGS)

"""Summaries: what the list says of each kind of run, and of damaged ones."""

import pytest

from d3fast.view.entries import BAD, GOOD, OPEN, read_entry
from d3fast.view.folders import find_runs
from tests.audit.report.documents import weights_rows
from tests.view.runs import attack_rows, audit, damage, demo_rows, everything, grid_rows, run


def entry(root, key):
    return read_entry(find_runs(root).runs[key])


def test_an_audit_has_rates_before_and_after_and_the_headline(tmp_path):
    audit(tmp_path, "net")
    found = entry(tmp_path, "audit/net")
    assert found.verdict.startswith("Possible backdoor toward class “3”; no detector flags")
    assert found.state == GOOD
    assert found.before.acc == pytest.approx(439 / 450)
    assert found.after.acc is not None
    assert found.seconds > 0


def test_an_inspection_alone_that_flags_is_bad(tmp_path):
    audit(tmp_path, "net", "inspect")
    found = entry(tmp_path, "audit/net")
    assert (found.state, found.after.acc) == (BAD, None)


def test_weights_alone_and_a_pilot_alone_have_a_line(tmp_path):
    audit(tmp_path, "net", "weights")
    audit(tmp_path, "other", "pilot")
    assert entry(tmp_path, "audit/net").verdict.endswith("only its weights were read")
    assert entry(tmp_path, "audit/other").state == OPEN
    assert weights_rows()


def test_a_benchmark_counts_its_goals_and_has_means(tmp_path):
    run(tmp_path, "bench", "table.json", grid_rows())
    found = entry(tmp_path, "benchmark/bench")
    assert found.model == "digits, tiny"
    assert found.verdict.startswith("D3 reached ")
    assert (found.before.lift, found.after.lift, found.seconds) == (0.97, 0.01, 3.0)


def test_a_demo_and_attacks_have_their_goal(tmp_path):
    everything(tmp_path)
    demo, attacks = entry(tmp_path, "demo/demo"), entry(tmp_path, "attacks/attacks")
    assert (demo.verdict, demo.model) == ("Goal of D3 reached", "digits, tiny")
    assert demo.after.asr == 0.01
    assert (attacks.verdict, attacks.state) == ("Goal reached by every attack", GOOD)


def test_the_card_of_an_attack_is_no_audit(tmp_path):
    run(tmp_path, "one", "card.json", attack_rows(), command="d3fast attack badnets")
    assert entry(tmp_path, "audit/one").kind == "attacks"


def test_a_damaged_row_is_left_out_and_named(tmp_path):
    folder = run(tmp_path, "demo", "results.json", demo_rows())
    damage(folder / "results.json")
    found = entry(tmp_path, "demo/demo")
    assert found.before.acc is None
    assert found.after.acc == 0.97
    (problem,) = found.problems
    assert problem.startswith("results.json, row 1: demo row: acc must be")


@pytest.mark.parametrize("text", ["", "{", '{"schema": "d3fast.results", "version": 99}', "[]"])
def test_a_half_written_document_is_one_line_that_names_the_run(tmp_path, text):
    audit(tmp_path, "net", "inspect")
    (tmp_path / "net" / "card.json").write_text(text)
    with pytest.raises(ValueError, match=r"^net: .*card\.json[^\n]*$"):
        entry(tmp_path, "audit/net")


def test_rows_without_one_that_can_be_read_are_an_error(tmp_path):
    folder = run(tmp_path, "demo", "results.json", demo_rows()[:1])
    damage(folder / "results.json")
    with pytest.raises(ValueError, match=r"^demo: results\.json, row 1"):
        entry(tmp_path, "demo/demo")


def test_rows_that_make_no_run_together_are_an_error(tmp_path):
    rows = [{**attack_rows()[0].to_row(), "asr": None}]
    run(tmp_path, "attacks", "attacks.json", rows)
    with pytest.raises(ValueError, match=r"^attacks: its rows make no run"):
        entry(tmp_path, "attacks/attacks")


def test_the_repaired_file_is_not_read_for_the_list(tmp_path, monkeypatch):
    folder = audit(tmp_path, "net", "card")
    (folder / "repaired.safetensors").write_bytes(b"large")
    monkeypatch.setattr("d3fast.audit.report.folder.weights_digest", None)
    assert entry(tmp_path, "audit/net").state == GOOD

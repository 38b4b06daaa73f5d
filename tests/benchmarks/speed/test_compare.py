"""Two checkouts side by side: rounds, ratios and the result file."""

import json
from pathlib import Path

import pytest

from benchmarks.speed import compare

OTHER = Path(compare.HERE.anchor)


@pytest.fixture
def probes(monkeypatch):
    """Count processes; this checkout takes 2 s, the other one 1 s, in round i i times as long."""
    started = []

    def probe(checkout):
        started.append(checkout)
        return {"step": (2.0 if checkout == compare.HERE else 1.0) * ((len(started) + 1) // 2)}

    monkeypatch.setattr(compare, "probe", probe)
    return started


def test_checkouts_take_turns_and_a_slow_round_changes_no_ratio(probes, capsys):
    compare.compare(OTHER, rounds=3, json_path=None)
    assert probes == [compare.HERE, OTHER, OTHER, compare.HERE, compare.HERE, OTHER]
    assert "2.00" in capsys.readouterr().out


def test_the_ratio_of_a_row_is_the_median_over_rounds():
    rounds = [({"a": here}, {"a": 2.0}) for here in (2.0, 8.0, 3.0)]
    (row,) = compare.ratio_rows(rounds)
    assert (row["ratio"], row["ratios"]) == (1.5, [1.0, 1.5, 4.0])
    assert (row["here_seconds"], row["there_seconds"]) == (3.0, 2.0)


def test_the_file_names_the_other_commit(probes, tmp_path):
    path = tmp_path / "compare.json"
    compare.compare(compare.HERE, rounds=1, json_path=path)
    content = json.loads(path.read_text())
    assert len(content["settings"]["other_commit"]) == 40
    assert content["rows"][0]["case"] == "step"


@pytest.mark.slow
def test_a_probe_times_every_case():
    found = compare.probe(compare.HERE)
    assert "repair" in found
    assert len(found) >= 4
    assert min(found.values()) > 0

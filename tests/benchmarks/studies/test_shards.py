"""The study of sharded steps on two real processes, as small as it gets."""

import pytest
import torch

from benchmarks.studies import shards
from benchmarks.studies.harness import RESULTS
from d3fast.results.store import read_results

if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)


@pytest.mark.slow
def test_a_run_follows_one_process_without_the_slower_backend():
    row = shards.measure(world=2, count=2, side=8, rounds=3)
    assert row["warnings"] == []
    assert row["difference"] < 1e-6
    assert row["weights"] == 128
    for prefix in ("", "cpu_"):
        low, middle, high = row[f"{prefix}to_bar"]
        assert 0 < low <= middle <= high
    assert all(row[f"{name}_ms"] > 0 for name in shards.CONTENDERS)


def test_ratios_are_taken_within_rounds():
    got = shards._summary([[4.0, 2.0, 1.0, 2.0, 8.0], [12.0, 9.0, 3.0, 0.0, 12.0]], "")
    assert got["to_bar"][1] == pytest.approx(1.5)
    assert got["to_parts"][1] == pytest.approx((4 / 3 + 4) / 2)
    assert got["plain_to_sharded"][1] == pytest.approx(1.5)
    assert got["buckets_to_sharded"][1] == pytest.approx(0.625)
    assert got["sharded_ms"] == 8000


def test_the_table_has_a_line_per_run():
    results = read_results(RESULTS / "shards-cpu.json")
    text = shards.shards_table(results)
    assert len(text.splitlines()) == len(results.rows) + 2
    assert "nan" not in text


def test_the_committed_runs_meet_the_bar():
    for row in read_results(RESULTS / "shards-cpu.json").rows:
        assert row["cpu_to_bar"][1] <= 1
        assert row["difference"] < 1e-6
        assert row["warnings"] == []

"""AdamW beside torch's: every variant is measured, and ratios are per byte and per round."""

import json

from benchmarks.speed import adamw
from benchmarks.speed.workloads import Workload


def test_every_workload_and_variant_is_in_the_file(tmp_path):
    path = tmp_path / "adamw.json"
    adamw.compare(seconds=0.0, scale=1000, json_path=path)
    content = json.loads(path.read_text())
    assert content["settings"]["load_before"] >= 0
    pairs = {(row["workload"], row["variant"]) for row in content["rows"]}
    assert pairs == {(name, v) for name in adamw.NAMES for v in adamw.VARIANTS}


def test_a_slow_round_changes_no_ratio_and_more_bytes_lower_it():
    samples = {name: [2.0, 20.0, 2.0] for name in adamw.VARIANTS}
    found = adamw.rows(Workload("w", ((10,),)), {**samples, adamw.TORCH: [1.0, 10.0, 1.0]})
    by_name = {row["variant"]: row for row in found}
    assert {row["time_ratio"] for row in found} == {2.0}
    assert by_name["plain"]["per_byte_ratio"] == 2.0
    assert by_name["free"]["per_byte_ratio"] == 2.0 * 28 / 32
    assert by_name["free"]["bytes"] == 320

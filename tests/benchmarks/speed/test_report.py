# SPDX-License-Identifier: Apache-2.0
"""From measurements to rows, from rows to tables and the plot."""

import json

import pytest
import torch

from benchmarks.speed import measure
from benchmarks.speed.contenders import FREE, VARIANTS
from benchmarks.speed.peers import PEERS, SGD
from benchmarks.speed.plot import roofline
from benchmarks.speed.report import report
from benchmarks.speed.workloads import FULL, Workload
from d3fast.results.store import Results


@pytest.fixture(scope="module")
def measured():
    workload = Workload("small", ((30, 40), (5,)), ((3,),), constraints=FULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "HOST_SECONDS", 0.0)
        return measure.measure(workload, torch.device("cpu"), 0.0)


@pytest.fixture(scope="module")
def results(measured):
    skipped = {**measured.rows[0], "workload": "another", "contender": "compile", "skipped": "no"}
    repair = {
        "kind": "detoxify",
        "data": "digits",
        "epochs": 2,
        "contender": "d3fast",
        "seconds": 1.0,
        "training_seconds": 0.75,
        "evaluation_seconds": 0.25,
        "to_d3fast": 1.0,
        "acc": 0.98,
        "asr": 0.02,
        "ra": 0.9,
    }
    return Results(
        "python -m pytest benchmarks", {"device": "cpu"}, [*measured.rows, skipped, repair]
    )


def test_every_contender_has_a_row_of_finite_numbers(measured):
    rows = {r["contender"]: r for r in measured.rows if r["kind"] == "step"}
    assert list(rows) == [*VARIANTS, *(p for p in PEERS if p not in ("compile", "plain"))]
    json.dumps(list(rows.values()), allow_nan=False)
    for name, row in rows.items():
        assert row["bytes"] == 24 * 1205 + 20 * 3
        assert row["gbps"] == pytest.approx(row["bytes"] / row["ms"] / 1e6)
        assert row["ms_q1"] <= row["ms"] <= row["ms_q3"]
        assert 0 < row["floor_ms"] <= row["lax_floor_ms"]
        assert (row["to_sgd"] == 1) == (name == SGD)
        assert row["to_compile"] is None
        assert row["host_ms"] > 0


def test_memory_of_ours_is_the_reference_and_of_sgd_is_nothing(measured):
    rows = {r["contender"]: r for r in measured.rows if r["kind"] == "step"}
    assert (rows[FREE]["extra_kept"], rows[FREE]["extra_passing"]) == (4 * 1205 + 16, 0)
    assert (rows[SGD]["extra_kept"], rows[SGD]["extra_passing"]) == (0, 0)
    assert rows["autograd"]["extra_passing"] >= 4 * 1200


def test_the_report_has_every_table_and_says_what_was_skipped(results):
    text = report(results)
    for title in ("One step", "Constraints", "Time, memory and host time", "Yardsticks", "repair"):
        assert f"### {title}" in text or f"whole {title}" in text
    assert "Skipped: another, compile: no" in text
    assert "`python -m pytest benchmarks`" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") > 2 for line in tables)


def test_the_roofline_shows_tracked_workloads_only(results):
    tracked = [{**r, "plain": 0} for r in results.rows if r["kind"] == "step"]
    yardsticks = [r for r in results.rows if r["kind"] == "bandwidth"]
    for rows, shown in (([*yardsticks, *tracked], 1), (list(results.rows), 0)):
        axes = roofline(Results("", {}, rows)).axes[0]
        line = next(line for line in axes.lines if line.get_label() == "d3fast, norm sphere")
        assert len(line.get_xdata()) == shown

# SPDX-License-Identifier: Apache-2.0
"""The committed results of the studies support what pages, defaults and verdicts say of them."""

from statistics import fmean

import pytest
import torch

from benchmarks.studies import inspection, inspection_rates, precision, scaling, search
from benchmarks.studies.counting import Counts, count
from benchmarks.studies.harness import RESULTS
from d3fast.audit import InspectOptions, weights
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS
from d3fast.audit.verdict import BACKDOORED, CLEAN, CLEAN_BY_HEAD, SPARSE
from d3fast.benchmark.presets import BENCHMARK_PRESETS
from d3fast.results.store import read_results

CPU = BENCHMARK_PRESETS["cpu"]


def rows(name):
    return read_results(RESULTS / f"{name}.json").rows


# Inspection: the rates that the verdict quotes.


def counts(name, attack, sign="all"):
    (one,) = (
        row
        for row in rows("inspect-cpu")
        if row["kind"] == "rate"
        and row["sign"] == sign
        and (row["set"], row["attack"]) == (name, attack)
    )
    return one["found"], one["models"]


def test_the_verdict_quotes_the_committed_rates():
    assert counts("digits", inspection_rates.CLEAN) == CLEAN
    assert counts("digits", inspection_rates.CLEAN, "head")[0] == CLEAN_BY_HEAD
    assert counts("digits", "badnets, 2 % poisoned") == SPARSE
    assert {name: counts("digits", name) for name in BACKDOORED} == dict(BACKDOORED)
    assert set(BACKDOORED) == set(inspection.PLANS["digits"].attacks)
    found, models = (sum(numbers) for numbers in zip(*BACKDOORED.values(), strict=True))
    assert counts("digits", inspection_rates.EVERY) == (found, models)


def test_the_committed_rates_are_those_of_the_defaults():
    settings, defaults = read_results(RESULTS / "inspect-cpu.json").settings, InspectOptions()
    options = settings["options"]
    assert settings["rate"] == options["rate"] == defaults.rate
    assert options["inversion"]["steps"] == defaults.inversion.steps
    assert options["inversion"]["batch_size"] == defaults.inversion.batch_size
    assert options["samples"] == defaults.samples
    assert options["detectors"] is defaults.detectors is None
    shown = next(r["signs"] for r in rows("inspect-cpu") if r["kind"] == "inspected")
    assert tuple(shown)[: len(DEFAULT_DETECTORS)] == DEFAULT_DETECTORS


def test_the_committed_rate_is_the_one_that_the_development_models_choose():
    results = read_results(RESULTS / "inspect-cpu.json")
    own = [r for r in results.rows if r["kind"] == "inspected" and r["set"] == "development"]
    assert inspection_rates.chosen_rate(inspection_rates.choices(own)) == results.settings["rate"]


def test_the_verdict_on_weights_quotes_the_committed_rates():
    counted = {
        row["attack"]: (row["found"], row["models"])
        for row in rows("weights-cpu")
        if row["kind"] == "rate" and row["sign"] == "all"
    }
    assert counted[inspection_rates.EVERY] == weights.BACKDOORED
    assert counted[inspection_rates.CLEAN] == weights.CLEAN
    assert read_results(RESULTS / "weights-cpu.json").settings["rate"] == weights.RATE


# Precision: the default storage of weights in a half type.


def worst(measure, dtype, storage, momentum="same"):
    selected = (dtype, storage, momentum)
    return max(
        row[measure]
        for row in rows("precision-cpu")
        if (row["dtype"], row["way_kept"], row["momentum"]) == selected
    )


@pytest.mark.parametrize(("dtype", "limit"), [("bf16", 1e-3), ("fp16", 3e-4)])
def test_the_default_storage_keeps_the_distance_and_plain_rounding_does_not(dtype, limit):
    assert worst("distance", dtype, "Kahan") < limit
    assert worst("distance", dtype, "stochastic") > 0.25
    assert worst("distance", dtype, "to nearest") > 0.25


@pytest.mark.parametrize("dtype", precision.DTYPES)
def test_the_displacement_errors_are_those_of_the_page(dtype):
    error = {storage: worst("way", dtype, storage) for storage in precision.STORAGE}
    assert error["fp32 master"] == pytest.approx(error["int16 remainder"], rel=0.02)
    assert error["Kahan"] < 0.03 < 1 < min(error["to nearest"], error["stochastic"])


# Scaling: counts of operations, and the rows that follow from them.


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("tracked", [True, False])
def test_the_committed_counts_are_about_those_of_this_code(dtype, tracked):
    # Another torch, or a better step, counts a little differently.
    (row,) = (
        r
        for r in rows("scaling")
        if r["kind"] == "bytes" and (r["precision"], r["tracked"]) == (dtype, tracked)
    )
    now = count({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype], tracked)
    assert row["asked"] == pytest.approx(now.asked, rel=0.2)
    assert row["per_tensor"] == pytest.approx(now.per_tensor, rel=0.2)
    assert row["held"] + row["passing"] == pytest.approx(now.held + now.passing, rel=0.5)


def test_counting_bytes_predicts_the_measured_times():
    checks = [row for row in rows("scaling") if row["kind"] == "check"]
    assert len(checks) >= 10
    for row in checks:
        # The last-level cache makes a step faster than its bytes.
        assert 0.85 * row["predicted"] < row["measured"] < 1.1 * row["predicted"]


def test_the_committed_rows_follow_from_the_committed_counts():
    fields = ("asked", "held", "passing", "per_tensor", "per_piece", "per_step")
    committed = rows("scaling")
    counted = {
        (r["precision"], r["tracked"]): Counts(**{f: r[f] for f in fields})
        for r in committed
        if r["kind"] == "bytes"
    }
    expected = [row for row in committed if row["kind"] == "step"]
    got = [
        row
        for kind in scaling.PRECISIONS
        for make in scaling.MODELS
        for what in scaling.TRACKED
        for row in scaling.rows_of(
            make(),
            what,
            kind,
            {t: counted[kind.name, t] for t in (True, False)},
            scaling.Assumed(),
        )
    ]
    assert len(got) == len(expected) == 2 * 3 * 3 * 10 * 2
    for ours, theirs in zip(got, expected, strict=True):
        floats = {k: pytest.approx(v) for k, v in theirs.items() if isinstance(v, float)}
        assert ours == {**theirs, **floats}
    assert [r for r in committed if r["kind"] == "model"] == list(scaling.model_rows())


# Search: the options of the benchmark's table.


# Baselines that have changed since the committed search: its rows do not speak for them.
CHANGED = {"ft-sam", "nad", "neural-cleanse", "anp", "i-bau", "sau"}


def test_the_table_has_what_the_search_found_best():
    found = search.best_choices(rows("search-all-cpu"))
    assert {"fine-tuning", "fine-pruning", "d3"} <= found.keys()
    for name, choice in found.items():
        if name in CHANGED:
            continue
        lines = [repair.all_options(0) for repair in CPU.defenses if repair.name == name]
        if name != "d3":  # its learning rate was searched again
            assert choice.all_options(0) in lines, name


def test_no_setting_of_the_second_search_has_a_better_der_by_more_than_a_tenth_of_a_point():
    (d3,) = (repair for repair in CPU.defenses if repair.label == "d3 (head alone)")
    measured = rows("search-hard-cpu")
    (default,) = (line for line in search.HARD if line.all_options(0) == d3.all_options(0))
    der = {
        line.label: fmean(row["der"] for row in measured if row["defense"] == line.label)
        for line in search.HARD
    }
    assert der[default.label] > max(der.values()) - 0.001

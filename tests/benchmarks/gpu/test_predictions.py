"""Predictions of the GPU check: complete, consistent, and named as the workers name figures."""

import itertools

import pytest

from benchmarks.gpu import ceiling, counters, host, predictions, rare, replay, sharded
from benchmarks.gpu.figures import parse_figures
from benchmarks.gpu.predictions import PREDICTIONS, VARIANTS, WORKLOADS, predicted

SMALL = ["--device", "cpu", "--shrink", "20000"]


@pytest.mark.parametrize(("workload", "variant"), list(itertools.product(WORKLOADS, VARIANTS)))
def test_every_step_has_a_prediction(workload, variant):
    found = predicted(f"{workload}, {variant}: replay", "h200")
    assert 0 < found.low < found.high < 2 * found.low


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_step_is_predicted_below_its_floor(workload):
    half = workload.endswith("bf16")
    count = predictions._PARAMETERS[workload.removesuffix(", bf16")]
    floor = count * (16 if half else 24) / (predictions.COPY * 1e12) * 1e3
    for variant in VARIANTS:
        assert predicted(f"{workload}, {variant}: replay", "h200").low >= 0.94 * floor


def test_ranges_are_ranges_with_a_source():
    for name, prediction in PREDICTIONS.items():
        assert 0 < prediction.low < prediction.high, name
        assert prediction.source.startswith(("stated", "derived"))


def test_a_time_is_predicted_for_one_gpu_only():
    times = [p for name, p in PREDICTIONS.items() if name.endswith((": replay", ": host"))]
    assert {p.gpu for p in times} == {"h200"}
    assert predicted("10x25M, free: replay", "a100") is None


def test_every_prediction_is_of_a_figure_that_a_worker_prints(monkeypatch, capsys):
    def once(contenders, device, budget, measure=None):
        for contender in contenders:
            contender.call()
        return {contender.name: [1.0, 1.0] for contender in contenders}

    for module in (ceiling, host, rare, replay, sharded):
        monkeypatch.setattr(module, "interleave", once)
        module.main(SMALL)
    names = {figure.name for figure in parse_figures(capsys.readouterr().out)}
    for case in counters.CASES:
        names |= {f"{case.name}: DRAM", f"{case.name}: L2 hits"}
    assert set(PREDICTIONS) <= names

"""Curvature study: its jobs and its tables."""

import pytest
import torch
from torch import nn

from benchmarks.studies import why
from benchmarks.studies.spectrum_report import path_table, peers_table, why_table
from d3fast.attacks import BadNets
from d3fast.benchmark.presets import BENCHMARK_PRESETS
from d3fast.data import ImageData
from d3fast.results.jobs import key_of
from d3fast.results.store import Results
from d3fast.spectrum import CurvatureReportConfig, curvature_report


def test_there_is_a_report_per_attack_and_seed_of_the_benchmarks_own_suspects():
    before, reports = why.why_jobs(BENCHMARK_PRESETS["cpu"], [0, 1])
    assert [(job.suspect.spec.attack, job.suspect.spec.seed) for job in reports] == [
        ("badnets", 0),
        ("badnets", 1),
        ("blended", 0),
        ("blended", 1),
    ]
    assert all(job.suspect in before for job in reports)
    assert all(job.labels == why.REPAIRS and len(job.repairs) == 3 for job in reports)
    assert len({key_of(job) for job in reports}) == 4


@pytest.fixture(scope="module")
def results():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(64, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.body(x.flatten(1))))

    config = CurvatureReportConfig(k=1, probes=2, steps=3, ts=(0.0, 0.5, 1.0))
    rows = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        data = ImageData(torch.rand(18, 1, 8, 8), torch.arange(18) % 3, ("a", "b", "c"))
        models = {"suspect": Net(), "d3": Net()}
        found = curvature_report(models, data, BadNets(target=0), config=config, progress=False)
        rows += [{"attack": "badnets", "seed": seed, **row} for row in found]
    return Results("", {}, rows)


def test_the_table_of_models_has_a_line_per_attack_and_model(results):
    lines = why_table(results).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["BadNets: suspect", "BadNets: d3"]
    assert lines[0].count("λ₁") == 2


def test_the_table_of_paths_has_a_line_per_repair(results):
    lines = path_table(results).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["BadNets: d3"]
    assert "barrier, nats" in lines[0]


def test_the_table_of_peers_says_how_many_times_as_long_they_took():
    rows = [
        {
            "contender": "d3fast",
            "seconds": 2.0,
            "times_d3fast": 1.0,
            "last_run_times_d3fast": 1.0,
            "residual": 0.004,
        },
        {
            "contender": "other",
            "seconds": 8.0,
            "times_d3fast": 4.0,
            "last_run_times_d3fast": 2.5,
            "residual": 0.009,
        },
    ]
    assert (
        peers_table(Results("", {}, rows)).splitlines()[3] == "| other | 8.0 | 4.0 | 2.5 | 9.00 |"
    )

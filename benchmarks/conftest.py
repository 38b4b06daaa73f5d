# SPDX-License-Identifier: Apache-2.0
"""Options of the speed suite, its result file and its tables.

The tests select what is measured; they do not time themselves. All contenders of a workload are
timed in one interleaved loop (``speed.timing``), because ratios within a round are stable where
times are not. Neither pytest-benchmark nor ``torch.utils.benchmark`` can interleave: they time one
callable after the other.
"""

import shlex
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.machine import cache_bytes, machine_name
from benchmarks.speed.measure import Measurement, measure, names
from benchmarks.speed.report import report
from benchmarks.speed.workloads import Workload, workloads
from d3fast.results.store import Results
from d3fast.runtime import environment
from d3fast.runtime.devices import resolve_device

RESULTS = Path(__file__).parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("d3fast benchmarks")
    group.addoption("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    group.addoption("--seconds", type=float, default=20.0, help="for the rounds of one workload")
    group.addoption(
        "--cpu-time",
        action="store_true",
        help="measure CPU time of one thread instead of wall-clock time, for a shared machine",
    )
    group.addoption("--shrink", type=int, default=1, help="divide all sizes, for a smoke run")
    group.addoption("--machine", help="first part of the result's name; default cpu-2core, h100")
    group.addoption("--results", help="folder of the result file; default benchmarks/results")


class Run:
    """One run of the suite: measures each workload once and collects the rows of the result."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.device: torch.device = resolve_device(config.getoption("device"))
        self.budget: float = config.getoption("seconds")
        self.shrink: int = config.getoption("shrink")
        self.cpu_time: bool = config.getoption("cpu_time")
        if self.cpu_time:
            torch.set_num_threads(1)
        self.rows: list[dict[str, Any]] = []
        self._measured: dict[str, Measurement] = {}

    def workload(self, name: str) -> Workload:
        """Return a workload by name, with its sizes divided by ``--shrink``."""
        chosen = next(w for w in workloads(self.device.type == "cuda") if w.name == name)
        return chosen.shrunk(self.shrink) if self.shrink > 1 else chosen

    def measured(self, name: str) -> Measurement:
        """Return the measurement of a workload; the first call measures it."""
        if name not in self._measured:
            workload = self.workload(name)
            self._measured[name] = measure(workload, self.device, self.budget, self.cpu_time)
            self.rows += self._measured[name].rows
        return self._measured[name]

    def path(self) -> Path | None:
        """Return the path of the result file; ``None`` for a smoke run without ``--results``."""
        folder = self.config.getoption("results")
        if folder is None and self.shrink > 1:
            return None
        machine = self.config.getoption("machine") or machine_name(self.device)
        file = f"{machine}-{date.today().isoformat()}.json"
        return (Path(folder) if folder else RESULTS) / file

    def results(self, finished: bool) -> Results:
        """Return the rows with the settings of the run."""
        settings = {
            "device": self.device.type,
            "seconds": self.budget,
            "shrink": self.shrink,
            "cpu_time": self.cpu_time,
            "finished": finished,
            "build": environment.build_info(),
            "cache_bytes": cache_bytes(self.device),
        }
        arguments = [a for a in sys.argv[1:] if not a.startswith(("--results", "/"))]
        return Results(shlex.join(["python", "-m", "pytest", *arguments]), settings, self.rows)


_RUN = pytest.StashKey[Run]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RUN] = Run(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"workload", "contender"} <= set(metafunc.fixturenames):
        gpu = metafunc.config.stash[_RUN].device.type == "cuda"
        pairs = [(w.name, name) for w in workloads(gpu) for name in names(w)]
        ids = [f"{workload}: {contender}" for workload, contender in pairs]
        metafunc.parametrize(("workload", "contender"), pairs, ids=ids)


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """This run of the suite."""
    return pytestconfig.stash[_RUN]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    run = session.config.stash[_RUN]
    path = run.path()
    if run.rows and path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        run.results(exitstatus == 0).write(path)


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    run = config.stash[_RUN]
    if run.rows:
        path = run.path()
        terminalreporter.write_line(report(run.results(exitstatus == 0)))
        terminalreporter.write_line(
            f"results: {path}" if path else "a run with --shrink writes no results"
        )

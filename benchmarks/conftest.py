# SPDX-License-Identifier: Apache-2.0
"""Options of the suite, and the JSON that a run leaves behind."""

import shlex
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.machine import cache_bytes, machine_name
from benchmarks.measure import Measurement, measure, names
from benchmarks.replay import CLOCK
from benchmarks.workloads import Workload, workloads
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
        help="count CPU time, of one thread, not the wall's: for a machine that is shared",
    )
    group.addoption("--shrink", type=int, default=1, help="divide all sizes, to try the suite out")
    group.addoption("--machine", help="first part of the result's name, by default cpu-2core, h100")
    group.addoption("--results", help="where the JSON goes, by default benchmarks/results")


class Run:
    """What one run measures: workloads once each, when the first test asks; rows for the JSON."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.device: torch.device = resolve_device(config.getoption("device"))
        self.budget: float = config.getoption("seconds")
        self.shrink: int = config.getoption("shrink")
        self.cpu_time: bool = config.getoption("cpu_time")
        if self.cpu_time:
            torch.set_num_threads(1)
        self.rows: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {}
        self._measured: dict[str, Measurement] = {}

    def workload(self, name: str) -> Workload:
        chosen = next(w for w in workloads(self.device.type == "cuda") if w.name == name)
        return chosen.shrunk(self.shrink) if self.shrink > 1 else chosen

    def measured(self, name: str) -> Measurement:
        if name not in self._measured:
            workload = self.workload(name)
            self._measured[name] = measure(workload, self.device, self.budget, self.cpu_time)
            self.rows += self._measured[name].rows
        return self._measured[name]

    def path(self) -> Path | None:
        given = self.config.getoption("results")
        if given is None and self.shrink > 1:
            return None  # a smoke run is no result
        machine = self.config.getoption("machine") or machine_name(self.device)
        file = f"{machine}-{date.today().isoformat()}.json"
        return (Path(given) if given else RESULTS) / file


_RUN = pytest.StashKey[Run]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RUN] = Run(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"workload", "contender"} <= set(metafunc.fixturenames):
        gpu = metafunc.config.stash[_RUN].device.type == "cuda"
        cases = [(w.name, name) for w in workloads(gpu) for name in names(w)]
        ids = [f"{workload}: {contender}" for workload, contender in cases]
        metafunc.parametrize(("workload", "contender"), cases, ids=ids)


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """This run of the suite."""
    return pytestconfig.stash[_RUN]


@pytest.fixture
def replay(benchmark: Any) -> Callable[[list[float], str], None]:
    """Hands samples in seconds to pytest-benchmark, to be shown in one table per group."""

    def hand_over(samples: list[float], group: str) -> None:
        benchmark.group = group
        CLOCK.load(samples)
        benchmark.pedantic(lambda: None, rounds=len(samples))

    return hand_over


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    run = session.config.stash[_RUN]
    path = run.path()
    if not run.rows or path is None:
        return
    settings = {
        "device": run.device.type,
        "seconds": run.budget,
        "shrink": run.shrink,
        "cpu_time": run.cpu_time,
        "finished": exitstatus == 0,
        "build": environment.build_info(),
        "cache_bytes": cache_bytes(run.device),
        **run.settings,
    }
    arguments = [a for a in sys.argv[1:] if not a.startswith(("--results", "/"))]
    command = shlex.join(["python", "-m", "pytest", *arguments])
    path.parent.mkdir(parents=True, exist_ok=True)
    Results(command, settings, run.rows).write(path)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run = config.stash[_RUN]
    if run.rows:
        path = run.path()
        terminalreporter.write_line(
            f"results: {path}" if path else "a run with --shrink writes no results"
        )

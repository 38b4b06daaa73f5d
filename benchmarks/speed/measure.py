# SPDX-License-Identifier: Apache-2.0
"""Measurement of one workload: all contenders and yardsticks interleaved, as result rows."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.speed.contenders import ours, variants
from benchmarks.speed.memory import storage_bytes, transient_bytes
from benchmarks.speed.peers import PEERS, Unavailable, peers
from benchmarks.speed.timing import (
    Contender,
    busy_core,
    cpu_seconds,
    host_seconds,
    interleave,
    quartiles,
    seconds,
)
from benchmarks.speed.workloads import Problem, Workload, draw
from benchmarks.speed.yardsticks import FLOORS, Yardsticks

HOST_SECONDS = 3.0


@dataclass(frozen=True)
class Measurement:
    """Measurement of one workload.

    Attributes:
        samples: seconds per call by contender and yardstick, one per round.
        skipped: reasons by contender that could not run.
        rows: rows of the result file.
    """

    samples: Mapping[str, list[float]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[dict[str, Any], ...] = ()


def names(workload: Workload) -> list[str]:
    """Return the names of the contenders of a workload, d3fast first."""
    return variants(workload) + peers(workload)


def contenders(problem: Problem) -> tuple[list[Contender], dict[str, str]]:
    """Return the contenders over one problem, and the reasons of those that cannot run."""
    able, skipped = ours(problem), {}
    for name in peers(problem.workload):
        try:
            able.append(PEERS[name](problem))
        except Unavailable as error:
            skipped[name] = str(error)
    return able, skipped


def measure(
    workload: Workload, device: torch.device, budget: float, cpu_time: bool = False
) -> Measurement:
    """Measure one workload.

    Args:
        workload: tensors to step over.
        device: where to compute.
        budget: seconds for the rounds; building and compiling take longer.
        cpu_time: measure CPU time instead of wall-clock time.
    """
    gc.collect()  # free the previous workload
    problem = draw(workload, device)
    able, skipped = contenders(problem)
    host = _host_times(workload, device, able)
    extra = {c.name: (storage_bytes(c.held), transient_bytes(c, device)) for c in able}
    yardsticks = Yardsticks(workload.footprint, device)
    with busy_core(workload.busy):
        clock = cpu_seconds if cpu_time else seconds
        samples = interleave([*yardsticks.contenders, *able], device, budget, clock)
    common = {
        "kind": "step",
        "workload": workload.name,
        "tensors": len(problem.thetas),
        "tracked": workload.tracked_numel,
        "plain": workload.plain_numel,
        "bytes": workload.bytes,
    }
    floors = {what: yardsticks.floor(samples, workload.bytes, of) for what, of in FLOORS.items()}
    rows = [
        {**common, **_row(name, workload, samples, floors), **_costs(name, extra, host)}
        for name in (c.name for c in able)
    ]
    rows += [{**common, "contender": name, "skipped": why} for name, why in skipped.items()]
    rows += bandwidth_rows(workload.name, yardsticks, samples)
    return Measurement(samples, skipped, tuple(rows))


def _host_times(
    workload: Workload, device: torch.device, able: list[Contender]
) -> dict[str, float]:
    """Return median host seconds of a call: not waiting for a GPU, or on one-element tensors."""
    if device.type != "cuda":
        able, _ = contenders(draw(workload.of_one_element(), device))
    with busy_core(workload.busy):
        samples = interleave(able, device, HOST_SECONDS, host_seconds)
    return {name: quartiles(values)[1] for name, values in samples.items()}


def _row(
    name: str,
    workload: Workload,
    samples: Mapping[str, list[float]],
    floors: Mapping[str, list[float]],
) -> dict[str, Any]:
    times = samples[name]
    q1, median, q3 = quartiles(times)
    row = {
        "contender": name,
        "skipped": None,
        "rounds": len(times),
        "ms": 1e3 * median,
        "ms_q1": 1e3 * q1,
        "ms_q3": 1e3 * q3,
        "gbps": workload.bytes / median / 1e9,
    }
    for what, shortest in floors.items():
        row |= {f"{what}_ms": 1e3 * quartiles(shortest)[1], f"to_{what}": _ratio(times, shortest)}
    for peer in PEERS:
        row[f"to_{peer}"] = _ratio(times, samples[peer]) if peer in samples else None
    return row


def _ratio(times: list[float], others: list[float]) -> float:
    """Return the median over the rounds of the ratio of two times of the same round."""
    return quartiles([a / b for a, b in zip(times, others, strict=True)])[1]


def _costs(
    name: str, extra: Mapping[str, tuple[int, int]], host: Mapping[str, float]
) -> dict[str, Any]:
    kept, passing = extra[name]
    return {"extra_kept": kept, "extra_passing": passing, "host_ms": 1e3 * host[name]}


def bandwidth_rows(
    workload: str, yardsticks: Yardsticks, samples: Mapping[str, list[float]]
) -> list[dict[str, Any]]:
    """Return one row per yardstick."""
    rows = []
    for name, moved in yardsticks.moved.items():
        q1, median, q3 = quartiles(samples[name])
        rows.append(
            {
                "kind": "bandwidth",
                "workload": workload,
                "yardstick": name,
                "footprint": yardsticks.footprint,
                "rounds": len(samples[name]),
                "ms": 1e3 * median,
                "ms_q1": 1e3 * q1,
                "ms_q3": 1e3 * q3,
                "gbps": moved / median / 1e9,
            }
        )
    return rows

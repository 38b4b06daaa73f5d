# SPDX-License-Identifier: Apache-2.0
"""Where the scaling of a CPU step goes: one thread, two threads, two processes of one thread.

Two processes with half of the tensors each share caches and memory bandwidth like two threads, but
neither wait for each other nor share a norm. What two threads lose against them is coordination;
what two processes lose against half the time of one thread is the hardware's.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import Annotated, Any

import torch
import typer

from benchmarks.speed.contenders import FREE, LR, MOMENTUM, SPHERE, optimizer
from benchmarks.speed.peers import SGD
from benchmarks.speed.workloads import Workload, draw
from benchmarks.studies.harness import save
from d3fast.results.format import fixed, significant
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown

NARROW_SPHERE = f"{SPHERE}, narrow state"
CONTENDERS = (SGD, FREE, SPHERE, NARROW_SPHERE)
MODES: Mapping[str, tuple[int, int]] = {  # processes, threads of each
    "1 thread": (1, 1),
    "2 threads": (1, 2),
    "2 processes": (2, 1),
}
SIZES = (2, 60, 240)  # tensors of 36,000: in two L2 caches, about in L3, in memory
ELEMENTS = 36_000
SAMPLE_SECONDS = 5e-3


def _steps(tensors: int) -> dict[str, Callable[[], object]]:
    """Return one step of each contender over so many tensors."""
    shapes = ((ELEMENTS,),) * tensors
    wide, narrow = (
        draw(Workload("threads", shapes, narrow=kind), torch.device("cpu"))
        for kind in (False, True)
    )
    params = [torch.nn.Parameter(t) for t in wide.thetas]
    for p, grad in zip(params, wide.grads, strict=True):
        p.grad = grad
    sgd = torch.optim.SGD(params, lr=LR, momentum=MOMENTUM, fused=True)
    return {
        SGD: sgd.step,
        FREE: optimizer(wide, constraint=None).step,
        SPHERE: optimizer(wide).step,
        NARROW_SPHERE: optimizer(narrow).step,
    }


def _measure(
    tensors: int, threads: int, rounds: int, barrier: Barrier, results: Any, place: int
) -> None:
    torch.set_num_threads(threads)
    steps = _steps(tensors)
    calls = {}
    for name, step in steps.items():
        step()
        started = time.perf_counter()
        step()
        calls[name] = max(1, min(100, int(SAMPLE_SECONDS / (time.perf_counter() - started))))
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            step()
            barrier.wait()  # processes measure the same contender at the same time
            started = time.perf_counter()
            for _ in range(calls[name]):
                step()
            found[name].append((time.perf_counter() - started) / calls[name])
            barrier.wait()
    results.put((place, found))


def measure(tensors: int, processes: int, threads: int, rounds: int) -> dict[str, list[float]]:
    """Return seconds per step of all tensors by contender, the slower process of each round.

    Args:
        tensors: number of tensors of all processes.
        processes: number of processes, which share the tensors.
        threads: threads of each.
        rounds: number of samples.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    share = tensors // processes
    team = [
        context.Process(target=_measure, args=(share, threads, rounds, barrier, results, place))
        for place in range(processes)
    ]
    for process in team:
        process.start()
    parts = [results.get()[1] for _ in team]
    for process in team:
        process.join()
    return {
        name: [max(x) for x in zip(*(p[name] for p in parts), strict=True)] for name in parts[0]
    }


def study(sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Return one row per number of tensors, mode and contender; modes in turn, twice each."""
    rows = []
    for tensors in sizes:
        samples: dict[tuple[str, str], list[float]] = {}
        for mode in [*MODES, *reversed(MODES)]:
            for name, times in measure(tensors, *MODES[mode], rounds).items():
                samples.setdefault((mode, name), []).extend(times)
        for (mode, name), times in samples.items():
            rows.append(
                {
                    "kind": "threads",
                    "tensors": tensors,
                    "elements": tensors * ELEMENTS,
                    "mode": mode,
                    "contender": name,
                    "rounds": len(times),
                    "us": 1e6 * median(times),
                    "us_least": 1e6 * min(times),
                }
            )
    return rows


def threads_table(results: Results) -> str:
    """Return ns per element, least and median, and the share of a doubling that is attained."""
    found = {(r["tensors"], r["contender"], r["mode"]): r for r in results.rows}
    lines = []
    for tensors, name in dict.fromkeys((t, c) for t, c, _ in found):
        own = [found[tensors, name, mode] for mode in MODES]
        cells = [
            f"{significant(1e3 * r['us_least'] / r['elements'])} "
            f"({significant(1e3 * r['us'] / r['elements'])})"
            for r in own
        ]
        one, two, processes = (r["us_least"] for r in own)
        sgd = found[tensors, SGD, "2 threads"]["us_least"]
        shares = [f"{fixed(50 * one / other, 0)} %" for other in (two, processes)]
        lines.append([f"{tensors}x36k", name, *cells, *shares, f"{fixed(two / sgd, 2)}×"])
    headings = ["tensors", "step", *(f"{mode}, ns" for mode in MODES)]
    headings += ["scaling, threads", "processes", "/ torch's fused SGD, 2 threads"]
    return to_markdown(text_table(headings, lines))


def threads(
    rounds: Annotated[int, typer.Option(help="Samples per mode, taken twice.")] = 40,
) -> None:
    """Measure and write ``threads-cpu.json``."""
    settings = {"elements": ELEMENTS, "sizes": list(SIZES), "rounds": rounds}
    save("threads-cpu", f"threads --rounds {rounds}", settings, study(SIZES, rounds))

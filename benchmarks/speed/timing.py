# SPDX-License-Identifier: Apache-2.0
"""Interleaved timing of several contenders in one process: A B C, C B A, B C A, ...

A slow phase of the machine slows all contenders of a round alike, so ratios within a round are more
stable than times. Every timed call follows an untimed one of the same contender, so the caches hold
what its own last step left there. A CPU call is timed by ``timeit.Timer``, whose setup is the
untimed call; a GPU call by CUDA events.
"""

import gc
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from timeit import Timer

import torch
from torch import Tensor

MIN_ROUNDS, MAX_ROUNDS = 7, 41
SAMPLE_SECONDS = 1e-2  # a sample of a short call is the mean of the calls that fit in this time
MAX_CALLS = 50
MAX_WARMUP = 3  # untimed calls before the first one of a sample


@dataclass(frozen=True)
class Contender:
    """Call that is timed.

    Attributes:
        name: name in tables.
        call: the timed call.
        warm: untimed call before every timed one; ``call`` itself if ``None``.
        held: tensors it keeps besides weights, gradients and momentum.
    """

    name: str
    call: Callable[[], object]
    warm: Callable[[], object] | None = None
    held: Sequence[Tensor] = field(default_factory=tuple)

    def prepare(self) -> None:
        """Make the untimed call."""
        (self.warm or self.call)()


def host_seconds(contender: Contender, device: torch.device, calls: int) -> float:
    """Return mean wall-clock seconds until the call returns, without waiting for a GPU."""

    def setup() -> None:
        contender.prepare()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return statistics.fmean(Timer(contender.call, setup).repeat(calls, number=1))


def cpu_seconds(contender: Contender, device: torch.device, calls: int) -> float:
    """Return mean CPU seconds of a call over all threads, for a machine that is shared."""
    timer = Timer(contender.call, contender.prepare, time.process_time)
    return statistics.fmean(timer.repeat(calls, number=1))


def seconds(contender: Contender, device: torch.device, calls: int) -> float:
    """Return mean seconds until the work of a call is done, by CUDA events on a GPU."""
    if device.type != "cuda":
        return host_seconds(contender, device, calls)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    for start, end in events:
        contender.prepare()
        start.record()
        contender.call()
        end.record()
    torch.cuda.synchronize(device)
    return statistics.fmean(start.elapsed_time(end) for start, end in events) / 1e3


def _order(count: int, turn: int) -> list[int]:
    """Return the order of a round: every other one backwards, rotated by one every two rounds.

    Example:
        >>> [_order(3, turn) for turn in range(4)]
        [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]]
    """
    rotated = [(turn // 2 + i) % count for i in range(count)]
    return rotated[::-1] if turn % 2 else rotated


def interleave(
    contenders: Sequence[Contender],
    device: torch.device,
    budget: float,
    measure: Callable[[Contender, torch.device, int], float] = seconds,
) -> dict[str, list[float]]:
    """Time all contenders in turn until the budget is used.

    Args:
        contenders: calls to time, with unique names.
        device: device of the work.
        budget: seconds to spend; between ``MIN_ROUNDS`` and ``MAX_ROUNDS`` rounds are taken.
        measure: ``seconds``, ``cpu_seconds`` or ``host_seconds``.

    Returns:
        Seconds per call by name, one sample per round, all lists of one length.
    """
    calls_per_sample = []
    for contender in contenders:
        contender.prepare()
        calls_per_sample.append(SAMPLE_SECONDS / max(measure(contender, device, 1), 1e-9))
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    collecting = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        for turn in range(MAX_ROUNDS):
            for i in _order(len(contenders), turn):
                for _ in range(min(MAX_WARMUP, int(calls_per_sample[i]))):
                    contenders[i].prepare()
                calls = min(MAX_CALLS, math.ceil(calls_per_sample[i]))
                samples[contenders[i].name].append(measure(contenders[i], device, calls))
            if turn + 1 >= MIN_ROUNDS and time.perf_counter() - started > budget:
                break
    finally:
        if collecting:
            gc.enable()
    return samples


@contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Keep one core busy with another process inside the block, if ``busy``."""
    if not busy:
        yield
        return
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)  # until it has started
        yield
    finally:
        spinner.kill()
        spinner.wait()


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile, linearly interpolated.

    Example:
        >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
        (2.0, 3.0, 4.0)
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return q1, median, q3

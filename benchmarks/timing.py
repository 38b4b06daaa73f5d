# SPDX-License-Identifier: Apache-2.0
"""Timing several contenders in one process, round by round: A B C, C B A, B C A, and so on.

Whatever slows the machine down for a while slows all contenders down alike, so ratios within a
round are worth more than times. Every timed call follows an untimed one of the same contender, and
every sample of a short one a few of them: what the caches hold is what its own last steps left
there, not what a rival left.
"""

import gc
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

MIN_ROUNDS, MAX_ROUNDS = 7, 41
SAMPLE_SECONDS = 1e-2  # a sample of a short call is the mean of as many calls as fit in here
MAX_CALLS = 50
MAX_SETTLING = 3  # untimed calls before the first one of a sample, in the same time


@dataclass(frozen=True)
class Contender:
    """Something that is timed.

    Attributes:
        name: what tables call it.
        call: what is timed.
        warm: called before every timed call, untimed; ``call`` itself if ``None``.
        held: tensors it keeps besides weights, gradients and momentum.
    """

    name: str
    call: Callable[[], object]
    warm: Callable[[], object] | None = None
    held: Sequence[Tensor] = field(default_factory=tuple)

    def prepare(self) -> None:
        """The untimed call."""
        (self.warm or self.call)()


def host_seconds(contender: Contender, device: torch.device, calls: int) -> float:
    """Mean seconds until the call returns; on a GPU its work may still be under way."""
    total = 0.0
    for _ in range(calls):
        contender.prepare()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        contender.call()
        total += time.perf_counter() - started
    return total / calls


def cpu_seconds(contender: Contender, device: torch.device, calls: int) -> float:
    """Mean seconds of CPU time that a call takes, all threads together.

    With one thread that is the time of a call on a machine where others take turns on the cores.
    """
    total = 0.0
    for _ in range(calls):
        contender.prepare()
        started = time.process_time()
        contender.call()
        total += time.process_time() - started
    return total / calls


def seconds(contender: Contender, device: torch.device, calls: int) -> float:
    """Mean seconds until the call's work is done, by the device's own clock on a GPU."""
    if device.type != "cuda":
        return host_seconds(contender, device, calls)
    edges = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    for start, end in edges:
        contender.prepare()
        start.record()
        contender.call()
        end.record()
    torch.cuda.synchronize(device)
    return sum(start.elapsed_time(end) for start, end in edges) / calls / 1e3


def _in_order(count: int, turn: int) -> list[int]:
    """The order of round ``turn``: every other one backwards, rotated by one every two rounds.

    Example:
        >>> [_in_order(3, turn) for turn in range(4)]
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
    """Time all contenders in turn, as often as the budget allows.

    Args:
        contenders: what to time, names unique; each is called three times before it is timed.
        device: where the work is done.
        budget: seconds to spend; at least ``MIN_ROUNDS`` and at most ``MAX_ROUNDS`` are taken.
        measure: ``seconds`` or ``host_seconds``.

    Returns:
        Seconds per call by name, one sample per round, all lists of one length.
    """
    fitting = []  # calls in the time of a sample
    for contender in contenders:
        contender.prepare()
        fitting.append(SAMPLE_SECONDS / max(measure(contender, device, 1), 1e-9))
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    collecting = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        for turn in range(MAX_ROUNDS):
            for i in _in_order(len(contenders), turn):
                for _ in range(min(MAX_SETTLING, int(fitting[i]))):
                    contenders[i].prepare()
                calls = min(MAX_CALLS, math.ceil(fitting[i]))
                samples[contenders[i].name].append(measure(contenders[i], device, calls))
            if turn + 1 >= MIN_ROUNDS and time.perf_counter() - started > budget:
                break
    finally:
        if collecting:
            gc.enable()
    return samples


@contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Keep one core busy with another process for the length of a block, if ``busy``."""
    if not busy:
        yield
        return
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)  # until it really spins
        yield
    finally:
        spinner.kill()
        spinner.wait()


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile, linearly interpolated.

    Example:
        >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
        (2.0, 3.0, 4.0)
    """
    points = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    q1, median, q3 = torch.tensor(values, dtype=torch.float64).quantile(points).tolist()
    return q1, median, q3

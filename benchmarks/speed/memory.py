# SPDX-License-Identifier: Apache-2.0
"""What a step takes besides weights, gradients and momentum.

Persistent: tensors kept from step to step, each storage counted once. Transient: the most that one
step has allocated at any time, from torch's own reports: its CUDA allocator's statistics, or the
profiler's record of every allocation on the CPU. What C++ keeps beside tensors is not in it: for
d3fast's CPU step 32 bytes per 32768 elements.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.timing import Contender


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind some tensors, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def allocations(call: Callable[[], object]) -> list[int]:
    """Bytes of every allocation (> 0) and release (< 0) of CPU tensor memory during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = profiled.profiler.kineto_results.events()
    reports = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return [size for _, size in sorted(reports, key=lambda report: report[0])]


def peak(sizes: Iterable[int]) -> int:
    """The most that was allocated at any time.

    Example:
        >>> peak([100, 50, -100, 20, -50, -20])
        150
    """
    most = now = 0
    for size in sizes:
        now += size
        most = max(most, now)
    return most


def transient_bytes(contender: Contender, device: torch.device) -> int:
    """The most that one call has allocated at any time."""
    contender.prepare()
    if device.type != "cuda":
        return peak(allocations(contender.call))
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    contender.call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before

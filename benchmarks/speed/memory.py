# SPDX-License-Identifier: Apache-2.0
"""Memory of a step besides weights, gradients and momentum.

Persistent: tensors kept between steps, each storage counted once. Transient: peak allocation during
one step, from the statistics of the CUDA allocator or the profiler's record of CPU allocations.
Memory that C++ keeps outside tensors is not included: 32 bytes per 32768 elements for the CPU step.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.timing import Contender


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages of some tensors, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def allocations(call: Callable[[], object]) -> list[int]:
    """Return the bytes of every allocation (> 0) and release (< 0) of CPU memory in a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = profiled.profiler.kineto_results.events()
    reports = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return [size for _, size in sorted(reports, key=lambda report: report[0])]


def peak(sizes: Iterable[int]) -> int:
    """Return the peak of the running sum.

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
    """Return the peak allocation of one call, in bytes."""
    contender.prepare()
    if device.type != "cuda":
        return peak(allocations(contender.call))
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    contender.call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before

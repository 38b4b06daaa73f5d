# SPDX-License-Identifier: Apache-2.0
"""Memory bandwidth of the machine, measured in the same run as the contenders.

    copy    b <- a            8 bytes per element
    add     c <- a + b       12 bytes per element
    update  a <- a + s * b   12 bytes per element

Bytes are those the program accesses. Where a store first fetches its cache line, ``copy`` and
``add`` move more; ``update``, like the D3 step, writes only what it has read and is the strictest
of the three. The floor of a workload uses the best of them at the workload's own footprint, so a
workload that fits in a cache is compared with that cache. ``IN_MEMORY`` measures buffers several
times larger than the last-level cache.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from benchmarks.speed.timing import Contender

BYTES = {"copy": 8, "add": 12, "update": 12}
_ARRAYS = {"copy": 2, "add": 3, "update": 2}
# "lax_floor" uses only the two yardsticks that most papers use.
FLOORS = {"floor": ("copy", "add", "update"), "lax_floor": ("copy", "add")}
MAX_FOOTPRINT = 4 << 30
IN_MEMORY = 3 << 30


class Yardsticks:
    """The three yardsticks over one buffer.

    Args:
        footprint: bytes of the buffer, at most ``MAX_FOOTPRINT``.
        device: device of the buffer.
    """

    def __init__(self, footprint: int, device: torch.device) -> None:
        elements = max(1, min(footprint, MAX_FOOTPRINT) // 4)
        self.footprint = 4 * elements
        # Not zeros, on which a GPU may run faster.
        memory = torch.empty(elements, device=device).uniform_(-1, 1)
        self.moved: dict[str, int] = {}
        self.contenders: list[Contender] = []
        for name, arrays in _ARRAYS.items():
            n = max(1, elements // arrays)
            parts = [memory[i * n : (i + 1) * n] for i in range(min(arrays, elements))]
            parts += parts[:1] * (arrays - len(parts))
            self.moved[name] = BYTES[name] * n
            self.contenders.append(Contender(name, _call(name, parts)))

    def floor(
        self, samples: Mapping[str, Sequence[float]], moved: int, of: Sequence[str]
    ) -> list[float]:
        """Return seconds per round that ``moved`` bytes take at the bandwidth of a yardstick.

        Args:
            samples: seconds per call by yardstick, one per round.
            moved: number of bytes.
            of: candidates; the yardstick with the highest median bandwidth is used.
        """
        best = max(of, key=lambda name: self.moved[name] / statistics.median(samples[name]))
        return [moved * s / self.moved[best] for s in samples[best]]


def _call(name: str, parts: Sequence[torch.Tensor]) -> Callable[[], object]:
    if name == "copy":
        return lambda: parts[1].copy_(parts[0])
    if name == "add":
        return lambda: torch.add(parts[0], parts[1], out=parts[2])
    return lambda: parts[0].add_(parts[1], alpha=1e-3)

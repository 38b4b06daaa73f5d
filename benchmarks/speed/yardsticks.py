# SPDX-License-Identifier: Apache-2.0
"""The limit: how many bytes per second this machine moves, in the run that is judged by it.

    copy    b <- a            8 bytes per element
    add     c <- a + b       12 bytes per element
    update  a <- a + s * b   12 bytes per element

The bytes are those the program asks for. Where a store fetches its cache line first, ``copy`` and
``add`` move more than that; ``update`` and the D3 step write only what they have read, so it is the
fairest of the three and the hardest to match. The floor of a workload takes the best of them at
the workload's own footprint: what fits in a cache is measured against that cache. On a
shared last-level cache of hundreds of megabytes "memory" is a matter of degree; ``IN_MEMORY``
measures buffers several times larger than it.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from benchmarks.speed.timing import Contender

BYTES = {"copy": 8, "add": 12, "update": 12}
_ARRAYS = {"copy": 2, "add": 3, "update": 2}
# The floor proper, and a laxer one from the two yardsticks that most papers use.
FLOORS = {"floor": ("copy", "add", "update"), "lax_floor": ("copy", "add")}
MAX_FOOTPRINT = 4 << 30
IN_MEMORY = 3 << 30


class Yardsticks:
    """The three of them over one stretch of memory.

    Args:
        footprint: bytes each of them works on; capped at ``MAX_FOOTPRINT``.
        device: where.
    """

    def __init__(self, footprint: int, device: torch.device) -> None:
        elements = max(1, min(footprint, MAX_FOOTPRINT) // 4)
        self.footprint = 4 * elements
        memory = torch.zeros(elements, device=device)
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
        """Seconds that so many bytes take at the bandwidth of one yardstick, round by round.

        Args:
            samples: seconds per call by yardstick, one per round.
            moved: bytes.
            of: yardsticks to choose from; the one with the highest median bandwidth is taken.
        """
        best = max(of, key=lambda name: self.moved[name] / statistics.median(samples[name]))
        return [moved * s / self.moved[best] for s in samples[best]]


def _call(name: str, parts: Sequence[torch.Tensor]) -> Callable[[], object]:
    if name == "copy":
        return lambda: parts[1].copy_(parts[0])
    if name == "add":
        return lambda: torch.add(parts[0], parts[1], out=parts[2])
    return lambda: parts[0].add_(parts[1], alpha=1e-3)

# SPDX-License-Identifier: Apache-2.0
"""Operations and bytes of the plain-PyTorch step of D3, the step that DTensors take on a GPU.

Every torch operation of the step (``optim.backends.shard_torch``) is counted with the bytes of the
tensors that it reads and writes; views and allocations count nothing. On a GPU every operation is
at least one kernel launch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.speed.memory import allocations, peak
from d3fast.optim import D3FusedSGD
from d3fast.optim.backends import sharded

_FREE = {"empty", "empty_like", "empty_strided", "detach", "promote_types", "result_type"}
_WRITE_ONLY = {"copy_", "zero_", "fill_"}  # their first tensor is not read
PIECE = 1 << 16  # elements that the sums of a step take at a time on the CPU


class OperationCounter(TorchDispatchMode):
    """Context that counts operations and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.asked = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _FREE:
            read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            written = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
            tensors = read[name in _WRITE_ONLY :] + written
            self.operations += 1
            self.asked += sum(x.nbytes for x in tensors)
        return out


@dataclass(frozen=True)
class Counts:
    """Counts of a plain-PyTorch step per parameter and per tensor.

    Attributes:
        asked: bytes read and written by its operations, per parameter.
        held: bytes of temporaries of all tensors, per parameter.
        passing: bytes of further temporaries, per parameter of the largest tensor.
        per_tensor: operations per tensor, with the first piece of its sums.
        per_piece: operations per further piece of the sums.
        per_step: operations independent of the number of tensors.
    """

    asked: float
    held: float
    passing: float
    per_tensor: int
    per_piece: int
    per_step: int


def _step(tensors: int, pieces: int, dtype: torch.dtype, tracked: bool) -> Callable[[], object]:
    size = pieces * PIECE
    params = [nn.Parameter(torch.linspace(0.5, 1.5, size).to(dtype)) for _ in range(tensors)]
    plain = {} if tracked else {"distance_weight": 0.0, "constraint": None}
    opt = D3FusedSGD(params, lr=0.1, momentum=0.9, track="all", backend="reference", **plain)
    for p in params:
        p.grad = torch.linspace(-1.0, 1.0, size).to(dtype)
    groups, stepper = opt.param_groups, sharded.ShardedStepper([])
    step = torch.no_grad()(lambda: stepper.step(groups, [(0, 0, groups[0])], opt.state))
    step()  # allocates the buffers
    return step


def _counted(tensors: int, pieces: int, dtype: torch.dtype, tracked: bool) -> OperationCounter:
    step = _step(tensors, pieces, dtype, tracked)
    with OperationCounter() as watch:
        step()
    return watch


def count(dtype: torch.dtype, tracked: bool) -> Counts:
    """Count a step with momentum on the norm sphere, or of an untracked group.

    Example:
        >>> count(torch.float32, tracked=False).asked > 20
        True
    """
    one, longer = (_counted(1, pieces, dtype, tracked) for pieces in (1, 2))
    two = _counted(2, 1, dtype, tracked)
    per_tensor = two.operations - one.operations
    peaks = [
        peak(allocations(_step(tensors, pieces, dtype, tracked)))
        for tensors, pieces in ((1, 4), (1, 8), (2, 8))
    ]
    held = round((peaks[2] - peaks[1]) / (8 * PIECE), 1)
    return Counts(
        asked=round((longer.asked - one.asked) / PIECE, 1),
        held=held,
        passing=round((peaks[1] - peaks[0]) / (4 * PIECE) - held, 1),
        per_tensor=per_tensor,
        per_piece=longer.operations - one.operations,
        per_step=one.operations - per_tensor,
    )

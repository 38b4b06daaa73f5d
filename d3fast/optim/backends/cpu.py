# SPDX-License-Identifier: Apache-2.0
"""Steps on the CPU, in the thread pool that torch uses."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends import native


def _norm(tensor: Tensor) -> float:
    # Piece by piece: torch would first copy the whole tensor to float64.
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    pieces = (
        torch.linalg.vector_norm(x, dtype=torch.float64).item() for x in torch.split(flat, 1 << 16)
    )
    return math.sqrt(math.fsum(x * x for x in pieces))


class CpuLauncher:
    """Steps through ``_C.CpuPlan`` with as many threads as torch uses."""

    def __init__(self, tensors: Mapping[str, Sequence[Tensor]], joint: bool) -> None:
        self._plan = native.extension.CpuPlan(
            dtypes=native.native_dtypes(tensors),
            columns=native.native_columns(tensors),
            reference_norms=[_norm(t) for t in tensors["reference"]],
            joint=joint,
        )

    def step(
        self,
        grads: Sequence[int],
        fresh: Sequence[bool],
        verify: bool,
        group: Mapping[str, Any],
        options: Any | None,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take the step; ``found_inf`` is on the host, so it is simply read."""
        if found_inf is not None and bool(found_inf != 0):
            return
        if options is None or grad_scale is not None:
            scale = 1.0 if grad_scale is None else float(grad_scale)
            options = native.native_options(group, scale, on_host=True)
        self._plan.step(grads, fresh, verify, torch.get_num_threads(), options)

# SPDX-License-Identifier: Apache-2.0
"""Steps on the CPU, in the thread pool that torch uses."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from d3fast.optim.backends import native

if TYPE_CHECKING:
    from d3fast import _C


def euclidean_norm(tensor: Tensor) -> float:
    """Return ``||tensor||`` computed in float64; the tensor is dense, of any dtype."""
    # Piece by piece: torch would first copy the whole tensor to float64.
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    pieces = (
        torch.linalg.vector_norm(x, dtype=torch.float64).item() for x in torch.split(flat, 1 << 16)
    )
    return math.sqrt(math.fsum(x * x for x in pieces))


class CpuLauncher:
    """Steps through ``_C.CpuPlan`` with as many threads as torch uses.

    Args:
        tensors: ``theta`` and the columns of one group's state.
        joint_norm: one norm over the group.
        shard: given where the tensors are parts of larger ones.
    """

    captured = False

    def __init__(
        self,
        tensors: Mapping[str, Sequence[Tensor]],
        joint_norm: bool,
        shard: native.Shard | None = None,
    ) -> None:
        self.plan: _C.Plan = native.extension.CpuPlan(
            **native.plan_arguments(tensors, joint_norm, shard),
            reference_norms=[euclidean_norm(t) for t in tensors["reference"]]
            if shard is None
            else shard.reference_norms.tolist(),
        )

    def options(self, group: Mapping[str, Any]) -> "_C.StepOptions":
        """Return the options of a group, tensors read."""
        return native.step_options(group)

    def executor(self) -> int:
        """Return the number of threads."""
        return torch.get_num_threads()

    def step(
        self,
        grads: Sequence[int],
        first_step: Sequence[bool],
        verify: bool,
        options: "_C.StepOptions",
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        **part: Any,
    ) -> bool:
        """Take the step; see ``native.Launcher``."""
        return self.plan.step(
            grads=grads,
            first_step=first_step,
            verify=verify,
            options=options,
            grad_scale=1.0 if grad_scale is None else float(grad_scale),
            found_inf=0.0 if found_inf is None else float(found_inf),
            executor=self.executor(),
            **part,
        )

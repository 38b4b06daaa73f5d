# SPDX-License-Identifier: Apache-2.0
"""The D3 optimizers, their constraints and warm starts, and the choice of tracked weights."""

from d3fast.optim.constraints import CONSTRAINTS
from d3fast.optim.d3_adamw import D3FusedAdamW
from d3fast.optim.d3_sgd import D3FusedSGD
from d3fast.optim.groups import param_groups
from d3fast.optim.heads import find_head
from d3fast.optim.in_backward import step_in_backward
from d3fast.optim.warm_start import WARM_STARTS

__all__ = [
    "CONSTRAINTS",
    "WARM_STARTS",
    "D3FusedAdamW",
    "D3FusedSGD",
    "find_head",
    "param_groups",
    "step_in_backward",
]

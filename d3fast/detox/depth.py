# SPDX-License-Identifier: Apache-2.0
"""``restart="auto"``: the deepest restart whose repair keeps the held-out accuracy."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from torch import nn

from d3fast.detox.config import D3Config
from d3fast.detox.resume import Checkpointing, is_state_of
from d3fast.optim.blocks import restart_depths


class Outcome(Protocol):
    """The part of a repair's result that decides."""

    @property
    def acc_drop(self) -> float | None:
        """Points of held-out accuracy that the repair cost."""


Repaired = TypeVar("Repaired", bound=Outcome)
Attempt = Callable[[D3Config, Checkpointing | None], Repaired]


def deepest_within(
    model: nn.Module,
    config: D3Config,
    attempt: Attempt[Repaired],
    checkpointing: Checkpointing | None,
) -> Repaired:
    """Return the first repair within ``max_acc_drop``, over falling numbers of restarted blocks.

    If no repair is within the limit, return the last, which restarts no block.

    Args:
        model: the suspect.
        config: options with ``restart="auto"``.
        attempt: repairs with options whose ``restart`` is a number.
        checkpointing: given to the attempts; a state to resume decides with which number to begin.

    Raises:
        ValueError: a state to resume that belongs to none of the numbers; what ``attempt`` raises.
    """
    limit = config.max_acc_drop
    assert limit is not None
    configs = [replace(config, restart=depth) for depth in restart_depths(model)]
    if checkpointing is not None and checkpointing.resume:
        path, identity = Path(checkpointing.path), checkpointing.identity
        begun = [is_state_of(path, model, one, identity) for one in configs]
        configs = configs[begun.index(True) if any(begun) else 0 :]
    for one in configs:
        result = attempt(one, checkpointing)
        if result.acc_drop is not None and result.acc_drop <= limit:
            break
        if checkpointing is not None:
            checkpointing = replace(checkpointing, resume=False)
    return result

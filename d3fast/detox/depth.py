# SPDX-License-Identifier: Apache-2.0
"""``restart="auto"``: the most restarted blocks whose repair keeps the held-out accuracy."""

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
# Largest share of distillation with fewer blocks than the most: through the blocks that keep their
# weights, the suspect's answers teach the backdoor again (docs/research.md, third search).
_SHALLOW_DISTILLATION = 0.2

Attempt = Callable[[D3Config, Checkpointing | None], Repaired]


def deepest_within(
    model: nn.Module,
    config: D3Config,
    attempt: Attempt[Repaired],
    checkpointing: Checkpointing | None,
) -> Repaired:
    """Return the repair that restarts most blocks among those that keep the accuracy.

    The yardstick is the repair that restarts none: a repair may cost at most ``max_acc_drop``
    points of held-out accuracy more. An attempt with fewer blocks than the most learns at most a
    fifth from the suspect's answers. Every attempt sees the samples in the same order, so that an
    interrupted search resumes to the same result; a finished attempt may then run again.

    Args:
        model: the suspect.
        config: options with ``restart="auto"``.
        attempt: repairs with options whose ``restart`` is a number.
        checkpointing: given to the attempts.

    Raises:
        ValueError: a state to resume that belongs to none of the attempts; what ``attempt`` raises.
    """
    limit = config.max_acc_drop
    assert limit is not None
    depths = restart_depths(model)
    done: dict[int, Repaired] = {}
    generators = () if checkpointing is None else checkpointing.generators
    states = [generator.get_state() for generator in generators]

    def repaired(depth: int, resume: bool = False) -> Repaired:
        if depth not in done:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            saved = None if checkpointing is None else replace(checkpointing, resume=resume)
            done[depth] = attempt(_options(config, depth, depths[0]), saved)
        return done[depth]

    if checkpointing is not None and checkpointing.resume:
        repaired(_begun(model, config, checkpointing, depths), resume=True)
    allowed = _lost(repaired(0)) + limit
    return next(one for one in map(repaired, depths) if _lost(one) <= allowed)


def _options(config: D3Config, depth: int, most: int) -> D3Config:
    """Return the options of the attempt that restarts ``depth`` blocks."""
    share = config.distillation
    if depth < most:
        share = min(share, _SHALLOW_DISTILLATION)
    return replace(config, restart=depth, distillation=share)


def _lost(outcome: Outcome) -> float:
    assert outcome.acc_drop is not None  # a limit is configured
    return outcome.acc_drop


def _begun(
    model: nn.Module, config: D3Config, checkpointing: Checkpointing, depths: tuple[int, ...]
) -> int:
    """Return the number of restarted blocks of the attempt whose state was saved, or 0."""
    path, identity = Path(checkpointing.path), checkpointing.identity
    for depth in depths:
        if is_state_of(path, model, _options(config, depth, depths[0]), identity):
            return depth
    return 0  # its state is refused, with the reason

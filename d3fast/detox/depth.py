# SPDX-License-Identifier: Apache-2.0
"""A search for the most restarted blocks whose repair keeps the held-out accuracy.

- ``"auto"``: at most two thirds of the blocks; may cost ``max_acc_drop`` points more than none, or
  what the held-out samples cannot tell from nothing: a choice by two of 200 samples is a coin toss,
  and fewer blocks leave more of the backdoor (docs/benchmark.md).
- ``"auto-all"``, for texts: all blocks first, embeddings keep what is known of the words; may cost
  one point more than none; weights that restart are not tracked.

Without a restart the tracked weights still have their own warm start. Where these are whole blocks,
"auto-all" tries only restarts that replace more than they do. A restarted block is free of the
constraint: on the spheres of its old norms a small BERT finds the trigger again in embeddings that
no clean sample moves (docs/text.md).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from torch import nn

from d3fast.detox.config import AUTO_ALL, D3Config
from d3fast.detox.resume import Checkpointing, is_state_of
from d3fast.optim import param_groups
from d3fast.optim.blocks import restart_depths, restart_names


class Outcome(Protocol):
    """The part of a repair's result that decides."""

    @property
    def acc_drop(self) -> float | None:
        """Points of held-out accuracy that the repair cost."""


Repaired = TypeVar("Repaired", bound=Outcome)
# Largest share of distillation with fewer blocks than the most: through the blocks that keep their
# weights, the suspect's answers teach the backdoor again (docs/research.md, third search).
_SHALLOW_DISTILLATION = 0.2
_COST_OF_ALL = 1.0  # points of accuracy, of "auto-all"

Attempt = Callable[[D3Config, Checkpointing | None], Repaired]


def deepest_within(
    model: nn.Module,
    config: D3Config,
    attempt: Attempt[Repaired],
    checkpointing: Checkpointing | None,
    finest: float = 0.0,
) -> Repaired:
    """Return the repair that restarts most blocks among those that keep the accuracy.

    The yardstick is the repair that restarts none. An attempt with fewer blocks than the most
    learns at most a fifth from the suspect's answers. Every attempt sees the samples in the same
    order, so that an interrupted search resumes to the same result; a finished attempt may then
    run again.

    Args:
        model: the suspect.
        config: options with ``restart="auto"`` or ``"auto-all"``.
        attempt: repairs with options whose ``restart`` is a number.
        checkpointing: given to the attempts.
        finest: points of accuracy that the held-out samples cannot resolve; "auto-all" does not
            use it.

    Raises:
        ValueError: a state to resume that belongs to none of the attempts; what ``attempt`` raises.
    """
    limit = config.max_acc_drop
    assert limit is not None
    attempts = _attempts(model, config)
    done: dict[int, Repaired] = {}
    generators = () if checkpointing is None else checkpointing.generators
    states = [generator.get_state() for generator in generators]

    def repaired(depth: int, resume: bool = False) -> Repaired:
        if depth not in done:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            saved = None if checkpointing is None else replace(checkpointing, resume=resume)
            done[depth] = attempt(attempts[depth], saved)
        return done[depth]

    if checkpointing is not None and checkpointing.resume:
        repaired(_begun(model, checkpointing, attempts), resume=True)
    limit = min(limit, _COST_OF_ALL) if config.restart == AUTO_ALL else max(limit, finest)
    allowed = _lost(repaired(0)) + limit
    return next(one for one in map(repaired, attempts) if _lost(one) <= allowed)


def _attempts(model: nn.Module, config: D3Config) -> dict[int, D3Config]:
    """Return the options of every attempt by its number of restarted blocks, from most to none."""
    if config.restart == AUTO_ALL:
        return _attempts_on_all(model, config)
    depths = restart_depths(model)
    shallow = min(config.distillation, _SHALLOW_DISTILLATION)
    shares = [config.distillation, *[shallow] * (len(depths) - 1)]
    return {
        depth: replace(config, restart=depth, distillation=share)
        for depth, share in zip(depths, shares, strict=True)
    }


def _attempts_on_all(model: nn.Module, config: D3Config) -> dict[int, D3Config]:
    tracked = set(param_groups(model, track=config.track)[0]["param_names"])
    attempts = {}
    for depth in restart_depths(model, share=1.0):
        if not depth or not tracked.issuperset(restart_names(model, depth)):
            attempts[depth] = freed(model, replace(config, restart=depth))
    return attempts


def freed(model: nn.Module, config: D3Config) -> D3Config:
    """Return options that track no weight that restarts; the same if they would track none.

    Args:
        model: the suspect.
        config: options whose ``restart`` is a number or a regular expression.

    Raises:
        ValueError: see ``restart_names`` and ``param_groups``.
    """
    anew = set(restart_names(model, config.restart))
    tracked = param_groups(model, track=config.track)[0]["param_names"]
    kept = [name for name in tracked if name not in anew]
    if not kept or len(kept) == len(tracked):
        return config
    return replace(config, track=exactly(kept))


def exactly(names: list[str]) -> str:
    r"""Return a regular expression for ``track`` that finds these names and no others.

    Example:
        >>> exactly(["0.weight", "1.weight"])
        '^(0\\.weight|1\\.weight)$'
    """
    return f"^({'|'.join(map(re.escape, names))})$"


def _lost(outcome: Outcome) -> float:
    assert outcome.acc_drop is not None  # a limit is configured
    return outcome.acc_drop


def _begun(model: nn.Module, checkpointing: Checkpointing, attempts: dict[int, D3Config]) -> int:
    """Return the number of restarted blocks of the attempt whose state was saved, or 0."""
    path, identity = Path(checkpointing.path), checkpointing.identity
    for depth, options in attempts.items():
        if is_state_of(path, model, options, identity):
            return depth
    return 0  # its state is refused, with the reason

# SPDX-License-Identifier: Apache-2.0
"""Backdoor attacks, in one registry: what a repair is measured against.

To add one, add a file with a dataclass of the shape of ``Attack`` and a row to ``ATTACKS``.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d3fast.attacks.badnets import BadNets
from d3fast.attacks.base import Attack, Poisoned, read_attack, save_attack
from d3fast.attacks.training import TrainConfig, train_backdoored
from d3fast.checks import check_choice

ATTACKS: Mapping[str, Callable[..., Any]] = MappingProxyType({"badnets": BadNets})


def load_attack(path: str | Path) -> Any:
    """Read an attack that ``save_attack`` wrote.

    Raises:
        ValueError: a file that is no saved attack, or of an attack this version does not know.
        OSError: a file that cannot be opened.
    """
    name, options, tensors = read_attack(path)
    check_choice("attack", name, ATTACKS)
    try:
        attack = ATTACKS[name](**options)
    except TypeError as error:  # an option too many or too few
        file = Path(path).name
        raise ValueError(f"{file} has options that {name!r} cannot take: {error}") from None
    attack.load_state_dict(tensors)
    return attack


__all__ = [
    "ATTACKS", "Attack", "BadNets", "Poisoned", "TrainConfig", "load_attack", "save_attack",
    "train_backdoored",
]  # fmt: skip

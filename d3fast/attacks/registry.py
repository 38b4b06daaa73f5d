# SPDX-License-Identifier: Apache-2.0
"""Registry of the attacks: by name, with options per data set, and loaded from files.

To add an attack, add a file with a dataclass that implements ``Attack``, a row to ``ATTACKS``, its
options to ``RECIPES`` and a row to ``tests/attacks/test_contract.py``. Other packages add theirs by
entry points of the group ``d3fast.attacks``.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d3fast.attacks.adap_blend import AdapBlend
from d3fast.attacks.adaptive import (
    ABIAttacker,
    DetectorAwareAttacker,
    DistanceAwareAttacker,
    SAMAttacker,
)
from d3fast.attacks.badnets import BadNets
from d3fast.attacks.base import Attack
from d3fast.attacks.blended import Blended
from d3fast.attacks.files import read_attack
from d3fast.attacks.input_aware import InputAware
from d3fast.attacks.low_frequency import LowFrequency
from d3fast.attacks.narcissus import Narcissus
from d3fast.attacks.recipes import COLOUR, RECIPES
from d3fast.attacks.sig import SIG
from d3fast.attacks.ssba import SSBA
from d3fast.attacks.wanet import WaNet
from d3fast.io.untrusted import error_text, printable
from d3fast.runtime.checks import check_choice
from d3fast.runtime.plugins import Registry

ATTACKS: Registry[Callable[..., Any]] = Registry(
    "attack",
    "d3fast.attacks",
    {
        "badnets": BadNets,
        "blended": Blended,
        "sig": SIG,
        "wanet": WaNet,
        "low-frequency": LowFrequency,
        "input-aware": InputAware,
        "ssba": SSBA,
        "adap-blend": AdapBlend,
        "narcissus": Narcissus,
    },
)

ADAPTIVE: Mapping[str, Callable[[Attack], Attack]] = MappingProxyType(
    {
        "sam-1": lambda base: SAMAttacker(base, budget=1.0),
        "sam-3": lambda base: SAMAttacker(base, budget=3.0),
        "distance-aware": DistanceAwareAttacker,
        "detector-aware": DetectorAwareAttacker,
        "abi": ABIAttacker,
    }
)


def recipe(
    name: str,
    data: str,
    target: int | None = None,
    adaptive: str | None = None,
    mapping: str | None = None,
) -> Attack:
    """Return an attack with the options chosen for a data set.

    Args:
        name: the attack's name in ``ATTACKS``, or ``package.module:Name``.
        data: the data set's name; a set without a recipe takes the options of the literature, an
            attack of another package its own defaults.
        target: target class; the recipe's if ``None``.
        adaptive: name in ``ADAPTIVE`` of an attacker to wrap around it, or ``None``.
        mapping: label mapping, see ``d3fast.training.labels``; the recipe's if ``None``.

    Raises:
        ValueError: an unknown name; a mapping that the attack does not have; an attack of another
            package that cannot be imported.

    Example:
        >>> recipe("badnets", "digits").size, recipe("badnets", "cifar10").size
        (2, 3)
    """
    make = ATTACKS.find(name)
    usual = RECIPES[COLOUR].get(name, {"target": 0})
    options = dict(RECIPES.get(data, {}).get(name, usual))
    if target is not None:
        options["target"] = target
    if mapping is not None:
        options["mapping"] = mapping
    attack = make(**options)
    if adaptive is None:
        return attack
    check_choice("adaptive", adaptive, ADAPTIVE)
    return ADAPTIVE[adaptive](attack)


def load_attack(path: str | Path, name: str | None = None) -> Any:
    """Load an attack that ``save_attack`` wrote.

    Args:
        path: the file.
        name: an attack of another package that the file may hold; a file cannot choose by itself
            which package is imported.

    Raises:
        ValueError: the file is no saved attack, or of an attack that is neither built-in nor
            ``name``.
        OSError: the file cannot be opened.
    """
    held, options, tensors = read_attack(path)
    file = printable(Path(path).name)
    try:
        if held != name:
            check_choice("attack", held, ATTACKS.builtin)
        attack = ATTACKS.find(held)(**options)
        attack.load_state_dict(tensors)
    except TypeError as error:  # an unknown or missing option, or one of the wrong type
        raise ValueError(
            f"{file} has options that {held!r} cannot take: {error_text(error)}"
        ) from None
    except (ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{file} is no usable attack: {error_text(error)}") from None
    return attack

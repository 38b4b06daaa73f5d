# SPDX-License-Identifier: Apache-2.0
"""All attacks by name, the options that suit each data set, and saved attacks read back.

To add an attack, add a file with a dataclass of the shape of ``Attack``, a row to ``ATTACKS`` and
its options to ``RECIPES``.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d3fast.attacks.adaptive import DistanceAwareAttacker, SAMAttacker
from d3fast.attacks.badnets import BadNets
from d3fast.attacks.base import Attack, read_attack
from d3fast.attacks.blended import Blended
from d3fast.attacks.input_aware import InputAware
from d3fast.attacks.low_frequency import LowFrequency
from d3fast.attacks.recipes import COLOUR, RECIPES
from d3fast.attacks.sig import SIG
from d3fast.attacks.ssba import SSBA
from d3fast.attacks.wanet import WaNet
from d3fast.io.untrusted import error_text, printable
from d3fast.runtime.checks import check_choice

ATTACKS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "badnets": BadNets,
        "blended": Blended,
        "sig": SIG,
        "wanet": WaNet,
        "low-frequency": LowFrequency,
        "input-aware": InputAware,
        "ssba": SSBA,
    }
)

ADAPTIVE: Mapping[str, Callable[[Attack], Attack]] = MappingProxyType(
    {
        "sam-1": lambda base: SAMAttacker(base, budget=1.0),
        "sam-3": lambda base: SAMAttacker(base, budget=3.0),
        "distance-aware": DistanceAwareAttacker,
    }
)


def recipe(name: str, data: str, target: int | None = None, adaptive: str | None = None) -> Attack:
    """An attack with the options that suit a data set.

    Args:
        name: the attack's name.
        data: the data set's name; options of the literature where none were chosen for it.
        target: another target class than the recipe's.
        adaptive: name of an adaptive attacker around it, or ``None``.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> recipe("badnets", "digits").size, recipe("badnets", "cifar10").size
        (2, 3)
    """
    check_choice("attack", name, ATTACKS)
    options = dict(RECIPES.get(data, {}).get(name, RECIPES[COLOUR][name]))
    if target is not None:
        options["target"] = target
    attack = ATTACKS[name](**options)
    if adaptive is None:
        return attack
    check_choice("adaptive", adaptive, ADAPTIVE)
    return ADAPTIVE[adaptive](attack)


def load_attack(path: str | Path) -> Any:
    """Read an attack that ``save_attack`` wrote.

    Raises:
        ValueError: a file that is no saved attack, or of an attack this version does not know.
        OSError: a file that cannot be opened.
    """
    name, options, tensors = read_attack(path)
    file = printable(Path(path).name)
    try:
        check_choice("attack", name, ATTACKS)
        attack = ATTACKS[name](**options)
        attack.load_state_dict(tensors)
    except TypeError as error:  # an option too many, too few, or of another type
        raise ValueError(
            f"{file} has options that {name!r} cannot take: {error_text(error)}"
        ) from None
    except (ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{file} is no usable attack: {error_text(error)}") from None
    return attack

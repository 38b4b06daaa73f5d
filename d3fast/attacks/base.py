# SPDX-License-Identifier: Apache-2.0
"""What every attack has, and how a trigger is stored.

An attack is a frozen dataclass of options with a ``target`` and three methods: ``trigger``
(stamp a batch), ``poison`` (stamp and relabel part of a training set) and ``state_dict`` (the
tensors it has learned, empty for fixed patterns). ``save_attack`` and ``load_attack`` keep
options and tensors in one safetensors file, which cannot execute anything when it is read.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from d3fast.data.base import ImageData
from d3fast.files import whole_file

FORMAT = "d3fast.attack/1"


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A training set part of which carries the trigger.

    Attributes:
        data: all images, the poisoned ones stamped and relabelled, in the order they had.
        indices: (k,) positions of the poisoned images, ascending.
    """

    data: ImageData
    indices: Tensor


@runtime_checkable
class Attack(Protocol):
    """The shape of every attack."""

    @property
    def target(self) -> int:
        """The class that triggered images are meant to be taken for."""

    def trigger(self, images: Tensor) -> Tensor:
        """Triggered copies of a batch (N, C, H, W) in [0, 1] float or uint8, on its device."""

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """A copy of the dataset with the given share of its images poisoned."""

    def state_dict(self) -> dict[str, Tensor]:
        """What the trigger has learned."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what ``state_dict`` gave."""


def check_target(attack_target: int, target: int | None, classes: int) -> int:
    """The target class to use; raises ``ValueError`` on one that contradicts or does not exist."""
    if target is not None and target != attack_target:
        raise ValueError(f"target must be the attack's own {attack_target}, got {target}")
    if not 0 <= attack_target < classes:
        raise ValueError(f"target must be in 0..{classes - 1}, got {attack_target}")
    return attack_target


def choose_victims(
    candidates: Tensor, ratio: float, total: int, generator: torch.Generator | None
) -> Tensor:
    """Draw ``round(ratio * total)`` of the candidates.

    Args:
        candidates: (m,) positions that may be poisoned.
        ratio: share of the whole training set, 0..1.
        total: size of the whole training set.
        generator: a CPU generator; torch's default one if ``None``.

    Returns:
        Positions, ascending, on the CPU.

    Raises:
        ValueError: a ratio outside 0..1, or one that needs more images than there are.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in 0..1, got {ratio}")
    count = round(ratio * total)
    if count > len(candidates):
        raise ValueError(
            f"ratio={ratio} of {total} images needs {count} that may be poisoned, "
            f"there are {len(candidates)}"
        )
    chosen = torch.randperm(len(candidates), generator=generator)[:count]
    return candidates.cpu()[chosen].sort().values


def save_attack(attack: Attack, path: str | Path, name: str) -> None:
    """Write an attack's options and learned tensors to a safetensors file.

    Args:
        attack: a dataclass of the registry.
        path: the file to write.
        name: the attack's name in the registry.

    Raises:
        ValueError: the folder does not exist.
    """
    options = dataclasses.asdict(attack)  # type: ignore[call-overload]
    metadata = {"format": FORMAT, "attack": name, "options": json.dumps(options)}
    tensors = {key: value.detach().cpu() for key, value in attack.state_dict().items()}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_attack(path: str | Path) -> tuple[str, Mapping[str, Any], dict[str, Tensor]]:
    """Read what ``save_attack`` wrote.

    Returns:
        The attack's name, its options and its tensors.

    Raises:
        ValueError: a file that is no saved attack.
        OSError: a file that cannot be opened.
    """
    name = Path(path).name
    try:
        with safe_open(Path(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{name} is no saved attack (format {FORMAT})")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        options = json.loads(metadata["options"])
        attack = metadata["attack"]
    except SafetensorError as error:
        raise ValueError(f"{name} is no safetensors file: {error}") from None
    except (KeyError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{name} is a damaged saved attack: {error}") from None
    if not isinstance(options, dict):
        raise ValueError(f"{name} is a damaged saved attack: its options are {options!r:.40}")
    return attack, options, tensors

# SPDX-License-Identifier: Apache-2.0
"""What every attack has, how a training set is poisoned, and how a trigger is stored.

An attack is a frozen dataclass of options with a ``target``, a label ``mapping`` and three
methods: ``trigger`` (stamp a batch), ``poison`` (stamp and relabel part of a training set) and
``state_dict`` (the tensors it has learned, empty for fixed patterns). Two more are optional:
``learn``, where the trigger has to be learned first (``Learned``), and ``training``, where
poisoning once before training is not enough (``OwnTraining``). ``save_attack`` and
``load_attack`` keep options and tensors in one safetensors file, which cannot execute anything
when it is read.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from d3fast.data.base import ImageData
from d3fast.io.files import atomic_write
from d3fast.io.untrusted import error_text, open_regular, printable
from d3fast.runtime.seeding import generator as seeded
from d3fast.training.labels import target_labels
from d3fast.training.loop import Gradients, plain_gradients

FORMAT = "d3fast.attack/1"
_MAX_FILE = 2**28
# What an attack of a file may ask for: its networks and warps are made by these.
_LARGEST = {"width": 256, "grid": 4096}
_LARGE = 2**63
_LARGEST_SIDE = 4096


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

    @property
    def mapping(self) -> str:
        """Which label a triggered image is to get; see ``d3fast.training.labels``."""

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

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state_dict`` gave."""


@runtime_checkable
class Learned(Protocol):
    """An attack whose trigger is learned once, on the attacker's training data, and then fixed."""

    @property
    def learned(self) -> bool:
        """Whether ``trigger`` can be called."""

    def learn(
        self,
        data: ImageData,
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> None:
        """Learn the trigger; afterwards ``state_dict`` holds it."""


@dataclass(frozen=True)
class Training:
    """What a backdoored model is trained on.

    Attributes:
        loader: yields (images, labels), poisoned, afresh in every pass.
        gradients: how the gradients of a batch are computed.
    """

    loader: Iterable[Any]
    gradients: Gradients = plain_gradients


@runtime_checkable
class OwnTraining(Protocol):
    """An attack that is more than a training set poisoned once."""

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """What to train on; ``data`` is clean and on its device, nothing of it is changed."""


def training_plan(
    attack: Attack, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
) -> Training:
    """What a model is trained on to carry the attack: its own plan, or the set poisoned once.

    Raises:
        ValueError: an attack that does not fit the data, or has not been learned.
    """
    if isinstance(attack, OwnTraining):
        return attack.training(
            data, ratio=ratio, batch_size=batch_size, seed=seed, progress=progress
        )
    poisoned = attack.poison(data, ratio, generator=seeded(seed, "poison")).data
    return Training(poisoned.batches(batch_size, seeded(seed, "training order")))


class Aimed(Protocol):
    """What says which labels an attacker wants changed."""

    @property
    def target(self) -> int:
        """The target class."""

    @property
    def mapping(self) -> str:
        """The label mapping."""


class Labelled(Protocol):
    """Any data with class labels."""

    @property
    def labels(self) -> Tensor:
        """(N,) class indices."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    def __len__(self) -> int: ...


def check_target(attack_target: int, target: int | None, classes: int) -> int:
    """The target class to use; raises ``ValueError`` on one that contradicts or does not exist."""
    if target is not None and target != attack_target:
        raise ValueError(f"target must be the attack's own {attack_target}, got {target}")
    if not 0 <= attack_target < classes:
        raise ValueError(f"target must be in 0..{classes - 1}, got {attack_target}")
    return attack_target


def choose_victims(
    attack: Aimed, dataset: Labelled, ratio: float, generator: torch.Generator | None
) -> Tensor:
    """Draw which samples are poisoned: ``round(ratio * len(dataset))`` of those that may be.

    Those are the samples whose label the attacker wants changed; under ``"clean-label"`` those of
    the target class, all of them where the ratio asks for more.

    Args:
        attack: its target and mapping decide who may be drawn.
        dataset: the training set.
        ratio: share of the whole training set, 0..1.
        generator: a CPU generator; torch's default one if ``None``.

    Returns:
        Positions, ascending, on the CPU.

    Raises:
        ValueError: a ratio outside 0..1, or one that needs more images than there are; a target
            that is no class.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in 0..1, got {ratio}")
    classes = len(dataset.classes)
    check_target(attack.target, None, classes)
    unchanged = (
        target_labels(dataset.labels, attack.target, classes, attack.mapping) == dataset.labels
    )
    clean_label = attack.mapping == "clean-label"
    candidates = (unchanged if clean_label else ~unchanged).nonzero().flatten().cpu()
    count = round(ratio * len(dataset))
    if count > len(candidates) and not clean_label:
        raise ValueError(
            f"ratio={ratio} of {len(dataset)} samples needs {count} that may be poisoned, "
            f"there are {len(candidates)}"
        )
    chosen = torch.randperm(len(candidates), generator=generator)[:count]
    return candidates[chosen].sort().values


def poison_once(
    attack: Attack,
    dataset: ImageData,
    ratio: float,
    target: int | None,
    generator: torch.Generator | None,
) -> Poisoned:
    """Stamp and relabel part of a copy of a training set: the body of every ``poison``.

    Args:
        attack: stamps, and says who may be stamped.
        dataset: the training set; it is not changed.
        ratio: share of the whole training set.
        target: the attack's own target, or ``None``.
        generator: a CPU generator that draws the images; torch's default one if ``None``.

    Raises:
        ValueError: as ``choose_victims``; a target that is not the attack's.
    """
    check_target(attack.target, target, len(dataset.classes))
    chosen = choose_victims(attack, dataset, ratio, generator).to(dataset.images.device)
    images, labels = dataset.images.clone(), dataset.labels.clone()
    if len(chosen):
        images[chosen] = attack.trigger(images[chosen])
        labels[chosen] = target_labels(
            labels[chosen], attack.target, len(dataset.classes), attack.mapping
        )
    return Poisoned(replace(dataset, images=images, labels=labels), chosen)


def refuse_state(attack: Attack, state: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` if a fixed pattern is given tensors: they are another attack's."""
    if state:
        raise ValueError(
            f"{type(attack).__name__} learns no tensors, got {printable(', '.join(state), 80)}"
        )


def option_values(attack: Any) -> dict[str, Any]:
    """The options of an attack by name, as its constructor takes them."""
    return {f.name: getattr(attack, f.name) for f in dataclasses.fields(attack) if f.init}


def save_attack(attack: Attack, path: str | Path, name: str) -> None:
    """Write an attack's options and learned tensors to a safetensors file.

    Args:
        attack: a dataclass of the registry.
        path: the file to write.
        name: the attack's name in the registry.

    Raises:
        ValueError: the folder does not exist.
    """
    options = json.dumps(option_values(attack))
    metadata = {"format": FORMAT, "attack": name, "options": options}
    tensors = {key: value.detach().cpu().contiguous() for key, value in attack.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_attack(path: str | Path) -> tuple[str, Mapping[str, Any], dict[str, Tensor]]:
    """Read what ``save_attack`` wrote.

    Returns:
        The attack's name, its options and its tensors.

    Raises:
        ValueError: a file that is no saved attack.
        OSError: a file that cannot be opened.
    """
    name = printable(Path(path).name)
    try:
        with open_regular(path) as start:
            if os.fstat(start.fileno()).st_size > _MAX_FILE:
                raise ValueError(f"{name} is longer than {_MAX_FILE} bytes, no saved attack")
        with safe_open(Path(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{name} is no saved attack (format {FORMAT})")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{name} is no safetensors file: {error_text(error)}") from None
    try:
        options, attack = json.loads(metadata["options"]), metadata["attack"]
        _check_options(options)
        _check_tensors(tensors)
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} is a damaged saved attack: {error_text(error)}") from None
    return attack, options, tensors


def _check_options(options: Any) -> None:
    """Raise ``ValueError`` on options that would make an attack of any size, or none at all."""
    if not isinstance(options, dict):
        raise ValueError(f"its options are {printable(repr(options), 40)}")
    for option, value in options.items():
        most = _LARGEST.get(option, _LARGE)
        if isinstance(value, int | float) and abs(value) > most:
            shown = printable(option, 40)
            raise ValueError(f"{shown} must be <= {most}, got {printable(repr(value), 40)}")


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not value.numel() or max(value.shape, default=1) > _LARGEST_SIDE:
            shape = printable(tuple(value.shape), 80)
            raise ValueError(f"'{printable(name, 80)}' has shape {shape}, which no trigger has")
        if not bool(value.isfinite().all()):
            raise ValueError(f"'{printable(name, 80)}' holds NaN or inf")

# SPDX-License-Identifier: Apache-2.0
"""Train a backdoored model by recipe and measure it beside a clean model.

``d3fast attack``, ``d3fast demo`` and the jobs of ``d3fast benchmark`` share these steps: split the
data set by seed, choose the options of the attack, learn its trigger if it has to be learned, train
the model, measure both models.
"""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d3fast.attacks import (
    ATTACKS,
    Attack,
    OwnTraining,
    TrainConfig,
    ensure_learned,
    recipe,
    save_attack,
    train_backdoored,
)
from d3fast.attacks.adaptive import base_of
from d3fast.attacks.files import option_values
from d3fast.data import DATASETS, Splits, load
from d3fast.detox import save_weights
from d3fast.models import make_model
from d3fast.results.schema.benchmark import AttackRow
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.devices import resolve_device, synchronize
from d3fast.runtime.plugins import is_spec, origin
from d3fast.runtime.seeding import global_seed
from d3fast.training.metrics import Metrics, evaluate, floor_violation

TEST_BATCH = 1000


@dataclass(frozen=True)
class AttackSpec:
    """A model to train: data, architecture, attack and recipe.

    Attributes:
        data: name of the data set.
        model: a model of the registry or ``package.module:factory``.
        attack: name of the attack; ``None`` trains the clean model.
        adaptive: name of an adaptive attacker around it, or ``None``.
        target: target class; the recipe's if ``None``.
        ratio: poison ratio; with 0 the suspect is the clean model, and a defence shows its price.
        seed: draws the split, the initial weights, the poisoned images and the order of batches.
        train: number of training images; all that are left if ``None``.
        clean: number of images kept aside for a defender.
        size: side that image files are resized to; their own, or the data set's, if ``None``.
        training: recipe of the training.
        mapping: label mapping of the attack; the recipe's if ``None``.

    Raises:
        ValueError: a number out of range.
    """

    data: str
    model: str
    attack: str | None
    adaptive: str | None = None
    target: int | None = None
    ratio: float = 0.1
    seed: int = 0
    train: int | None = None
    clean: int = 1000
    size: int | None = None
    training: TrainConfig = field(default_factory=TrainConfig)
    mapping: str | None = None

    def __post_init__(self) -> None:
        check_number("ratio", self.ratio)
        check_integer("seed", self.seed, 0)
        check_integer("clean", self.clean, 0)
        for name, low in (("train", 0), ("target", 0), ("size", 1)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), low)

    @property
    def plugins(self) -> Mapping[str, str]:
        """Package and version of data set, model and attack, where they are not built-in."""
        model = {f"model {self.model}": origin(self.model)} if is_spec(self.model) else {}
        return {**DATASETS.origins(self.data), **model, **ATTACKS.origins(self.attack)}

    def splits(self, data_dir: Path | None = None) -> Splits:
        """Return the data set, split by the seed."""
        return load(
            self.data,
            self.seed,
            train=self.train,
            clean=self.clean,
            data_dir=data_dir,
            size=self.size,
        )

    def initial_model(self, splits: Splits) -> nn.Module:
        """Return the model before training."""
        with global_seed(self.seed):
            return make_model(self.model, len(splits.train.classes), splits.train.shape[0])

    def make_attack(self) -> Attack:
        """Return the attack; a trigger that has to be learned is not learned yet."""
        assert self.attack is not None
        return recipe(self.attack, self.data, self.target, self.adaptive, self.mapping)


@dataclass(frozen=True)
class AttackResult:
    """A backdoored model and its measurements; no model if the trigger violates the floor.

    Attributes:
        attack: the attack, its trigger learned.
        clean: the clean model under the trigger (floor of the ASR, ceiling of the RA), or ``None``
            if there is no clean model.
        learning_seconds: time that learning the trigger took.
        model: the backdoored model in eval mode, or ``None``.
        measured: the backdoored model on clean and triggered test images, or ``None``.
        seconds: time of the training.
    """

    attack: Attack
    clean: Metrics | None
    learning_seconds: float
    model: nn.Module | None = None
    measured: Metrics | None = None
    seconds: float = 0.0

    @property
    def violation(self) -> str | None:
        """The reason why the trigger measures nothing, or ``None``."""
        if self.clean is None:
            return None
        return floor_violation(self.clean, self.attack.target)

    def row(self, spec: AttackSpec) -> AttackRow:
        """Return the row of the table: options, rates, counts, floor and seconds."""
        numbers: dict[str, Any] = {}
        if self.clean is not None:
            numbers |= {"floor": self.clean.asr, "ra_ceiling": self.clean.ra}
        if self.measured is not None:
            numbers |= {**self.measured.as_dict(), "seconds": self.seconds}
        if self.clean is not None and self.measured is not None:
            numbers |= {
                "asr_excess": numbers["asr"] - numbers["floor"],
                "acc_loss": self.clean.acc - self.measured.acc,
            }
        return AttackRow(
            seed=spec.seed,
            attack=str(spec.attack),
            adaptive=spec.adaptive,
            ratio=spec.ratio,
            target=self.attack.target,
            mapping=self.attack.mapping,
            learning_seconds=self.learning_seconds,
            options=option_values(base_of(self.attack)),
            refused=self.violation,
            **numbers,
        )


def prepare_attack(
    spec: AttackSpec,
    splits: Splits,
    *,
    triggers: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[Attack, float]:
    """Return the attack, its trigger learned unless the training of the model learns it.

    Args:
        spec: names the attack.
        splits: the data, on its device.
        triggers: folder of learned triggers, read and written, or ``None``.
        device: device of the learning.
        progress: show progress bars.

    Returns:
        The attack and the seconds that learning took.
    """
    attack = spec.make_attack()
    started = time.perf_counter()
    # An attack that learns during the training needs nothing now, unless another one wraps it.
    if base_of(attack) is not attack or not isinstance(attack, OwnTraining):
        ensure_learned(
            base_of(attack),
            str(spec.attack),
            splits.train,
            folder=triggers,
            seed=spec.seed,
            device=device,
            progress=progress,
        )
    return attack, time.perf_counter() - started


def train_model(
    spec: AttackSpec,
    splits: Splits,
    attack: Attack | None,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[nn.Module, float]:
    """Train the model of a spec, backdoored by an attack or clean without one.

    Returns:
        The model in eval mode, and the seconds.

    Raises:
        ValueError: a model, data and attack that do not fit together.
    """
    where = resolve_device(device)
    model = spec.initial_model(splits)
    started = time.perf_counter()
    train_backdoored(
        model,
        splits.train,
        attack,
        ratio=spec.ratio,
        seed=spec.seed,
        config=spec.training,
        device=where,
        progress=progress,
    )
    synchronize(where)
    return model, time.perf_counter() - started


def implant(
    spec: AttackSpec,
    splits: Splits,
    clean: nn.Module | None,
    *,
    triggers: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> AttackResult:
    """Learn the trigger, measure its floor, train the backdoored model and measure it.

    Args:
        spec: names an attack.
        splits: the data, on its device.
        clean: the clean model, for the floor of the ASR and the ceiling of the RA; ``None`` leaves
            both out.
        triggers: folder of learned triggers, read and written, or ``None``.
        device: device of the training.
        progress: show progress bars.

    Returns:
        The result; without a model if the floor is violated before the training.
    """
    attack, learning = prepare_attack(
        spec, splits, triggers=triggers, device=device, progress=progress
    )
    test = splits.test.batches(TEST_BATCH)

    def floor() -> Metrics | None:
        return None if clean is None else evaluate(clean, test, attack)

    known = getattr(attack, "learned", True)  # before the model is trained
    if known:
        early = AttackResult(attack, floor(), learning)
        if early.violation is not None:
            return early
    if spec.ratio == 0 and clean is not None:  # a model that was never poisoned, as a suspect
        model, seconds = copy.deepcopy(clean), 0.0
    else:
        model, seconds = train_model(spec, splits, attack, device=device, progress=progress)
    under_trigger = early.clean if known else floor()
    measured = evaluate(model, test, attack)
    return AttackResult(attack, under_trigger, learning, model, measured, seconds)


def save_suspect(model: nn.Module, attack: Attack, spec: AttackSpec, stem: Path) -> None:
    """Write ``STEM.safetensors`` and ``STEM.trigger.safetensors``, the base attack's."""
    save_weights(model, f"{stem}.safetensors")
    save_attack(base_of(attack), f"{stem}.trigger.safetensors", str(spec.attack))

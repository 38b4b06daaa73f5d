# SPDX-License-Identifier: Apache-2.0
"""Make a backdoored model by recipe, with everything that says how good the backdoor is.

The steps that ``d3fast attack`` and ``d3fast benchmark attacks`` share: the data set cut up by
seed, the attack with the options that suit it, its trigger learned if it has to be, the model
trained, both measured.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d3fast.attacks import (
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
from d3fast.data import Splits, load
from d3fast.detox import save_weights
from d3fast.models import make_model
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.devices import resolve_device, synchronize
from d3fast.runtime.seeding import global_seed
from d3fast.training.metrics import evaluate, floor_violation


@dataclass(frozen=True)
class Implant:
    """What is implanted into what.

    Attributes:
        data: name of the data set.
        model: a model of the registry or ``package.module:factory``.
        attack: name of the attack; ``None`` trains the clean twin.
        adaptive: name of an adaptive attacker around it, or ``None``.
        target: target class; the recipe's if ``None``.
        ratio: poison ratio.
        seed: draws the split, the first weights, the poisoned images and the order of batches.
        train: number of training images; all that are left if ``None``.
        clean: number of images kept aside for a defender.
        size: side that image files are stretched to; their own, or the data set's, if ``None``.
        training: recipe of the training.

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

    def __post_init__(self) -> None:
        check_number("ratio", self.ratio)
        check_integer("seed", self.seed, 0)
        check_integer("clean", self.clean, 0)
        for name, low in (("train", 0), ("target", 0), ("size", 1)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), low)

    def splits(self, data_dir: Path | None = None) -> Splits:
        """The data set, cut up by the seed."""
        return load(
            self.data,
            self.seed,
            train=self.train,
            clean=self.clean,
            data_dir=data_dir,
            size=self.size,
        )

    def fresh_model(self, splits: Splits) -> nn.Module:
        """The model before training."""
        with global_seed(self.seed):
            return make_model(self.model, len(splits.train.classes), splits.train.shape[0])

    def make_attack(self) -> Attack:
        """The attack it names; a trigger that has to be learned is not learned yet."""
        assert self.attack is not None
        return recipe(self.attack, self.data, self.target, self.adaptive)


def prepared(
    spec: Implant,
    splits: Splits,
    *,
    triggers: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[Attack, float]:
    """The attack, its trigger learned unless that happens while the model is trained.

    Args:
        spec: what is implanted.
        splits: the data, on its device.
        triggers: folder that keeps learned triggers for the next time, or ``None``.
        device: where to learn.
        progress: show progress bars.

    Returns:
        The attack and the seconds that learning took.
    """
    attack = spec.make_attack()
    started = time.perf_counter()
    # An attack that learns along with the model needs nothing now, unless another one wraps it.
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


def implant(
    spec: Implant,
    splits: Splits,
    attack: Attack | None,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[nn.Module, float]:
    """Train a model that carries the attack.

    Returns:
        The model in eval mode, and the seconds.

    Raises:
        ValueError: a model, data and attack that do not fit together.
    """
    where = resolve_device(device)
    model = spec.fresh_model(splits)
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


def measure(
    spec: Implant,
    splits: Splits,
    clean: nn.Module | None,
    *,
    triggers: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[nn.Module | None, Attack, dict[str, Any]]:
    """Learn the trigger, measure its floor, train the model, measure it.

    Args:
        spec: what is implanted; it names an attack.
        splits: the data, on its device.
        clean: the clean twin, for the floor of the ASR and the ceiling of the RA; there is
            neither if ``None``.
        triggers: folder that keeps learned triggers for the next time, or ``None``.
        device: where to compute.
        progress: show progress bars.

    Returns:
        The model (``None`` if the trigger was refused before one was trained), the attack, and
        the row of the table: the spec's names, rates and counts, floor and seconds.
    """
    attack, learning = prepared(spec, splits, triggers=triggers, device=device, progress=progress)
    test = splits.test.batches(1000)
    row: dict[str, Any] = {
        "seed": spec.seed,
        "attack": spec.attack,
        "adaptive": spec.adaptive,
        "ratio": spec.ratio,
        "target": attack.target,
        "mapping": attack.mapping,
        "learning_seconds": learning,
        "options": option_values(base_of(attack)),
    }
    floor = None
    if clean is not None and getattr(attack, "learned", True):
        floor = evaluate(clean, test, attack)
        if (reason := floor_violation(floor, attack.target)) is not None:
            row |= {"refused": reason, "floor": floor.asr, "ra_ceiling": floor.ra}
            return None, attack, row
    model, seconds = implant(spec, splits, attack, device=device, progress=progress)
    row |= {**evaluate(model, test, attack).as_dict(), "seconds": seconds, "refused": None}
    if clean is not None:
        floor = floor or evaluate(clean, test, attack)  # of a trigger that is known only now
        assert floor.asr is not None
        row |= {
            "floor": floor.asr,
            "asr_excess": row["asr"] - floor.asr,
            "ra_ceiling": floor.ra,
            "acc_loss": floor.acc - row["acc"],
            "refused": floor_violation(floor, attack.target),
        }
    return model, attack, row


def save_implant(model: nn.Module, attack: Attack, spec: Implant, stem: Path) -> None:
    """Write ``STEM.safetensors`` and ``STEM.trigger.safetensors``, the base attack's."""
    save_weights(model, f"{stem}.safetensors")
    save_attack(base_of(attack), f"{stem}.trigger.safetensors", str(spec.attack))

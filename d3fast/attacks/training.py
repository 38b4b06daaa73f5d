# SPDX-License-Identifier: Apache-2.0
"""Train a backdoored model, or the clean model that it is compared with.

Both use the same recipe and the same random streams. The clean model gives the floor of the ASR
and the ceiling of the RA.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from d3fast.attacks.base import Attack, Training, training_plan
from d3fast.data.augment import Augment, Augmented
from d3fast.data.base import ImageData
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.seeding import generator, global_seed
from d3fast.training.loop import PRECISIONS, Epoch, fit


@dataclass(frozen=True)
class TrainConfig:
    """Training recipe: SGD with momentum under a cosine schedule.

    Attributes:
        epochs: passes over the training set.
        batch_size: images per batch, at most.
        lr: initial learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty of SGD.
        precision: ``"fp32"``, or ``"bf16"`` for a forward pass under autocast.
        channels_last: store convolution weights channels-last during training.
        augment: augmentation of every batch, poisoned images included; ``None`` for none.

    Raises:
        ValueError: an option out of range; an unknown precision.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    precision: str = "fp32"
    channels_last: bool = False
    augment: Augment | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            check_integer(name, getattr(self, name), 1)
        for name in ("lr", "momentum", "weight_decay"):
            check_number(name, getattr(self, name))
        check_choice("precision", self.precision, PRECISIONS)


def train_backdoored(
    model: nn.Module,
    data: ImageData,
    attack: Attack | None,
    *,
    ratio: float = 0.1,
    seed: int = 0,
    config: TrainConfig | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    on_epoch: Callable[[Epoch, nn.Module], None] | None = None,
) -> nn.Module:
    """Train a model on poisoned data, by the attack's own training plan if it has one.

    Args:
        model: an initialised model; trained in place.
        data: the clean training set; it is not changed.
        attack: the attack to implant; ``None`` trains the clean model.
        ratio: share of the training set to poison, 0..1.
        seed: draws the poisoned images and the order of the batches.
        config: the recipe; ``TrainConfig()`` if ``None``.
        device: where to train; the device of the model if ``None``.
        progress: show a progress bar.
        on_epoch: called after every epoch with its record and the model.

    Returns:
        The model, in eval mode.

    Raises:
        ValueError: an option out of range; the attack does not fit the data, or its trigger has
            not been learned.
    """
    config = config or TrainConfig()
    where = resolve_device(device, model)
    model.to(where)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = data.to(where)
    if attack is None:
        plan = Training(data.batches(config.batch_size, generator(seed, "training order")))
    else:
        plan = training_plan(
            attack, data, ratio=ratio, batch_size=config.batch_size, seed=seed, progress=progress
        )
    loader: Iterable[Any] = plan.loader
    if config.augment is not None:
        loader = Augmented(loader, config.augment, generator(seed, "augmentation"))
    optimizer = torch.optim.SGD(
        model.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay
    )
    with global_seed(seed, "training", where):  # for dropout
        fit(
            model,
            loader,
            nn.CrossEntropyLoss(),
            optimizer,
            epochs=config.epochs,
            device=where,
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs),
            name="the training data",
            title="training a clean model" if attack is None else "training a backdoored model",
            progress=progress,
            on_epoch=on_epoch,
            gradients=plan.gradients,
            precision=config.precision,
        )
    if config.channels_last:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return model

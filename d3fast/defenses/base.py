# SPDX-License-Identifier: Apache-2.0
"""Interface of the defences, and the parts that most of them share.

A defence is a frozen dataclass of options; calling it turns a suspect model into a repaired copy.
It receives clean samples only: no test data and no trigger, so no choice can depend on them.

``on_copy`` copies, times and checks the model around every repair. ``tune`` is the fine-tuning of
the defences that use SGD.
"""

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.devices import resolve_device, synchronize
from d3fast.runtime.seeding import global_seed
from d3fast.training.loop import Epoch, Gradients, Loss, check_weights, fit, plain_gradients

OnEpoch = Callable[[Epoch, nn.Module], None]
Work = Callable[[nn.Module, torch.device], tuple[Epoch, ...]]
Schedule = Callable[[torch.optim.Optimizer, int], LRScheduler]  # (optimizer, epochs)


@dataclass(frozen=True)
class DefenseResult:
    """Result of a repair.

    Attributes:
        model: the repaired copy, in eval mode.
        history: one record per epoch; empty if nothing was trained.
        seconds: wall-clock time of the repair.
        chosen: options that the defence decided by itself, by name.
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    seconds: float
    chosen: Mapping[str, Any] = field(default_factory=dict)


class Defense(Protocol):
    """Interface of every defence."""

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Repair a copy of the model.

        Args:
            model: the suspect; it is not changed.
            clean_train: yields (inputs, labels) of clean samples; iterated once per epoch.
            clean_val: held-out clean samples, for choices inside the defence and for the record.
            device: where to compute; the device of the model if ``None``.
            progress: show a progress bar.
        """


def on_copy(
    model: nn.Module, device: str | torch.device | None, work: Work, seed: int
) -> DefenseResult:
    """Repair a copy of the model with ``work`` and time it.

    Args:
        model: the suspect; it is not changed.
        device: where to compute; the device of the model if ``None``.
        work: repairs the copy in place; (copy, device) -> history.
        seed: seeds torch's global generators during the repair; their state is restored after.

    Returns:
        The copy in eval mode, the history, the seconds.

    Raises:
        ValueError: NaN or inf in the weights, before or after the repair.
    """
    device = resolve_device(device, model)
    check_weights(model)
    started = time.perf_counter()
    repaired = copy.deepcopy(model).to(device)
    with global_seed(seed, "training", device):
        history = work(repaired, device)
    repaired.eval()
    synchronize(device)
    seconds = time.perf_counter() - started
    check_weights(repaired, "after the repair")
    return DefenseResult(repaired, history, seconds)


class Tuning(Protocol):
    """Options of a defence that fine-tunes: those that ``tune`` reads, and the seed."""

    @property
    def epochs(self) -> int:
        """Passes over the clean samples."""

    @property
    def lr(self) -> float:
        """Learning rate."""

    @property
    def momentum(self) -> float:
        """Momentum."""

    @property
    def weight_decay(self) -> float:
        """L2 penalty."""

    @property
    def max_grad_norm(self) -> float | None:
        """Gradients are clipped to this norm; ``None`` for no clipping."""

    @property
    def seed(self) -> int:
        """Seed of the random draws; see ``on_copy``."""

    @property
    def on_epoch(self) -> OnEpoch | None:
        """Callback after every epoch."""


def check_tuning(options: Tuning) -> None:
    """Raise ``ValueError``, naming option and value, on an option out of range."""
    check_integer("epochs", options.epochs, 1)
    check_integer("seed", options.seed, 0)
    for name in ("lr", "momentum", "weight_decay"):
        check_number(name, getattr(options, name))
    if options.max_grad_norm is not None:
        check_number("max_grad_norm", options.max_grad_norm)


def cosine(optimizer: torch.optim.Optimizer, epochs: int) -> LRScheduler:
    """Return a cosine schedule to 0 over the epochs."""
    return CosineAnnealingLR(optimizer, epochs)


def tune(
    model: nn.Module,
    clean_train: Iterable[Any],
    clean_val: Iterable[Any] | None,
    options: Tuning,
    device: torch.device,
    *,
    title: str,
    progress: bool,
    loss: Loss | None = None,
    gradients: Gradients = plain_gradients,
    schedule: Schedule = cosine,
) -> tuple[Epoch, ...]:
    """Fine-tune a model in place: SGD with momentum, by default under a cosine schedule to 0.

    Args:
        model: on ``device`` already; frozen weights stay frozen.
        clean_train: yields (inputs, labels); iterated once per epoch.
        clean_val: held-out clean samples for the record, or ``None``.
        options: epochs, lr, momentum, weight_decay, max_grad_norm, on_epoch.
        device: where to compute.
        title: label of the progress bar.
        progress: show the progress bar.
        loss: (logits, labels) -> 0-dim tensor; cross-entropy if ``None``.
        gradients: computes the gradients of a batch; see ``fit``.
        schedule: makes the schedule of the learning rate, stepped after every epoch.

    Returns:
        One record per epoch.

    Raises:
        ValueError: see ``fit``.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        params, options.lr, options.momentum, weight_decay=options.weight_decay
    )
    return fit(
        model,
        clean_train,
        loss or nn.CrossEntropyLoss(),
        optimizer,
        epochs=options.epochs,
        device=device,
        scheduler=schedule(optimizer, options.epochs),
        val_loader=clean_val,
        on_epoch=options.on_epoch,
        title=title,
        progress=progress,
        gradients=gradients,
        max_grad_norm=options.max_grad_norm,
    )

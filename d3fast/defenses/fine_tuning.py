# SPDX-License-Identifier: Apache-2.0
"""FineTuning: go on training on the clean samples, the yardstick of every other defence.

Cross-entropy, SGD with momentum under a cosine schedule, all weights.
"""

import copy
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from d3fast.checks import check_integer, check_number
from d3fast.defenses.base import DefenseResult, OnEpoch
from d3fast.devices import resolve_device, wait_for
from d3fast.training import check_weights, fit


@dataclass(frozen=True)
class FineTuning:
    """Plain fine-tuning; the defaults are those of the published comparisons.

    Args:
        epochs: passes over the clean samples.
        lr: learning rate.
        momentum: momentum.
        weight_decay: L2 penalty.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> len(FineTuning(epochs=3)(model, loader, None, progress=False).history)
        3
    """

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, 1)
        for name in ("lr", "momentum", "weight_decay"):
            check_number(name, getattr(self, name))

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Fine-tune a copy of the model; see ``Defense``."""
        where = resolve_device(device, model)
        check_weights(model)
        started = time.perf_counter()
        repaired = copy.deepcopy(model).to(where)
        params = [p for p in repaired.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(params, self.lr, self.momentum, weight_decay=self.weight_decay)
        history = fit(
            repaired,
            clean_train,
            nn.CrossEntropyLoss(),
            optimizer,
            epochs=self.epochs,
            device=where,
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs),
            val_loader=clean_val,
            on_epoch=self.on_epoch,
            title="fine-tuning",
            progress=progress,
        )
        wait_for(where)
        return DefenseResult(repaired, history, time.perf_counter() - started)

# SPDX-License-Identifier: Apache-2.0
"""FineTuning: continue training on the clean samples; the baseline of every other defence.

Cross-entropy, SGD with momentum under a cosine schedule, all weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune


@dataclass(frozen=True)
class FineTuning:
    """Plain fine-tuning with the defaults of the published comparisons.

    Args:
        epochs: passes over the clean samples.
        lr: initial learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        seed: seeds torch's global generators during the repair (dropout, shuffling loaders).
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range.

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
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)

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
        return on_copy(
            model,
            device,
            lambda repaired, device: tune(
                repaired,
                clean_train,
                clean_val,
                self,
                device,
                title="fine-tuning",
                progress=progress,
            ),
            self.seed,
        )

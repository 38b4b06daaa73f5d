# SPDX-License-Identifier: Apache-2.0
"""FTSAM: fine-tuning with sharpness-aware minimisation.

    min over theta  max over ||T^-1 e|| <= rho  CE(theta + e),  T = diag(|theta| + eta)

Every step uses the gradient at the worst point of a neighbourhood (``training.sam``). In the
adaptive form the perturbation of a weight is proportional to its size. Neurons that respond to a
trigger have large weights and are therefore perturbed most.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.runtime.checks import check_number
from d3fast.training.sam import sharpness_aware


@dataclass(frozen=True)
class FTSAM:
    """Fine-tuning with sharpness-aware gradients; two passes per step.

    Cross-entropy with smoothed labels, SGD with momentum under a cosine schedule, all weights. With
    ``rho=0``, no smoothing and no dropout the steps are those of ``FineTuning``.

    Args:
        epochs: passes over the clean samples.
        lr: initial learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty, added to the gradient of the perturbed point.
        rho: radius of the perturbation; 2 is the published value for CIFAR-10.
        label_smoothing: share of the label that is spread over all classes, in [0, 1]; published.
        adaptive: scale the perturbation by the weights (ASAM) or not (SAM).
        seed: seeds torch's global generators during the repair (dropout, shuffling loaders).
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range.

    Source:
        Zhu, Wei, Shen, Fan, Wu, *Enhancing Fine-Tuning Based Backdoor Defense with
        Sharpness-Aware Minimization*, ICCV 2023, arXiv 2304.11823.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> len(FTSAM(epochs=3)(model, loader, None, progress=False).history)
        3
    """

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    rho: float = 2.0
    label_smoothing: float = 0.1
    adaptive: bool = True
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        check_number("rho", self.rho)
        check_number("label_smoothing", self.label_smoothing)
        if self.label_smoothing > 1:
            raise ValueError(f"label_smoothing must be <= 1, got {self.label_smoothing!r}")

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
                title="fine-tuning with SAM",
                progress=progress,
                loss=nn.CrossEntropyLoss(label_smoothing=self.label_smoothing),
                gradients=sharpness_aware(self.rho, adaptive=self.adaptive),
            ),
            self.seed,
        )

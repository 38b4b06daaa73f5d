# SPDX-License-Identifier: Apache-2.0
"""PAM: fine-tune on inverted triggers with gradients from the way back to the suspect.

    theta <- theta - lr grad L(theta + rho (theta_0 - theta) / ||theta_0 - theta||)

L is the cross-entropy of clean samples and of inverted triggers with their true labels; theta_0 is
the suspect. A repair that only leaves the suspect's point keeps a path back to it on which the
backdoor returns with few samples; this one raises the loss of the backdoor along the path.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.defenses.bti_dbf import InversionByFeatures, Inverting, both_gradients
from d3fast.runtime.checks import check_number
from d3fast.training.loop import Epoch
from d3fast.training.sam import path_aware


@dataclass(frozen=True)
class PAM:
    """Path-aware minimisation on triggers that BTI-DBF inverts once, from the suspect.

    Inversion and requirements are those of ``BTIDBF``. ``rho`` and ``share`` are the paper's.

    Args:
        epochs: passes over the clean samples.
        lr: initial learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        rho: length of the way back at which gradients are taken.
        share: triggered images per clean image in a batch, in (0, 1].
        inversion: options of the inversion.
        seed: draws the generator; seeds torch's global generators during the repair.
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range; when called, see ``BTIDBF``.

    Source:
        Min, Qin, Zhang, Shen, Cheng, *Uncovering, Explaining, and Mitigating the Superficial
        Safety of Backdoor Defense*, NeurIPS 2024, arXiv 2410.09838, algorithm 1.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> loader = [(torch.rand(16, 1, 8, 8), torch.arange(16) % 2)]
        >>> short = PAM(epochs=3, inversion=InversionByFeatures(mask_steps=2, steps=2))
        >>> len(short(model, loader, None, progress=False).history)
        3
    """

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    rho: float = 0.5
    share: float = 0.25
    inversion: InversionByFeatures = field(default_factory=InversionByFeatures)
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        for name in ("rho", "share"):
            check_number(name, getattr(self, name))
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share!r}")

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Repair a copy of the model; see ``Defense``."""

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            suspect = copy.deepcopy(repaired).requires_grad_(False)
            inverting = Inverting(
                repaired, clean_train, self.inversion, self.epochs, device, self.seed
            )
            base = both_gradients(inverting.triggered, self.share)
            return tune(
                repaired,
                inverting,
                clean_val,
                self,
                device,
                title="PAM",
                progress=progress,
                gradients=path_aware(suspect, self.rho, base=base),
            )

        return on_copy(model, device, work, self.seed)

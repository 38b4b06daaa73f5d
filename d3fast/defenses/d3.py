# SPDX-License-Identifier: Apache-2.0
"""D3 (distance-driven detoxification) as a defence; see ``d3fast.detox``."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from d3fast.defenses.base import DefenseResult, OnEpoch
from d3fast.detox import D3Config, detoxify


@dataclass(frozen=True)
class D3:
    """Distance-driven detoxification (Wei, Liu, Zha, ICCV 2025).

    Args:
        config: options of the repair.
        on_epoch: called after every epoch with its record and the model in eval mode.
        unlabelled: batches of clean inputs without labels, see ``detoxify``; ``None`` for none.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> defense = D3(D3Config(epochs=2, backend="reference"))
        >>> len(defense(model, loader, None, progress=False).history)
        2
    """

    config: D3Config = field(default_factory=D3Config)
    on_epoch: OnEpoch | None = None
    unlabelled: Iterable[Any] | None = None

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Repair a copy of the model; see ``Defense`` and ``detoxify``."""
        result = detoxify(
            model,
            clean_train,
            self.config,
            clean_val,
            device,
            progress,
            self.on_epoch,
            unlabelled=self.unlabelled,
        )
        given, used = asdict(self.config), asdict(result.config)
        chosen = {name: value for name, value in used.items() if value != given[name]}
        return DefenseResult(result.model, result.history, result.seconds, chosen)

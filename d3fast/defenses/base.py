# SPDX-License-Identifier: Apache-2.0
"""What every defence has: a call that turns a suspect model into a repaired copy.

A defence is a frozen dataclass of options. Its call receives clean samples and nothing else: no
test data and no trigger reach it, so no choice inside it can look at them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from d3fast.training import Epoch

OnEpoch = Callable[[Epoch, nn.Module], None]


@dataclass(frozen=True)
class DefenseResult:
    """What a defence gives back.

    Attributes:
        model: the repaired copy, in eval mode.
        history: one record per epoch.
        seconds: wall-clock time of the repair.
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    seconds: float


class Defense(Protocol):
    """The shape of every defence."""

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
            clean_train: yields (inputs, labels) of clean samples, afresh in every epoch.
            clean_val: the same of held-out clean samples, for choices inside the defence and
                for the record.
            device: where to compute; where the model is if ``None``.
            progress: show a progress bar.
        """

# SPDX-License-Identifier: Apache-2.0
"""Pipeline: several defences in sequence, each on the model that the previous one returned."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from d3fast.defenses.base import Defense, DefenseResult
from d3fast.training.loop import Epoch


class Pipeline:
    """Defences run in sequence.

    Args:
        stages: the defences, in order. All get the same clean samples.

    Raises:
        ValueError: no stage is given.

    Example:
        >>> from d3fast.defenses import FineTuning
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> twice = Pipeline(FineTuning(epochs=2), FineTuning(epochs=1))
        >>> [record.epoch for record in twice(model, loader, None, progress=False).history]
        [1, 2, 3]
    """

    def __init__(self, *stages: Defense) -> None:
        if not stages:
            raise ValueError("stages must be one defence or more, got none")
        self.stages = stages

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self.stages))})"

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Repair a copy of the model; see ``Defense``. Epochs are numbered over all stages."""
        history: list[Epoch] = []
        seconds = 0.0
        chosen: dict[str, Any] = {}
        for stage in self.stages:
            result = stage(model, clean_train, clean_val, device=device, progress=progress)
            model, start = result.model, len(history)
            history += [replace(e, epoch=start + e.epoch) for e in result.history]
            seconds += result.seconds
            chosen |= result.chosen
        return DefenseResult(model, tuple(history), seconds, chosen)

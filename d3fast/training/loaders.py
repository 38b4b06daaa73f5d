# SPDX-License-Identifier: Apache-2.0
"""What a loader must yield and a model must answer, checked once per batch.

Training and evaluation take every batch through here, so a loader of another kind (dicts, one-hot
labels) or a model of another kind (tuples, score maps) gets one clear error instead of numbers
that broadcasting made up. Only shapes and types are looked at: nothing waits for the device.
"""

from typing import Any

import torch
from torch import Tensor, nn


def unpack(batch: Any, name: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs (N, ...) and int64 labels (N,) of one batch, on the device.

    Args:
        batch: what the loader yielded.
        name: what error messages call the loader.
        device: where the tensors are moved to.

    Raises:
        ValueError: something else than (inputs, labels), or labels that are no class indices.
    """
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if not pair or not all(isinstance(part, Tensor) for part in batch):
        raise ValueError(f"{name} must yield (inputs, labels) tensors, got {type(batch).__name__}")
    inputs, labels = batch
    if inputs.ndim == 0 or labels.is_floating_point() or labels.shape != inputs.shape[:1]:
        raise ValueError(
            f"{name} must yield inputs (N, ...) and labels (N,) as class indices, got shapes "
            f"{tuple(inputs.shape)} and {tuple(labels.shape)} of {labels.dtype}"
        )
    return inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True).long()


def class_scores(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's scores (N, classes) of inputs (N, ...).

    Raises:
        ValueError: the model answers with something else.
    """
    scores = model(inputs)
    if not isinstance(scores, Tensor):
        raise ValueError(
            f"the model must give (N, classes) scores, got {type(scores).__name__}; wrap it in a "
            "module that returns the scores alone"
        )
    if scores.ndim != 2 or len(scores) != len(inputs):
        raise ValueError(
            f"the model must give ({len(inputs)}, classes) scores, got shape {tuple(scores.shape)}"
        )
    return scores


def yields_nothing(name: str) -> ValueError:
    """The error for a loader without a single sample, which may be one that has been used up."""
    return ValueError(
        f"{name} yields nothing; a generator or iterator yields its batches only once, "
        "pass a list or a DataLoader"
    )

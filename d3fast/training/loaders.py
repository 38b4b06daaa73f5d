# SPDX-License-Identifier: Apache-2.0
"""Checks of a loader's batches and a model's output, once per batch.

Training and evaluation pass every batch through these functions: a loader of dicts or one-hot
labels, or a model that returns tuples or score maps, raises one clear error instead of broadcasting
to wrong numbers. Only shapes and types are checked: nothing waits for the device.
"""

from typing import Any

import torch
from torch import Tensor, nn


def unpack(batch: Any, name: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return inputs (N, ...) and int64 labels (N,) of one batch on the device.

    Args:
        batch: a batch of the loader.
        name: the loader's name in error messages.
        device: device of the result.

    Raises:
        ValueError: a batch other than (inputs, labels), or labels that are not class indices.
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
    """Return the model's scores (N, classes) of inputs (N, ...).

    Raises:
        ValueError: an output that is not such a tensor.
    """
    scores = model(inputs)
    if not isinstance(scores, Tensor):
        raise ValueError(
            f"the model must give (N, classes) scores, got {type(scores).__name__}; wrap it in a "
            "module that returns only the scores"
        )
    if scores.ndim != 2 or len(scores) != len(inputs):
        raise ValueError(
            f"the model must give ({len(inputs)}, classes) scores, got shape {tuple(scores.shape)}"
        )
    return scores


def yields_nothing(name: str) -> ValueError:
    """Return the error for a loader without samples, perhaps an exhausted iterator."""
    return ValueError(
        f"{name} yields nothing; a generator or iterator yields its batches only once, "
        "pass a list or a DataLoader"
    )

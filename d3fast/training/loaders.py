# SPDX-License-Identifier: Apache-2.0
"""Checks of a loader's batches and a model's output, once per batch.

Training and evaluation pass every batch through these functions: a loader of one-hot labels, or a
model that returns score maps, raises one clear error instead of broadcasting to wrong numbers. Only
shapes and types are checked: nothing waits for the device.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_INPUTS = ("pixel_values", "input_ids", "inputs", "image", "images")
_LABELS = ("labels", "label")


def _pair(batch: Any, name: str) -> tuple[Any, Any]:
    """Return the two parts of a batch, by position or by the names that datasets use.

    Raises:
        ValueError: a batch without these parts; one with a mask that the model would not get.
    """
    if isinstance(batch, Mapping):
        if "attention_mask" in batch:
            raise ValueError(
                f"{name} must yield input_ids without attention_mask: pad them with one id and "
                "wrap the model in d3fast.hub.Classifier(model, pad=ID), which makes the mask"
            )
        inputs = [key for key in _INPUTS if key in batch]
        labels = [key for key in _LABELS if key in batch]
        if len(inputs) == len(labels) == 1:
            return batch[inputs[0]], batch[labels[0]]
        keys = ", ".join(map(repr, batch))
        raise ValueError(
            f"{name} must yield (inputs, labels), or a dictionary of one of "
            f"{', '.join(_INPUTS)} and of labels, got one of {keys}"
        )
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    raise ValueError(f"{name} must yield (inputs, labels) tensors, got {type(batch).__name__}")


def unpack(batch: Any, name: str, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """Return inputs (N, ...) and int64 labels (N,) of one batch on the device.

    Args:
        batch: a batch of the loader: (inputs, labels), or a mapping of ``pixel_values`` or
            ``input_ids`` and ``labels``.
        name: the loader's name in error messages.
        device: device of the result; that of the inputs if ``None``.

    Raises:
        ValueError: a batch of another kind, or labels that are not class indices.
    """
    inputs, labels = _pair(batch, name)
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        raise ValueError(f"{name} must yield (inputs, labels) tensors, got {type(batch).__name__}")
    if inputs.ndim == 0 or labels.is_floating_point() or labels.shape != inputs.shape[:1]:
        raise ValueError(
            f"{name} must yield inputs (N, ...) and labels (N,) as class indices, got shapes "
            f"{tuple(inputs.shape)} and {tuple(labels.shape)} of {labels.dtype}"
        )
    device = inputs.device if device is None else device
    return inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True).long()


def endless_inputs(loader: Iterable[Any], name: str) -> Iterator[Tensor]:
    """Yield the inputs of a loader's batches, from its beginning again where it ends.

    Args:
        loader: yields inputs, or pairs and mappings as for ``unpack``.
        name: the loader's name in error messages.

    Raises:
        ValueError: the loader yields nothing, or a batch of another kind.

    Example:
        >>> batches = endless_inputs([torch.zeros(2, 3), torch.ones(1, 3)], "loader")
        >>> [len(next(batches)) for _ in range(4)]
        [2, 1, 2, 1]
    """
    while True:
        empty = True
        for batch in loader:
            inputs = batch if isinstance(batch, Tensor) else _pair(batch, name)[0]
            if not isinstance(inputs, Tensor):
                raise ValueError(f"{name} must yield tensors, got {type(inputs).__name__}")
            empty = False
            yield inputs
        if empty:
            raise yields_nothing(name)


def scores_of(output: Any) -> Tensor:
    """Return the scores in a model's output.

    Args:
        output: a tensor; a mapping or an object with ``logits``; or a tuple that begins with the
            scores.

    Raises:
        ValueError: none of these.

    Example:
        >>> scores_of({"logits": torch.zeros(1, 2)}).shape, scores_of((torch.zeros(1, 3),)).shape
        (torch.Size([1, 2]), torch.Size([1, 3]))
    """
    found = output
    if isinstance(found, Mapping):
        found = found.get("logits")
    elif isinstance(found, (tuple, list)) and not hasattr(found, "logits"):
        found = found[0] if found else None
    elif not isinstance(found, Tensor):
        found = getattr(found, "logits", None)
    if not isinstance(found, Tensor):
        raise ValueError(
            "the model must return scores, a tuple that begins with them, or an output with "
            f"'logits', got {type(output).__name__}"
        )
    return found if found.dtype in (torch.float32, torch.float64) else found.float()


def class_scores(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the model's scores (N, classes) of inputs (N, ...); see ``scores_of``.

    Raises:
        ValueError: an output that is not such a tensor.
    """
    scores = scores_of(model(inputs))
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

# SPDX-License-Identifier: Apache-2.0
"""The one place where devices are chosen, and where the clock waits for them."""

import torch
from torch import nn


def resolve_device(
    device: str | torch.device | None = None, model: nn.Module | None = None
) -> torch.device:
    """Turn what a caller said about the device into a usable ``torch.device``.

    Args:
        device: a device or its name; ``None`` means where the model is; ``"auto"`` means the
            GPU if there is one and the CPU otherwise.
        model: asked for its device when ``device`` is ``None``.

    Returns:
        The device. A model without parameters, or no model, means the CPU.

    Raises:
        ValueError: an unknown name, or a device this machine or this torch does not have.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
        >>> resolve_device("gpu0")
        Traceback (most recent call last):
            ...
        ValueError: device must be 'auto', 'cpu', 'cuda', 'cuda:0', ..., got 'gpu0'
    """
    if device is None:
        first = next(model.parameters(), None) if model is not None else None
        return torch.device("cpu") if first is None else first.device
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen: torch.device | None = torch.device(device)
    except RuntimeError:
        chosen = None
    # What the others lack: float64, or a clock to wait for.
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:0', ..., got {str(device)!r}"
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(chosen)!r} is not available: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices"
        )
    return chosen


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished what it was given; call before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

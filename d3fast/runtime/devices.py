# SPDX-License-Identifier: Apache-2.0
"""The one place where devices are chosen and synchronized."""

import torch
from torch import nn


def resolve_device(
    device: str | torch.device | None = None, model: nn.Module | None = None
) -> torch.device:
    """Return the ``torch.device`` that a ``device`` argument stands for.

    Args:
        device: a device or its name; ``None`` stands for the device of the model, ``"auto"`` for
            the GPU if there is one and the CPU otherwise.
        model: the model whose device counts when ``device`` is ``None``.

    Returns:
        The device. A model without parameters, or no model, means the CPU.

    Raises:
        ValueError: an unknown name, or a device that this machine or torch does not have.

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
    # Other types lack float64 or synchronization.
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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python's, the CPU's or the GPU's allocator raised an error.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all queued work; call before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

# SPDX-License-Identifier: Apache-2.0
"""Modes of a model that are restored at the end of a ``with`` block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode inside a ``with`` block; every module gets its mode back.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> with eval_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Like ``eval_mode``, with weights that need no gradient; the flags are restored too."""
    flags = [(param, param.requires_grad) for param in model.parameters()]
    with eval_mode(model):
        try:
            model.requires_grad_(False)
            yield
        finally:
            for param, flag in flags:
                param.requires_grad_(flag)

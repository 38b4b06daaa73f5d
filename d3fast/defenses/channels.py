# SPDX-License-Identifier: Apache-2.0
"""Find and zero the rows of the layers that write the channels of the head's input.

A channel c of the head's input h is written by rows c of the weight and bias of one layer, or of
several where a residual connection adds their outputs. With these rows at zero the channel is
constant over samples. ``FinePruning`` prunes channels this way.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from d3fast.training.loaders import class_scores

# A channel counts as constant below this fraction of the original spread (rounding error).
_CONSTANT = 1e-5


def head_inputs(model: nn.Module, head: nn.Module, inputs: Tensor) -> Tensor:
    """Return the head's input for a batch: (N, ..., channels).

    Raises:
        ValueError: a forward pass does not call the head.
    """
    recorded: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, args: recorded.append(args[0]))
    try:
        class_scores(model, inputs)
    finally:
        handle.remove()
    if not recorded:
        raise ValueError(f"the forward pass does not call the head {head}")
    return recorded[-1] if isinstance(head, nn.Linear) else recorded[-1].movedim(1, -1)


def channel_rows(modules: list[nn.Module], channels: int) -> list[nn.Parameter]:
    """Return weights and biases of the modules whose weight has one row per channel."""
    return [p for module in modules for p in _own_rows(module, channels)]


def _own_rows(module: nn.Module, channels: int) -> list[nn.Parameter]:
    own = [module._parameters.get(name) for name in ("weight", "bias")]
    rows = [p for p in own if p is not None and p.ndim and len(p) == channels]
    return rows if rows and rows[0] is own[0] else []


def execution_order(
    model: nn.Module, head: nn.Module, inputs: Tensor, channels: int
) -> list[nn.Module]:
    """Return the modules with one row per channel in the order they run, up to the head."""
    order: list[nn.Module] = []
    candidates = [m for m in model.modules() if m is not head and _own_rows(m, channels)]
    handles = [m.register_forward_hook(lambda m, _, __: order.append(m)) for m in candidates]
    handles.append(head.register_forward_pre_hook(lambda m, _: order.append(m)))
    try:
        class_scores(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order[: order.index(head)]))


def _spread(values: Tensor) -> Tensor:
    """Return the largest distance from the first sample per channel: (N, ..., C) -> (C,)."""
    return (values - values[:1]).abs().flatten(0, -2).amax(dim=0)


@torch.no_grad()
def find_writers(model: nn.Module, head: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """Return the modules that write the head's input channel by channel, the last one first.

    Usually this is the last module with one row per channel. If a shortcut bypasses it, earlier
    modules are added until rows of zeros make their channels constant. Modules in between that do
    not write the channel are then removed: with all others at zero, their output does not reach
    the head. The channels are tested in two halves, because with all of them at zero the layers
    along a shortcut would have no input.

    Args:
        model: in eval mode.
        head: the head of the model.
        inputs: one batch on which the head's inputs differ.

    Raises:
        ValueError: the head's inputs do not differ, or no module writes them channel by channel.
    """
    spread = _spread(head_inputs(model, head, inputs))
    channels, limit = len(spread), _CONSTANT * float(spread.max())
    if limit == 0:
        raise ValueError(
            "FinePruning needs a first batch of clean_train on which the head's inputs differ"
        )
    every = torch.arange(channels, device=inputs.device)
    halves = [half for half in (every[::2], every[1::2]) if len(half)]

    def with_zero_rows(modules: list[nn.Module], half: Tensor) -> Tensor:
        with filled(channel_rows(modules, channels), half, 0.0):
            return head_inputs(model, head, inputs)[..., half]

    def makes_constant(modules: list[nn.Module]) -> bool:
        return all(float(_spread(with_zero_rows(modules, half)).max()) <= limit for half in halves)

    def reaches_head(module: nn.Module, half: Tensor, value: float) -> bool:
        others = [m for m in chosen if m is not module]
        with filled(_own_rows(module, channels), half, value):
            return not torch.allclose(with_zero_rows(others, half), with_zero_rows(chosen, half))

    chosen: list[nn.Module] = []
    for module in reversed(execution_order(model, head, inputs, channels)):
        chosen.append(module)
        if makes_constant(chosen):
            # Both signs, because a ReLU lets only one of them through.
            tests = [(half, value) for half in halves for value in (1.0, -1.0)]
            writers = [m for m in chosen if any(reaches_head(m, *test) for test in tests)]
            if makes_constant(writers):
                return writers
    raise ValueError(
        f"FinePruning needs a layer that writes the {channels} inputs of the head one by one "
        f"(a norm, linear layer or convolution in front of it); {type(model).__name__} has none"
    )


@torch.no_grad()
def fill(tensors: list[nn.Parameter], rows: Tensor, value: float) -> None:
    """Set rows of the tensors to a value in place."""
    for p in tensors:
        p.index_fill_(0, rows, value)


@contextmanager
def filled(tensors: list[nn.Parameter], rows: Tensor, value: float) -> Iterator[None]:
    """Set rows of the tensors to a value inside the block and restore them after it."""
    before = [p.detach().clone() for p in tensors]
    fill(tensors, rows, value)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(tensors, before, strict=True):
                p.copy_(old)

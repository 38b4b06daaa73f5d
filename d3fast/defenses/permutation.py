# SPDX-License-Identifier: Apache-2.0
"""Permutations of hidden channels that leave a network's function as it is, and their choice.

The rows of the layers that write a channel and the columns of those that read it can be permuted
together. ``channel_groups`` finds these tensors along the graph that ``torch.fx`` traces: plain
stacks of convolutions or linear layers, and residual networks. Channels that pass an operation
which is not known to keep them apart stay where they are. ``permute_channels`` permutes a model,
nearest to another one (weight matching) or furthest from it:

    P_g = argmax over permutations of  sum over tensors of <W_g, P W'_g>,  or argmin

one group g after the other until no group changes. Each is a linear assignment problem.

Source:
    Ainsworth, Hayase, Srinivasa, *Git Re-Basin: Merging Models modulo Permutation Symmetries*,
    ICLR 2023, arXiv 2209.04836, section 3.2 and algorithm 1.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from d3fast.runtime.extras import require

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_FLATTENS = (torch.flatten, "flatten")
# What works on each channel alone, or adds and multiplies channels of one index.
_KEEPING_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh),
    *(nn.Hardtanh, nn.Hardswish, nn.Identity, nn.Dropout, nn.Dropout2d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
_KEEPING = {
    *(functional.relu, torch.relu, functional.relu_, functional.leaky_relu, functional.gelu),
    *(functional.silu, torch.sigmoid, torch.tanh, functional.dropout, functional.hardtanh),
    *(functional.max_pool2d, functional.avg_pool2d),
    *(functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d),
    *(operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul),
    *("relu", "relu_", "sigmoid", "tanh", "add", "add_", "mul", "contiguous"),
}
_SWEEPS = 50
FIXED = 0  # the group of inputs, outputs, and all that is not understood


@dataclass(frozen=True)
class Place:
    """An axis of a tensor that holds the channels of a group, each once or in blocks.

    Attributes:
        name: name of the parameter or buffer.
        axis: the axis.
    """

    name: str
    axis: int


@dataclass(frozen=True)
class ChannelGroup:
    """Tensors whose channels are permuted together.

    Attributes:
        channels: number of channels.
        places: axes of parameters and buffers.
    """

    channels: int
    places: tuple[Place, ...]


@dataclass
class _Tracing:
    """Groups of the channels of every node; groups that meet are joined (union-find)."""

    modules: Mapping[str, nn.Module]
    names: Mapping[int, str]
    parent: list[int] = field(default_factory=lambda: [FIXED])
    size: dict[int, int] = field(default_factory=dict)
    group_of: dict[Place, int] = field(default_factory=dict)

    def root(self, group: int) -> int:
        while self.parent[group] != group:
            group = self.parent[group]
        return group

    def join(self, *groups: int) -> int:
        roots = {self.root(group) for group in groups}
        if len({self.size.get(root) for root in roots}) > 1:  # broadcast, or a fixed one
            roots.add(FIXED)
        first = min(roots)
        for root in roots:
            self.parent[root] = first
        return first

    def new(self, channels: int) -> int:
        self.parent.append(len(self.parent))
        self.size[len(self.parent) - 1] = channels
        return len(self.parent) - 1

    def put(self, group: int, axis: int, *tensors: Tensor | None) -> int:
        for tensor in tensors:
            if tensor is None:
                continue
            if id(tensor) not in self.names:  # computed from others, by a parametrization
                group = self.join(FIXED, group)
                continue
            place = Place(self.names[id(tensor)], axis)
            group = self.join(group, self.group_of.get(place, group))
            self.group_of[place] = group
        return group

    def module(self, module: nn.Module, before: int, flat: bool) -> tuple[int, bool]:
        """Return the group of a layer's output, and whether its channels are the last axis."""
        channels = self.size.get(self.root(before))
        if isinstance(module, _KEEPING_MODULES):
            return before, flat
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            return before, True
        if isinstance(module, _NORMS) and channels == module.num_features:
            own = (module.weight, module.bias, module.running_mean, module.running_var)
            return self.put(before, 0, *own), flat
        if isinstance(module, _CONVOLUTIONS):
            if module.groups == module.in_channels == module.out_channels != 1:  # depthwise
                return self.put(before, 0, module.weight, module.bias), False
            if module.groups == 1 and not flat:
                self.put(before, 1, module.weight)
                after = self.new(module.out_channels)
                return self.put(after, 0, module.weight, module.bias), False
        if isinstance(module, nn.Linear) and (
            channels is None or (flat and module.in_features % channels == 0)
        ):
            self.put(before, 1, module.weight)
            after = self.new(module.out_features)
            return self.put(after, 0, module.weight, module.bias), True
        return self.join(FIXED, before, *self._inside(module)), flat

    def _inside(self, module: nn.Module) -> list[int]:
        """Return the groups that the tensors of a layer have from other calls of it."""
        own = {self.names.get(id(t)) for t in (*module.parameters(), *module.buffers())}
        return [group for place, group in self.group_of.items() if place.name in own]

    def node(self, node: fx.Node, found: Mapping[fx.Node, tuple[int, bool]]) -> tuple[int, bool]:
        inputs = [found[one] for one in node.all_input_nodes]
        flat = any(one for _, one in inputs)
        groups = [group for group, _ in inputs]
        if node.op == "call_module" and len(inputs) == 1:
            return self.module(self.modules[str(node.target)], *inputs[0])
        if node.op in ("call_function", "call_method") and len({one for _, one in inputs}) == 1:
            if node.target in _KEEPING:
                return self.join(*groups), flat
            if node.target in _FLATTENS and _flattens_all(node):
                return groups[0], True
        return self.join(FIXED, *groups), flat


def _flattens_all(node: fx.Node) -> bool:
    start = node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)
    end = node.args[2] if len(node.args) > 2 else node.kwargs.get("end_dim", -1)
    return (start, end) == (1, -1)


def channel_groups(model: nn.Module) -> list[ChannelGroup]:
    """Return the groups of hidden channels that can be permuted, in the order they are written.

    Groups with a frozen parameter are left out.

    Raises:
        ValueError: ``torch.fx`` cannot trace the model, or nothing in it can be permuted.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> [(group.channels, len(group.places)) for group in channel_groups(model)]
        [(4, 3)]
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tracing = _Tracing(dict(model.named_modules()), {id(t): n for n, t in tensors.items()})
    found: dict[fx.Node, tuple[int, bool]] = {}
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # fx raises all kinds on a forward pass that depends on values
        raise ValueError(
            f"permutations are found along the graph of {type(model).__name__}, which torch.fx "
            f"cannot trace: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    for node in graph.nodes:
        found[node] = tracing.node(node, found)
    places: dict[int, list[Place]] = {}
    for place, group in tracing.group_of.items():
        places.setdefault(tracing.root(group), []).append(place)
    made = [
        ChannelGroup(tracing.size[root], tuple(own))
        for root, own in places.items()
        if root != FIXED
    ]
    if not made:
        raise ValueError(f"{type(model).__name__} has no hidden channels that can be permuted")
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return [group for group in made if not any(place.name in frozen for place in group.places)]


def _rows(tensor: Tensor, axis: int, channels: int) -> Tensor:
    """Return a tensor as one row per channel: (channels, -1), float32, on the CPU."""
    blocks = tensor.detach().movedim(axis, 0)
    return blocks.reshape(channels, -1).float().cpu()


def _permuted(tensor: Tensor, axis: int, order: Tensor) -> Tensor:
    """Return a tensor with its channels in another order; blocks of a channel stay together."""
    block = tensor.shape[axis] // len(order)
    index = (order[:, None] * block + torch.arange(block)).flatten()
    return tensor.index_select(axis, index.to(tensor.device))


@torch.no_grad()
def permute_channels(
    model: nn.Module,
    other: nn.Module,
    groups: Sequence[ChannelGroup],
    *,
    nearest: bool,
) -> int:
    """Permute the channels of a model, nearest to another one or furthest from it, in place.

    Args:
        model: is permuted; what it computes stays the same up to rounding.
        other: has the same architecture; it is not changed.
        groups: of ``channel_groups``.
        nearest: maximise the inner product of the weights, or minimise it.

    Returns:
        How many channels were moved in all.
    """
    require("a permutation of channels", "scipy")
    from scipy.optimize import linear_sum_assignment  # slow to import

    state, fixed = model.state_dict(), other.state_dict()
    weights = {name for name, _ in model.named_parameters()}
    moved = 0
    for _ in range(_SWEEPS):
        improved = False
        for group in groups:
            score = torch.zeros(group.channels, group.channels)
            for place in group.places:
                if place.name in weights:
                    pair = (fixed[place.name], state[place.name])
                    own, mine = (_rows(t, place.axis, group.channels) for t in pair)
                    score += own @ mine.T
            _, order = linear_sum_assignment(score.numpy(), maximize=nearest)
            order = torch.as_tensor(order)
            gain = score[torch.arange(group.channels), order].sum() - score.trace()
            if (gain if nearest else -gain) <= 1e-6 * score.abs().max():
                continue
            improved = True
            moved += int((order != torch.arange(group.channels)).sum())
            for place in group.places:
                tensor: Any = state[place.name]
                tensor.copy_(_permuted(tensor, place.axis, order))
        if not improved:
            break
    return moved

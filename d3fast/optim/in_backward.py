# SPDX-License-Identifier: Apache-2.0
"""Steps inside the backward pass: each tensor steps as soon as its gradient is accumulated.

Its gradient is freed at once, so that never more than a few gradients exist: 4 bytes per fp32
parameter less at the peak. Each tensor takes the same step, to the bit, as in ``optimizer.step()``,
which then only ends the iteration. Source: ``register_post_accumulate_grad_hook`` of torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from d3fast.optim.backends.choose import choose_backend
from d3fast.optim.backends.dtensor import is_dtensor
from d3fast.optim.base import D3Optimizer
from d3fast.optim.options import is_tracked
from d3fast.optim.stepper import Stepper
from d3fast.optim.tracking import part_of, split, tracked_positions

# By parameter a weak reference to the handle by which it steps; the handle refers to the parameter.
_HANDLES: Any = WeakTensorKeyDictionary()


@dataclass
class _Entry:
    """One parameter that steps in the backward pass.

    Attributes:
        name: its name in the model.
        group: number of its param group.
        position: its position there.
        backend: ``"reference"`` where its group as a whole is served by no kernel; otherwise the
            option of the group holds.
        stepper: takes its steps; it shares what captured CUDA graphs address with the optimizer.
        stepped: True from its step to the end of the iteration.
    """

    name: str
    group: int
    position: int
    backend: str | None
    stepper: Stepper
    stepped: bool = False


class StepsInBackward:
    """Handle of ``step_in_backward``; also a context manager that removes the hooks at its end.

    Args:
        optimizer: the optimizer.
        members: its parameters that step in the backward pass, by their names in the model.
    """

    def __init__(self, optimizer: D3Optimizer, members: Mapping[str, Tensor]) -> None:
        self._optimizer = optimizer
        names = {id(p): name for name, p in members.items()}
        self._entries: list[_Entry] = []
        self._handles: list[RemovableHandle] = [
            optimizer.register_step_pre_hook(_check_step_call),
            optimizer.register_step_post_hook(self._end_iteration),
        ]
        for number, group in enumerate(optimizer.param_groups):
            for position, p in enumerate(group["params"]):
                if id(p) in names and p.requires_grad:
                    backend = _backend_of(number, group, position)
                    hook = partial(_step, ref(self), len(self._entries))
                    stepper = Stepper(optimizer._captured)
                    self._entries.append(_Entry(names[id(p)], number, position, backend, stepper))
                    self._handles.append(p.register_post_accumulate_grad_hook(hook))
                    _HANDLES[p] = ref(self)

    def remove(self) -> None:
        """Remove all hooks; the next ``optimizer.step()`` is an ordinary one."""
        for handle in self._handles:
            handle.remove()
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                if p in _HANDLES and _HANDLES[p]() is self:
                    del _HANDLES[p]
        self._handles, self._entries = [], []

    def __enter__(self) -> "StepsInBackward":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @torch.no_grad()
    def step(self, index: int, p: Tensor) -> None:
        """Take the step of one parameter and free its gradient.

        Args:
            index: its number among those that step in the backward pass.
            p: the parameter.

        Raises:
            RuntimeError: it has taken a step since the last ``optimizer.step()``.
        """
        entry = self._entries[index]
        if entry.stepped:
            raise RuntimeError(
                f"{entry.name} got a second gradient before optimizer.step(): gradients cannot be "
                "accumulated over several backward passes, because each of them takes a step; "
                "call optimizer.step() after every backward pass"
            )
        group = self._optimizer.param_groups[entry.group]
        _check_scope(entry.group, group)
        part = dict(part_of(group, entry.position))
        part["backend"] = entry.backend or part["backend"]
        entry.stepper.step_part(entry.group, part, self._optimizer.state)
        entry.stepped = True
        p.grad = None

    def _end_iteration(self, *_: object) -> None:
        for entry in self._entries:
            entry.stepped = False


# A hook refers to the handle weakly, because Python collects no cycle through a tensor's hooks. The
# optimizer keeps the handle alive by its own hooks.
def _step(handle: ref[StepsInBackward], index: int, p: Tensor) -> None:
    steps = handle()
    if steps is not None:
        steps.step(index, p)


def step_in_backward(model: nn.Module, optimizer: D3Optimizer) -> StepsInBackward:
    """Let each parameter of a model take its step as soon as its gradient is there.

    A gradient is freed after its step: ``p.grad`` is ``None`` after ``loss.backward()``. The loop
    stays as it is; ``optimizer.step()`` ends the iteration and takes the ordinary step of
    parameters of the optimizer that are not the model's. Schedulers, hooks, ``state_dict()`` and
    ``load_state_dict()`` work as before. Where a step raises, parameters whose gradient came
    before have taken theirs.

    These cannot work and raise:

    - ``scope="group"`` of several tracked parameters: one norm over the group needs all gradients;
    - a closure: it would take the step itself, and then another one;
    - ``GradScaler``: an overflow is known only when all gradients are. It is noticed in
      ``scaler.step(optimizer)``, when the weights have moved: build no scaler beside this;
    - accumulation over several backward passes: each of them takes a step. It is noticed at the
      second gradient of a parameter before ``optimizer.step()``;
    - DTensors, ``DistributedDataParallel``, ``FullyShardedDataParallel`` and process groups of
      several ranks: their gradients are reduced after they are accumulated.

    Clipping by the norm of all gradients cannot work either, and torch gives no means to notice
    it: ``clip_grad_norm_`` finds no gradient and returns 0.

    Args:
        model: the model; its parameters that are in no param group are left alone.
        optimizer: the optimizer, with its state on the device of the parameters.

    Returns:
        A handle with ``remove()``, also a context manager.

    Raises:
        ValueError: one of the cases above; no parameter of the model is in the optimizer; a
            parameter that steps in backward already or has a gradient now.

    Example:
        >>> import torch, d3fast
        >>> model = torch.nn.Linear(4, 2)
        >>> opt = d3fast.D3FusedSGD(d3fast.param_groups(model), lr=0.1)
        >>> with step_in_backward(model, opt):
        ...     model(torch.ones(3, 4)).sum().backward()
        ...     opt.step()
        >>> model.weight.grad is None
        True
    """
    if not isinstance(optimizer, D3Optimizer):
        raise ValueError(f"optimizer must be a D3 optimizer, got {type(optimizer).__name__}")
    _check_model(model)
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    members = {name: p for name, p in model.named_parameters() if id(p) in own}
    if not any(p.requires_grad for p in members.values()):
        raise ValueError("the optimizer has no trainable parameter of the model")
    for name, p in members.items():
        if p in _HANDLES:
            raise ValueError(f"{name} steps in backward already; remove() that handle first")
        if is_dtensor(p):
            raise ValueError(f"{name} is a DTensor: its gradient is reduced after it is there")
        if p.grad is not None:
            raise ValueError(f"{name} has a gradient already; call optimizer.zero_grad() first")
    for number, group in enumerate(optimizer.param_groups):
        _check_scope(number, group)
    return StepsInBackward(optimizer, members)


def _check_model(model: nn.Module) -> None:
    wrappers = [m for m in model.modules() if _reduces_gradients(m)]
    if wrappers:
        raise ValueError(
            f"{type(wrappers[0]).__name__} reduces gradients after they are accumulated, when "
            "their steps have been taken"
        )
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if distributed and torch.distributed.get_world_size() > 1:
        raise ValueError(
            f"the process group has {torch.distributed.get_world_size()} ranks, whose gradients "
            "are reduced after they are accumulated, when their steps have been taken"
        )


def _reduces_gradients(module: nn.Module) -> bool:
    # The second by name: its import takes a second.
    named = type(module).__name__ == "FullyShardedDataParallel"
    return isinstance(module, DistributedDataParallel) or named


def _check_scope(number: int, group: Mapping[str, Any]) -> None:
    if group["scope"] == "group" and is_tracked(group) and len(tracked_positions(group)) > 1:
        raise ValueError(
            f"param group {number} has scope='group': one norm over the group needs all of its "
            "gradients before its first step"
        )


def _backend_of(number: int, group: Mapping[str, Any], position: int) -> str | None:
    """Return ``"reference"`` where it serves a parameter's group but not the parameter alone.

    That is so where the group mixes dtypes. The step must have the bits of the group's.
    """
    (whole,) = (
        part for part in split(group) if any(p is group["params"][position] for p in part["params"])
    )
    alone = part_of(group, position)
    differs = choose_backend(number, whole) != choose_backend(number, alone)
    return "reference" if differs else None


def _check_step_call(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    closure: Callable[[], float] | None = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if closure is not None:
        raise ValueError(
            "step() takes no closure beside step_in_backward: the closure's backward pass would "
            "take the step itself"
        )
    scaled = (getattr(optimizer, name, None) is not None for name in ("grad_scale", "found_inf"))
    if any(scaled):
        raise ValueError(
            "GradScaler does not work with step_in_backward: the steps were taken with scaled "
            "gradients, before an overflow in a later one could be known"
        )

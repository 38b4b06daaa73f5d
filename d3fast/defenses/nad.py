# SPDX-License-Identifier: Apache-2.0
"""NAD, neural attention distillation: distil the attention maps of a fine-tuned teacher.

    loss = CE + sum over layers l of  beta_l * mean (Q(F_s^l) - Q(F_t^l))^2
    Q(F) = A(F) / ||A(F)||_2,   A(F) = sum over channels of F^2, flattened per sample

The teacher t is a copy of the suspect after a short fine-tuning on the clean samples; the student
s is the copy that is repaired. The teacher then runs in eval mode and is not trained further.

The mean runs over samples and positions, as the published betas assume; a sum over positions would
multiply them by H * W.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.defenses.fine_tuning import FineTuning
from d3fast.runtime.checks import check_integer, check_number
from d3fast.training.loaders import unpack, yields_nothing
from d3fast.training.loop import Epoch, Gradients, Loss, plain_gradients
from d3fast.training.modes import eval_mode


@dataclass(frozen=True)
class NAD:
    """Neural attention distillation (Li et al., ICLR 2021).

    ``betas``, the weight decay, the teacher's ten epochs and the fall of the learning rate after
    epoch 20 are the authors' values; the epochs and the initial learning rate, also of the teacher,
    are those of every fine-tuning baseline. History and ``on_epoch`` cover the student only; its
    loss includes the attention terms.

    With ``layers=None`` the layers are chosen automatically. Among modules that run once per pass
    and return maps (N, C, H, W) of more than one pixel, the last one of every size is a candidate,
    and the last ``len(betas)`` sizes are used (with the last betas if there are fewer). In a
    transformer the last blocks are used: children of its outermost ``Sequential`` or
    ``ModuleList`` that return tokens (N, T, D). This reads one more batch from ``clean_train``.

    Args:
        epochs: passes of the student over the clean samples.
        lr: learning rate until ``decay_epoch``, then a hundredth of it.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        decay_epoch: last epoch at ``lr``, of teacher and student.
        teacher_epochs: passes of the teacher over the clean samples.
        betas: weights of the attention terms, in the order of the layers.
        layers: qualified names of modules that return (N, C, H, W) or (N, T, D), one per beta.
        seed: seeds torch's global generators during the repair (dropout, shuffling loaders).
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range; the numbers of layers and betas differ. When called: a
            layer is missing or returns another shape; no suitable layer is found.

    Example:
        >>> model = nn.Sequential(
        ...     nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ...     nn.Linear(4, 2),
        ... )
        >>> loader = [(torch.rand(16, 1, 6, 6), torch.arange(16) % 2)]
        >>> defense = NAD(epochs=3, teacher_epochs=1)
        >>> len(defense(model, loader, None, progress=False).history)
        3
    """

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_epoch: int = 20
    teacher_epochs: int = 10
    betas: tuple[float, ...] = (500.0, 1000.0, 1000.0)
    layers: tuple[str, ...] | None = None
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        for name in ("decay_epoch", "teacher_epochs"):
            check_integer(name, getattr(self, name), 1)
        if not self.betas:
            raise ValueError("betas must be one number or more, got ()")
        for beta in self.betas:
            check_number("betas", beta)
        if self.layers is not None and len(self.layers) != len(self.betas):
            raise ValueError(f"layers must be as many as betas={self.betas!r}, got {self.layers!r}")

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Distil a fine-tuned teacher into a copy of the model; see ``Defense``."""

        def work(student: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            weights = self._weights(student, clean_train, device)
            teacher = copy.deepcopy(student)
            tune(
                teacher,
                clean_train,
                None,
                FineTuning(
                    self.teacher_epochs,
                    self.lr,
                    self.momentum,
                    self.weight_decay,
                    max_grad_norm=self.max_grad_norm,
                ),
                device,
                title="NAD: teacher",
                progress=progress,
                schedule=self._schedule,
            )
            return tune(
                student,
                clean_train,
                clean_val,
                self,
                device,
                title="NAD: student",
                progress=progress,
                gradients=attention_distillation(teacher, weights),
                schedule=self._schedule,
            )

        return on_copy(model, device, work, self.seed)

    def _schedule(self, optimizer: torch.optim.Optimizer, _: int) -> LRScheduler:
        return MultiStepLR(optimizer, [self.decay_epoch], gamma=0.01)

    def _weights(
        self, model: nn.Module, clean_train: Iterable[Any], device: torch.device
    ) -> dict[str, float]:
        """Return the beta of every layer whose attention is distilled, by name."""
        if self.layers is not None:
            names = self.layers
        else:
            batch = next(iter(clean_train), None)
            if batch is None:
                raise yields_nothing("clean_loader")
            inputs, _ = unpack(batch, "clean_loader", device)
            names = find_layers(model, inputs, len(self.betas))
        return dict(zip(names, self.betas[-len(names) :], strict=True))


def attention(features: Tensor) -> Tensor:
    """Compute attention maps: squared activations summed over channels, of norm 1 per sample.

    Args:
        features: maps (N, C, H, W) or tokens (N, T, D).

    Returns:
        (N, H * W) or (N, T), in the dtype of the features.

    Example:
        >>> attention(torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]]))
        tensor([[1., 0.]])
    """
    # square() saves its operand for the backward pass; an in-place ReLU may overwrite the output.
    squares = features.clone().square()
    return functional.normalize(squares.sum(dim=2 if features.ndim == 3 else 1).flatten(1))


def attention_distillation(teacher: nn.Module, weights: dict[str, float]) -> Gradients:
    """Return the ``Gradients`` of the loss plus weighted distances of attention maps, for ``fit``.

    Args:
        teacher: supplies the attention maps to match; it is not changed.
        weights: beta per layer name, for teacher and student. Layers of weight 0 are skipped.

    Returns:
        A ``Gradients`` whose value includes the attention terms. Hooks last for one batch.
    """
    weights = {name: beta for name, beta in weights.items() if beta > 0}
    teacher.eval()

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not weights:
            return plain_gradients(model, inputs, labels, loss)
        with _attention_maps(teacher, weights) as targets, torch.no_grad():
            teacher(inputs)
        with _attention_maps(model, weights) as maps:

            def distilled(logits: Tensor, labels: Tensor) -> Tensor:
                value = loss(logits, labels)
                for name, beta in weights.items():
                    if name not in maps:
                        raise ValueError(f"the forward pass does not call layer {name!r}")
                    value = value + beta * functional.mse_loss(maps[name], targets[name])
                return value

            return plain_gradients(model, inputs, labels, distilled)

    return gradients


@contextmanager
def _attention_maps(model: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Record the layers' attention maps of forward passes inside the block, by layer name."""
    modules = dict(model.named_modules())
    maps: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layer {name!r} must return (N, C, H, W) or (N, T, D), got {given}")
        maps[name] = attention(output)

    handles = []
    try:
        for name in layers:
            if name not in modules:
                raise ValueError(
                    f"layers must name modules of {type(model).__name__}, got {name!r}"
                )
            handles.append(modules[name].register_forward_hook(partial(record, name)))
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def find_layers(model: nn.Module, inputs: Tensor, count: int) -> tuple[str, ...]:
    """Choose the layers whose attention is distilled; the rule is that of ``NAD``.

    Args:
        model: any module; it runs once in eval mode, and its modes are restored.
        inputs: one batch.
        count: maximum number of layers.

    Returns:
        Qualified names, in the order of execution.

    Raises:
        ValueError: no module returns maps of more than one pixel or is a block on tokens.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Tanh())
        >>> find_layers(model, torch.zeros(1, 1, 8, 8), 3)
        ('1', '3')
    """
    shapes = _shapes_of_single_calls(model, inputs)
    found = _blocks(model, shapes) or _last_of_every_size(shapes)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no layer that returns maps (N, C, H, W) of more than one "
            "pixel and no block on tokens (N, T, D); name some with layers=(...)"
        )
    return tuple(found[-count:])


def _shapes_of_single_calls(model: nn.Module, inputs: Tensor) -> dict[str, torch.Size]:
    """Return output shapes by name, in the order of execution, of modules that run once."""
    calls: list[tuple[str, torch.Size]] = []

    def record(name: str, module: nn.Module, args: Any, output: Any) -> None:
        calls.append((name, output.shape if isinstance(output, Tensor) else torch.Size()))

    handles = [m.register_forward_hook(partial(record, name)) for name, m in model.named_modules()]
    try:
        with eval_mode(model), torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, _ in calls]
    return {name: shape for name, shape in calls if name and names.count(name) == 1}


def _blocks(model: nn.Module, shapes: dict[str, torch.Size]) -> list[str]:
    """Return the parametrised children of the outermost module list that return (N, T, D)."""
    stacks: list[list[str]] = []
    for parent, module in model.named_modules():
        if isinstance(module, nn.Sequential | nn.ModuleList):
            blocks = [
                f"{parent}.{child}" if parent else child
                for child, block in module.named_children()
                if next(block.parameters(), None) is not None
            ]
            stacks.append([name for name in blocks if len(shapes.get(name, ())) == 3])
    stacks = [stack for stack in stacks if stack]
    # Of several lists at the same depth, the longest.
    return min(stacks, key=lambda stack: (stack[0].count("."), -len(stack)), default=[])


def _last_of_every_size(shapes: dict[str, torch.Size]) -> list[str]:
    """Return the last layer of every map size, in the order of execution."""
    last: dict[tuple[int, ...], str] = {}
    for name, shape in shapes.items():
        size = tuple(shape[2:])
        if len(size) == 2 and size[0] * size[1] > 1:
            last.pop(size, None)  # re-insert, so that sizes are ordered by their last layers
            last[size] = name
    return list(last.values())

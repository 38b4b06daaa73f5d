# SPDX-License-Identifier: Apache-2.0
"""TSC: leave the backdoor's basin along curves to permuted copies of the model.

::

    g(t) = (1 - t)^2 A + 2 t (1 - t) C + t^2 B         quadratic Bezier curve, A and B fixed
    C    = argmin of  E_t~U[0,1]  CE(g(t))             on the clean samples, from (A + B) / 2

    1    B = A with its channels permuted furthest from A       theta <- g(t0)
    2    B = theta with its channels permuted nearest to A      A <- g(t0), and again from 1

A permuted copy computes the same function at another place. The clean loss is low along the curve
to it, because the curve was trained so; nothing keeps the loss of triggered samples low there.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.defenses.permutation import ChannelGroup, channel_groups, permute_channels
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loaders import class_scores, unpack
from d3fast.training.loop import Epoch, Gradients, Loss, plain_gradients


@dataclass(frozen=True)
class TSC:
    """Two-stage symmetry connectivity.

    Channels are permuted as ``channel_groups`` finds them: in stacks of convolutions or linear
    layers and in residual networks. Differences to the paper: it matches activations, here weights
    are matched (Git Re-Basin), which needs no data; weight decay acts on the control point C. The
    history, and ``on_epoch``, have the epochs of all curves in turn with the model at C; the
    repaired model is the point of the last curve. Batch norm is measured on the clean samples at
    the point of every curve, one pass more for each.

    Args:
        epochs: passes over the clean samples for every curve; there are two in a round.
        lr: initial learning rate; like ``epochs`` that of the authors' example.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        rounds: how often both stages run.
        point: t0, in [0, 1].
        seed: draws t; seeds torch's global generators during the repair.
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range; when called, see ``channel_groups``.

    Source:
        Peng, Yang, Zhao, Dong, Hui, Zhang, He, *Circumventing Backdoor Space via Weight Symmetry*,
        ICML 2025, arXiv 2506.07467.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> len(TSC(epochs=3, rounds=1)(model, loader, None, progress=False).history)
        6
    """

    epochs: int = 200
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    rounds: int = 3
    point: float = 0.4
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        check_integer("rounds", self.rounds, 1)
        check_number("point", self.point)
        if self.point > 1:
            raise ValueError(f"point must be <= 1, got {self.point!r}")

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Repair a copy of the model; see ``Defense``."""

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            groups = channel_groups(repaired)
            draws, history = generator(self.seed, "curve"), list[Epoch]()

            def follow(end: nn.Module) -> nn.Module:
                return self._follow(
                    repaired, end, clean_train, clean_val, device, draws, history, progress
                )

            for _ in range(self.rounds):
                away = follow(_permuted_copy(repaired, repaired, groups, nearest=False))
                back = _permuted_copy(away, repaired, groups, nearest=True)
                repaired.load_state_dict(follow(back).state_dict())
            return tuple(history)

        return on_copy(model, device, work, self.seed)

    def _follow(
        self,
        start: nn.Module,
        end: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        device: torch.device,
        draws: torch.Generator,
        history: list[Epoch],
        progress: bool,
    ) -> nn.Module:
        """Train the curve between two models, add its epochs to the history, return its point."""
        first, last = ([p.detach() for p in trainable(one)] for one in (start, end))
        model, before = copy.deepcopy(start), len(history)
        move_to(model, [(a + b) / 2 for a, b in zip(first, last, strict=True)])

        def numbered(epoch: Epoch, control: nn.Module) -> None:
            history.append(replace(epoch, epoch=before + epoch.epoch))
            if self.on_epoch is not None:
                self.on_epoch(history[-1], control)

        tune(
            model,
            clean_train,
            clean_val,
            replace(self, on_epoch=numbered),
            device,
            title=f"TSC: curve {before // self.epochs + 1} of {2 * self.rounds}",
            progress=progress,
            gradients=along_curve(first, last, draws),
        )
        move_to(model, bezier(first, trainable(model), last, self.point))
        measure_batch_norm(model, clean_train, device)
        return model


def _permuted_copy(
    model: nn.Module, other: nn.Module, groups: Sequence[ChannelGroup], *, nearest: bool
) -> nn.Module:
    permuted = copy.deepcopy(model)
    permute_channels(permuted, other, groups, nearest=nearest)
    return permuted


def trainable(model: nn.Module) -> list[Tensor]:
    """Return the trainable parameters of a model."""
    return [p for p in model.parameters() if p.requires_grad]


@torch.no_grad()
def move_to(model: nn.Module, values: Sequence[Tensor]) -> None:
    """Set the trainable parameters of a model."""
    for p, value in zip(trainable(model), values, strict=True):
        p.copy_(value)


@torch.no_grad()
def bezier(
    start: Sequence[Tensor], control: Sequence[Tensor], end: Sequence[Tensor], t: float
) -> list[Tensor]:
    """Return the point of a quadratic Bezier curve.

    Example:
        >>> ends = ([torch.zeros(1)], [torch.ones(1)], [torch.full((1,), 4.0)])
        >>> [float(bezier(*ends, t)[0]) for t in (0.0, 0.5, 1.0)]
        [0.0, 1.5, 4.0]
    """
    return [
        (1 - t) ** 2 * a + 2 * t * (1 - t) * c + t**2 * b
        for a, c, b in zip(start, control, end, strict=True)
    ]


def along_curve(
    start: Sequence[Tensor],
    end: Sequence[Tensor],
    draws: torch.Generator,
    *,
    base: Gradients = plain_gradients,
) -> Gradients:
    """Return gradients of the control point at a random t, for ``fit``.

    Args:
        start: A, the trainable parameters at t = 0.
        end: B, those at t = 1.
        draws: a CPU generator; draws t for every batch.
        base: computes the gradients at a point.

    Returns:
        A ``Gradients`` for a model at C. Its weights are restored bit by bit.
    """

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        t = float(torch.rand((), generator=draws))
        control = [p.detach().clone() for p in trainable(model)]
        move_to(model, bezier(start, control, end, t))
        try:
            answer = base(model, inputs, labels, loss)
        finally:
            move_to(model, control)
        for p in trainable(model):
            if p.grad is not None:
                p.grad.mul_(2 * t * (1 - t))  # dg / dC
        return answer

    return gradients


@torch.no_grad()
def measure_batch_norm(model: nn.Module, clean: Iterable[Any], device: torch.device) -> None:
    """Set the running statistics of batch norm to means over one pass; the model is then in eval mode.

    Args:
        model: on ``device``.
        clean: yields (inputs, labels); not read where no layer has running statistics.
        device: device that batches are moved to.
    """  # noqa: E501
    model.eval()
    norms = [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
        norm.train()
    try:
        for batch in clean:
            class_scores(model, unpack(batch, "clean_loader", device)[0])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()

# SPDX-License-Identifier: Apache-2.0
"""FST: feature shift tuning, fine-tuning that keeps the head away from its old direction.

    min over theta, w   CE(theta, w) + alpha <w, w_0>    subject to   ||w|| = ||w_0||

w are the head's weights, w_0 those of the suspect. The head starts at a random point of the
sphere, so the features have to shift too. FST is the method closest to D3: on the sphere
||w - w_0||^2 = 2 ||w_0||^2 - 2 <w, w_0>, so a smaller dot product is a larger distance.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy
from d3fast.detox.config import SCHEDULES
from d3fast.detox.parts import Average, lr_schedule
from d3fast.optim import D3FusedSGD, find_head, param_groups
from d3fast.runtime.checks import check_choice, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loop import Epoch, fit, plain_gradients
from d3fast.training.loss import CleanLoss, distilled


@dataclass(frozen=True)
class FST:
    """Feature shift tuning: all weights are trained; the term and constraint apply to the head.

    The head is re-initialised like a linear layer: weights uniform and rescaled to ``||w_0||``,
    bias uniform in ``+-1 / sqrt(inputs)``. The bias and all other weights have neither term nor
    constraint. SGD with momentum. The ``distance`` of a record is ``||w - w_0||``. A parametrized
    head (weight norm) is treated tensor by tensor. ``schedule``, ``averaging`` and ``distillation``
    are those of ``D3Config``: with them a comparison of the two methods has the same ingredients on
    both sides. The paper has neither of the last two.

    Args:
        epochs: passes over the clean samples. The paper uses 10 on CIFAR-10 and 15 elsewhere;
            comparisons of many defences use 100.
        lr: learning rate. The paper uses 0.01 for CIFAR-10 and GTSRB, 0.001 for CIFAR-100 and
            Tiny ImageNet.
        momentum: momentum of SGD.
        weight_decay: L2 penalty; the paper gives no value.
        alpha: weight of the dot product. The paper uses 0.2 on CIFAR-10, 0.1 on GTSRB, 0.001 on
            CIFAR-100 and Tiny ImageNet.
        schedule: of the learning rate: ``"cosine"`` to 0 over the epochs, or ``"constant"``.
        averaging: share of the epochs, counted from the end, whose weights are averaged, in [0, 1].
        distillation: share of the cross-entropy whose targets are the suspect's outputs, in [0, 1).
        seed: draws the head; seeds torch's global generators during the repair.
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range; when called, the model's head is missing or frozen.

    Source:
        Min, Qin, Shen, Cheng, *Towards Stable Backdoor Purification through Feature Shift
        Tuning*, NeurIPS 2023, arXiv 2310.01875, algorithm 1.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> repaired = FST(epochs=3)(model, loader, None, progress=False).model
        >>> torch.allclose(repaired[1].weight.norm(), model[1].weight.norm())
        True
    """

    epochs: int = 10
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    alpha: float = 0.2
    schedule: str = "cosine"
    averaging: float = 0.0
    distillation: float = 0.0
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        check_choice("schedule", self.schedule, SCHEDULES)
        for name in ("alpha", "averaging", "distillation"):
            check_number(name, getattr(self, name))
        if self.averaging > 1:
            raise ValueError(f"averaging must be <= 1, got {self.averaging!r}")
        if self.distillation >= 1:
            raise ValueError(f"distillation must be < 1, got {self.distillation!r}")

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Apply feature shift tuning to a copy of the model; see ``Defense``."""

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            return _shift(repaired, clean_train, clean_val, self, device, progress=progress)

        return on_copy(model, device, work, self.seed)


def _shift(
    model: nn.Module,
    clean_train: Iterable[Any],
    clean_val: Iterable[Any] | None,
    options: FST,
    device: torch.device,
    *,
    progress: bool,
) -> tuple[Epoch, ...]:
    """Train a model on ``device`` in place."""
    suspect = copy.deepcopy(model).eval().requires_grad_(False)
    groups = param_groups(model, track="head")
    weights = list(groups[0]["params"])
    start = [w.detach().clone() for w in weights]
    optimizer = D3FusedSGD(
        groups,
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        distance_weight=0.0,
        constraint="norm_sphere",
        reference=start,
    )
    optimizer.warm_start("random", generator=generator(options.seed, "warm start"))
    _draw_bias(find_head(model)[1], generator(options.seed, "head bias"))
    share = options.distillation
    # ``distilled`` multiplies the loss by 1 - share; the dot product keeps its weight.
    loss = ShiftLoss(weights, start, options.alpha / (1 - share))
    average = Average(model, options.epochs + 1 - round(options.averaging * options.epochs))

    def after_epoch(epoch: Epoch, model: nn.Module) -> None:
        average.add(epoch.epoch)
        if options.on_epoch is not None:
            options.on_epoch(epoch, model)

    history = fit(
        model,
        clean_train,
        loss,
        optimizer,
        epochs=options.epochs,
        device=device,
        scheduler=lr_schedule(optimizer, options.schedule, options.epochs),
        val_loader=clean_val,
        distance=optimizer.total_distance,
        on_epoch=after_epoch,
        title="feature shift tuning",
        progress=progress,
        gradients=distilled(suspect, share) if share else plain_gradients,
        max_grad_norm=options.max_grad_norm,
    )
    average.write(optimizer)
    return history


@torch.no_grad()
def _draw_bias(head: nn.Module, draw: torch.Generator) -> None:
    bias = getattr(head, "bias", None)
    if not isinstance(bias, Tensor) or not bias.requires_grad:
        return
    inputs = head.in_features if isinstance(head, nn.Linear) else head.in_channels
    bound = float(inputs) ** -0.5  # type: ignore[arg-type]
    bias.copy_(bound * (2 * torch.rand(bias.shape, generator=draw) - 1))


class ShiftLoss(CleanLoss):
    """The loss CE + ``alpha <w, w_0>``; the second term adds ``alpha w_0`` to w's gradient.

    Args:
        weights: the tensors of w, as they are trained.
        start: the tensors of w_0, of the same shapes.
        alpha: weight of the dot product.

    Example:
        >>> w, start = torch.ones(2, 2, requires_grad=True), torch.full((2, 2), 3.0)
        >>> ShiftLoss([w], [start], alpha=0.5)(torch.zeros(1, 2), torch.tensor([0])).backward()
        >>> w.grad[0].tolist()
        [1.5, 1.5]
    """

    def __init__(self, weights: list[Tensor], start: list[Tensor], alpha: float) -> None:
        super().__init__(epsilon=0.0, weight=1.0)  # a hinge at 0 is the cross-entropy
        self.weights, self.start, self.alpha = weights, start, alpha

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a batch; logits (N, C), target (N,), result 0-dim."""
        dots = [(w * w_0).sum() for w, w_0 in zip(self.weights, self.start, strict=True)]
        return super().forward(logits, target) + self.alpha * torch.stack(dots).sum()

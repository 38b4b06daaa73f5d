# SPDX-License-Identifier: Apache-2.0
"""FST: feature shift tuning, fine-tuning that keeps the head away from its old direction.

    min over theta, w   CE(theta, w) + alpha <w, w_0>    subject to   ||w|| = ||w_0||

w are the head's weights, w_0 those of the suspect. The head starts at a random point of the
sphere, so that the features have to shift too. D3's nearest relative: on the sphere
||w - w_0||^2 = 2 ||w_0||^2 - 2 <w, w_0>, so a smaller dot product is a greater distance.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy
from d3fast.optim import D3FusedSGD, find_head, param_groups
from d3fast.runtime.checks import check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loop import Epoch, Loss, fit


@dataclass(frozen=True)
class FST:
    """Feature shift tuning: all weights are trained, the head's are pushed and projected.

    The head is initialised anew, as a fresh linear layer is: weights uniform, here rescaled to
    ``||w_0||``, and a bias uniform in ``+-1 / sqrt(inputs)``. Bias and all other weights carry
    neither term nor constraint. SGD with momentum under a cosine schedule to 0. The record's
    ``distance`` is ``||w - w_0||``. A parametrized head (weight norm) is treated tensor by tensor.

    Args:
        epochs: passes over the clean samples; the paper makes do with 10 on CIFAR-10 and 15
            elsewhere, comparisons of many defences give each 100.
        lr: learning rate; the paper's for CIFAR-10 and GTSRB, 0.001 on CIFAR-100 and
            Tiny ImageNet.
        momentum: momentum.
        weight_decay: L2 penalty; the paper names none.
        alpha: weight of the dot product: 0.2 on CIFAR-10, 0.1 on GTSRB, 0.001 on CIFAR-100 and
            Tiny ImageNet.
        seed: draws the head, dropout's masks, and the order of a loader that shuffles by torch's
            global generator.
        max_grad_norm: norm that gradients are clipped to, as is usual for transformers; ``None``
            leaves them as they are.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: a number out of range; when called, a model without a head or with a frozen
            one.

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

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    alpha: float = 0.2
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        check_number("alpha", self.alpha)

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Shift the features of a copy of the model; see ``Defense``."""
        return on_copy(
            model,
            device,
            lambda repaired, where: _shift(
                repaired, clean_train, clean_val, self, where, progress=progress
            ),
            self.seed,
        )


def _shift(
    model: nn.Module,
    clean_train: Iterable[Any],
    clean_val: Iterable[Any] | None,
    options: FST,
    device: torch.device,
    *,
    progress: bool,
) -> tuple[Epoch, ...]:
    """Tune a model on ``device`` in place."""
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
    return fit(
        model,
        clean_train,
        shift_loss(weights, start, options.alpha),
        optimizer,
        epochs=options.epochs,
        device=device,
        scheduler=CosineAnnealingLR(optimizer, options.epochs),
        val_loader=clean_val,
        distance=optimizer.total_distance,
        on_epoch=options.on_epoch,
        title="feature shift tuning",
        progress=progress,
        max_grad_norm=options.max_grad_norm,
    )


@torch.no_grad()
def _draw_bias(head: nn.Module, draw: torch.Generator) -> None:
    bias = getattr(head, "bias", None)
    if not isinstance(bias, Tensor) or not bias.requires_grad:
        return
    inputs = head.in_features if isinstance(head, nn.Linear) else head.in_channels
    bound = float(inputs) ** -0.5  # type: ignore[arg-type]
    bias.copy_(bound * (2 * torch.rand(bias.shape, generator=draw) - 1))


def shift_loss(weights: list[Tensor], start: list[Tensor], alpha: float) -> Loss:
    """Cross-entropy plus ``alpha <w, w_0>``, a ``Loss``; it adds ``alpha w_0`` to w's gradient.

    Args:
        weights: the tensors that w is made of, as they are trained.
        start: w_0, one tensor of the same shape each.
        alpha: weight of the dot product.

    Example:
        >>> w, start = torch.ones(2, 2, requires_grad=True), torch.full((2, 2), 3.0)
        >>> shift_loss([w], [start], alpha=0.5)(torch.zeros(1, 2), torch.tensor([0])).backward()
        >>> w.grad[0].tolist()
        [1.5, 1.5]
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        dots = [(w * w_0).sum() for w, w_0 in zip(weights, start, strict=True)]
        return cross_entropy(logits, labels) + alpha * torch.stack(dots).sum()

    return loss

# SPDX-License-Identifier: Apache-2.0
"""TSBD: reset the neurons that clean unlearning changes most, then fine-tune with small gradients.

::

    theta_u    gradient ascent on CE over the clean samples, until their accuracy is gone
    c_k        = sum_j |theta_u[k, j] - theta[k, j]|      change of neuron k, a row of a layer
    reset      theta[k, j] <- 0  for the share n of neurons with the largest c_k and, of their
               weights, the share m with the largest |theta_u[k, j] - theta[k, j]|
    min over theta of   CE(theta) + lambda ||grad CE(theta)||

Unlearning clean samples changes the same neurons as unlearning a backdoor, so the reset removes the
backdoor with them. The penalty keeps the backdoor's neurons, which have large gradients, from
coming back. Its gradient is taken from two points (Zhao, Zhang, Hu, ICML 2022):

    (1 - a) grad CE(theta) + a grad CE(theta + r g / ||g||),   g = grad CE(theta),  a = lambda / r
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.optim import find_head
from d3fast.runtime.checks import check_integer, check_number
from d3fast.training.loop import Epoch, fit
from d3fast.training.sam import sharpness_aware

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_UNLEARNING_NORM = 20.0  # gradients of the ascent are clipped to it: the loss has no upper bound


@dataclass(frozen=True)
class TSBD:
    """Two-stage backdoor defence.

    Neurons are rows of linear and convolution weights, without the head's; frozen layers are left
    alone. The method is the paper's; its numbers were not at hand, so ``neurons``, ``weights``,
    ``radius``, ``share``, the rate and the end of the unlearning are chosen here. Unlearning reads
    ``clean_train`` up to ``unlearn_epochs`` times more. History and ``on_epoch`` cover the
    fine-tuning only.

    Args:
        epochs: passes of the fine-tuning over the clean samples.
        lr: initial learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        unlearn_epochs: passes of the ascent, at most.
        unlearn_lr: learning rate of the ascent, with the same momentum.
        unlearned: accuracy on the clean samples at which the ascent ends, in [0, 1].
        neurons: n, share of the neurons that are reset, in [0, 1].
        weights: m, share of a reset neuron's weights that become 0, in [0, 1].
        radius: r, distance of the second gradient.
        share: a, weight of the second gradient, in [0, 1].
        seed: seeds torch's global generators during the repair (dropout, shuffling loaders).
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range; when called, a model without a trainable layer besides
            its head.

    Source:
        Lin, Liu, Wei, Li, Xiong, *Unveiling and Mitigating Backdoor Vulnerabilities based on
        Unlearning Weight Changes and Backdoor Activeness*, NeurIPS 2024, arXiv 2405.20291.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> len(TSBD(epochs=3)(model, loader, None, progress=False).history)
        3
    """

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    unlearn_epochs: int = 20
    unlearn_lr: float = 0.01
    unlearned: float = 0.1
    neurons: float = 0.15
    weights: float = 0.7
    radius: float = 0.05
    share: float = 0.7
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        check_integer("unlearn_epochs", self.unlearn_epochs, 1)
        for name in ("unlearn_lr", "radius"):
            check_number(name, getattr(self, name))
        for name in ("unlearned", "neurons", "weights", "share"):
            check_number(name, getattr(self, name))
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be <= 1, got {getattr(self, name)!r}")

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Reset neurons of a copy of the model and fine-tune it; see ``Defense``."""

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            layers = neuron_layers(repaired)
            unlearned = self._unlearn(repaired, clean_train, device, progress)
            changes = [
                (after.weight - before.weight).detach().abs()
                for before, after in zip(layers, neuron_layers(unlearned), strict=True)
            ]
            reset_weights([layer.weight for layer in layers], changes, self.neurons, self.weights)
            return tune(
                repaired,
                clean_train,
                clean_val,
                self,
                device,
                title="TSBD: fine-tuning",
                progress=progress,
                gradients=sharpness_aware(self.radius, adaptive=False, share=self.share),
            )

        return on_copy(model, device, work, self.seed)

    def _unlearn(
        self, model: nn.Module, clean_train: Iterable[Any], device: torch.device, progress: bool
    ) -> nn.Module:
        """Return a copy of the model after gradient ascent on the clean samples."""
        unlearned = copy.deepcopy(model)
        params = [p for p in unlearned.parameters() if p.requires_grad]

        def gone(history: Sequence[Epoch]) -> bool:
            return bool(history) and history[-1].accuracy <= self.unlearned

        fit(
            unlearned,
            clean_train,
            nn.CrossEntropyLoss(),
            torch.optim.SGD(params, self.unlearn_lr, self.momentum, maximize=True),
            epochs=self.unlearn_epochs,
            device=device,
            title="TSBD: unlearning",
            progress=progress,
            max_grad_norm=_UNLEARNING_NORM,
            stop=gone,
        )
        return unlearned


def neuron_layers(model: nn.Module) -> list[Any]:
    """Return the trainable linear and convolution layers of a model without its head.

    Raises:
        ValueError: there is none.
    """
    head = find_head(model)[1]
    found = [
        m
        for m in model.modules()
        if isinstance(m, _LAYERS) and m is not head and m.weight.requires_grad
    ]
    if not found:
        raise ValueError(
            f"TSBD resets neurons below the head, and {type(model).__name__} has no trainable "
            "linear or convolution layer there"
        )
    return found


@torch.no_grad()
def reset_weights(
    tensors: Sequence[Tensor], changes: Sequence[Tensor], neurons: float, weights: float
) -> None:
    """Set the weights that changed most to 0, in the neurons that changed most, in place.

    Args:
        tensors: weights of layers, one row per neuron.
        changes: |change| of each, of the same shapes.
        neurons: share of all rows, over all layers together, by the sum of their changes.
        weights: share of the entries of each such row, rounded.

    Example:
        >>> weight, change = torch.ones(2, 4), torch.tensor([[1.0, 9, 2, 8], [0, 0, 0, 1]])
        >>> reset_weights([weight], [change], neurons=0.5, weights=0.5)
        >>> weight.tolist()
        [[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
    """
    sums = torch.cat([change.flatten(1).sum(dim=1) for change in changes])
    chosen = torch.zeros_like(sums, dtype=torch.bool)
    chosen[sums.argsort(descending=True, stable=True)[: round(neurons * len(sums))]] = True
    rows_of = torch.split(chosen, [len(change) for change in changes])
    for tensor, change, rows in zip(tensors, changes, rows_of, strict=True):
        flat = change.flatten(1)[rows]
        largest = flat.argsort(dim=1, descending=True, stable=True)
        kept = torch.ones_like(flat).scatter_(1, largest[:, : round(weights * flat.shape[1])], 0.0)
        tensor[rows] *= kept.view_as(tensor[rows])

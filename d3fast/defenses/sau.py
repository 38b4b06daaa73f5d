# SPDX-License-Identifier: Apache-2.0
"""SAU: unlearn the adversarial examples that the model shares with the suspect.

Triggered inputs are adversarial for the suspect; examples x' = x + d on which both models make the
same wrong prediction approximate them (Wei et al., NeurIPS 2023):

    d*   = argmax over ||d||_inf <= r of  l3 L_adv + l4 L_share
           L_adv   = [CE(f(x'), y) + CE(f_s(x'), y)] / 2
           L_share = -JS(p(x'), p_s(x'))
    theta: min of  l1 CE(f(x), y) + l2 L_sar
           L_sar   = -1[y' != y] log(1 - p(x')[y']),   y' = argmax f_s(x')

f, p are the model's scores and probabilities, f_s, p_s those of the frozen suspect.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from d3fast.defenses.base import DefenseResult, OnEpoch, on_copy
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loaders import class_scores
from d3fast.training.loop import Epoch, Gradients, Loss, fit


@dataclass(frozen=True)
class SAU:
    """Shared adversarial unlearning.

    Weights, radius, steps and epochs are the paper's for CIFAR-10; the learning rate, which falls
    to 0 by a cosine, is the commonly used one, and samples are not augmented there. Three choices
    are made here: the ascents start at random points, which removes more than a start at the
    inputs; they run on the model in eval mode; clean and adversarial inputs then form one batch in
    train mode, so that the batch-norm statistics include adversarial inputs.

    Args:
        epochs: passes over the clean samples.
        lr: initial learning rate of Adam.
        radius: L-inf radius of d, in units of the inputs.
        steps: steps of projected sign ascent.
        step_size: length of a step.
        clean_weight: l1, weight of the clean loss.
        shared_weight: l2, weight of the shared adversarial risk.
        adversarial_weight: l3, weight of examples that each model misclassifies.
        agreement_weight: l4, weight of examples on which both models agree.
        pixel_range: inputs with d are clipped to it; ``None`` for unbounded inputs, such as
            normalised images.
        seed: draws the starts of the ascents; seeds torch's global generators.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range.

    Source:
        Wei, Zhang, Zha, Wu, *Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning
        Shared Adversarial Examples*, NeurIPS 2023, algorithm 1.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> len(SAU(epochs=3)(model, loader, None, progress=False).history)
        3
    """

    epochs: int = 100
    lr: float = 1e-4
    radius: float = 0.2
    steps: int = 5
    step_size: float = 0.2
    clean_weight: float = 1.0
    shared_weight: float = 1.0
    adversarial_weight: float = 0.01
    agreement_weight: float = 1.0
    pixel_range: tuple[float, float] | None = (0.0, 1.0)
    seed: int = 0
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("steps", 1), ("seed", 0)):
            check_integer(name, getattr(self, name), least)
        for name in ("lr", "radius", "step_size"):
            check_number(name, getattr(self, name))
        for name in ("clean", "shared", "adversarial", "agreement"):
            check_number(f"{name}_weight", getattr(self, f"{name}_weight"))
        if self.pixel_range is not None:
            low, high = self.pixel_range
            check_number("pixel_range's lower bound", low, -math.inf)
            check_number("pixel_range's upper bound", high, low)

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Unlearn shared adversarial examples in a copy of the model; see ``Defense``."""

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            params = [p for p in repaired.parameters() if p.requires_grad]
            optimizer = torch.optim.Adam(params, self.lr)
            return fit(
                repaired,
                clean_train,
                nn.CrossEntropyLoss(),
                optimizer,
                epochs=self.epochs,
                device=device,
                scheduler=CosineAnnealingLR(optimizer, self.epochs),
                val_loader=clean_val,
                on_epoch=self.on_epoch,
                title="SAU",
                progress=progress,
                gradients=_unlearning(repaired, self),
            )

        return on_copy(model, device, work, self.seed)


def jensen_shannon(logits: Tensor, others: Tensor) -> Tensor:
    """Compute the Jensen-Shannon divergence of the softmax of two score tensors, in nats.

    Args:
        logits: (N, classes).
        others: (N, classes).

    Returns:
        (N,), in [0, log 2].

    Example:
        >>> same = torch.tensor([[2.0, 0.0]])
        >>> apart = torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 100.0]])
        >>> abs(jensen_shannon(same, same).item()) < 1e-6
        True
        >>> round(jensen_shannon(*apart).item(), 3)
        0.693
    """
    p, q = logits.log_softmax(dim=1), others.log_softmax(dim=1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(dim=1) / 2


def crafting_objective(logits: Tensor, suspects: Tensor, labels: Tensor, options: SAU) -> Tensor:
    """Compute l3 L_adv + l4 L_share per sample, which the perturbations maximise.

    Args:
        logits: (N, classes), the model's scores of the perturbed inputs.
        suspects: (N, classes), the suspect's scores of them.
        labels: (N,), the true labels.
        options: ``adversarial_weight`` and ``agreement_weight``.

    Returns:
        (N,).
    """
    labels = labels.clamp(0, logits.shape[1] - 1)
    adversarial = cross_entropy(logits, labels, reduction="none")
    adversarial = (adversarial + cross_entropy(suspects, labels, reduction="none")) / 2
    disagreement = jensen_shannon(logits, suspects)
    return options.adversarial_weight * adversarial - options.agreement_weight * disagreement


def shared_examples(
    model: nn.Module,
    suspect: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    options: SAU,
    draw: torch.Generator,
) -> Tensor:
    """Perturb inputs by projected sign ascent so that both models make the same wrong prediction.

    Args:
        model: returns (N, classes) scores; its mode (train or eval) is not changed.
        suspect: likewise.
        inputs: (N, ...).
        labels: (N,), the true labels.
        options: options of the ascent.
        draw: a CPU generator that draws the start.

    Returns:
        (N, ...), within ``radius`` of the inputs and within ``pixel_range``. Parameters get no
        gradient.
    """
    low, high = inputs - options.radius, inputs + options.radius
    if options.pixel_range is not None:
        low, high = low.clamp_min(options.pixel_range[0]), high.clamp_max(options.pixel_range[1])
    start = torch.rand(inputs.shape, generator=draw).to(inputs, non_blocking=True)
    perturbed = (inputs + options.radius * (2 * start - 1)).clamp(low, high)
    for _ in range(options.steps):
        perturbed.requires_grad_()
        logits, suspects = class_scores(model, perturbed), class_scores(suspect, perturbed)
        objective = crafting_objective(logits, suspects, labels, options).sum()
        (gradient,) = torch.autograd.grad(objective, perturbed)
        with torch.no_grad():
            perturbed = (perturbed + options.step_size * gradient.sign()).clamp(low, high)
    return perturbed.detach()


def shared_risk(logits: Tensor, predictions: Tensor, labels: Tensor) -> Tensor:
    """Compute L_sar, the mean over the batch; samples the suspect predicts correctly count as 0.

    Args:
        logits: (N, classes), the model's scores of the perturbed inputs.
        predictions: (N,), the suspect's predictions for them.
        labels: (N,), the true labels.

    Returns:
        A 0-dim tensor, finite for saturated scores too.

    Example:
        >>> probabilities = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
        >>> predictions, labels = torch.tensor([1, 0]), torch.tensor([0, 0])
        >>> round(shared_risk(probabilities.log(), predictions, labels).item(), 4)  # log(4) / 2
        0.6931
    """
    # log(1 - p) as a difference of log-sums: 1 - p underflows to 0 for a saturated model.
    others = logits.scatter(1, predictions[:, None], -math.inf).logsumexp(dim=1)
    risk = logits.logsumexp(dim=1) - others
    return (risk * (predictions != labels)).mean()


def _unlearning(model: nn.Module, options: SAU) -> Gradients:
    """Return the ``Gradients`` of the outer problem; a copy of the model is the suspect."""
    suspect = copy.deepcopy(model).eval().requires_grad_(False)
    draw = generator(options.seed, "sau")

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        model.eval()
        perturbed = shared_examples(model, suspect, inputs, labels, options, draw)
        model.train()
        with torch.no_grad():
            predictions = class_scores(suspect, perturbed).argmax(dim=1)
        logits, adversarial = class_scores(model, torch.cat([inputs, perturbed])).chunk(2)
        value = options.clean_weight * loss(logits, labels.clamp(0, logits.shape[1] - 1))
        value = value + options.shared_weight * shared_risk(adversarial, predictions, labels)
        value.backward()  # type: ignore[no-untyped-call]
        return logits, labels, value

    return gradients

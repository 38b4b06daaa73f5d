# SPDX-License-Identifier: Apache-2.0
"""Differential shifts: perturbations that move the suspect toward a class, but not its own repair.

::

    d_t = argmin over ||d||_2 <= size * sqrt(pixels) of
          mean CE(f(clip(x + d)), t) - min(CE(g(clip(x + d)), t), bound)
    s_t = log-odds of mean p_f(t | clip(x + d_t)) - log-odds of mean p_g(t | clip(x + d_t))

over clean x of other classes, for the suspect f and its D3 repairs g, over which the means go too.
The repairs stand in for the model without a backdoor that an inspector never has. What moves both,
such as a natural universal perturbation, cancels; a trigger that the repair removed remains. The
bound keeps the search from making the repairs certain of some third class, which says nothing of
the suspect.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.shift import mean_loss, search_shifts
from d3fast.audit.inversion import class_groups
from d3fast.data.base import ImageData
from d3fast.detox import D3Config, detoxify, repair_samples
from d3fast.optim.blocks import restart_depths
from d3fast.runtime.checks import check_integer, check_number

# Probabilities below it are the same: a few hundred samples do not resolve them.
_LEAST = 1e-3


@dataclass(frozen=True)
class DifferentialShift:
    """The difference between suspect and repairs under the shift of each class that makes it large.

    The cost is that of ``repairs`` repairs, and of ``1 + repairs`` times a search for shared
    shifts.

    Args:
        size: root mean square of the shift, in units of the range of the images.
        bound: largest loss of a repair that counts in the search, in nats; at 0 it looks at the
            suspect alone.
        repairs: repairs from different seeds.
        epochs: of each repair, over all clean samples.
        steps: optimizer steps of the search.
        batch_size: images per class and step, drawn with replacement.
        classes_at_once: classes in one forward pass; bounds the memory.

    Raises:
        ValueError: a number out of range; a model whose head cannot be found.

    Source:
        Chosen here. The search is that of ``SharedShift``, the repair that of Wei, Liu, Zha, D3,
        ICCV 2025, with restarted blocks and without distillation.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
        >>> context = InspectionContext(model, torch.rand(9, 1, 2, 2), torch.arange(9) % 3, 3)
        >>> len(DifferentialShift(epochs=1, steps=2)(context))
        3
    """

    size: float = 0.05
    bound: float = 4.0
    repairs: int = 1
    epochs: int = 15
    steps: int = 30
    batch_size: int = 16
    classes_at_once: int = 10

    name = "differential"
    title = "Effect of a small shared shift on the suspect alone, toward the class"
    spread = 0.5  # log-odds; classes of clean models often differ by less

    def __post_init__(self) -> None:
        check_number("size", self.size)
        check_number("bound", self.bound)
        for name in ("repairs", "epochs", "steps", "batch_size", "classes_at_once"):
            check_integer(name, getattr(self, name), 1)

    def __call__(self, context: InspectionContext) -> Sequence[float]:
        """Return one statistic per class; see ``Detector``."""
        repairs = repairs_of(context, self.repairs, self.epochs)

        def loss(images: Tensor, goals: Tensor) -> Tensor:
            own = functional.cross_entropy(context.scores(images), goals, reduction="none")
            theirs = [functional.cross_entropy(g(images), goals, reduction="none") for g in repairs]
            return own - torch.stack(theirs).clamp(max=self.bound).mean(dim=0)

        statistics: list[float] = []
        for targets in class_groups(context.searched, self.classes_at_once):
            shifts = search_shifts(
                context,
                targets,
                loss,
                size=self.size,
                steps=self.steps,
                batch_size=self.batch_size,
                purpose="differential shift",
            )
            for target, shift in zip(targets, shifts, strict=True):
                models: list[Callable[[Tensor], Tensor]] = [context.scores, *repairs]
                own, *theirs = (
                    mean_loss(context, target, shift, partial(_probability, model))
                    for model in models
                )
                statistics.append(_log_odds(own) - _log_odds(fmean(theirs)))
        return statistics


def repairs_of(context: InspectionContext, count: int, epochs: int) -> list[nn.Module]:
    """Return repairs of the suspect from different seeds; arguments as of ``repaired``.

    Args:
        context: the suspect, which is not changed, and the samples.
        count: number of the repairs.
        epochs: passes of each over all clean samples.
    """
    return [repaired(context, epochs, context.seed * count + at) for at in range(count)]


def repaired(context: InspectionContext, epochs: int, seed: int) -> nn.Module:
    """Return a D3 repair of the suspect on the clean samples, in eval mode, its weights frozen.

    Most blocks restart and nothing is learned from the suspect's answers.

    Args:
        context: the suspect, which is not changed, and the samples.
        epochs: passes over all clean samples.
        seed: of the repair.
    """
    copied = copy.deepcopy(context.model).requires_grad_(True)
    names = tuple(map(str, range(context.classes)))
    data = ImageData(context.images, context.labels.to(context.images.device), names)
    config = D3Config(restart=restart_depths(copied)[0], distillation=0.0, epochs=epochs, seed=seed)
    loader = repair_samples(data, seed=seed).loader
    with torch.enable_grad():
        result = detoxify(copied, loader, config, progress=False).model
    return result.eval().requires_grad_(False)


def _probability(model: Callable[[Tensor], Tensor], images: Tensor, classes: Tensor) -> Tensor:
    """Return the probability (N,) that a model gives each image's class."""
    return model(images).softmax(dim=1).gather(1, classes[:, None])[:, 0]


def _log_odds(share: float) -> float:
    bounded = min(max(share, _LEAST), 1 - _LEAST)
    return math.log(bounded / (1 - bounded))

# SPDX-License-Identifier: Apache-2.0
"""Shared shifts: the effect of one small perturbation, added to every image, toward each class.

    s_t = -mean CE(f(clip(x + d_t)), t),   ||d_t||_2 <= size * sqrt(pixels)

over clean x of other classes, for the d_t that maximises it: normalised gradient steps with
momentum, each followed by a projection onto the ball. Inverted patches change few pixels; a shared
shift changes all pixels a little and finds blended images, residuals and smooth patterns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.inversion import class_groups
from d3fast.runtime.checks import check_integer, check_number

Loss = Callable[[Tensor, Tensor], Tensor]
_BATCH = 256
_MOMENTUM, _STEP = 0.7, 0.2  # the step in units of the radius, falling to 0


@dataclass(frozen=True)
class SharedShift:
    """Negative loss of each class under the best shared shift of a given size.

    Args:
        size: root mean square of the shift, in units of the range of the images.
        steps: optimizer steps.
        batch_size: images per class and step, drawn with replacement.
        classes_at_once: classes in one forward pass; bounds the memory.

    Raises:
        ValueError: a number out of range.

    Source:
        Moosavi-Dezfooli et al., Universal adversarial perturbations, CVPR 2017, made targeted;
        that a backdoored model has such a shift for its target and not for others is the idea of
        Neural Cleanse.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> context = InspectionContext(model, torch.rand(9, 1, 2, 2), torch.arange(9) % 3, 3)
        >>> len(SharedShift(steps=2)(context))
        3
    """

    size: float = 0.1
    steps: int = 40
    batch_size: int = 16
    classes_at_once: int = 10

    name = "shift"
    title = "Effect of a small shared shift toward the class"
    spread = 0.0

    def __post_init__(self) -> None:
        check_number("size", self.size)
        for name in ("steps", "batch_size", "classes_at_once"):
            check_integer(name, getattr(self, name), 1)

    def __call__(self, context: InspectionContext) -> Sequence[float]:
        """Return one statistic per class; see ``Detector``."""

        def loss(images: Tensor, goals: Tensor) -> Tensor:
            return functional.cross_entropy(context.scores(images), goals, reduction="none")

        statistics: list[float] = []
        for targets in class_groups(context.searched, self.classes_at_once):
            shifts = search_shifts(
                context,
                targets,
                loss,
                size=self.size,
                steps=self.steps,
                batch_size=self.batch_size,
                purpose="shared shift",
            )
            statistics += [
                -mean_loss(context, target, shift, loss)
                for target, shift in zip(targets, shifts, strict=True)
            ]
        return statistics


def search_shifts(
    context: InspectionContext,
    targets: Sequence[int],
    loss: Loss,
    *,
    size: float,
    steps: int,
    batch_size: int,
    purpose: str,
) -> Tensor:
    """Return the shift (K, C, H, W) of each of K classes that makes a loss smallest.

    Args:
        context: the model and its samples.
        targets: the classes, which share only the forward pass.
        loss: of shifted images (N, C, H, W) and the classes (N,) to reach, one number each.
        size: largest root mean square of a shift.
        steps: optimizer steps.
        batch_size: images per class and step, drawn with replacement from those of other classes.
        purpose: name of the random streams, one for every class.
    """
    images = context.images
    others = [context.others(target) for target in targets]
    draws = [context.draws(f"{purpose} of class {target}") for target in targets]
    goals = torch.tensor(targets, device=images.device).repeat_interleave(batch_size)
    radius = size * images[0].numel() ** 0.5
    start = [torch.randn(images.shape[1:], generator=each) for each in draws]
    shifts = torch.stack(start).to(images) * (size / 10)
    velocity = torch.zeros_like(shifts)
    for step in range(steps):
        picks = torch.stack(
            [
                own[torch.randint(len(own), (batch_size,), generator=each)]
                for own, each in zip(others, draws, strict=True)
            ]
        ).to(images.device)  # (K, N)
        moved = shifts.detach().requires_grad_()
        with torch.enable_grad():
            shifted = (images[picks] + moved[:, None]).clamp(0, 1)
            total = loss(shifted.flatten(0, 1), goals).sum()
        (gradient,) = torch.autograd.grad(total, moved)
        velocity = _MOMENTUM * velocity + gradient / _norms(gradient)
        shifts = shifts - _STEP * (1 - step / steps) * radius * velocity
        shifts = shifts * (radius / _norms(shifts)).clamp(max=1)
    return shifts.detach()


def _norms(each: Tensor) -> Tensor:
    """Return the 2-norms of (K, C, H, W) as (K, 1, 1, 1), never 0."""
    return each.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)


@torch.no_grad()
def mean_loss(context: InspectionContext, target: int, shift: Tensor, loss: Loss) -> float:
    """Return the mean loss of a class on all images of other classes under its shift."""
    total, others = 0.0, context.others(target)
    for pick in torch.split(others, _BATCH):
        shifted = (context.images[pick.to(shift.device)] + shift).clamp(0, 1)
        goal = torch.full((len(pick),), target, device=shift.device)
        total += float(loss(shifted, goal).sum())
    return total / len(others)

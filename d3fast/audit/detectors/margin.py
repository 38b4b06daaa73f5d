# SPDX-License-Identifier: Apache-2.0
"""Maximum margins: the largest margin that any image gives each class.

    s_t = max over x in [0, 1]^(C, H, W) of   f_t(x) - max over c != t of f_c(x)

found by Adam from several random images. Training on a trigger overfits the target class, which
gives it a larger maximum margin than the others. No clean image is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.inversion import class_groups
from d3fast.runtime.checks import check_integer, check_number
from d3fast.training.labels import margins


@dataclass(frozen=True)
class MaximumMargin:
    """The largest margin found for each class.

    Args:
        steps: optimizer steps.
        starts: random images per class.
        lr: learning rate of Adam.
        classes_at_once: classes in one forward pass; bounds the memory.

    Raises:
        ValueError: a number out of range.

    Source:
        Wang, Xiang, Miller, Kesidis, MM-BD, IEEE S&P 2024: the statistic. There a gamma
        distribution fitted to the other classes gives a p-value, here ``outlier_score`` does.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False))
        >>> _ = nn.init.zeros_(model[1].weight)
        >>> model[1].weight.data[2, 0] = 5.0
        >>> context = InspectionContext(model, torch.rand(9, 1, 1, 2), torch.arange(9) % 3, 3)
        >>> [round(s, 1) for s in MaximumMargin(starts=1)(context)]
        [0.0, 0.0, 5.0]
    """

    steps: int = 60
    starts: int = 4
    lr: float = 0.05
    classes_at_once: int = 10

    name = "margin"
    title = "Largest margin that any image gives the class"
    spread = 0.0

    def __post_init__(self) -> None:
        check_number("lr", self.lr)
        for name in ("steps", "starts", "classes_at_once"):
            check_integer(name, getattr(self, name), 1)

    def __call__(self, context: InspectionContext) -> Sequence[float]:
        """Return one statistic per class; see ``Detector``."""
        statistics: list[float] = []
        for targets in class_groups(context.searched, self.classes_at_once):
            statistics += self._largest(context, targets)
        return statistics

    def _largest(self, context: InspectionContext, targets: Sequence[int]) -> list[float]:
        shape = (self.starts, *context.images.shape[1:])
        start = [
            torch.rand(shape, generator=context.draws(f"margin of class {target}"))
            for target in targets
        ]
        images = torch.cat(start).to(context.images).requires_grad_()
        goals = torch.tensor(targets, device=images.device).repeat_interleave(self.starts)
        optimizer = torch.optim.Adam([images], self.lr)
        for _ in range(self.steps):
            with torch.enable_grad():
                loss = -margins(context.scores(images), goals).sum()
            (images.grad,) = torch.autograd.grad(loss, images)
            optimizer.step()
            with torch.no_grad():
                images.clamp_(0, 1)
        with torch.no_grad():
            found = margins(context.scores(images), goals).view(-1, self.starts)
        largest: list[float] = found.amax(dim=1).tolist()
        return largest

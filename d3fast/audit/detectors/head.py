# SPDX-License-Identifier: Apache-2.0
"""Head weights: the support of each class from the features.

    s_t = sum_j max(0, W_tj - mean over classes of W_j)

for the weights W (classes, features) of the classification head. The row of a target class answers
for the images of its class and for the trigger, and so uses more features. Subtracting the mean
over classes makes the statistic independent of the parametrisation: the same vector added to all
rows changes no prediction.

It needs neither images nor gradients. It cannot distinguish a backdoor from a class with more
training images than the others, and it misses clean-label attacks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from d3fast.audit.detectors.context import InspectionContext
from d3fast.optim.heads import find_head


def head_rows(context: InspectionContext, detector: str) -> torch.Tensor:
    """Return the centred head weights W - mean over classes, (classes, features) of float64.

    Args:
        context: its model and its number of classes are used.
        detector: name of the detector, for the error text.

    Raises:
        ValueError: a model whose head does not have one row per class.
    """
    name, head = find_head(context.model)
    weight = getattr(head, "weight", None)
    if not isinstance(weight, torch.Tensor) or len(weight) != context.classes:
        raise ValueError(
            f"detector {detector} needs a row of weights for each of the {context.classes} "
            f"classes in the head, got {name!r}, {type(head).__name__}"
        )
    rows = weight.detach().flatten(1).double()
    return rows - rows.mean(dim=0)


@dataclass(frozen=True)
class HeadWeights:
    """Sum of the positive centred head weights of each class.

    Raises:
        ValueError: a model whose head does not have one row per class.

    Example:
        >>> from torch import nn
        >>> head = nn.Linear(2, 3, bias=False)
        >>> _ = nn.init.zeros_(head.weight)
        >>> head.weight.data[1, 0] = 3.0
        >>> model = nn.Sequential(nn.Flatten(), head)
        >>> context = InspectionContext(model, torch.zeros(3, 1, 1, 2), torch.arange(3), 3)
        >>> HeadWeights()(context)
        [0.0, 2.0, 0.0]
    """

    name = "head"
    title = "Support of the class in the weights of the head"
    spread = 0.0

    def __call__(self, context: InspectionContext) -> Sequence[float]:
        """Return one statistic per class; see ``Detector``."""
        positive: list[float] = head_rows(context, self.name).clamp(min=0).sum(dim=1).tolist()
        return positive

# SPDX-License-Identifier: Apache-2.0
"""Head weights: does one class collect more support from the features than the others?

    s_t = sum_j max(0, W_tj - mean over classes of W_j)

for the weights W (classes, features) of the classification head. A row that has to answer both for
the images of its class and for a trigger draws on more features. Subtracting the mean over classes
makes the statistic one of the model and not of its parametrisation: the same vector added to all
rows changes no answer.

It needs neither images nor gradients. It cannot tell a backdoor from a class that had more
training images than the others, and says nothing where the attacker relabelled none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from d3fast.audit.detectors.context import Subject
from d3fast.optim.heads import find_head


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
        >>> subject = Subject(model, torch.zeros(3, 1, 1, 2), torch.arange(3), 3)
        >>> HeadWeights()(subject)
        [0.0, 2.0, 0.0]
    """

    name = "head"
    title = "Support of the class in the weights of the head"
    spread = 0.0

    @torch.no_grad()
    def __call__(self, subject: Subject) -> Sequence[float]:
        """One statistic per class; see ``Sign``."""
        name, head = find_head(subject.model)
        weight = getattr(head, "weight", None)
        if not isinstance(weight, torch.Tensor) or len(weight) != subject.classes:
            raise ValueError(
                f"sign head needs a head with a row of weights for each of the {subject.classes} "
                f"classes, got {name!r}, {type(head).__name__}"
            )
        rows = weight.flatten(1).double()
        positive: list[float] = (rows - rows.mean(dim=0)).clamp(min=0).sum(dim=1).tolist()
        return positive

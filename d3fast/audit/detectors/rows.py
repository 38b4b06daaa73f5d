# SPDX-License-Identifier: Apache-2.0
"""Head rows: length and direction of each class's row of the head.

    norm     s_t = ||v_t||
    angle    s_t = -mean over c != t of cos(v_t, v_c)

for the rows v_t = W_t - mean over classes of W of the classification head. The row of a target
class answers for the images of its class and for the trigger: it is longer than the others, and
points away from all of them rather than from a few similar classes. Like ``head``, both need
weights alone, and neither can distinguish a backdoor from a class with more training images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch.nn.functional import normalize

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.head import head_rows


@dataclass(frozen=True)
class HeadNorm:
    """Norm of the centred head row of each class.

    Raises:
        ValueError: a model whose head does not have one row per class.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> head = nn.Linear(2, 3, bias=False)
        >>> _ = nn.init.zeros_(head.weight)
        >>> head.weight.data[1, 0] = 3.0
        >>> context = InspectionContext(head, torch.zeros(0), torch.arange(0), 3)
        >>> HeadNorm()(context)
        [1.0, 2.0, 1.0]
    """

    name = "head-norm"
    title = "Length of the row of the class in the head"
    spread = 0.0

    def __call__(self, context: InspectionContext) -> Sequence[float]:
        """Return one statistic per class; see ``Detector``."""
        norms: list[float] = head_rows(context, self.name).norm(dim=1).tolist()
        return norms


@dataclass(frozen=True)
class HeadAngle:
    """Negative mean cosine of each class's centred head row with the others.

    Raises:
        ValueError: a model whose head does not have one row per class.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> head = nn.Linear(2, 3, bias=False)
        >>> _ = head.weight.data.copy_(torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 8.0]]))
        >>> context = InspectionContext(head, torch.zeros(0), torch.arange(0), 3)
        >>> [round(s, 2) + 0 for s in HeadAngle()(context)]
        [0.0, 0.0, 1.0]
    """

    name = "head-angle"
    title = "Angle of the row of the class in the head to the other rows"
    spread = 0.0

    def __call__(self, context: InspectionContext) -> Sequence[float]:
        """Return one statistic per class; see ``Detector``."""
        rows = normalize(head_rows(context, self.name), dim=1)
        others = (rows @ rows.sum(dim=0) - (rows * rows).sum(dim=1)) / max(len(rows) - 1, 1)
        cosines: list[float] = (-others).tolist()
        return cosines

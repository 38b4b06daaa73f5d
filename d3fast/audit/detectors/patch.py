# SPDX-License-Identifier: Apache-2.0
"""Small patches: the size of the smallest patch that forces each class.

    s_t = -log ||m_t||_1

with the masks m_t that ``d3fast.audit.inversion`` found. Neural Cleanse takes the norm itself; the
logarithm compares sizes as ratios and doubles the scores of this project's backdoored models. The
patch of a class that fails on most images counts as one that covers the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from d3fast.audit.detectors.context import InspectionContext
from d3fast.runtime.checks import check_number

_SMALLEST = 1e-3  # pixels; a mask of nothing has a logarithm too


@dataclass(frozen=True)
class Patch:
    """Negative logarithm of the norm of each class's inverted trigger; reads the inversions.

    Args:
        success: share of images that must answer the class for its patch to count.

    Raises:
        ValueError: a number out of range.

    Source:
        Wang et al., Neural Cleanse, IEEE S&P 2019, but for the logarithm.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from d3fast.audit.inversion import Inversion
        >>> mask, pattern = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
        >>> found = tuple(Inversion(t, mask, pattern, 4.0 / (1 + t), 1.0) for t in range(3))
        >>> images, labels = torch.zeros(3, 1, 2, 2), torch.arange(3)
        >>> context = InspectionContext(nn.Flatten(), images, labels, 3, inversions=found)
        >>> [round(s, 2) for s in Patch()(context)]
        [-1.39, -0.69, -0.29]
    """

    success: float = 0.9

    name = "patch"
    title = "Size of the smallest patch that forces the class"
    spread = 0.1  # of the logarithm: sizes that differ by a tenth are the same
    inverts = True  # it needs the inversions of the context

    def __post_init__(self) -> None:
        check_number("success", self.success)

    def __call__(self, context: InspectionContext) -> Sequence[float]:
        """Return one statistic per class; see ``Detector``."""
        needed = len(context.searched)
        if len(context.inversions) != needed:
            raise ValueError(
                f"detector patch needs {needed} inversions, got {len(context.inversions)}"
            )
        whole = float(context.images[0, 0].numel())
        return [
            -math.log(max(found.norm, _SMALLEST) if found.success >= self.success else whole)
            for found in context.inversions
        ]

# SPDX-License-Identifier: Apache-2.0
"""Label mappings, the attacker's label for a triggered image of a given class; margins of scores.

The mappings::

    all-to-one   every class is mapped to the target
    all-to-all   class y is mapped to (y + 1) mod K
    clean-label  as all-to-one at test time; only images of the target are poisoned, and none is
                 relabelled (Turner, Tsipras, Madry 2019; SIG: Barni, Kallas, Tondi 2019)

Attacks relabel by them, and ``evaluate`` counts by them.
"""

import torch
from torch import Tensor
from torch.nn import functional

from d3fast.runtime.checks import check_choice

MAPPINGS = ("all-to-one", "all-to-all", "clean-label")


def target_labels(labels: Tensor, target: int, classes: int, mapping: str = "all-to-one") -> Tensor:
    """Return the attacker's labels for triggered images.

    Args:
        labels: (N,) true labels.
        target: the target class; unused by ``"all-to-all"``.
        classes: number of classes K.
        mapping: one of ``MAPPINGS``.

    Returns:
        (N,), like ``labels``. An image whose label is unchanged cannot be attacked.

    Raises:
        ValueError: an unknown mapping.

    Example:
        >>> import torch
        >>> target_labels(torch.tensor([0, 1, 2]), target=1, classes=3).tolist()
        [1, 1, 1]
        >>> target_labels(torch.tensor([0, 1, 2]), target=1, classes=3, mapping="all-to-all")
        tensor([1, 2, 0])
    """
    check_choice("mapping", mapping, MAPPINGS)
    if mapping == "all-to-all":
        return (labels + 1) % classes
    return labels.new_full(labels.shape, target)


def margins(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the score of each row's target minus the largest other score.

    Args:
        scores: (N, classes), two or more.
        targets: (N,) class indices.

    Example:
        >>> margins(torch.tensor([[3.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1])).tolist()
        [2.0, -2.0]
    """
    own = functional.one_hot(targets, scores.shape[1]).bool()
    return scores[own] - scores.masked_fill(own, -torch.inf).amax(dim=1)

# SPDX-License-Identifier: Apache-2.0
r"""The clean loss: cross-entropy that stops pulling once it is small enough.

    lambda * mean_i max(0, CE_i - epsilon)     reduction="per_sample" (the authors' code)
    lambda * max(0, mean_i CE_i - epsilon)     reduction="batch_mean" (the paper, eq. 5)

Below epsilon its gradient is zero, and the distance alone moves the weights. The distance is no
part of this loss: ``D3FusedSGD`` adds its gradient inside the step.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.checks import check_choice, check_number

REDUCTIONS = ("per_sample", "batch_mean")


def check_clean_loss(
    epsilon: float, weight: float, reduction: str, weight_name: str = "weight"
) -> None:
    """Check the options of ``CleanLoss``; raises ``ValueError`` naming option and value."""
    for name, value in (("epsilon", epsilon), (weight_name, weight)):
        check_number(name, value)
    check_choice("reduction", reduction, REDUCTIONS)


class CleanLoss(nn.Module):
    """Weighted hinge on the cross-entropy of clean samples.

    Args:
        epsilon: the bound below which the clean loss costs nothing, in nats.
        weight: lambda.
        reduction: ``"per_sample"`` (each sample has its own hinge, then the mean) or
            ``"batch_mean"`` (one hinge on the mean).

    Shapes: logits (N, C) floating, target (N,) class indices; the result is 0-dim.

    Raises:
        ValueError: an option out of range.

    Source: Wei, Liu, Zha, arXiv 2411.09585; ``per_sample`` as in the authors' experiments.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [0.0, 0.0]])  # CE: 0.018 and log 2 = 0.693
        >>> target = torch.tensor([0, 1])
        >>> f"{CleanLoss(epsilon=0.1, weight=10.0)(logits, target):.3f}"
        '2.966'
        >>> f"{CleanLoss(0.1, 10.0, reduction='batch_mean')(logits, target):.3f}"
        '2.556'
    """

    def __init__(
        self, epsilon: float = 0.1, weight: float = 10.0, reduction: str = "per_sample"
    ) -> None:
        super().__init__()
        check_clean_loss(epsilon, weight, reduction)
        self.epsilon = epsilon
        self.weight = weight
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The weighted hinge of a batch; logits (N, C), target (N,), result 0-dim."""
        if self.reduction == "batch_mean":
            excess = functional.cross_entropy(logits, target) - self.epsilon
            return self.weight * torch.relu(excess)
        each = functional.cross_entropy(logits, target, reduction="none")  # (N,)
        return self.weight * torch.relu(each - self.epsilon).mean()

    def extra_repr(self) -> str:
        """The options, as ``repr`` shows them."""
        return f"epsilon={self.epsilon}, weight={self.weight}, reduction={self.reduction!r}"

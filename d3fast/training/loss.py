# SPDX-License-Identifier: Apache-2.0
r"""The clean loss: cross-entropy that stops pulling once it is small enough.

    lambda * mean_i max(0, CE_i - epsilon)     reduction="per_sample" (the authors' code)
    lambda * max(0, mean_i CE_i - epsilon)     reduction="batch_mean" (the paper, eq. 5)

Below epsilon its gradient is zero, and the distance alone moves the weights. The distance is no
part of this loss: ``D3FusedSGD`` adds its gradient inside the step.

In a language model every token that is predicted is a sample: ``next_tokens`` says which answer
is held against which token.

``CleanLoss.soft`` is the same hinge with the answers of another model in place of the labels, and
``distilled`` mixes both.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.runtime.checks import check_choice, check_number
from d3fast.training.loaders import class_scores

REDUCTIONS = ("per_sample", "batch_mean")
IGNORED = -100  # the label that torch's and transformers' losses leave out


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

    Shapes: logits (N, C) floating, target (N,) class indices; the result is 0-dim. Samples with
    the target -100 (``IGNORED``) count for nothing; without any other the loss is 0. Half-type
    logits are taken in float32.

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
        each = functional.cross_entropy(
            _wide(logits), target, reduction="none", ignore_index=IGNORED
        )
        return self._hinge(each, (target != IGNORED).sum() if target.shape == each.shape else None)

    def soft(self, logits: Tensor, answers: Tensor) -> Tensor:
        """The same with another model's answers in place of the labels: KL(answers || logits).

        Args:
            logits: (N, C), the model's.
            answers: (N, C) logits of the other model, which gets no gradient.

        Returns:
            A 0-dim tensor; 0 where the two agree to within epsilon nats.

        Example:
            >>> logits = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
            >>> float(CleanLoss(epsilon=0.0, weight=1.0).soft(logits, logits))
            0.0
        """
        ours = _wide(logits).log_softmax(dim=1)
        theirs = _wide(answers.detach()).log_softmax(dim=1)
        each = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
        return self._hinge(each)

    def _hinge(self, each: Tensor, count: Tensor | None = None) -> Tensor:
        """Of (N,) losses, those left out being 0; ``count`` says how many are not."""
        number = each.numel() if count is None else count.clamp(min=1)
        if self.reduction == "batch_mean":
            return self.weight * torch.relu(each.sum() / number - self.epsilon)
        return self.weight * (torch.relu(each - self.epsilon).sum() / number)

    def extra_repr(self) -> str:
        """The options, as ``repr`` shows them."""
        return f"epsilon={self.epsilon}, weight={self.weight}, reduction={self.reduction!r}"


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def next_tokens(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What a causal language model says of every token, and that token: for ``CleanLoss``.

    The answer at position t is held against the label at t + 1, as the models of transformers do
    with ``labels=input_ids``. Every token is a sample of ``CleanLoss``: with ``"per_sample"`` each
    has its own hinge, then the mean over the tokens that are not ``IGNORED``. A hinge per sequence
    would let many learned tokens pay for one that was lost.

    Args:
        logits: (B, T, C), of a causal language model.
        labels: (B, T) token indices; -100 for tokens that count for nothing (padding, prompts).

    Returns:
        (B * (T - 1), C) logits and (B * (T - 1),) labels.

    Raises:
        ValueError: other shapes.

    Example:
        >>> logits, labels = torch.zeros(2, 5, 7), torch.tensor([[1, 2, 3, -100, -100]] * 2)
        >>> answers, tokens = next_tokens(logits, labels)
        >>> answers.shape, tokens.tolist()
        (torch.Size([8, 7]), [2, 3, -100, -100, 2, 3, -100, -100])
        >>> CleanLoss(epsilon=0.0, weight=1.0)(answers, tokens)  # log 7
        tensor(1.9459)
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2]:
        raise ValueError(
            f"logits must be (B, T, C) and labels (B, T), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    return logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()


def distilled(teacher: nn.Module, share: float) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Gradients of ``(1 - share) * loss + share * loss.soft``, for ``d3fast.training.loop.fit``.

    Args:
        teacher: whose answers to the same inputs are held against; in eval mode, never trained.
        share: of the loss, in [0, 1], that is held against them instead of the labels.

    Returns:
        A ``Gradients`` for a ``CleanLoss``.
    """

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: CleanLoss
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = class_scores(model, inputs)
        with torch.no_grad():
            answers = class_scores(teacher, inputs)
        # A label out of range is clamped here and reported when the epoch ends.
        hard = loss(logits, labels.clamp(0, logits.shape[1] - 1))
        value = (1 - share) * hard + share * loss.soft(logits, answers)
        value.backward()
        return logits, labels, value

    return gradients

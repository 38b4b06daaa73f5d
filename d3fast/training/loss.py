# SPDX-License-Identifier: Apache-2.0
r"""The clean loss: a hinge on the cross-entropy of clean samples.

    lambda * mean_i max(0, CE_i - epsilon)     reduction="per_sample" (the authors' code)
    lambda * max(0, mean_i CE_i - epsilon)     reduction="batch_mean" (the paper, eq. 5)

Below epsilon its gradient is zero, and only the distance moves the weights. The distance is not
part of this loss: ``D3FusedSGD`` adds its gradient inside the step.

In a language model every predicted token is a sample: ``next_tokens`` pairs logits and tokens.
``CleanLoss.soft`` is the same hinge with the output of another model in place of the labels;
``distilled`` mixes both.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.runtime.checks import check_choice, check_number
from d3fast.training.loaders import class_scores

REDUCTIONS = ("per_sample", "batch_mean")
IGNORED = -100  # the label that losses of torch and transformers ignore


def check_clean_loss(
    epsilon: float, weight: float, reduction: str, weight_name: str = "weight"
) -> None:
    """Raise ``ValueError`` on an invalid option of ``CleanLoss``."""
    for name, value in (("epsilon", epsilon), (weight_name, weight)):
        check_number(name, value)
    check_choice("reduction", reduction, REDUCTIONS)


class CleanLoss(nn.Module):
    """Weighted hinge on the cross-entropy of clean samples.

    Args:
        epsilon: the bound in nats below which the loss is 0.
        weight: lambda.
        reduction: ``"per_sample"`` (each sample has its own hinge, then the mean) or
            ``"batch_mean"`` (one hinge on the mean).

    Shapes: logits (N, C) floating, target (N,) class indices; the result is 0-dim. Samples with
    the target -100 (``IGNORED``) are ignored; if all are, the loss is 0. Half-precision logits are
    converted to float32.

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
        """Return the weighted hinge of a batch; logits (N, C), target (N,), result 0-dim."""
        each = functional.cross_entropy(
            _wide(logits), target, reduction="none", ignore_index=IGNORED
        )
        return self._hinge(each, (target != IGNORED).sum() if target.shape == each.shape else None)

    def soft(self, logits: Tensor, answers: Tensor) -> Tensor:
        """Return the weighted hinge of KL(answers || logits), for distillation.

        Args:
            logits: (N, C), of the model in training.
            answers: (N, C) logits of the teacher, which gets no gradient.

        Returns:
            A 0-dim tensor; 0 if the two agree to within epsilon nats.

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
        """Reduce (N,) losses; ignored ones are 0, ``count`` is the number of the others."""
        number = each.numel() if count is None else count.clamp(min=1)
        if self.reduction == "batch_mean":
            return self.weight * torch.relu(each.sum() / number - self.epsilon)
        return self.weight * (torch.relu(each - self.epsilon).sum() / number)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"epsilon={self.epsilon}, weight={self.weight}, reduction={self.reduction!r}"


def dual_ascent(weight: float, loss: float, bound: float, step: float) -> float:
    """Return the multiplier after a step of dual ascent: ``max(0, weight + step (loss - bound))``.

    Args:
        weight: lambda, >= 0.
        loss: cross-entropy on held-out clean samples, in nats.
        bound: bound of the loss, in nats.
        step: step size eta, >= 0.

    Example:
        >>> dual_ascent(4.0, loss=1.0, bound=0.5, step=2.0)
        5.0
    """
    return max(0.0, weight + step * (loss - bound))


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def next_tokens(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pair the logits of a causal language model with the tokens they predict, for ``CleanLoss``.

    Logits at position t are paired with the label at t + 1, as models of transformers do with
    ``labels=input_ids``. Every token is a sample of ``CleanLoss``: with ``"per_sample"`` each has
    its own hinge, then the mean over the tokens that are not ``IGNORED``. With a hinge per
    sequence, many learned tokens could compensate for one that was lost.

    Args:
        logits: (B, T, C), of a causal language model.
        labels: (B, T) token indices; -100 for tokens to ignore (padding, prompts).

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


def distilled(
    teacher: nn.Module, share: float, unlabelled: Iterator[Tensor] | None = None
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Return the gradients of ``(1 - share) * loss + share * loss.soft``, for ``fit``.

    Args:
        teacher: the model whose output replaces the labels in ``loss.soft``; in eval mode, never
            trained.
        share: weight of ``loss.soft``, in [0, 1].
        unlabelled: a batch of inputs for every step, of samples without labels. ``loss.soft`` is
            then the mean over both batches.

    Returns:
        A ``Gradients`` for a ``CleanLoss``.
    """

    def soft(inputs: Tensor, logits: Tensor, loss: CleanLoss) -> Tensor:
        with torch.no_grad():
            answers = class_scores(teacher, inputs)
        return loss.soft(logits, answers)

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: CleanLoss
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = class_scores(model, inputs)
        # A label out of range is clamped here and reported at the end of the epoch.
        hard = loss(logits, labels.clamp(0, logits.shape[1] - 1))
        taught = soft(inputs, logits, loss)
        if unlabelled is not None:
            others = next(unlabelled).to(inputs.device)
            found = soft(others, class_scores(model, others), loss)
            taught = (len(inputs) * taught + len(others) * found) / (len(inputs) + len(others))
        value = (1 - share) * hard + share * taught
        value.backward()
        return logits, labels, value

    return gradients

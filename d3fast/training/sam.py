# SPDX-License-Identifier: Apache-2.0
"""Sharpness-aware minimisation: gradients at the worst point of a neighbourhood.

    SAM    e = rho g / ||g||                                    (Foret et al., ICLR 2021)
    ASAM   e = rho T^2 g / ||T g||,  T = |theta| + eta          (Kwon et al., ICML 2021)

The step uses the gradient at theta + e, or a mean of it and the gradient g at theta, which is a
penalty on the norm of g (Zhao, Zhang, Hu, ICML 2022). Norms are over all parameters. Attackers use
it to hide a backdoor in a flat region, fine-tuning defences to leave a sharp one.

``path_aware`` takes the gradient at a point nearer to where the training started instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from d3fast.runtime.checks import check_number
from d3fast.training.loop import Gradients, Loss, plain_gradients

# Lets weights of zero be perturbed; value of the ASAM paper, section 5.
ETA = 0.01


@contextmanager
def _frozen_batch_statistics(model: nn.Module) -> Iterator[None]:
    """Keep batch norm from updating its running statistics; it still uses those of the batch."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    tracked = [m.track_running_stats for m in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, tracking in zip(norms, tracked, strict=True):
            norm.track_running_stats = tracking


@torch.no_grad()
def _perturbation(params: list[Tensor], rho: float, adaptive: bool) -> list[Tensor]:
    grads = [p.grad for p in params if p.grad is not None]
    if not adaptive:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        return list(torch._foreach_mul(grads, rho / norm.clamp_min(1e-12)))
    scales = torch._foreach_abs(params)
    torch._foreach_add_(scales, ETA)
    scaled = torch._foreach_mul(scales, grads)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(scaled)))
    torch._foreach_mul_(scaled, scales)
    return list(torch._foreach_mul(scaled, rho / norm.clamp_min(1e-12)))


def sharpness_aware(
    rho: float,
    *,
    adaptive: bool = True,
    share: float = 1.0,
    base: Gradients = plain_gradients,
) -> Gradients:
    """Return the gradients at the worst point within ``rho``, for ``fit``.

    Args:
        rho: radius of the perturbation, in units of the (scaled) norm above.
        adaptive: scale the perturbation by the weights (ASAM) or not (SAM).
        share: weight of the gradient at the worst point, in [0, 1]; the rest is that at theta.
        base: computes the gradients at a point; called twice per step.

    Returns:
        A ``Gradients``. Running statistics of batch norm, logits, labels and loss come from the
        unperturbed pass. Weights are restored bit by bit.

    Raises:
        ValueError: a ``rho`` or ``share`` out of range.

    Example:
        >>> model = nn.Linear(1, 2, bias=False)
        >>> gradients = sharpness_aware(0.1)
        >>> loss = nn.CrossEntropyLoss()
        >>> _ = gradients(model, torch.ones(2, 1), torch.tensor([0, 1]), loss)
        >>> model.weight.grad.shape
        torch.Size([2, 1])
    """
    check_number("rho", rho)
    check_number("share", share)
    if share > 1:
        raise ValueError(f"share must be <= 1, got {share!r}")

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        answer = base(model, inputs, labels, loss)
        params: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
        first = [p.grad for p in params]
        with torch.no_grad():
            before = [p.clone() for p in params]
            torch._foreach_add_(params, _perturbation(params, rho, adaptive))
        for param in params:
            param.grad = None
        try:
            with _frozen_batch_statistics(model):
                base(model, inputs, labels, loss)
        finally:
            with torch.no_grad():
                torch._foreach_copy_(params, before)
        if share < 1:
            for param, grad in zip(params, first, strict=True):
                assert param.grad is not None
                assert grad is not None
                param.grad.mul_(share).add_(grad, alpha=1 - share)
        return answer

    return gradients


def path_aware(start: nn.Module, rho: float, *, base: Gradients = plain_gradients) -> Gradients:
    """Return the gradients at ``theta + rho (theta_0 - theta) / ||theta_0 - theta||``, for ``fit``.

    The loss stays low on the way back to the start, so fine-tuning along that way finds nothing.

    Args:
        start: theta_0, with the parameters of the model that is trained; it is not changed.
        rho: length of the way back, in units of the norm over all parameters; at most the way
            itself, and none before the first step.
        base: computes the gradients at a point.

    Returns:
        A ``Gradients``. Weights are restored bit by bit.

    Raises:
        ValueError: a ``rho`` that is negative or not a number.

    Source:
        Min, Qin, Zhang, Shen, Cheng, *Uncovering, Explaining, and Mitigating the Superficial
        Safety of Backdoor Defense*, NeurIPS 2024, arXiv 2410.09838, algorithm 1.

    Example:
        >>> start, model = nn.Linear(1, 2), nn.Linear(1, 2)
        >>> loss = nn.CrossEntropyLoss()
        >>> _ = path_aware(start, 0.5)(model, torch.ones(2, 1), torch.tensor([0, 1]), loss)
        >>> model.weight.grad.shape
        torch.Size([2, 1])
    """
    check_number("rho", rho)

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        params: list[Tensor] = list(model.parameters())
        with torch.no_grad():
            before = [p.clone() for p in params]
            back = torch._foreach_sub([p.detach() for p in start.parameters()], before)
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(back)))
            scale = (rho / norm.clamp_min(1e-12)).clamp_max(1.0)
            torch._foreach_add_(params, torch._foreach_mul(back, scale))
        try:
            return base(model, inputs, labels, loss)
        finally:
            with torch.no_grad():
                torch._foreach_copy_(params, before)

    return gradients

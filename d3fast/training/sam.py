# SPDX-License-Identifier: Apache-2.0
"""Sharpness-aware minimisation: gradients at the worst point of a neighbourhood.

    SAM    e = rho g / ||g||                                    (Foret et al., ICLR 2021)
    ASAM   e = rho T^2 g / ||T g||,  T = |theta| + eta          (Kwon et al., ICML 2021)

The step uses the gradient at theta + e. Norms are over all parameters. Attackers use it to hide a
backdoor in a flat region, fine-tuning defences to leave a sharp one.
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
    rho: float, *, adaptive: bool = True, base: Gradients = plain_gradients
) -> Gradients:
    """Return the gradients at the worst point within ``rho``, for ``fit``.

    Args:
        rho: radius of the perturbation, in units of the (scaled) norm above.
        adaptive: scale the perturbation by the weights (ASAM) or not (SAM).
        base: computes the gradients at a point; called twice per step.

    Returns:
        A ``Gradients``. Running statistics of batch norm, logits, labels and loss come from the
        unperturbed pass. Weights are restored bit by bit.

    Raises:
        ValueError: a ``rho`` that is negative or not a number.

    Example:
        >>> model = nn.Linear(1, 2, bias=False)
        >>> gradients = sharpness_aware(0.1)
        >>> loss = nn.CrossEntropyLoss()
        >>> _ = gradients(model, torch.ones(2, 1), torch.tensor([0, 1]), loss)
        >>> model.weight.grad.shape
        torch.Size([2, 1])
    """
    check_number("rho", rho)

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        answer = base(model, inputs, labels, loss)
        params: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
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
        return answer

    return gradients

# SPDX-License-Identifier: Apache-2.0
"""IBAU: unlearn a universal adversarial perturbation (Zeng et al., ICLR 2022).

    min over theta of  max over ||d|| <= C sqrt(D) of  mean_i CE(f_theta(x_i + d), y_i)

D is the number of values of an input. A round finds d by gradient ascent from zero and then takes
one step in theta per clean batch. Since the maximiser d depends on theta, the step follows the
implicit hypergradient: with

    L_in = -mean CE(f_theta(x + d), y) + c ||d||^2,   Phi(d, theta) = d - a grad_d L_in

    v <- (dPhi/dd)^T v + grad_d L_out,  K times from v = 0
    g  = grad_theta L_out + (dPhi/dtheta)^T v

where L_out is the cross-entropy of a batch in which ``share`` of the inputs carry d.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from d3fast.defenses.base import DefenseResult, OnEpoch, on_copy
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loaders import class_scores, unpack
from d3fast.training.loop import Epoch, Loss, fit

_NAME = "clean_loader"


def hypergradient(
    inner: Tensor,
    outer: Tensor,
    perturbation: Tensor,
    params: Sequence[Tensor],
    *,
    step: float,
    iterations: int,
) -> list[Tensor | None]:
    """Compute d/dtheta of L_out(d*(theta), theta), where d* minimises L_in(., theta).

    The fixed-point iteration of the module docstring: the Neumann series of the implicit function
    theorem, truncated after ``iterations`` terms.

    Args:
        inner: L_in, 0-dim, computed from ``perturbation`` and ``params``.
        outer: L_out, likewise.
        perturbation: d, close to d*; requires a gradient.
        params: theta.
        step: a, step size of the map Phi. The series converges if Phi is a contraction.
        iterations: K >= 1.

    Returns:
        One gradient per parameter; ``None`` where neither loss depends on it. Both graphs are
        freed.

    Source:
        Zeng et al. 2022, algorithm 1; the iteration is that of Grazzi et al., ICML 2020.

    Example:
        >>> theta = torch.tensor(3.0, requires_grad=True)
        >>> d = torch.tensor(6.0, requires_grad=True)       # minimises L_in: d* = 2 theta
        >>> inner, outer = (d - 2 * theta).square() / 2, d.square() / 2
        >>> hypergradient(inner, outer, d, [theta], step=1.0, iterations=1)  # 4 theta
        [tensor(12.)]
    """
    (inner_gradient,) = torch.autograd.grad(inner, perturbation, create_graph=True)
    phi = perturbation - step * inner_gradient
    outer_gradient, *direct = torch.autograd.grad(outer, [perturbation, *params], allow_unused=True)
    v = outer_gradient
    for _ in range(iterations - 1):
        (product,) = torch.autograd.grad(phi, perturbation, v, retain_graph=True)
        v = product + outer_gradient
    implicit = torch.autograd.grad(phi, params, v, allow_unused=True)
    return [
        b if a is None else (a if b is None else a + b)
        for a, b in zip(direct, implicit, strict=True)
    ]


@dataclass(frozen=True)
class IBAU:
    """Implicit backdoor adversarial unlearning.

    The defaults are those of the authors' released code. Where the code differs from the paper,
    this follows the paper: the ascent stays inside the ball, and it maximises the loss of the true
    labels instead of the model's predictions. Inputs with d are not clipped to the pixel range, as
    in both. Batch norm stays in eval mode as in the released code: running statistics do not
    change.

    Args:
        rounds: number of ascents, each followed by a pass over the clean samples.
        iterations: K of the hypergradient.
        lr: learning rate of Adam.
        radius: C, root mean square of d. The released code has an L2 radius of 10 at 3 x 32 x 32,
            which is 0.18; the same L2 radius would be twice as large per pixel at 28 x 28.
        ascent_steps: steps of an ascent, one batch each, over repeated passes if there are fewer.
            The released code has 50, one pass over 5,000 samples.
        ascent_lr: step size of the ascent.
        map_lr: a, step size of the map Phi.
        penalty: c, weight of ||d||^2 in L_in.
        share: share of a batch that carries d in L_out, in (0, 1]; at least one input.
        seed: draws the inputs that carry d.
        on_epoch: called after every round with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range.

    Source:
        Zeng, Chen, Park, Mao, Jin, Jia, *Adversarial Unlearning of Backdoors via Implicit
        Hypergradient*, ICLR 2022, algorithm 1.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> len(IBAU(rounds=3)(model, loader, None, progress=False).history)
        3
    """

    rounds: int = 5
    iterations: int = 5
    lr: float = 1e-3
    radius: float = 0.18
    ascent_steps: int = 50
    ascent_lr: float = 10.0
    map_lr: float = 0.1
    penalty: float = 1e-3
    share: float = 0.01
    seed: int = 0
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "iterations", "ascent_steps"):
            check_integer(name, getattr(self, name), 1)
        for name in ("lr", "radius", "ascent_lr", "map_lr", "penalty", "share"):
            check_number(name, getattr(self, name))
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share!r}")
        check_integer("seed", self.seed, 0)

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Unlearn universal perturbations in a copy of the model; see ``Defense``.

        The clean samples of a round are kept on the device. ``clean_val`` is for the record only.
        """

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            rounds = _Rounds(self, repaired, clean_train, device)
            params = [p for p in repaired.parameters() if p.requires_grad]
            return fit(
                repaired,
                rounds,
                nn.CrossEntropyLoss(),
                torch.optim.Adam(params, self.lr),
                epochs=self.rounds,
                device=device,
                val_loader=clean_val,
                on_epoch=self.on_epoch,
                name=_NAME,
                title="I-BAU",
                progress=progress,
                gradients=rounds.gradients,
            )

        return on_copy(model, device, work, self.seed)


def inner_loss(
    model: nn.Module, inputs: Tensor, labels: Tensor, perturbation: Tensor, penalty: float
) -> Tensor:
    """Compute L_in of the module docstring, which the ascent and the map Phi minimise in d.

    Args:
        model: returns (N, classes) scores.
        inputs: (N, ...).
        labels: (N,).
        perturbation: d, (1, ...).
        penalty: c.

    Returns:
        A 0-dim tensor.
    """
    logits = class_scores(model, inputs + perturbation)
    adversarial = cross_entropy(logits, labels.clamp(0, logits.shape[1] - 1))
    return penalty * perturbation.square().sum() - adversarial


def ascend(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], options: IBAU) -> Tensor:
    """Find one perturbation that raises the loss on all batches, by projected ascent from zero.

    Args:
        model: returns (N, classes) scores; its mode (train or eval) is not changed.
        batches: (inputs, labels), at least one.
        options: ``ascent_steps``, ``ascent_lr``, ``penalty``, ``radius``.

    Returns:
        d of shape (1, ...), its root mean square at most ``radius``.
    """
    d = torch.zeros_like(batches[0][0][:1])
    longest = options.radius * math.sqrt(d.numel())
    for inputs, labels in islice(cycle(batches), options.ascent_steps):
        d.requires_grad_()
        loss = inner_loss(model, inputs, labels, d, options.penalty)
        (gradient,) = torch.autograd.grad(loss, d)
        with torch.no_grad():
            # A batch with NaN is skipped here; ``fit`` reports its number.
            d = d - options.ascent_lr * gradient.nan_to_num()
            d = d * (longest / d.norm().clamp_min(1e-12)).clamp_max(1)
    return d.detach()


class _Rounds:
    """Loader of the clean batches that finds the round's perturbation before it yields them."""

    def __init__(
        self, options: IBAU, model: nn.Module, loader: Iterable[Any], device: torch.device
    ) -> None:
        self.options, self.model, self.loader, self.device = options, model, loader, device
        self.draw = generator(options.seed, "i-bau")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.model.eval()
        pairs = [unpack(batch, _NAME, self.device) for batch in self.loader]
        batches = [pair for pair in pairs if len(pair[1])]
        if batches:
            self.first = batches[0]
            self.d = ascend(self.model, batches, self.options).requires_grad_()
        return iter(batches)

    def _carriers(self, inputs: Tensor) -> Tensor:
        """Return 1 for inputs that carry d and 0 for the others, (N, 1, ...)."""
        count = max(1, round(self.options.share * len(inputs)))
        mask = torch.zeros(len(inputs))
        mask[torch.randperm(len(inputs), generator=self.draw)[:count]] = 1
        return mask.to(inputs, non_blocking=True).view(-1, *[1] * (inputs.ndim - 1))

    def gradients(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the hypergradient of a batch (``Gradients``); L_in is that of the first batch."""
        params = [p for p in model.parameters() if p.requires_grad]
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivatives
            inner = inner_loss(model, *self.first, self.d, self.options.penalty)
            logits = class_scores(model, inputs + self._carriers(inputs) * self.d)
        outer = loss(logits, labels.clamp(0, logits.shape[1] - 1))
        gradients = hypergradient(
            inner,
            outer,
            self.d,
            params,
            step=self.options.map_lr,
            iterations=self.options.iterations,
        )
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient
        return logits, labels, outer

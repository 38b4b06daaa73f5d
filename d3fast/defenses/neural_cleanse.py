# SPDX-License-Identifier: Apache-2.0
"""NeuralCleanse: invert the backdoor's patch, then unlearn it.

For every class, ``d3fast.audit.inversion`` searches the clean samples for the smallest patch that
makes the model predict it. Classes whose patch is unusually small are unlearned by fine-tuning, in
which a share of every batch carries an inverted patch and keeps its true label:

    min over theta of  mean CE(f(x'), y),   x' = (1 - m) x + m p for the share, x for the rest
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.audit.anomaly import outliers
from d3fast.audit.inversion import Inversion, InversionOptions, invert_all
from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.runtime.checks import check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loop import Epoch, Gradients, Loss, plain_gradients

_log = logging.getLogger("d3fast")
_WORKS = 0.9  # share of the images that a patch has to turn into its class
_SMALLEST = 1e-3  # pixels; smaller masks count as this, so that an empty one has a logarithm


@dataclass(frozen=True)
class NeuralCleanse:
    """Patch inversion and unlearning; needs images (N, C, H, W) in [0, 1].

    If no class is flagged, the returned copy has the weights of the suspect and the history is
    empty: as published, the method repairs only what it finds. With two classes none is ever
    flagged. The flagged classes are logged by ``logging.getLogger("d3fast")`` at level INFO.

    A patch is unusually small by the logarithm of its size, which compares sizes as ratios: the
    sizes of natural patches spread widely, and by the sizes themselves few classes are outliers. A
    patch that fails on a tenth of the images counts as one that covers the image. The inversion has
    1,500 steps and doubles lambda, so that it can grow within them; the paper's search is longer.

    The paper fine-tunes for 1 epoch on 10 % of the training data; the defaults here are those of
    the published comparisons, as for ``FineTuning``.

    Args:
        epochs: passes over the clean samples during unlearning.
        lr: initial learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        stamped: share of every batch that carries an inverted patch, in (0, 1], at least one
            image. Each such image gets the patch of a random flagged class.
        threshold: anomaly index above which a class is flagged, if its norm is below the median.
        inversion: options of the inversion.
        seed: draws the inversion's starts and the stamped images; seeds torch's global generators.
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range.

    Source:
        Wang et al., Neural Cleanse, IEEE S&P 2019: search, threshold 2, unlearning with 20 %
        stamped.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> defense = NeuralCleanse(inversion=InversionOptions(steps=20))
        >>> result = defense(model, loader, None, progress=False)
        >>> result.history, torch.equal(result.model[1].weight, model[1].weight)
        ((), True)
    """

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    stamped: float = 0.2
    threshold: float = 2.0
    inversion: InversionOptions = field(
        default_factory=lambda: InversionOptions(steps=1500, factor=2.0)
    )
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        check_number("stamped", self.stamped)
        if not 0 < self.stamped <= 1:
            raise ValueError(f"stamped must be in (0, 1], got {self.stamped}")
        check_number("threshold", self.threshold)

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Unlearn the inverted patches in a copy of the model; see ``Defense``."""

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            found = invert_all(
                repaired,
                clean_train,
                options=self.inversion,
                device=device,
                seed=self.seed,
                progress=progress,
            )
            flagged = [found[at] for at in outliers(log_sizes(found), self.threshold)]
            _log.info("Neural Cleanse flags classes %s", [f.target for f in flagged])
            if not flagged:
                return ()
            return tune(
                repaired,
                clean_train,
                clean_val,
                self,
                device,
                title="unlearning",
                progress=progress,
                gradients=stamped_gradients(
                    flagged, self.stamped, generator(self.seed, "unlearning")
                ),
            )

        return on_copy(model, device, work, self.seed)


def log_sizes(found: Sequence[Inversion]) -> list[float]:
    """Return the logarithm of each patch's size in thousandths of a pixel; see ``NeuralCleanse``.

    Example:
        >>> mask, pattern = torch.ones(1, 2, 2), torch.ones(1, 2, 2)
        >>> sizes = log_sizes([Inversion(0, mask, pattern, 1.0, s) for s in (0.99, 0.5)])
        >>> [round(size, 3) for size in sizes]  # log 1000, log 4000
        [6.908, 8.294]
    """
    sizes = [patch.norm if patch.success >= _WORKS else patch.mask.numel() for patch in found]
    return [math.log(max(size / _SMALLEST, 1.0)) for size in sizes]


def stamped_gradients(
    patches: Sequence[Inversion], share: float, draws: torch.Generator
) -> Gradients:
    """Return the ``Gradients`` of batches in which a share of the images carries a patch.

    Args:
        patches: at least one; every stamped image gets one of them, uniformly at random.
        share: share of every batch to stamp, rounded, at least one image.
        draws: a CPU generator.

    Returns:
        A ``Gradients`` for ``fit``; the batch itself is not changed.

    Example:
        >>> patch = Inversion(0, torch.ones(1, 2, 2), torch.ones(1, 2, 2), 4.0, 1.0)
        >>> gradients = stamped_gradients([patch], 0.5, torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> images, labels = torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])
        >>> scores, _, _ = gradients(model, images, labels, nn.CrossEntropyLoss())
        >>> int(scores.any(dim=1).sum())
        1
    """

    def gradients(
        model: nn.Module, images: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = max(1, round(share * len(images)))
        chosen = torch.randperm(len(images), generator=draws)[:count]
        which = torch.randint(len(patches), (count,), generator=draws)
        stamped = images.clone()
        for number, patch in enumerate(patches):
            at = chosen[which == number].to(images.device)
            stamped[at] = patch.apply(images[at])
        return plain_gradients(model, stamped, labels, loss)

    return gradients

# SPDX-License-Identifier: Apache-2.0
"""BTI-DBF(U): invert the trigger by decoupling benign features, then unlearn it.

With h the input of the head, m a mask of its channels and G a generator of triggered images::

    benign     min over m in [0, 1]^d of   CE(head(m h(x)), y) - CE(head((1 - m) h(x)), y)
    trigger    min over G of               sum_c (kept m_c - (1 - m_c)) (h(x) - h(G(x)))_c^2
               subject to                  ||G(x) - x|| <= tau sqrt(D), D values per image
    unlearning min over theta of           CE(f(x), y) + CE(f(G(x)), y)

The mask keeps the features that the classes need; a trigger moves the others. No class is scanned:
G needs no target. The paper has kept = 1. Where features are redundant, m is near 1 in all
channels, and the best G changes nothing (docs/detectors.md); the default is the weight of the
authors' code. ``PAM`` (``d3fast.defenses.pam``) uses the same inversion.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from d3fast.attacks.input_aware_networks import ImageToImage
from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.defenses.channels import head_inputs
from d3fast.optim import find_head
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loaders import unpack, yields_nothing
from d3fast.training.loop import Epoch, Gradients, Loss, plain_gradients
from d3fast.training.modes import frozen

_NAME = "clean_loader"
_WIDTH = 16  # channels of the generator's first stage
_SMALLEST_SIDE = 4


@dataclass(frozen=True)
class InversionByFeatures:
    """Options of an inversion by benign features.

    Args:
        mask_steps: steps of Adam on the mask, one batch each.
        mask_lr: its learning rate.
        steps: steps of Adam on the generator.
        lr: its learning rate.
        bound: tau, largest root mean square of G(x) - x.
        kept: weight of the features that the mask keeps.

    Raises:
        ValueError: a number out of range.
    """

    mask_steps: int = 200
    mask_lr: float = 0.01
    steps: int = 400
    lr: float = 1e-3
    bound: float = 0.2
    kept: float = 0.01

    def __post_init__(self) -> None:
        for name in ("mask_steps", "steps"):
            check_integer(name, getattr(self, name), 1)
        for name in ("mask_lr", "lr", "bound", "kept"):
            check_number(name, getattr(self, name))


@dataclass(frozen=True)
class BTIDBF:
    """Trigger inversion by decoupled benign features, and unlearning.

    Needs images (N, C, H, W) in [0, 1] of at least 4 pixels a side and a linear head. The first
    batches of ``clean_train`` are kept for the inversions, which read it once more. The generator
    is a small encoder and decoder whose output is added to the image; the numbers of steps and the
    bound are chosen here, for time.

    Args:
        epochs: passes of the unlearning over the clean samples.
        lr: initial learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        every: epochs between two inversions; the first one precedes the first epoch.
        inversion: options of an inversion.
        seed: draws the generator; seeds torch's global generators during the repair.
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range; when called, other images or another head.

    Source:
        Xu, Huang, Li, Qin, Ren, *Towards Reliable and Efficient Backdoor Trigger Inversion via
        Decoupling Benign Features*, ICLR 2024.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> loader = [(torch.rand(16, 1, 8, 8), torch.arange(16) % 2)]
        >>> short = BTIDBF(epochs=3, inversion=InversionByFeatures(mask_steps=2, steps=2))
        >>> len(short(model, loader, None, progress=False).history)
        3
    """

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    every: int = 10
    inversion: InversionByFeatures = field(default_factory=InversionByFeatures)
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        check_integer("every", self.every, 1)

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Unlearn inverted triggers in a copy of the model; see ``Defense``."""

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            inverting = Inverting(
                repaired, clean_train, self.inversion, self.every, device, self.seed
            )
            return tune(
                repaired,
                inverting,
                clean_val,
                self,
                device,
                title="BTI-DBF: unlearning",
                progress=progress,
                gradients=both_gradients(inverting.triggered),
            )

        return on_copy(model, device, work, self.seed)


class Trigger(nn.Module):
    """The generator: an image plus a change whose root mean square is bounded.

    Args:
        channels: C of the images.
        bound: tau.
    """

    def __init__(self, channels: int, bound: float) -> None:
        super().__init__()
        self.network = ImageToImage(channels, channels, _WIDTH)
        self.bound = bound

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same."""
        change = 2 * self.network(images) - 1
        size = change.square().flatten(1).mean(dim=1).sqrt().clamp_min(1e-12)
        scale = (self.bound / size).clamp_max(1.0).view(-1, 1, 1, 1)
        return (images + scale * change).clamp(0, 1)


class Inverting:
    """Loader of the clean batches that inverts the trigger before some of its passes.

    Args:
        model: the model, whose weights may change between the passes.
        loader: yields (images, labels).
        options: of the inversion.
        every: passes between two inversions.
        device: where to compute.
        seed: draws the generator's weights.

    Raises:
        ValueError: images of another kind, or a head that is not linear.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        options: InversionByFeatures,
        every: int,
        device: torch.device,
        seed: int,
    ) -> None:
        self.model, self.loader, self.options, self.every = model, loader, options, every
        pairs = [unpack(batch, _NAME, device) for batch in loader]
        self.batches = [pair for pair in pairs if len(pair[1])]
        if not self.batches:
            raise yields_nothing(_NAME)
        _check(self.batches)
        head = find_head(model)[1]
        if not isinstance(head, nn.Linear):
            raise ValueError(f"the head must be a linear layer, got {type(head).__name__}")
        self.head = head
        with torch.random.fork_rng():
            torch.manual_seed(generator(seed, "trigger generator").initial_seed())
            self.trigger = Trigger(self.batches[0][0].shape[1], options.bound).to(device)
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        if self.passes % self.every == 0:
            with frozen(self.model), torch.enable_grad():
                mask = benign_mask(self.model, self.head, self.batches, self.options)
                invert(self.model, self.head, self.trigger, mask, self.batches, self.options)
        self.passes += 1
        return iter(self.loader)

    @torch.no_grad()
    def triggered(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) with the inverted trigger."""
        return self.trigger(images).detach()


def _check(batches: list[tuple[Tensor, Tensor]]) -> None:
    images = batches[0][0]
    if images.ndim != 4 or min(images.shape[2:]) < _SMALLEST_SIDE:
        raise ValueError(
            f"{_NAME} must yield images (N, C, H, W) of at least {_SMALLEST_SIDE} pixels a side, "
            f"got shape {tuple(images.shape)}"
        )


def benign_mask(
    model: nn.Module,
    head: nn.Linear,
    batches: list[tuple[Tensor, Tensor]],
    options: InversionByFeatures,
) -> Tensor:
    """Return the mask m of the head's inputs, (d,) in [0, 1]; the first problem of the module.

    Args:
        model: frozen, in eval mode.
        head: its head.
        batches: (images, labels).
        options: ``mask_steps`` and ``mask_lr``.
    """
    raw = torch.zeros(head.in_features, device=head.weight.device, requires_grad=True)
    optimizer = torch.optim.Adam([raw], options.mask_lr)
    with torch.no_grad():
        known = [head_inputs(model, head, images) for images, _ in batches]
    pairs = [(h, labels) for h, (_, labels) in zip(known, batches, strict=True)]
    for h, labels in itertools.islice(itertools.cycle(pairs), options.mask_steps):
        mask = raw.sigmoid()
        labels = labels.clamp(0, head.out_features - 1)
        kept, others = head(mask * h), head((1 - mask) * h)
        # CE of the others has no upper bound: past that of a guess they hold nothing any more.
        most = math.log(head.out_features)
        lost = cross_entropy(others, labels, reduction="none").clamp_max(2 * most).mean()
        optimizer.zero_grad(set_to_none=True)
        (cross_entropy(kept, labels) - lost).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return raw.detach().sigmoid()


def invert(
    model: nn.Module,
    head: nn.Linear,
    trigger: Trigger,
    mask: Tensor,
    batches: list[tuple[Tensor, Tensor]],
    options: InversionByFeatures,
) -> None:
    """Train the generator in place; the second problem of the module.

    Args:
        model: frozen, in eval mode.
        head: its head.
        trigger: the generator.
        mask: (d,), of ``benign_mask``.
        batches: (images, labels).
        options: ``steps``, ``lr`` and ``kept``.
    """
    optimizer = torch.optim.Adam(trigger.parameters(), options.lr)
    for images, _ in itertools.islice(itertools.cycle(batches), options.steps):
        with torch.no_grad():
            clean = head_inputs(model, head, images)
        gap = (head_inputs(model, head, trigger(images)) - clean).square()
        optimizer.zero_grad(set_to_none=True)
        weights = options.kept * mask - (1 - mask)
        (weights * gap).sum(dim=-1).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def both_gradients(triggered: Any, share: float = 1.0) -> Gradients:
    """Return the ``Gradients`` of clean inputs and of triggered copies with their true labels.

    Args:
        triggered: turns images into triggered images.
        share: number of triggered copies per clean input, in (0, 1], at least one; the loss is
            that of both in one batch, so that its batch-norm statistics include both.

    Returns:
        A ``Gradients`` for ``fit``; logits and labels are those of the clean inputs.
    """

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = max(1, round(share * len(inputs)))
        images = torch.cat([inputs, triggered(inputs[:count])])
        every = torch.cat([labels, labels[:count]])
        logits, _, value = plain_gradients(model, images, every, loss)
        return logits[: len(inputs)], labels, value

    return gradients

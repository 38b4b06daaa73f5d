# SPDX-License-Identifier: Apache-2.0
"""Accuracy and backdoor metrics: ACC, ASR, RA, lift, DER.

ACC is measured on all clean images; ASR and RA on triggered images whose true label is not the
target, both from one forward pass. Lift is the part of the ASR that the trigger causes:

    lift = ASR - untriggered,   untriggered = share of the same images that the same model gives
                                              the target without the trigger

Compare each number with that of a never-poisoned model: see the clean-model floor in the
documentation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from d3fast.runtime.devices import resolve_device
from d3fast.training.intervals import paired_difference_interval, wilson
from d3fast.training.labels import target_labels
from d3fast.training.loaders import class_scores, unpack, yields_nothing
from d3fast.training.modes import eval_mode

# Percent: if a never-poisoned model has a higher ASR under a trigger, the ASR is meaningless.
MAX_FLOOR = 20.0


@runtime_checkable
class Trigger(Protocol):
    """The part of an attack that ``evaluate`` uses, besides an optional ``mapping``."""

    @property
    def target(self) -> int:
        """The target class of triggered images."""

    def trigger(self, images: Tensor) -> Tensor:
        """Return triggered copies of a batch of images."""


@dataclass(frozen=True)
class _Called:
    """A trigger that is a plain function."""

    trigger: Callable[[Tensor], Tensor]
    target: int


def _as_trigger(
    attack: Trigger | Callable[[Tensor], Tensor] | None, target: int | None
) -> Trigger | None:
    if attack is None:
        return None
    if isinstance(attack, Trigger):
        if target is not None and target != attack.target:
            raise ValueError(f"target must be the attack's own {attack.target}, got {target}")
        return attack
    if target is None:
        raise ValueError("target must be given with a trigger that is a function")
    return _Called(attack, target)


@dataclass(frozen=True)
class Metrics:
    """Counts of one evaluation; the rates are fractions in [0, 1], lift in [-1, 1].

    Attributes:
        correct: clean images answered correctly.
        images: clean images.
        hits: triggered images of other classes answered with the target.
        robust: the same images answered correctly.
        triggered: number of these images. Without an attack it is 0, and all rates but ``acc`` are
            ``None``.
        untriggered_hits: these images answered with the target without the trigger; ``None`` in
            results that lack the count, where ``untriggered`` and ``lift`` are ``None`` too.
        both_hits: these images answered with the target with and without the trigger.

    Example:
        >>> m = Metrics(95, 100, 9, 80, 90, untriggered_hits=2, both_hits=1)
        >>> m.acc, m.asr, round(m.ra, 3), round(m.lift, 3)
        (0.95, 0.1, 0.889, 0.078)
    """

    correct: int
    images: int
    hits: int = 0
    robust: int = 0
    triggered: int = 0
    untriggered_hits: int | None = None
    both_hits: int | None = None

    @property
    def acc(self) -> float:
        """Accuracy on clean images."""
        return self.correct / self.images

    @property
    def asr(self) -> float | None:
        """Attack success rate."""
        return self.hits / self.triggered if self.triggered else None

    @property
    def ra(self) -> float | None:
        """Robust accuracy: triggered images still answered correctly."""
        return self.robust / self.triggered if self.triggered else None

    @property
    def untriggered(self) -> float | None:
        """Share of the images behind ``asr`` that get the target without the trigger."""
        if self.untriggered_hits is None or not self.triggered:
            return None
        return self.untriggered_hits / self.triggered

    @property
    def lift(self) -> float | None:
        """``asr`` minus ``untriggered``: what the trigger adds, apart from plain errors."""
        if self.untriggered_hits is None or not self.triggered:
            return None
        return (self.hits - self.untriggered_hits) / self.triggered

    @property
    def acc_interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of ``acc``."""
        return wilson(self.correct, self.images)

    @property
    def asr_interval(self) -> tuple[float, float] | None:
        """Wilson 95 % interval of ``asr``."""
        return wilson(self.hits, self.triggered) if self.triggered else None

    @property
    def ra_interval(self) -> tuple[float, float] | None:
        """Wilson 95 % interval of ``ra``."""
        return wilson(self.robust, self.triggered) if self.triggered else None

    @property
    def untriggered_interval(self) -> tuple[float, float] | None:
        """Wilson 95 % interval of ``untriggered``."""
        if self.untriggered_hits is None or not self.triggered:
            return None
        return wilson(self.untriggered_hits, self.triggered)

    @property
    def lift_interval(self) -> tuple[float, float] | None:
        """Newcombe's 95 % interval of ``lift``, paired: both shares are of the same images."""
        if self.untriggered_hits is None or self.both_hits is None or not self.triggered:
            return None
        return paired_difference_interval(
            self.hits, self.untriggered_hits, self.both_hits, self.triggered
        )

    def as_dict(self) -> dict[str, Any]:
        """Return rates, intervals and counts as a dictionary for JSON."""
        rates = ("acc", "asr", "ra", "untriggered", "lift")
        names = (*rates, *(f"{name}_interval" for name in rates))
        return {name: getattr(self, name) for name in (*names, *COUNTS)}


COUNTS = tuple(field.name for field in fields(Metrics))


def der(before: Metrics, after: Metrics) -> float:
    """Return the defence effectiveness rating, in [0, 1]; 0.5 means no gain.

    ``[max(0, ASR drop) - max(0, ACC drop) + 1] / 2``, where a drop is before - after.

    Args:
        before: metrics of the suspect model.
        after: metrics of the repaired model.

    Raises:
        ValueError: metrics without an attack.

    Example:
        >>> before = Metrics(correct=98, images=100, hits=90, robust=0, triggered=90)
        >>> after = Metrics(correct=96, images=100, hits=0, robust=85, triggered=90)
        >>> round(der(before, after), 4)
        0.99
    """
    if before.asr is None or after.asr is None:
        raise ValueError("der needs metrics measured with an attack on both sides, got asr=None")
    asr_drop, acc_drop = before.asr - after.asr, before.acc - after.acc
    return (max(0.0, asr_drop) - max(0.0, acc_drop) + 1) / 2


def floor_violation(floor: Metrics, target: int) -> str | None:
    """Return an error text if a trigger's clean-model floor is too high, else ``None``.

    Args:
        floor: metrics of a never-poisoned model under the trigger.
        target: the target class.

    Example:
        >>> floor_violation(Metrics(correct=9, images=10, hits=1, robust=8, triggered=9), target=3)
        >>> bad = Metrics(correct=9, images=10, hits=6, robust=3, triggered=9)
        >>> print(floor_violation(bad, target=3))  # doctest: +ELLIPSIS
        the trigger measures nothing ... on 66.7 % of triggered images (limit 20)
    """
    share = 100 * (floor.asr or 0.0)
    if share <= MAX_FLOOR:
        return None
    return (
        f"the trigger measures nothing with target {target}: a model that was never poisoned "
        f"answers it on {share:.1f} % of triggered images (limit {MAX_FLOOR:g})"
    )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    clean_loader: Iterable[Any],
    attack: Trigger | Callable[[Tensor], Tensor] | None,
    device: str | torch.device | None = None,
    *,
    target: int | None = None,
    name: str = "clean_loader",
) -> Metrics:
    """Measure ACC, ASR, RA and lift of a model in eval mode; its modes are restored afterwards.

    Args:
        model: returns (N, classes) scores; it is moved if ``device`` is given.
        clean_loader: yields (images, labels) of clean test images with their true labels.
        attack: any object with ``trigger(images)`` and ``target``, or a function from images to
            triggered images, or ``None`` for ACC only. An object's ``mapping`` decides which
            answer is a hit (see ``d3fast.training.labels``); the default is ``"all-to-one"``.
        device: device to compute on; that of the model if ``None``.
        target: the target class of a function.
        name: the loader's name in error messages.

    Returns:
        The counts. Nothing waits for the device before the last batch is queued.

    Raises:
        ValueError: no images; batches that are not (images, labels); labels or target outside the
            classes; NaN scores; no image of another class than the target; a function without
            ``target``, or an attack with a different one.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.long))]
        >>> evaluate(model, loader, attack=None).images
        8
    """
    where = resolve_device(device, model)
    trigger = _as_trigger(attack, target)
    model.to(where)
    with eval_mode(model):
        counts = [_count_batch(model, batch, trigger, where, name) for batch in clean_loader]
    if not counts:
        raise yields_nothing(name)
    return _read_counts(torch.stack(counts), trigger, name)


def _count_batch(
    model: nn.Module, batch: Any, attack: Trigger | None, device: torch.device, name: str
) -> Tensor:
    images, labels = unpack(batch, name, device)
    logits = class_scores(model, images)
    classes = logits.shape[1]
    if attack is not None and not 0 <= attack.target < classes:
        raise ValueError(f"target must be in 0..{classes - 1} for this model, got {attack.target}")
    ones = torch.ones_like(labels, dtype=torch.bool)
    bad_scores = logits.isnan().any(dim=1)
    bad_labels = (labels < 0) | (labels >= classes)
    plain = logits.argmax(dim=1)
    hits = robust = others = untriggered = both = torch.zeros_like(ones)
    if attack is not None:
        # Images of the target class are computed and masked out: selecting them would wait for
        # the device.
        attacked = class_scores(model, attack.trigger(images))
        bad_scores = bad_scores | attacked.isnan().any(dim=1)
        answer = attacked.argmax(dim=1)
        goal = target_labels(
            labels, attack.target, classes, getattr(attack, "mapping", "all-to-one")
        )
        others = labels != goal
        hits, robust = others & (answer == goal), others & (answer == labels)
        untriggered = others & (plain == goal)
        both = hits & untriggered
    correct = plain == labels
    columns = (correct, ones, hits, robust, others, untriggered, both, bad_scores, bad_labels)
    return torch.stack([c.sum() for c in columns])


def _read_counts(counts: Tensor, attack: Trigger | None, name: str) -> Metrics:
    correct, images, *attacked, _, _ = counts.sum(dim=0).tolist()
    for column, what in ((-2, "the model gives NaN scores"), (-1, "labels are out of range")):
        bad = counts[:, column].nonzero()
        if len(bad):
            raise ValueError(f"{what} in batch {int(bad[0]) + 1} of {name}")
    if images == 0:
        raise yields_nothing(name)
    if attack is None:
        return Metrics(correct, images)
    if attacked[2] == 0:
        raise ValueError(f"every image has the target class {attack.target}: ASR is undefined")
    return Metrics(correct, images, *attacked)

# SPDX-License-Identifier: Apache-2.0
"""Accuracy and backdoor metrics: ACC, ASR, RA, DER.

ACC is measured on all clean images; ASR and RA on triggered images whose true label is not the
target, both from one forward pass. Compare each number with that of a never-poisoned model: see
the clean-model floor in the documentation.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from d3fast.runtime.devices import resolve_device
from d3fast.training.labels import target_labels
from d3fast.training.loaders import class_scores, unpack, yields_nothing
from d3fast.training.modes import eval_mode

# Percent: if a never-poisoned model has a higher ASR under a trigger, the ASR is meaningless.
MAX_FLOOR = 20.0

_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


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


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a proportion (Wilson 1927; no continuity correction).

    Args:
        successes: number of successes, 0 <= successes <= trials.
        trials: number of trials, >= 1.

    Returns:
        Lower and upper bound, within [0, 1].

    Raises:
        ValueError: impossible counts.

    Example:
        >>> low, high = wilson(0, 100)
        >>> f"{low:.3f} {high:.3f}"
        '0.000 0.037'
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials and trials >= 1, got {successes}/{trials}")
    p, z2 = successes / trials, _Z95**2 / trials
    center = (p + z2 / 2) / (1 + z2)
    half = math.sqrt(p * (1 - p) * z2 + z2**2 / 4) / (1 + z2)
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == trials else min(1.0, center + half)
    return low, high


def difference_interval(
    successes_a: int, trials_a: int, successes_b: int, trials_b: int
) -> tuple[float, float]:
    r"""Return the 95 % interval of a difference of two independent proportions, p_a - p_b.

    d - sqrt((p_a - l_a)^2 + (u_b - p_b)^2)   to   d + sqrt((u_a - p_a)^2 + (p_b - l_b)^2)

    Here d is p_a - p_b, and l and u are the ends of the Wilson intervals. For two models on the
    *same* samples the interval is conservative: their answers are not independent.

    Args:
        successes_a: number of successes of the first, 0 <= successes_a <= trials_a.
        trials_a: number of its trials, >= 1.
        successes_b: the same of the second.
        trials_b: the same of the second.

    Returns:
        Lower and upper bound, within [-1, 1].

    Raises:
        ValueError: impossible counts.

    Source:
        Newcombe, Statistics in Medicine 17 (1998), 873-890, method 10.

    Example:
        >>> low, high = difference_interval(56, 70, 48, 80)
        >>> f"{low:.4f} {high:.4f}"
        '0.0524 0.3339'
    """
    (low_a, high_a), (low_b, high_b) = wilson(successes_a, trials_a), wilson(successes_b, trials_b)
    a, b = successes_a / trials_a, successes_b / trials_b
    low = a - b - math.hypot(a - low_a, high_b - b)
    high = a - b + math.hypot(high_a - a, b - low_b)
    return max(-1.0, low), min(1.0, high)


@dataclass(frozen=True)
class Metrics:
    """Counts of one evaluation; the rates are fractions in [0, 1].

    Attributes:
        correct: clean images answered correctly.
        images: clean images.
        hits: triggered images of other classes answered with the target.
        robust: the same images answered correctly.
        triggered: number of these images. Without an attack it is 0, and ``asr`` and ``ra`` are
            ``None``.

    Example:
        >>> m = Metrics(correct=95, images=100, hits=9, robust=80, triggered=90)
        >>> m.acc, m.asr, round(m.ra, 3)
        (0.95, 0.1, 0.889)
    """

    correct: int
    images: int
    hits: int = 0
    robust: int = 0
    triggered: int = 0

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

    def as_dict(self) -> dict[str, Any]:
        """Return rates, intervals and counts as a dictionary for JSON."""
        names = ("acc", "asr", "ra", "acc_interval", "asr_interval", "ra_interval")
        counts = ("correct", "images", "hits", "robust", "triggered")
        return {name: getattr(self, name) for name in names + counts}


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
    """Measure ACC, ASR and RA of a model in eval mode; its modes are restored afterwards.

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
    hits = robust = others = torch.zeros_like(ones)
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
    correct = logits.argmax(dim=1) == labels
    columns = (correct, ones, hits, robust, others, bad_scores, bad_labels)
    return torch.stack([c.sum() for c in columns])


def _read_counts(counts: Tensor, attack: Trigger | None, name: str) -> Metrics:
    correct, images, hits, robust, others, _, _ = counts.sum(dim=0).tolist()
    for column, what in ((5, "the model gives NaN scores"), (6, "labels are out of range")):
        bad = counts[:, column].nonzero()
        if len(bad):
            raise ValueError(f"{what} in batch {int(bad[0]) + 1} of {name}")
    if images == 0:
        raise yields_nothing(name)
    if attack is not None and others == 0:
        raise ValueError(f"every image has the target class {attack.target}: ASR is undefined")
    return Metrics(correct, images, hits, robust, others)

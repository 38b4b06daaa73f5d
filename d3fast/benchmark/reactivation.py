# SPDX-License-Identifier: Apache-2.0
"""The re-activation test: a small universal perturbation on top of the trigger.

    delta = argmin over ||d||_inf <= budget of  mean_i CE(f(clip(trigger(x_i) + d)), target)

A repair that only moved the model's answer away from the trigger leaves a backdoor that a slightly
different trigger opens again. The attacker looks for one perturbation for all images, on the
repaired model (white box) or on models of their own (transfer), and adds it to the trigger.

Any network answers a target under some universal perturbation. Two numbers say how much of the
result is the backdoor's: the same search without the trigger (``untriggered``), and the same test
of a model that was never poisoned.

This is a measurement, not a defence: it uses the trigger and the test images.
"""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from d3fast.benchmark.relearning import poison_order
from d3fast.data.base import ImageData, as_float
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator
from d3fast.training.labels import target_labels
from d3fast.training.loaders import class_scores
from d3fast.training.loop import check_weights
from d3fast.training.metrics import Metrics, Trigger, evaluate
from d3fast.training.modes import frozen

_TEST_BATCH = 1000


@dataclass(frozen=True)
class ReactivationConfig:
    """Options of the search: signed gradient steps whose size falls linearly to zero.

    Attributes:
        budget: bound on the perturbation of a pixel, as a share of the pixel range.
        steps: number of steps; 0 adds no perturbation.
        batch_size: images per step.
        lr: size of the first step, as a share of the budget.
        images: largest number of the attacker's images.

    Raises:
        ValueError: a number out of range.
    """

    budget: float = 0.05
    steps: int = 100
    batch_size: int = 128
    lr: float = 0.2
    images: int = 1000

    def __post_init__(self) -> None:
        for name in ("budget", "lr"):
            check_number(name, getattr(self, name))
        check_integer("steps", self.steps, 0)
        for name in ("batch_size", "images"):
            check_integer(name, getattr(self, name), 1)


@dataclass(frozen=True)
class Reactivation:
    """The outcome of a re-activation test.

    Attributes:
        before: the model under the plain trigger.
        white_box: under the trigger and a perturbation found on the model itself.
        untriggered: under a perturbation alone, found on the model without the trigger.
        transfer: under the trigger and a perturbation found on the attacker's own models; ``None``
            without such models.

    Example:
        >>> plain = Metrics(correct=9, images=10, hits=1, robust=8, triggered=10)
        >>> opened = Metrics(correct=9, images=10, hits=7, robust=2, triggered=10)
        >>> other = Metrics(correct=9, images=10, hits=3, robust=6, triggered=10)
        >>> round(Reactivation(plain, opened, other, None).lift, 3)
        0.4
    """

    before: Metrics
    white_box: Metrics
    untriggered: Metrics
    transfer: Metrics | None

    @property
    def lift(self) -> float:
        """White-box ASR minus the share that a perturbation alone reaches, in [-1, 1]."""
        return (self.white_box.asr or 0.0) - (self.untriggered.asr or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON."""
        return {
            "before": self.before.as_dict(),
            "white_box": self.white_box.as_dict(),
            "untriggered": self.untriggered.as_dict(),
            "transfer": None if self.transfer is None else self.transfer.as_dict(),
            "lift": self.lift,
        }


@dataclass(frozen=True)
class _Perturbed:
    """An attack whose trigger carries a universal perturbation."""

    attack: Trigger
    perturbation: Tensor  # (C, H, W)
    triggered: bool = True

    @property
    def target(self) -> int:
        return self.attack.target

    @property
    def mapping(self) -> str:
        return getattr(self.attack, "mapping", "all-to-one")

    def trigger(self, images: Tensor) -> Tensor:
        shown = self.attack.trigger(images) if self.triggered else images
        return (shown + self.perturbation.to(shown.device)).clamp(0, 1)


def universal_perturbation(
    models: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    config: ReactivationConfig,
    seed: int = 0,
) -> Tensor:
    """Find one perturbation under which all models give the labels to all images.

    Args:
        models: their mean cross-entropy is minimised, each in eval mode and with frozen weights.
        images: (N, C, H, W) floats in [0, 1], triggered or not.
        labels: (N,) labels to reach.
        config: options of the search.
        seed: draws the batches.

    Returns:
        (C, H, W), no entry larger than the budget; on the device of the images.
    """
    perturbation = torch.zeros_like(images[0])
    order = generator(seed, "re-activation")
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(frozen(model))
        for step in range(config.steps):
            rows = torch.randint(len(images), (config.batch_size,), generator=order)
            shown, goal = images[rows.to(images.device)], labels[rows.to(labels.device)]
            perturbation.requires_grad_()
            inputs = (shown + perturbation).clamp(0, 1)
            losses = [cross_entropy(class_scores(model, inputs), goal) for model in models]
            (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), perturbation)
            size = config.lr * config.budget * (1 - step / config.steps)
            moved = perturbation.detach() - size * gradient.sign()
            perturbation = moved.clamp(-config.budget, config.budget)
    return perturbation


def evaluate_reactivation(
    model: nn.Module,
    clean: ImageData,
    test: ImageData,
    attack: Trigger,
    *,
    surrogates: Sequence[nn.Module] = (),
    config: ReactivationConfig | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Reactivation:
    """Search for a perturbation that re-activates a backdoor, and measure the ASR under it.

    Args:
        model: the repaired model; gives (N, classes) scores. It is not changed.
        clean: the attacker's clean images, none of them from ``test``; those whose label the
            attack changes are used.
        test: images for ASR.
        attack: any object with ``trigger(images)`` and ``target``, and optionally ``mapping``.
        surrogates: models of the attacker for the transfer, such as the suspect after a repair of
            the attacker's own. On the suspect itself the plain trigger leaves nothing to find.
        config: options of the search; ``ReactivationConfig()`` if ``None``.
        seed: draws the attacker's images and the batches, the same for every model.
        device: device of the search; the model's if ``None``.
        progress: show a progress bar.

    Returns:
        The metrics before, in the white box, without the trigger, and after transfer.

    Raises:
        ValueError: no clean image whose label the attack changes; a target that is no class; NaN
            or inf in weights; an error of ``evaluate``.

    Source:
        Zhu, Liang, Wu, *Breaking the False Sense of Security in Backdoor Defense through
        Re-Activation Attack*, NeurIPS 2024, arXiv 2405.16134. Its bound is 0.05; the search and
        the run without the trigger are choices made here.

    Example:
        >>> from d3fast.attacks import BadNets
        >>> data = ImageData(torch.rand(40, 1, 8, 8), torch.arange(40) % 2, ("a", "b"))
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> short = ReactivationConfig(steps=5)
        >>> result = evaluate_reactivation(
        ...     model, data, data, BadNets(target=0), config=short, progress=False)
        >>> result.white_box.asr >= result.before.asr, result.transfer
        (True, None)
    """
    config = config or ReactivationConfig()
    where = resolve_device(device, model)
    check_weights(model)
    subject, *others = [copy.deepcopy(m).to(where) for m in (model, *surrogates)]
    images, labels = attackers_images(clean.to(where), attack, config, seed)
    with torch.no_grad():  # a learned trigger may be a network
        triggered = attack.trigger(images)
    loader = test.to(where).batches(_TEST_BATCH)
    searches = [([subject], triggered, True), ([subject], images, False)]
    searches += [(others, triggered, True)] if others else []
    found = []
    with progress_bar("re-activation", len(searches), progress) as advance:
        for models, shown, with_trigger in searches:
            perturbation = universal_perturbation(models, shown, labels, config, seed)
            opened = _Perturbed(attack, perturbation, with_trigger)
            found.append(evaluate(subject, loader, opened, name="test"))
            advance("")
    return Reactivation(
        before=evaluate(subject, loader, attack, name="test"),
        white_box=found[0],
        untriggered=found[1],
        transfer=found[2] if others else None,
    )


def attackers_images(
    clean: ImageData, attack: Trigger, config: ReactivationConfig, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the attacker's images as floats, and the labels to reach.

    Args:
        clean: the attacker's clean images.
        attack: its target and its mapping select the images whose label it changes.
        config: the largest number of images.
        seed: draws them.

    Returns:
        (N, C, H, W) images without the trigger, and (N,) labels.

    Raises:
        ValueError: no such image.
    """
    order = poison_order(clean, attack, seed)[: config.images]
    if not len(order):
        raise ValueError(
            f"clean must hold an image whose label the attack changes (target {attack.target})"
        )
    chosen = clean.subset(order)
    mapping = getattr(attack, "mapping", "all-to-one")
    goal = target_labels(chosen.labels, attack.target, len(clean.classes), mapping)
    return as_float(chosen.images), goal

# SPDX-License-Identifier: Apache-2.0
"""Adaptive attackers: they know the defence and train the backdoor to survive it.

``SAMAttacker`` trains the backdoor into a flat region of the loss, which the small steps of a
repair do not leave (arXiv 2411.09585, adaptive attack). ``DistanceAwareAttacker`` knows that D3
re-draws or pushes the head and then trains on clean samples. It moves the features of triggered
images to those of the target class, so that any head fitted to clean samples predicts the target.
``DetectorAwareAttacker`` knows two detectors of ``d3fast inspect``, ``head`` and ``margin``, and
keeps what they measure of the target class at the mean of the other classes. ``ABIAttacker`` knows
that repairs look for a few channels that carry the backdoor, and lets no channel stand out.

All wrap another attack and keep its trigger and its poisoned labels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.attacks.base import Attack, Training, training_plan
from d3fast.attacks.channel_bounds import limit_channels
from d3fast.attacks.poisoning import Poisoned
from d3fast.data.base import ImageData
from d3fast.optim import find_head
from d3fast.optim.warm_start import WARM_STARTS
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.labels import margins, target_labels
from d3fast.training.loaders import class_scores
from d3fast.training.loop import Gradients, Loss, plain_gradients
from d3fast.training.modes import eval_mode
from d3fast.training.sam import sharpness_aware


def base_of(attack: Attack) -> Attack:
    """Return the attack that an adaptive attacker wraps, or the attack itself."""
    return attack.base if isinstance(attack, _Wrapper) else attack


class _Wrapper:
    """Trigger, target and poisoned labels of the attack that is wrapped."""

    base: Attack

    @property
    def target(self) -> int:
        """The base attack's target class."""
        return self.base.target

    @property
    def mapping(self) -> str:
        """The base attack's label mapping."""
        return self.base.mapping

    def trigger(self, images: Tensor) -> Tensor:
        """Return images with the base attack's trigger."""
        return self.base.trigger(images)

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Return the base attack's poisoned set."""
        return self.base.poison(dataset, ratio, target, generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the base attack's learned tensors."""
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load tensors into the base attack."""
        self.base.load_state_dict(state)


def _base_plan(
    base: Attack, data: ImageData, ratio: float, batch_size: int, seed: int, progress: bool
) -> Training:
    """Return the base attack's training plan; its trigger must be fixed."""
    plan = training_plan(
        base, data, ratio=ratio, batch_size=batch_size, seed=seed, progress=progress
    )
    if plan.gradients is not plain_gradients:
        raise ValueError(
            f"{type(base).__name__} trains its trigger together with the model; call learn before "
            "wrapping it in an adaptive attacker"
        )
    return plan


@dataclass(frozen=True)
class SAMAttacker(_Wrapper):
    """Attacker that trains the backdoor into a flat region by adaptive SAM (ASAM).

    Args:
        base: the attack whose trigger is implanted.
        budget: radius rho of the perturbation, >= 0; the paper reports 1 and 3.

    Raises:
        ValueError: ``budget`` is negative or no number.
    """

    base: Attack
    budget: float = 1.0

    def __post_init__(self) -> None:
        check_number("budget", self.budget)

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """Return the base attack's batches with sharpness-aware gradients.

        Raises:
            ValueError: the base attack trains its trigger together with the model.
        """
        plan = _base_plan(self.base, data, ratio, batch_size, seed, progress)
        return Training(plan.loader, sharpness_aware(self.budget))


@dataclass(frozen=True)
class DistanceAwareAttacker(_Wrapper):
    """Attacker whose backdoor survives a head that is re-drawn on its sphere or pushed far away.

    To the loss of the poisoned batch it adds, averaged over ``draws`` heads W' that D3 could
    start from (``random``: uniform, rescaled to the norm of the head; ``far``: -W) and over
    triggered images x' of other classes,

        strength * ||W' f(x') - W' m||^2 / mean_y ||W' f(y) - W' m||^2

    f: features in front of the head; m: mean of f over the batch images labelled with the target
    class; y: the same images without the trigger. At 0 no such head separates triggered images
    from the target class; at 1 they are as far from it as clean images.

    Args:
        base: the attack whose trigger is implanted.
        strength: weight of the term, >= 0.
        draws: heads drawn per step, >= 1.
        share: triggered images per image of the batch, in (0, 1].

    Raises:
        ValueError: an option out of range.
    """

    base: Attack
    strength: float = 1.0
    draws: int = 4
    share: float = 0.25

    def __post_init__(self) -> None:
        check_number("strength", self.strength)
        check_integer("draws", self.draws, 1)
        check_number("share", self.share)
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share!r}")

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """Return the base attack's batches with the distance term added to their loss.

        Raises:
            ValueError: the base attack trains its trigger together with the model.
        """
        plan = _base_plan(self.base, data, ratio, batch_size, seed, progress)
        draws = generator(seed, "redrawn heads")
        return Training(plan.loader, self._gradients(len(data.classes), draws))

    def _gradients(self, classes: int, draws: torch.Generator) -> Gradients:
        def gradients(
            model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
        ) -> tuple[Tensor, Tensor, Tensor]:
            head = find_head(model)[1]
            features: list[Tensor] = []
            hook = head.register_forward_pre_hook(lambda _, args: features.append(args[0]))
            targets = target_labels(labels, self.target, classes, self.mapping)
            rows = (labels != targets).nonzero().flatten()
            rows = rows[: max(1, round(self.share * len(labels)))]
            try:
                scores = class_scores(model, torch.cat([inputs, self.trigger(inputs[rows])]))
            finally:
                hook.remove()
            batch_scores = scores[: len(inputs)]
            term = self._distance_term(head, features[-1], labels, rows, targets[rows], draws)
            value = loss(batch_scores, labels) + self.strength * term
            value.backward()  # type: ignore[no-untyped-call]
            return batch_scores, labels, value

        return gradients

    def _distance_term(
        self,
        head: nn.Module,
        features: Tensor,
        labels: Tensor,
        rows: Tensor,
        targets: Tensor,
        draws: torch.Generator,
    ) -> Tensor:
        """Compute the term of the class docstring without ``strength``, 0-dim.

        Args:
            head: the model's head.
            features: inputs of the head: those of the batch, then those of the triggered images.
            labels: (N,) int64 labels of the batch.
            rows: (T,) int64 rows of the batch that were triggered.
            targets: (T,) int64 target labels of those rows.
            draws: a CPU generator that draws the heads.
        """
        weight: Any = head.weight
        features = features.to(weight.dtype)  # autocast leaves them in half precision
        total = features.new_zeros(())
        for draw in range(self.draws):
            kind = "far" if draw % 2 else "random"
            redrawn = {"weight": WARM_STARTS[kind](weight.detach(), draws)}
            scores = torch.func.functional_call(head, redrawn, (features,)).flatten(1)
            clean, triggered = scores[: len(labels)], scores[len(labels) :]
            member = (targets[:, None] == labels[None, :]).to(scores.dtype)  # (T, N)
            present = member.sum(dim=1) > 0  # the target class occurs in the batch
            mean = (member @ clean) / member.sum(dim=1, keepdim=True).clamp_min(1)
            distance = (triggered - mean).square().sum(dim=1) * present
            reference = (clean[rows] - mean).square().sum(dim=1) * present
            # The denominator is not detached: it keeps clean images away from the target class,
            # otherwise all features would collapse.
            total = total + distance.sum() / reference.sum().clamp_min(1e-12)
        return total / self.draws


@dataclass(frozen=True)
class DetectorAwareAttacker(_Wrapper):
    """Attacker that hides the target class from the detectors ``head`` and ``margin``.

    To the loss of every batch it adds

        strength * (excess(s_t, s_c) + excess(m_t, m_c)),   excess(a, b) = max(0, a / b - 1)

    s: sum of the positive head weights of a class, after subtracting the mean over classes; m: mean
    margin over images that projected gradient ascent on the margin finds from uniform noise, in
    eval mode. t is the target class. s_c is the mean of s over the other classes; m_c the mean of m
    over images of which each has another class, drawn at random, and at least 1. No gradient flows
    through b: the term lowers the target class and does not raise the others.

    Args:
        base: the attack whose trigger is implanted; of one target class.
        strength: weight of the term, >= 0; a large one keeps the model from learning its task.
        starts: images of noise for the target class per step, and as many for the others, >= 1.
        steps: steps of sign gradient ascent, of size 2 / ``steps``, >= 1.

    Raises:
        ValueError: an option out of range; a base attack without one target class.

    Source:
        MM-BD (Wang et al., IEEE S&P 2024) discusses adaptive attacks on the maximum margin; the
        term is chosen here.
    """

    base: Attack
    strength: float = 0.1
    starts: int = 8
    steps: int = 10

    def __post_init__(self) -> None:
        check_number("strength", self.strength)
        check_integer("starts", self.starts, 1)
        check_integer("steps", self.steps, 1)
        if self.base.mapping == "all-to-all":
            raise ValueError("the base attack must have one target class, got all-to-all")

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """Return the base attack's batches with the term added to their loss.

        Raises:
            ValueError: the base attack trains its trigger together with the model.
        """
        plan = _base_plan(self.base, data, ratio, batch_size, seed, progress)
        draws = generator(seed, "images of large margin")

        def gradients(
            model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
        ) -> tuple[Tensor, Tensor, Tensor]:
            scores, labels, value = plain_gradients(model, inputs, labels, loss)
            term = self._support(model)
            if self.strength:
                term = term + self._margin(model, inputs, len(data.classes), draws)
            (self.strength * term).backward()  # type: ignore[no-untyped-call]
            return scores, labels, value + self.strength * term.detach()

        return Training(plan.loader, gradients)

    def _support(self, model: nn.Module) -> Tensor:
        """Compute the excess of s over the other classes, 0-dim."""
        weight: Any = find_head(model)[1].weight
        rows = weight.flatten(1)
        support = (rows - rows.mean(dim=0)).clamp_min(0).sum(dim=1)
        usual = (support.sum() - support[self.target]) / (len(rows) - 1)
        return (support[self.target] / usual.detach() - 1).clamp_min(0)

    def _margin(
        self, model: nn.Module, inputs: Tensor, classes: int, draws: torch.Generator
    ) -> Tensor:
        """Compute the excess of m over the other classes, 0-dim."""
        others = torch.randint(1, classes, (self.starts,), generator=draws)
        goals = torch.full((2 * self.starts,), self.target)
        goals[self.starts :] = (self.target + others) % classes
        images = torch.rand((len(goals), *inputs.shape[1:]), generator=draws).to(inputs)
        goals = goals.to(inputs.device)
        with eval_mode(model):
            for _ in range(self.steps):
                images.requires_grad_()
                found = margins(class_scores(model, images), goals).sum()
                (ascent,) = torch.autograd.grad(found, images)
                images = (images.detach() + 2 / self.steps * ascent.sign()).clamp(0, 1)
            found = margins(class_scores(model, images), goals)
        own, usual = found[: self.starts].mean(), found[self.starts :].mean()
        return (own / usual.detach().clamp_min(1) - 1).clamp_min(0)


@dataclass(frozen=True)
class ABIAttacker(_Wrapper):
    """Attacker that leaves no channel an outlier: adversarial backdoor injection.

    Once per epoch, before its last batch, channels whose bound of the Lipschitz constant is more
    than ``deviations`` standard deviations above the mean of their layer are scaled down to that.

    Args:
        base: the attack whose trigger is implanted.
        deviations: >= 0; of n channels none is more than (n - 1) / sqrt(n) above the mean, 3.75 of
            sixteen, so that a narrow network needs less than a wide one.

    Raises:
        ValueError: ``deviations`` is negative or no number.

    Source:
        ABI of Grond (Xu, Liu, Koffas, Picek, "Towards Backdoor Stealthiness in Model Parameter
        Space", CCS 2025), after every epoch and with weights replaced by their mean; the scaling
        is chosen here.
    """

    base: Attack
    deviations: float = 1.0

    def __post_init__(self) -> None:
        check_number("deviations", self.deviations)

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """Return the base attack's batches with channels limited once per epoch.

        Raises:
            ValueError: the base attack trains its trigger together with the model.
        """
        plan = _base_plan(self.base, data, ratio, batch_size, seed, progress)
        batches, steps = math.ceil(len(data) / batch_size), count(1)

        def gradients(
            model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
        ) -> tuple[Tensor, Tensor, Tensor]:
            if next(steps) % batches == 0:
                limit_channels(model, self.deviations)
            return plain_gradients(model, inputs, labels, loss)

        return Training(plan.loader, gradients)

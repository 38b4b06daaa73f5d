# SPDX-License-Identifier: Apache-2.0
"""Adaptive attackers: they know the defence and train the backdoor to outlive it.

``SAMAttacker`` hides it in a flat region of the loss, so that the small steps of a repair do not
leave it (arXiv 2411.09585, adaptive attack). ``DistanceAwareAttacker`` knows that D3 re-draws or
pushes the head and then trains on clean samples, and makes the features of triggered images those
of the wanted class: whatever head the clean samples lead to then answers them alike.

Both wrap another attack, whose trigger and poisoned labels stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.attacks.base import Attack, Poisoned, Training, training_plan
from d3fast.data.base import ImageData
from d3fast.optim import find_head
from d3fast.optim.warm_start import WARM_STARTS
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.labels import target_labels
from d3fast.training.loaders import class_scores
from d3fast.training.loop import Gradients, Loss, plain_gradients
from d3fast.training.sam import sharpness_aware


def base_of(attack: Attack) -> Attack:
    """The attack whose trigger it is: what an adaptive attacker wraps, or the attack itself."""
    return attack.base if isinstance(attack, (SAMAttacker, DistanceAwareAttacker)) else attack


def _wrapped_plan(
    base: Attack, data: ImageData, ratio: float, batch_size: int, seed: int, progress: bool
) -> Training:
    plan = training_plan(
        base, data, ratio=ratio, batch_size=batch_size, seed=seed, progress=progress
    )
    if plan.gradients is not plain_gradients:
        raise ValueError(
            f"{type(base).__name__} trains its trigger together with the model; call learn first, "
            "so that an adaptive attacker can build on a fixed trigger"
        )
    return plan


@dataclass(frozen=True)
class SAMAttacker:
    """Trains the backdoor into a flat region by adaptive sharpness-aware minimisation.

    Args:
        base: the attack whose trigger is implanted.
        budget: radius rho of the perturbation; the paper reports 1 and 3.

    Raises:
        ValueError: a budget that is negative or no number.
    """

    base: Attack
    budget: float = 1.0

    def __post_init__(self) -> None:
        check_number("budget", self.budget)

    @property
    def target(self) -> int:
        """The base attack's target class."""
        return self.base.target

    @property
    def mapping(self) -> str:
        """The base attack's label mapping."""
        return self.base.mapping

    def trigger(self, images: Tensor) -> Tensor:
        """The base attack's trigger."""
        return self.base.trigger(images)

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """The base attack's poisoned set."""
        return self.base.poison(dataset, ratio, target, generator)

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """The base attack's batches, with sharpness-aware gradients.

        Raises:
            ValueError: a base attack that trains its trigger together with the model.
        """
        plan = _wrapped_plan(self.base, data, ratio, batch_size, seed, progress)
        return Training(plan.loader, sharpness_aware(self.budget))

    def state_dict(self) -> dict[str, Tensor]:
        """What the base attack has learned."""
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Hand it to the base attack."""
        self.base.load_state_dict(state)


@dataclass(frozen=True)
class DistanceAwareAttacker:
    """Keeps the backdoor alive when the head is re-drawn on its sphere or pushed far away.

    To the loss of the poisoned batch it adds, averaged over ``draws`` heads W' that D3 could
    start from (``random``: uniform, rescaled to the norm of the head; ``far``: its mirror image)
    and over triggered images x' of other classes,

        strength * ||W' f(x') - W' m||^2 / mean_y ||W' f(y) - W' m||^2,

    f the features in front of the head, m their mean over the batch's images labelled with the
    wanted class, y the images of other classes. 0 means that no such head can tell a triggered
    image from the wanted class, 1 that it is as far from it as an ordinary image.

    Args:
        base: the attack whose trigger is implanted.
        strength: weight of the term.
        draws: heads drawn per step.
        share: triggered images per image of the batch.

    Raises:
        ValueError: a strength that is negative or no number; fewer than one draw; a share outside
            0..1.
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

    @property
    def target(self) -> int:
        """The base attack's target class."""
        return self.base.target

    @property
    def mapping(self) -> str:
        """The base attack's label mapping."""
        return self.base.mapping

    def trigger(self, images: Tensor) -> Tensor:
        """The base attack's trigger."""
        return self.base.trigger(images)

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """The base attack's poisoned set."""
        return self.base.poison(dataset, ratio, target, generator)

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """The base attack's batches, with the term above added to their loss.

        Raises:
            ValueError: a base attack that trains its trigger together with the model.
        """
        plan = _wrapped_plan(self.base, data, ratio, batch_size, seed, progress)
        draws = generator(seed, "redrawn heads")
        return Training(plan.loader, self._gradients(len(data.classes), draws))

    def _gradients(self, classes: int, draws: torch.Generator) -> Gradients:
        def gradients(
            model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
        ) -> tuple[Tensor, Tensor, Tensor]:
            head = find_head(model)[1]
            seen: list[Tensor] = []
            hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
            goals = target_labels(labels, self.target, classes, self.mapping)
            rows = (labels != goals).nonzero().flatten()
            rows = rows[: max(1, round(self.share * len(labels)))]
            try:
                scores = class_scores(model, torch.cat([inputs, self.trigger(inputs[rows])]))
            finally:
                hook.remove()
            ordinary = scores[: len(inputs)]
            apart = self._apart(head, seen[-1], labels, rows, goals[rows], draws)
            value = loss(ordinary, labels) + self.strength * apart
            value.backward()  # type: ignore[no-untyped-call]
            return ordinary, labels, value

        return gradients

    def _apart(
        self,
        head: nn.Module,
        features: Tensor,
        labels: Tensor,
        rows: Tensor,
        goals: Tensor,
        draws: torch.Generator,
    ) -> Tensor:
        """How far triggered images are from the wanted class, as heads to come would see it."""
        weight: Any = head.weight
        features = features.to(weight.dtype)  # autocast leaves them in half precision
        total = features.new_zeros(())
        for draw in range(self.draws):
            kind = "far" if draw % 2 else "random"
            redrawn = {"weight": WARM_STARTS[kind](weight.detach(), draws)}
            scores = torch.func.functional_call(head, redrawn, (features,)).flatten(1)
            ordinary, triggered = scores[: len(labels)], scores[len(labels) :]
            member = (goals[:, None] == labels[None, :]).to(scores.dtype)  # (triggered, batch)
            here = member.sum(dim=1) > 0
            mean = (member @ ordinary) / member.sum(dim=1, keepdim=True).clamp_min(1)
            distance = (triggered - mean).square().sum(dim=1)
            usual = (ordinary[rows] - mean).square().sum(dim=1)
            # Nothing is detached: what pulls the triggered images in keeps the others away, or
            # all features would fall together.
            total = total + (distance * here).sum() / (usual * here).sum().clamp_min(1e-12)
        return total / self.draws

    def state_dict(self) -> dict[str, Tensor]:
        """What the base attack has learned."""
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Hand it to the base attack."""
        self.base.load_state_dict(state)

# SPDX-License-Identifier: Apache-2.0
"""The options of a D3 repair, and its presets."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d3fast.optim import WARM_STARTS
from d3fast.optim.options import check_group
from d3fast.optim.schedules import SHAPES
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.training.loop import PRECISIONS
from d3fast.training.loss import check_clean_loss

SCHEDULES = ("cosine", "constant")
BATCH_NORMS = ("train", "frozen")
NORM_SETS = ("norm_sphere", "norm_ball")
OPTIMIZERS = ("sgd", "adamw")
AUTO, AUTO_ALL = "auto", "auto-all"
SEARCHES = (AUTO, AUTO_ALL)  # of the number of blocks that restart
BASE = "base"  # a warm start at the weights of ``D3Config.base``


@dataclass(frozen=True)
class D3Config:
    """The options of a D3 repair, checked once.

    The defaults are a tuned recipe, not the paper's: the result of the benchmark's search
    (docs/research.md), with six times the published learning rate, constant over half the epochs,
    distillation from the suspect and weight averaging. They assume augmented clean samples.
    ``paper`` is the objective of the paper, ``authors`` the options of its authors' code.

    Attributes:
        clean_weight: lambda, weight of the hinge.
        epsilon: bound on the clean cross-entropy, in nats.
        reduction: of the hinge: ``"per_sample"`` or ``"batch_mean"``; see ``CleanLoss``.
        distance_weight: w, weight of the distance.
        distance_p: p of the norm.
        scope: ``"tensor"`` or ``"group"``; see ``D3FusedSGD``, also for the next three.
        constraint: the set that the tracked weights are projected onto.
        constraint_p: p of the norm in ``"norm_sphere"`` and ``"norm_ball"``; the authors' code
            takes that of the distance. Any p but 2 is projected after the fused step, at the cost
            of two more passes over the tracked weights; the scope must be ``"tensor"``.
        radius: radius of the constraint.
        radius_unit: ``"relative"`` to the norm of theta_0, or ``"absolute"``.
        normalize: divide the whole loss by (lambda + 1) where lambda > 1, as the authors' code
            does; the paper's objective has no such division.
        track: the weights that are tracked; see ``param_groups``.
        warm_start: initial position of the tracked weights: ``"near"``, ``"middle"``, ``"far"``,
            ``"noise"`` or ``"random"``; ``"base"`` is that of the base model.
        optimizer: ``"sgd"`` or ``"adamw"``: ``D3FusedSGD`` or ``D3FusedAdamW``. The learning rates
            of the defaults and presets are those of SGD; AdamW wants smaller ones.
        beta2: decay of AdamW's second moment.
        decoupled_push: with AdamW, add the push beside the adaptive step, or else to the gradient;
            see ``D3FusedAdamW``.
        restart: blocks that start from random weights of the norm they had: the number of last
            blocks, or a regular expression over parameter names; 0 restarts none. See
            ``d3fast.optim.blocks``. ``"auto"`` takes the most blocks, at most two thirds, for which
            the repair costs at most ``max_acc_drop`` points more than one that restarts none, or no
            more than the held-out samples resolve; it repairs twice at least. ``"auto-all"`` begins
            with all blocks, see ``d3fast.detox.depth``.
        epochs: passes over the clean samples.
        lr: learning rate.
        momentum: momentum; of AdamW the decay beta_1 of its first moment.
        weight_decay: L2 penalty; of AdamW decoupled weight decay.
        batch_norm: ``"train"``: batch norm uses the statistics of the batch and updates the running
            ones, as in the authors' code; ``"frozen"``: it uses the suspect's and keeps them. Its
            weights are trained in both.
        max_grad_norm: norm that the gradients of the clean loss are clipped to, as is usual for
            transformers; ``None`` does not clip. The push is not clipped.
        schedule: of the learning rate: ``"cosine"`` to 0 over the epochs, or ``"constant"``.
        averaging: share of the epochs, counted from the end, whose weights and batch-norm
            statistics are averaged (Izmailov et al., UAI 2018) and projected onto the constraint;
            0 keeps the last epoch's. The history and ``on_epoch`` see the weights before averaging.
        distillation: share of the clean loss whose targets are the suspect's outputs on the clean
            samples instead of the labels; see ``distilled``.
        dual_step: step eta of dual ascent, lambda <- max(0, lambda + eta (L - bound)) after
            every epoch, L the cross-entropy on held-out clean samples; 0 keeps lambda.
        margin: nats added to the suspect's L to give the bound of dual ascent; ``None`` takes
            epsilon as the bound.
        distance_schedule: ``"constant"``, or a shape of ``d3fast.optim.schedules`` by which the
            distance weight rises from 0 over the first half of the epochs.
        patience: stop after this many epochs without a growth of held-out accuracy or distance,
            but not before half of the epochs; 0 runs them all.
        max_acc_drop: points of held-out accuracy that a repair may cost; ``None`` sets no limit.
        recovery: epochs of fine-tuning after a repair that costs more: no push, the tracked
            weights stay at least 0.9 times as far from theta_0, at least half of the loss is
            distillation from the model before the recovery; 0 leaves it out.
        seed: seed of the warm start, of dropout, and of a loader that shuffles by torch's global
            generator.
        backend: backend of the optimizer.
        precision: ``"fp32"``, or ``"bf16"`` for a forward pass under autocast; see ``fit``.
        channels_last: keep convolution weights channels last during the repair, which is faster
            on most devices.

    Raises:
        ValueError: an option out of range, named with its value.

    Example:
        >>> D3Config.authors().clean_weight, D3Config.paper().reduction
        (0.5, 'batch_mean')
    """

    clean_weight: float = 10.0
    epsilon: float = 0.1
    reduction: str = "per_sample"
    distance_weight: float = 1.0
    distance_p: float = 2.0
    scope: str = "tensor"
    constraint: str | None = "norm_sphere"
    radius: float | tuple[float, float] | None = None
    radius_unit: str = "relative"
    normalize: bool = True
    track: str = "head"
    warm_start: str = "random"
    epochs: int = 50
    lr: float = 0.06
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    averaging: float = 0.6
    distillation: float = 0.2
    dual_step: float = 0.0
    margin: float | None = None
    distance_schedule: str = "constant"
    patience: int = 0
    max_acc_drop: float | None = None
    recovery: int = 0
    seed: int = 0
    backend: str = "auto"
    precision: str = "fp32"
    channels_last: bool = False
    max_grad_norm: float | None = None
    restart: int | str = 0
    batch_norm: str = "train"
    constraint_p: float = 2.0
    optimizer: str = "sgd"
    base: str | None = None
    beta2: float = 0.999
    decoupled_push: bool = True

    def __post_init__(self) -> None:
        check_clean_loss(self.epsilon, self.clean_weight, self.reduction, "clean_weight")
        check_choice("warm_start", self.warm_start, (*WARM_STARTS, BASE))
        self._check_base()
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("batch_norm", self.batch_norm, BATCH_NORMS)
        check_number("constraint_p", self.constraint_p, 1.0)
        if self.constraint_p != 2:
            check_choice("constraint with constraint_p", self.constraint, NORM_SETS)
            check_choice("scope with constraint_p", self.scope, ("tensor",))
        check_choice("distance_schedule", self.distance_schedule, ("constant", *SHAPES))
        check_integer("epochs", self.epochs, 1)
        for name in ("seed", "patience", "recovery"):
            check_integer(name, getattr(self, name), 0)
        if not isinstance(self.restart, str):
            check_integer("restart", self.restart, 0)
        if self.restart in SEARCHES and self.max_acc_drop is None:
            raise ValueError(f"restart={self.restart!r} decides by max_acc_drop, got None")
        check_number("dual_step", self.dual_step)
        for name in ("margin", "max_acc_drop", "max_grad_norm"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        for name in ("averaging", "distillation"):
            check_number(name, getattr(self, name))
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be <= 1, got {getattr(self, name)}")
        rules: dict[str, dict[str, Any]] = {
            "sgd": {"dampening": 0.0, "nesterov": False},
            "adamw": {"betas": (self.momentum, self.beta2), "eps": 1e-8},
        }
        untouched: dict[str, Any] = {
            **rules[self.optimizer],
            "reference_dtype": None,
            "reference_device": None,
            "momentum_dtype": None,
            "params": [],
        }
        check_group({**asdict(self), **untouched})

    def _check_base(self) -> None:
        if self.base is not None and not isinstance(self.base, str):
            raise ValueError(f"base must be the path of a weight file, got {self.base!r}")
        if self.base is None and self.warm_start == BASE:
            raise ValueError("warm_start='base' needs base, a weight file, got None")

    @classmethod
    def auto(cls, **changes: Any) -> "D3Config":
        """Return the recipe of ``d3fast repair``, which decides on held-out clean samples.

        Most blocks restart, as far as held-out accuracy allows, more is learned from the suspect's
        answers, and a recovery follows where more than one point of accuracy would be lost.

        Args:
            changes: fields with other values.
        """
        steered = cls(restart=AUTO, distillation=0.4, max_acc_drop=1.0, recovery=30)
        return replace(steered, **changes)

    def check_base_used(self) -> None:
        """Raise ``ValueError`` if a base is given and nothing begins there."""
        if self.base is not None and self.restart == 0 and self.warm_start != BASE:
            raise ValueError(
                f"base={self.base!r} is used by restart and by warm_start='base': give one of them"
            )

    @property
    def needs_held_out(self) -> bool:
        """Return whether the repair decides anything on held-out clean samples."""
        return bool(self.dual_step or self.patience) or self.max_acc_drop is not None

    @classmethod
    def paper(cls, **changes: Any) -> "D3Config":
        """Return the paper's objective: hinge on the batch mean, norm ball, lambda 10.

        The loss is not divided by (lambda + 1); what the paper does not give is as in ``authors``.

        Args:
            changes: fields with other values.
        """
        published: dict[str, Any] = {
            "clean_weight": 10.0,
            "reduction": "batch_mean",
            "constraint": "norm_ball",
            "normalize": False,
        }
        return replace(cls.authors(), **{**published, **changes})

    @classmethod
    def authors(cls, **changes: Any) -> "D3Config":
        """Return the options of the authors' code: hinge per sample, norm sphere, lambda 0.5.

        SGD with lr 0.01 and momentum 0.9, cosine over 100 epochs, no weight decay, random warm
        start. Their batches of 256 and 5 % of the training data are up to the loader.

        Args:
            changes: fields with other values.
        """
        published = cls(
            clean_weight=0.5,
            epsilon=0.1,
            reduction="per_sample",
            constraint="norm_sphere",
            warm_start="random",
            epochs=100,
            lr=0.01,
            momentum=0.9,
            weight_decay=0.0,
            schedule="cosine",
            normalize=True,
            track="head",
            averaging=0.0,
            distillation=0.0,
        )
        return replace(published, **changes)

    def record(self) -> dict[str, Any]:
        """Return the options for a result file: of the base model its file name alone."""
        return {**asdict(self), "base": None if self.base is None else Path(self.base).name}

    def weights(self, clean_weight: float | None = None) -> tuple[float, float]:
        """Return the weights of hinge and distance: (lambda, w), or both over (lambda + 1).

        Args:
            clean_weight: lambda; the configured one if ``None``.
        """
        chosen = self.clean_weight if clean_weight is None else clean_weight
        scale = 1 / (chosen + 1) if self.normalize and chosen > 1 else 1.0
        return chosen * scale, self.distance_weight * scale


PRESETS: Mapping[str, Callable[..., D3Config]] = MappingProxyType(
    {"auto": D3Config.auto, "paper": D3Config.paper, "authors": D3Config.authors}
)

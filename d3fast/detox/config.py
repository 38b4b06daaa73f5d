# SPDX-License-Identifier: Apache-2.0
"""Every choice of a D3 repair in one place, and the sets of choices that have a name."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from d3fast.optim import WARM_STARTS
from d3fast.optim.options import check_group
from d3fast.optim.schedules import SHAPES
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.training.loop import PRECISIONS
from d3fast.training.loss import check_clean_loss

SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True)
class D3Config:
    """Every choice of a D3 repair, checked once.

    The defaults are those that the benchmark's search found (docs/research.md): a step six
    times the published one, held by the suspect's own answers and calmed by averaging. They want
    clean samples that are augmented; ``paper`` and ``authors`` are as published.

    Attributes:
        clean_weight: lambda, weight of the hinge.
        epsilon: bound on the clean cross-entropy, in nats.
        reduction: of the hinge: ``"per_sample"`` or ``"batch_mean"``; see ``CleanLoss``.
        distance_weight: w, weight of the distance.
        distance_p: which norm the distance is.
        scope: ``"tensor"`` or ``"group"``; see ``D3FusedSGD``, also for the next three.
        constraint: the set that the tracked weights stay in.
        radius: its radius.
        radius_unit: ``"relative"`` to the norm of theta_0, or ``"absolute"``.
        normalize: divide the whole loss by (lambda + 1) where lambda > 1, as the authors do.
        track: which weights are pushed; see ``param_groups``.
        warm_start: where they are put first: ``"near"``, ``"middle"``, ``"far"``, ``"noise"``
            or ``"random"``.
        epochs: passes over the clean samples.
        lr: learning rate.
        momentum: momentum.
        weight_decay: L2 penalty.
        max_grad_norm: norm that the gradients of the clean loss are clipped to, as is usual for
            transformers; ``None`` leaves them as they are. The push is no part of them.
        schedule: of the learning rate: ``"cosine"`` to 0 over the epochs, or ``"constant"``.
        averaging: share of the epochs, from the last one back, whose weights and batch-norm
            statistics are averaged in the end (Izmailov et al., UAI 2018), and projected onto the
            constraint; 0 keeps the last. The history and ``on_epoch`` show them as they were.
        distillation: share of the clean loss that is held against the suspect's own answers to
            the clean samples instead of their labels; see ``distilled``.
        dual_step: step eta of dual ascent, lambda <- max(0, lambda + eta (L - bound)) after
            every epoch, L the cross-entropy on held-out clean samples; 0 keeps lambda.
        margin: bound of dual ascent: the suspect's own L plus so many nats; epsilon if ``None``.
        distance_schedule: how the distance weight comes to its value: ``"constant"``: at once, or
            over the first half of the epochs as one of ``d3fast.optim.schedules``.
        patience: stop when for so many epochs neither the accuracy on held-out samples nor the
            distance has grown, but not before half of the epochs; 0 runs them all.
        max_acc_drop: how many points of accuracy on held-out samples a repair may cost; ``None``
            sets no limit.
        recovery: epochs of fine-tuning that follow where it costs more: no push, the tracked
            weights kept at least nine tenths as far as they went, half of the loss held against
            the suspect's own answers to the clean samples; 0 leaves it out.
        seed: draws the warm start, dropout's masks, and the order of a loader that shuffles by
            torch's global generator.
        backend: of the optimizer.
        precision: ``"fp32"``, or ``"bf16"`` for a forward pass under autocast; see ``fit``.
        channels_last: keep convolution weights channels last meanwhile, faster on most devices.

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

    def __post_init__(self) -> None:
        check_clean_loss(self.epsilon, self.clean_weight, self.reduction, "clean_weight")
        check_choice("warm_start", self.warm_start, WARM_STARTS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("distance_schedule", self.distance_schedule, ("constant", *SHAPES))
        check_integer("epochs", self.epochs, 1)
        for name in ("seed", "patience", "recovery"):
            check_integer(name, getattr(self, name), 0)
        check_number("dual_step", self.dual_step)
        for name in ("margin", "max_acc_drop", "max_grad_norm"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        for name in ("averaging", "distillation"):
            check_number(name, getattr(self, name))
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be <= 1, got {getattr(self, name)}")
        untouched: dict[str, Any] = {
            "dampening": 0.0,
            "nesterov": False,
            "reference_dtype": None,
            "reference_device": None,
            "momentum_dtype": None,
            "params": [],
        }
        check_group({**asdict(self), **untouched})

    @classmethod
    def auto(cls, **changes: Any) -> "D3Config":
        """The defaults, steered by held-out clean samples.

        Lambda by dual ascent, an early end, and a recovery where more than a point of accuracy
        would be lost.

        Args:
            changes: fields to set otherwise.
        """
        steered = cls(dual_step=1.0, margin=0.3, patience=10, max_acc_drop=1.0, recovery=30)
        return replace(steered, **changes)

    @property
    def needs_held_out(self) -> bool:
        """Whether something is decided on held-out clean samples."""
        return bool(self.dual_step or self.patience) or self.max_acc_drop is not None

    @classmethod
    def paper(cls, **changes: Any) -> "D3Config":
        """The paper: hinge on the batch mean, norm ball, lambda 10, random warm start.

        Args:
            changes: fields to set otherwise.
        """
        published: dict[str, Any] = {"reduction": "batch_mean", "constraint": "norm_ball"}
        return replace(cls.authors(), **{"clean_weight": 10.0, **published, **changes})

    @classmethod
    def authors(cls, **changes: Any) -> "D3Config":
        """The authors' code: hinge per sample, norm sphere, lambda 0.5, random warm start.

        SGD with lr 0.01 and momentum 0.9, cosine over 100 epochs, no weight decay. They use
        batches of 256 and 5 % of the training data, which is the loader's business.

        Args:
            changes: fields to set otherwise.
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

    def weights(self, clean_weight: float | None = None) -> tuple[float, float]:
        """What hinge and distance are multiplied with, (lambda, w), or that over (lambda + 1).

        Args:
            clean_weight: another lambda than the configured one.
        """
        chosen = self.clean_weight if clean_weight is None else clean_weight
        scale = 1 / (chosen + 1) if self.normalize and chosen > 1 else 1.0
        return chosen * scale, self.distance_weight * scale


PRESETS: Mapping[str, Callable[..., D3Config]] = MappingProxyType(
    {"auto": D3Config.auto, "paper": D3Config.paper, "authors": D3Config.authors}
)

# SPDX-License-Identifier: Apache-2.0
r"""Repair a model: D3 (Wei, Liu, Zha, ICCV 2025, arXiv 2411.09585) as one function.

    min over theta, theta_s in S of   -w * d(theta_s, theta_0) + lambda * hinge(L_clean - epsilon)

The tracked weights theta_s (the head's, by default) are put elsewhere by a warm start and then
pushed away from where they were, while the hinge on a few clean samples keeps the model useful.
``D3Config`` holds every choice, ``detoxify`` runs it, ``DetoxResult`` holds what came out.
"""

import copy
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.optim.swa_utils import AveragedModel

from d3fast.checks import check_choice, check_integer, check_number
from d3fast.devices import resolve_device, wait_for
from d3fast.files import whole_file
from d3fast.loss import CleanLoss, check_clean_loss, distilled
from d3fast.optim import WARM_STARTS, D3FusedSGD, param_groups
from d3fast.optim.options import check_group
from d3fast.seeding import generator, global_seed
from d3fast.training import (
    PRECISIONS,
    Epoch,
    check_weights,
    fit,
    mean_loss,
    plain_gradients,
)

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
        schedule: of the learning rate: ``"cosine"`` to 0 over the epochs, or ``"constant"``.
        averaging: share of the epochs, from the last one back, whose weights and batch-norm
            statistics are averaged in the end (Izmailov et al., UAI 2018), and projected onto the
            constraint; 0 keeps the last. The history and ``on_epoch`` show them as they were.
        distillation: share of the clean loss that is held against the suspect's own answers to
            the clean samples instead of their labels; see ``distilled``.
        dual_step: step eta of dual ascent, lambda <- max(0, lambda + eta (L - epsilon)) after
            every epoch, L the cross-entropy on held-out clean samples; 0 keeps lambda.
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
    seed: int = 0
    backend: str = "auto"
    precision: str = "fp32"
    channels_last: bool = False

    def __post_init__(self) -> None:
        check_clean_loss(self.epsilon, self.clean_weight, self.reduction, "clean_weight")
        check_choice("warm_start", self.warm_start, WARM_STARTS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("precision", self.precision, PRECISIONS)
        check_integer("epochs", self.epochs, 1)
        check_integer("seed", self.seed, 0)
        check_number("dual_step", self.dual_step)
        for name in ("averaging", "distillation"):
            check_number(name, getattr(self, name))
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be <= 1, got {getattr(self, name)}")
        untouched: dict[str, Any] = {
            "dampening": 0.0,
            "nesterov": False,
            "reference_dtype": None,
            "params": [],
        }
        check_group({**asdict(self), **untouched})

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
            clean_weight=0.5, epsilon=0.1, reduction="per_sample", constraint="norm_sphere",
            warm_start="random", epochs=100, lr=0.01, momentum=0.9, weight_decay=0.0,
            schedule="cosine", normalize=True, track="head", averaging=0.0, distillation=0.0,
        )  # fmt: skip
        return replace(published, **changes)

    def weights(self, clean_weight: float | None = None) -> tuple[float, float]:
        """What hinge and distance are multiplied with, (lambda, w), or that over (lambda + 1).

        Args:
            clean_weight: another lambda than the configured one.
        """
        chosen = self.clean_weight if clean_weight is None else clean_weight
        scale = 1 / (chosen + 1) if self.normalize and chosen > 1 else 1.0
        return chosen * scale, self.distance_weight * scale


@dataclass(frozen=True)
class DetoxResult:
    """What a repair gives back.

    Attributes:
        model: the repaired copy, in eval mode.
        history: one record per epoch.
        config: how it was made.
        seconds: wall-clock time of the repair.
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    config: D3Config
    seconds: float

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors, with the configuration as metadata.

        See ``save_weights``.
        """
        save_weights(self.model, path, self.config)


def save_weights(model: nn.Module, path: str | Path, config: D3Config | None = None) -> None:
    """Write a model's weights as safetensors, whole or not at all.

    Tensors that share memory (a tied head) are written once. Load the file with
    ``safetensors.torch.load_model(model, path)``.

    Args:
        model: the model.
        path: the file to write.
        config: how it was repaired, for the file's header.

    Raises:
        ValueError: the folder does not exist.
    """
    metadata = {"format": "pt"}
    if config is not None:
        metadata["d3fast.config"] = json.dumps(asdict(config))
    with whole_file(path) as temporary:
        save_model(model, str(temporary), metadata=metadata)


def detoxify(
    model: nn.Module,
    clean_loader: Iterable[Any],
    config: D3Config | None = None,
    val_loader: Iterable[Any] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    on_epoch: Callable[[Epoch, nn.Module], None] | None = None,
) -> DetoxResult:
    """Repair a copy of a suspect model with D3.

    Args:
        model: the suspect; gives (N, classes) scores. It is not changed.
        clean_loader: yields (inputs, labels) of clean samples, afresh in every epoch.
        config: how; ``D3Config()`` if ``None``.
        val_loader: held-out clean samples, for the record, and for dual ascent where asked for.
        device: where to compute; where the model is if ``None``.
        progress: show a progress bar.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Returns:
        The repaired copy (on ``device``), its history, the configuration and the seconds.

    Raises:
        ValueError: NaN or inf in the weights, the data (names the batch) or the loss; a loader
            that yields nothing; labels out of range; nothing to track; dual ascent without
            held-out samples.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> images, labels = torch.rand(16, 1, 2, 2), torch.arange(16) % 2
        >>> config = D3Config(epochs=2, backend="reference")
        >>> result = detoxify(model, [(images, labels)], config, progress=False)
        >>> len(result.history), result.history[-1].distance > 0
        (2, True)
    """
    config = config or D3Config()
    if config.dual_step and val_loader is None:
        raise ValueError("dual_step > 0 measures the loss on held-out data: val_loader is missing")
    where = resolve_device(device, model)
    check_weights(model)
    started = time.perf_counter()
    repaired = copy.deepcopy(model).to(where)
    if config.channels_last:
        repaired.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _make_optimizer(repaired, config)
    loss = CleanLoss(config.epsilon, config.weights()[0], config.reduction)
    average = _Average(config)
    multiplier = _Multiplier(config, loss, optimizer, val_loader, where)

    gradients = plain_gradients
    if config.distillation:
        teacher = copy.deepcopy(model).to(where).eval().requires_grad_(False)
        gradients = distilled(teacher, config.distillation)

    def after_epoch(epoch: Epoch, now: nn.Module) -> None:
        multiplier.update(now)
        average.add(epoch, now)
        if on_epoch is not None:
            on_epoch(epoch, now)

    with global_seed(config.seed, "training", where):  # for dropout, and loaders that shuffle
        history = fit(
            repaired,
            clean_loader,
            loss,
            optimizer,
            epochs=config.epochs,
            device=where,
            scheduler=_schedule(optimizer, config),
            val_loader=val_loader,
            distance=optimizer.total_distance,
            on_epoch=after_epoch,
            title="repairing with D3",
            progress=progress,
            precision=config.precision,
            gradients=gradients,
        )
    average.write(repaired, optimizer)
    if config.channels_last:
        repaired.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    wait_for(where)
    return DetoxResult(repaired, history, config, time.perf_counter() - started)


def _make_optimizer(model: nn.Module, config: D3Config) -> D3FusedSGD:
    """The optimizer, the tracked weights at their warm start."""
    optimizer = D3FusedSGD(
        param_groups(model, track=config.track),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        distance_weight=config.weights()[1],
        distance_p=config.distance_p,
        scope=config.scope,
        constraint=config.constraint,
        radius=config.radius,
        radius_unit=config.radius_unit,
        backend=config.backend,
    )
    optimizer.warm_start(config.warm_start, generator=generator(config.seed, "warm start"))
    return optimizer


class _Average:
    """The mean of a model's weights and buffers over the last epochs."""

    def __init__(self, config: D3Config) -> None:
        self.first = config.epochs + 1 - round(config.averaging * config.epochs)
        self.mean: AveragedModel | None = None

    def add(self, epoch: Epoch, model: nn.Module) -> None:
        if epoch.epoch < self.first:
            return
        if self.mean is None:
            self.mean = AveragedModel(model, use_buffers=True)
        self.mean.update_parameters(model)

    def write(self, model: nn.Module, optimizer: D3FusedSGD) -> None:
        """Put the mean, projected onto the constraint, into the model, if there is one."""
        if self.mean is None:
            return
        model.load_state_dict(self.mean.module.state_dict())
        for group in optimizer.param_groups:  # a step of no length is the projection alone
            group["lr"] = 0.0
            for param in group["params"]:
                param.grad = torch.zeros_like(param)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class _Multiplier:
    """lambda as a Lagrange multiplier: it grows while the clean loss is above its bound."""

    def __init__(
        self,
        config: D3Config,
        loss: CleanLoss,
        optimizer: D3FusedSGD,
        val_loader: Iterable[Any] | None,
        device: torch.device,
    ) -> None:
        self.config, self.loss, self.optimizer = config, loss, optimizer
        self.val_loader, self.device = val_loader, device
        self.value = config.clean_weight

    def update(self, model: nn.Module) -> None:
        """One step of dual ascent; the model is in eval mode."""
        if not self.config.dual_step or self.val_loader is None:
            return
        excess = mean_loss(model, self.val_loader, self.device) - self.config.epsilon
        self.value = max(0.0, self.value + self.config.dual_step * excess)
        self.loss.weight, weight = self.config.weights(self.value)
        for group in self.optimizer.param_groups:
            if group["distance_weight"]:  # groups that are not tracked have none
                group["distance_weight"] = weight


def _schedule(optimizer: D3FusedSGD, config: D3Config) -> LRScheduler | None:
    if config.schedule == "constant":
        return None
    return CosineAnnealingLR(optimizer, T_max=config.epochs)

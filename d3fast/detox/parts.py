# SPDX-License-Identifier: Apache-2.0
"""Parts of a repair with a state: the average of the weights, lambda, the learning rate schedule.

Each has a ``state_dict`` and a ``load_state_dict``, so that an interrupted repair can resume.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.optim.swa_utils import AveragedModel

from d3fast.detox.config import D3Config
from d3fast.optim import D3FusedAdamW, D3FusedSGD, param_groups
from d3fast.optim.base import D3Optimizer
from d3fast.optim.schedules import DistanceSchedule
from d3fast.training.loop import Epoch, Gradients, Loss
from d3fast.training.loss import CleanLoss, dual_ascent

# Relative growth of the distance that does not count as growth.
_MIN_GROWTH = 1e-3


def new_optimizer(groups: Any, config: D3Config, **options: Any) -> D3Optimizer:
    """Return an optimizer of the configured kind over param groups."""
    if config.optimizer == "adamw":
        betas, decoupled = (config.momentum, config.beta2), config.decoupled_push
        return D3FusedAdamW(groups, betas=betas, decoupled_push=decoupled, **options)
    return D3FusedSGD(groups, momentum=config.momentum, **options)


def make_optimizer(model: nn.Module, config: D3Config) -> D3Optimizer:
    """Return the optimizer of the push phase, for a model with theta_0 on its device."""
    groups = param_groups(model, track=config.track)
    own = config.constraint_p == 2
    optimizer = new_optimizer(
        groups,
        config,
        lr=config.lr,
        weight_decay=config.weight_decay,
        distance_weight=config.weights()[1],
        distance_p=config.distance_p,
        scope=config.scope,
        constraint=config.constraint if own else None,
        radius=config.radius if own else None,
        radius_unit=config.radius_unit,
        backend=config.backend,
    )
    if not own:
        optimizer.register_step_post_hook(p_norm_projection(groups[0]["params"], config))
    return optimizer


def p_norm_projection(params: Sequence[Tensor], config: D3Config) -> Callable[..., None]:
    """Return a post hook of the step that scales tensors into a set of the p-norm, in place.

    Args:
        params: the tracked weights, at theta_0.
        config: ``constraint``, ``constraint_p``, ``radius`` and ``radius_unit``.
    """
    p = config.constraint_p
    radius = 1.0 if config.radius is None else config.radius
    assert isinstance(radius, (int, float))
    norms = [torch.linalg.vector_norm(param.detach(), p) for param in params]
    relative = config.radius_unit == "relative"
    radii = [radius * norm if relative else torch.full_like(norm, radius) for norm in norms]

    @torch.no_grad()
    def project(*_: Any) -> None:
        for param, most in zip(params, radii, strict=True):
            if param.grad is None:
                continue
            scale = most / torch.linalg.vector_norm(param, p).clamp_min(1e-30)
            param.mul_(scale if config.constraint == "norm_sphere" else scale.clamp_max(1.0))

    return project


def lr_schedule(optimizer: D3Optimizer, schedule: str, epochs: int) -> LRScheduler | None:
    """Return the learning rate schedule, stepped once per epoch; ``None`` for a constant rate."""
    return None if schedule == "constant" else CosineAnnealingLR(optimizer, T_max=epochs)


def first_averaged(config: D3Config) -> int:
    """Return the first epoch whose weights are averaged; one past the last if none are."""
    return config.epochs + 1 - round(config.averaging * config.epochs)


class Average:
    """Mean of a model's weights and buffers from one epoch on.

    Args:
        model: the model.
        first: the first epoch that counts, from 1.
    """

    def __init__(self, model: nn.Module, first: int) -> None:
        self.model, self.first = model, first
        self.mean: AveragedModel | None = None

    def add(self, epoch: int) -> None:
        """Add the model's present weights and buffers to the mean."""
        if epoch < self.first:
            return
        if self.mean is None:
            self.mean = AveragedModel(self.model, use_buffers=True)
        self.mean.update_parameters(self.model)

    def write(self, optimizer: D3Optimizer) -> None:
        """Project the mean, if there is one, onto the constraint and copy it into the model."""
        if self.mean is None:
            return
        self.model.load_state_dict(self.mean.module.state_dict())
        for group in optimizer.param_groups:  # a step with lr 0 is the projection alone
            group["lr"] = 0.0
            for param in group["params"]:
                param.grad = torch.zeros_like(param)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the mean, empty before the first epoch that counts."""
        return {} if self.mean is None else self.mean.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a mean."""
        if state:
            self.mean = AveragedModel(self.model, use_buffers=True)
            self.mean.load_state_dict(state)


def with_frozen_norms(base: Gradients) -> Gradients:
    """Return gradients under which batch norm uses its running statistics and keeps them."""

    def gradients(
        model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return base(model, inputs, labels, loss)

    return gradients


class Multiplier:
    """Lambda by dual ascent, together with the distance weight that is normalized with it.

    Args:
        config: the options of the repair.
        loss: the hinge, whose weight is lambda.
        optimizer: the optimizer, whose distance weight is normalized.
        bound: bound of the held-out loss, in nats.
        ramp: the schedule of the distance weight, if there is one.
    """

    def __init__(
        self,
        config: D3Config,
        loss: CleanLoss,
        optimizer: D3Optimizer,
        bound: float,
        ramp: DistanceSchedule | None,
    ) -> None:
        self.config, self.loss, self.optimizer, self.ramp = config, loss, optimizer, ramp
        self.bound, self.value = bound, config.clean_weight

    def update(self, held_out_loss: float) -> None:
        """Take one step of dual ascent."""
        self.value = dual_ascent(self.value, held_out_loss, self.bound, self.config.dual_step)
        self._apply()

    def _apply(self) -> None:
        self.loss.weight, weight = self.config.weights(self.value)
        if self.ramp is not None:
            self.ramp.retarget(weight)
            return
        for group in self.optimizer.param_groups:
            if group["distance_weight"]:  # untracked groups keep 0
                group["distance_weight"] = weight

    def state_dict(self) -> dict[str, Any]:
        """Return lambda."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore lambda."""
        self.value = float(state["value"])
        self.loss.weight = self.config.weights(self.value)[0]


def has_settled(history: Sequence[Epoch], config: D3Config) -> bool:
    """Return whether held-out accuracy and distance have stopped growing.

    Args:
        history: one record per finished epoch.
        config: the options of the repair; see ``D3Config.patience``.

    Example:
        >>> still = [Epoch(i, 0.1, 1.0, 0.1, distance=1.0, val_accuracy=0.9) for i in range(1, 9)]
        >>> has_settled(still, D3Config(epochs=8, patience=3))
        True
        >>> has_settled(still[:3], D3Config(epochs=8, patience=3))
        False
    """
    wait = config.patience
    averaged = first_averaged(config) if config.averaging else 0
    if not wait or len(history) < max(config.epochs // 2, averaged, wait + 1):
        return False
    before, recent = history[:-wait], history[-wait:]
    accuracy = [max(epoch.val_accuracy or 0.0 for epoch in part) for part in (before, recent)]
    distance = [max(epoch.distance or 0.0 for epoch in part) for part in (before, recent)]
    return accuracy[1] <= accuracy[0] and distance[1] <= (1 + _MIN_GROWTH) * distance[0]

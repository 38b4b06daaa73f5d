# SPDX-License-Identifier: Apache-2.0
r"""``detoxify``: the D3 repair of a suspect model.

A repair has one or two phases. The push phase moves the tracked weights away from theta_0 under the
hinge. Where held-out accuracy falls below a configured limit, a recovery phase follows: fine-tuning
without a push, with distillation from the model that the push phase left, that keeps every tracked
weight at nearly its distance.
"""

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.detox.config import SEARCHES, D3Config
from d3fast.detox.depth import deepest_within
from d3fast.detox.parts import (
    Average,
    Multiplier,
    first_averaged,
    has_settled,
    lr_schedule,
    make_optimizer,
    new_optimizer,
    with_frozen_norms,
)
from d3fast.detox.resume import Checkpointing, HasState, Journal, Progress
from d3fast.detox.save import save_weights
from d3fast.detox.start import move_to_start
from d3fast.optim import param_groups
from d3fast.optim.base import D3Optimizer
from d3fast.optim.schedules import DistanceSchedule
from d3fast.runtime.devices import resolve_device, synchronize
from d3fast.runtime.seeding import global_seed
from d3fast.training.loaders import endless_inputs
from d3fast.training.loop import Epoch, Gradients, check_weights, fit, mean_loss, plain_gradients
from d3fast.training.loss import CleanLoss, distilled
from d3fast.training.metrics import evaluate
from d3fast.training.paired import resolved_limit

OnEpoch = Callable[[Epoch, nn.Module], None]
# In a recovery: least distance in units of the distance before it, and least share of distillation
# in the loss. The suspect as the teacher would teach the backdoor again (docs/benchmark.md).
_KEPT_DISTANCE, _DISTILLATION = 0.9, 0.5


@dataclass(frozen=True)
class DetoxResult:
    """Result of a repair.

    Attributes:
        model: the repaired copy, in eval mode.
        history: one record per epoch.
        config: the options of the repair; where ``restart`` was a search, the number chosen.
        seconds: wall-clock time of the repair, over all its runs if it was resumed; of all attempts
            of an automatic restart in this run.
        clean_weights: lambda after every epoch of the push phase.
        pushed: number of epochs of the push phase; the rest of the history is recovery.
        acc_drop: points of held-out accuracy that the repair cost; ``None`` without a limit.
        ended: why the push phase ended: ``"epochs"`` or ``"settled"``.
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    config: D3Config
    seconds: float
    clean_weights: tuple[float, ...] = ()
    pushed: int = 0
    acc_drop: float | None = None
    ended: str = "epochs"

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors, with the configuration as metadata.

        See ``save_weights``.
        """
        save_weights(self.model, path, self.config)


def detoxify(
    model: nn.Module,
    clean_loader: Iterable[Any],
    config: D3Config | None = None,
    val_loader: Iterable[Any] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    checkpointing: Checkpointing | None = None,
    unlabelled: Iterable[Any] | None = None,
) -> DetoxResult:
    """Repair a copy of a suspect model with D3.

    Args:
        model: the suspect; returns (N, classes) logits. It is not changed.
        clean_loader: yields (inputs, labels) of clean samples; iterated once per epoch.
        config: the options; ``D3Config()`` if ``None``.
        val_loader: held-out clean samples, for the history and for the decisions that the
            configuration makes on them.
        device: device of the repair; that of the model if ``None``.
        progress: show a progress bar.
        on_epoch: called after every epoch with its record and the model in eval mode.
        checkpointing: save the state after every epoch, and resume from it.
        unlabelled: yields inputs, or pairs that begin with them, of clean samples without labels;
            every step takes a batch, and begins again where they end. The suspect's outputs on them
            are learned by ``config.distillation``.

    Returns:
        The repaired copy (on ``device``), its history, the configuration and the seconds.

    Raises:
        ValueError: NaN or inf in the weights, the data (names the batch) or the loss; a loader
            that yields nothing; labels out of range; nothing to track; a configuration that
            needs held-out samples without any; a state to resume that is missing, damaged or of
            another repair.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> images, labels = torch.rand(16, 1, 2, 2), torch.arange(16) % 2
        >>> config = D3Config(epochs=2, backend="reference")
        >>> result = detoxify(model, [(images, labels)], config, progress=False)
        >>> len(result.history), result.history[-1].distance > 0
        (2, True)
    """
    config = config or D3Config()
    if config.needs_held_out and val_loader is None:
        raise ValueError(
            "dual_step, patience and max_acc_drop decide on held-out data: val_loader is missing"
        )
    config.check_base_used()
    if unlabelled is not None and not config.distillation:
        raise ValueError("unlabelled samples need distillation > 0, got 0")
    where = resolve_device(device, model)
    check_weights(model)

    def attempt(chosen: D3Config, saved: Checkpointing | None) -> DetoxResult:
        repaired = copy.deepcopy(model).to(where)
        if chosen.channels_last:
            repaired.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        repair = _Repair(
            copy.deepcopy(model).to(where).eval().requires_grad_(False),
            repaired,
            clean_loader,
            val_loader,
            chosen,
            where,
            progress,
            on_epoch,
            Journal(saved, model, chosen, where),
            None if unlabelled is None else endless_inputs(unlabelled, "unlabelled"),
        )
        return repair.run()

    if config.restart not in SEARCHES:
        return attempt(config, checkpointing)
    started = time.perf_counter()
    assert val_loader is not None  # a search needs a limit, and a limit held-out samples
    before = evaluate(model, val_loader, None, name="val_loader")
    finest = resolved_limit(0.0, before.correct, before.images)
    result = deepest_within(model, config, attempt, checkpointing, finest)
    return replace(result, seconds=time.perf_counter() - started)


@dataclass
class _Repair:
    """State of one running repair."""

    suspect: nn.Module
    model: nn.Module
    clean_loader: Iterable[Any]
    val_loader: Iterable[Any] | None
    config: D3Config
    device: torch.device
    show: bool
    on_epoch: OnEpoch | None
    journal: Journal
    unlabelled: Iterator[Tensor] | None = None
    progress: Progress = field(default_factory=Progress)

    def run(self) -> DetoxResult:
        """Run both phases."""
        started, config = time.perf_counter(), self.config
        found = self.journal.found
        gradients = plain_gradients
        if config.distillation:
            gradients = distilled(self.suspect, config.distillation, self.unlabelled)
        # For dropout, and for loaders that shuffle by the global generator.
        with global_seed(config.seed, "training", self.device):
            if found is None or found["phase"] == "push":
                self._push(gradients)
            lost = self._recover()
        if config.channels_last:
            self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        synchronize(self.device)
        seconds = self.progress.seconds + time.perf_counter() - started
        pushed = len(self.progress.clean_weights)
        return DetoxResult(
            self.model,
            self.progress.history,
            config,
            seconds,
            tuple(self.progress.clean_weights),
            pushed,
            lost,
            "settled" if pushed < config.epochs else "epochs",
        )

    def _push(self, gradients: Gradients) -> None:
        config = self.config
        optimizer = make_optimizer(self.model, config)
        move_to_start(self.model, optimizer, config)
        loss = CleanLoss(config.epsilon, config.weights()[0], config.reduction)
        average = Average(self.model, first_averaged(config))
        parts: dict[str, HasState] = {
            "model": self.model,
            "optimizer": optimizer,
            "average": average,
        }
        ramp = None
        if config.distance_schedule != "constant":
            ramp = parts["ramp"] = DistanceSchedule(
                optimizer,
                "distance_weight",
                config.distance_schedule,
                start=0.0,
                steps=max(1, config.epochs // 2),
            )
        multiplier = None
        if config.dual_step:
            multiplier = parts["multiplier"] = Multiplier(
                config, loss, optimizer, self._bound(), ramp
            )

        def after_epoch(epoch: Epoch, model: nn.Module) -> None:
            if multiplier is not None and self.val_loader is not None:
                multiplier.update(mean_loss(model, self.val_loader, self.device))
            if ramp is not None:
                ramp.step()
            average.add(epoch.epoch)
            value = config.clean_weight if multiplier is None else multiplier.value
            self.progress.clean_weights.append(value)

        self._fit(
            "push",
            parts,
            optimizer,
            loss,
            gradients,
            after_epoch,
            epochs=config.epochs,
            schedule=config.schedule,
            stop=partial(has_settled, config=config),
        )
        average.write(optimizer)

    def _bound(self) -> float:
        """Return the bound of dual ascent, in nats."""
        if self.config.margin is None or self.val_loader is None:
            return self.config.epsilon
        return mean_loss(self.suspect, self.val_loader, self.device) + self.config.margin

    def _fit(
        self,
        phase: str,
        parts: dict[str, HasState],
        optimizer: D3Optimizer,
        loss: nn.Module,
        gradients: Gradients,
        after_epoch: OnEpoch,
        *,
        epochs: int,
        schedule: str,
        stop: Callable[..., bool] | None = None,
    ) -> None:
        """Run the epochs of one phase, from a saved state where there is one."""
        if self.config.batch_norm == "frozen":
            gradients = with_frozen_norms(gradients)
        scheduler = lr_schedule(optimizer, schedule, epochs)
        if scheduler is not None:
            parts["lr"] = scheduler
        self.journal.restore(phase, parts, self.progress)
        pushed = len(self.progress.clean_weights) if phase == "recovery" else 0

        def each(epoch: Epoch, model: nn.Module) -> None:
            self.progress.history += (epoch,)
            after_epoch(epoch, model)
            if self.on_epoch is not None:
                self.on_epoch(epoch, model)
            self.journal.write(phase, parts, self.progress)

        fit(
            self.model,
            self.clean_loader,
            loss,
            optimizer,
            epochs=pushed + epochs,
            device=self.device,
            scheduler=scheduler,
            val_loader=self.val_loader,
            distance=optimizer.total_distance,
            on_epoch=each,
            title="repairing with D3" if phase == "push" else "recovering accuracy",
            progress=self.show,
            precision=self.config.precision,
            gradients=gradients,
            max_grad_norm=self.config.max_grad_norm,
            done=self.progress.history,
            stop=stop,
        )
        self.model.eval()  # also where no epoch was left to run

    def _lost(self, model: nn.Module) -> float:
        """Return how many points of held-out accuracy a model is below the suspect."""
        assert self.val_loader is not None
        accuracies = [
            evaluate(one, self.val_loader, None, self.device, name="val_loader").acc
            for one in (self.suspect, model)
        ]
        return 100 * (accuracies[0] - accuracies[1])

    def _recover(self) -> float | None:
        """Run a recovery where the limit was passed; return the points lost at the end."""
        limit = self.config.max_acc_drop
        if limit is None:
            return None
        pushed = copy.deepcopy(self.model).eval().requires_grad_(False)
        if self.journal.found is None:  # otherwise a recovery is to be resumed
            lost = self._lost(pushed)
            if lost <= limit or not self.config.recovery:
                return lost
        optimizer = self._floored_optimizer()
        parts: dict[str, HasState] = {"model": self.model, "optimizer": optimizer, "pushed": pushed}
        # A hinge at 0 is the cross-entropy itself.
        loss = CleanLoss(epsilon=0.0, weight=1.0)
        share = max(_DISTILLATION, self.config.distillation)
        gradients = distilled(pushed, share, self.unlabelled)
        self._fit(
            "recovery",
            parts,
            optimizer,
            loss,
            gradients,
            lambda *_: None,
            epochs=self.config.recovery,
            schedule="cosine",
        )
        before, after = self._lost(pushed), self._lost(self.model)
        if after < before:
            return after
        self.model.load_state_dict(pushed.state_dict())
        return before

    def _floored_optimizer(self) -> D3Optimizer:
        """Return an optimizer without a push that keeps every tracked tensor nearly as far away."""
        tracked, *others = param_groups(self.model, track=self.config.track)
        start = dict(self.suspect.named_parameters())
        floors = []
        for name, param in zip(tracked["param_names"], tracked["params"], strict=True):
            far = torch.linalg.vector_norm(
                param.detach() - start[name].detach(), dtype=torch.float64
            )
            floors.append(
                {
                    "params": [param],
                    "param_names": [name],
                    "reference": [start[name]],
                    "track": "all",
                    "constraint": "distance_floor",
                    "radius": _KEPT_DISTANCE * float(far),
                    "radius_unit": "absolute",
                }
            )
        config = self.config
        return new_optimizer(
            [*floors, *others],
            config,
            lr=config.lr / 2,
            weight_decay=config.weight_decay,
            distance_weight=0.0,
            constraint=None,
            backend=config.backend,
        )

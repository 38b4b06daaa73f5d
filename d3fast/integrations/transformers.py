# SPDX-License-Identifier: Apache-2.0
"""D3 in a ``transformers`` trainer: ``D3Callback``. What it does stands in ``common.py``.

The ``Trainer`` is given a ``D3FusedSGD`` and ``compute_loss_func=loss_func(CleanLoss())``; see
docs/integrations.md.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from d3fast.integrations.common import Repair, RepairOptions, find_optimizer
from d3fast.loss import CleanLoss

try:
    from transformers import (
        EvalPrediction,
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "transformers":
        raise
    raise ImportError(
        "d3fast.integrations.transformers needs transformers: pip install 'd3fast[transformers]'"
    ) from None

_KEY = "d3fast"  # under TrainerState.stateful_callbacks, which checkpoints keep


def loss_func(loss: CleanLoss) -> Callable[..., Tensor]:
    """A ``CleanLoss`` as ``Trainer(compute_loss_func=...)`` wants it.

    Over accumulated batches the per-sample losses are averaged over all samples.

    Args:
        loss: on the ``logits`` that the model answers with.
    """

    def compute(
        outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        value: Tensor = loss(_logits(outputs), labels)
        if num_items_in_batch is None:
            return value
        return value * (len(labels) / num_items_in_batch)

    return compute


def _logits(outputs: Any) -> Tensor:
    return outputs["logits"] if isinstance(outputs, dict) else outputs[0]


def clean_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """``Trainer(compute_metrics=...)``: ``accuracy`` in [0, 1], ``cross_entropy`` in nats."""
    given = prediction.predictions
    logits = torch.as_tensor(given[0] if isinstance(given, tuple) else given).double()
    labels = torch.as_tensor(prediction.label_ids).long()
    hits = (logits.argmax(dim=1) == labels).double().mean()
    return {"accuracy": float(hits), "cross_entropy": float(cross_entropy(logits, labels))}


class D3Callback(TrainerCallback):
    """Repairs the model that a ``Trainer`` trains: ``trainer.add_callback(D3Callback(trainer))``.

    Before the first step the tracked weights get their warm start; a resumed training goes on
    where it was, from the trainer's own ``trainer_state.json``, whatever
    ``restore_callback_states_from_checkpoint`` says. The distances are logged after every epoch
    as ``d3/distance`` and ``d3/distance/<parameter>``. With ``max_acc_drop`` the suspect is
    evaluated before the first step, which gives its own accuracy.

    Args:
        trainer: the trainer, for its log.
        loss: the ``CleanLoss`` whose weight is lambda; needed for dual ascent.
        options: of ``RepairOptions``; ``val_loss`` and ``val_acc`` are by default what
            ``clean_metrics`` gives.

    Raises:
        ValueError: an option out of range; when training starts, an optimizer that is no
            ``D3FusedSGD``, or dual ascent or ``max_acc_drop`` without evaluation.
    """

    def __init__(self, trainer: Trainer, loss: CleanLoss | None = None, **options: Any) -> None:
        names = {"val_loss": "eval_cross_entropy", "val_acc": "eval_accuracy"}
        self.repair = Repair(RepairOptions(**{**names, **options}))
        self.trainer = trainer
        self._loss = loss
        self._training = False
        self._owes_save = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse what cannot work, and take up a checkpoint's state."""
        find_optimizer(kwargs["optimizer"])
        if self.repair.options.validates and args.eval_strategy == "no":
            raise ValueError("dual_step and max_acc_drop need eval_strategy='epoch' or 'steps'")
        if state.global_step > 0 and _KEY in state.stateful_callbacks:
            self.repair.load_state_dict(state.stateful_callbacks[_KEY])
        elif self.repair.needs_suspect:
            args.eval_on_start = True

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the warm start or go on, and move the schedule."""
        self.repair.begin(kwargs["optimizer"], self._loss)
        self._training = True
        self.repair.begin_epoch(int(state.epoch or 0))
        self._keep(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put a checkpoint that is due at an epoch's last step off until the epoch is validated.

        A training resumed from it starts the next epoch and never makes up for the validation.
        """
        if control.should_save and state.epoch == int(state.epoch or 0):
            control.should_save, self._owes_save = False, True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the distances."""
        self.trainer.log({name: float(value) for name, value in self.repair.readings().items()})
        if self._owes_save:
            control.should_save, self._owes_save = True, False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the suspect, or take a step of dual ascent and mind the accuracy."""
        metrics = kwargs["metrics"]
        if self._training:
            if self.repair.validated(metrics):
                control.should_training_stop = True
            self._keep(state)
        elif self.repair.needs_suspect:
            self.repair.measure_suspect(metrics)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave later evaluations alone."""
        self._training = False

    def _keep(self, state: TrainerState) -> None:
        state.stateful_callbacks[_KEY] = self.repair.state_dict()

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
from d3fast.training.loss import IGNORED, CleanLoss, next_tokens

try:
    from transformers import (
        EvalPrediction,
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
    from transformers.utils import ModelOutput
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "transformers":
        raise
    raise ImportError(
        "d3fast.integrations.transformers needs transformers: pip install 'd3fast[transformers]'"
    ) from None

_KEY = "d3fast"  # under TrainerState.stateful_callbacks, which checkpoints keep


def loss_func(
    loss: CleanLoss, shift: bool | None = None, plus: Callable[[], Tensor] | None = None
) -> Callable[..., Tensor]:
    """A ``CleanLoss`` as ``Trainer(compute_loss_func=...)`` wants it.

    Labels (N,) are classes of logits (N, C). Labels (B, T) are classes of tokens, of logits
    (B, T, C): every token is a sample, and -100 is left out. Over accumulated batches the losses
    are averaged over all samples.

    Args:
        loss: on the ``logits`` that the model answers with.
        shift: whether the answer at a token is held against the next one
            (``d3fast.training.loss.next_tokens``); by default where the model answers with one of
            transformers' outputs of causal language models.
        plus: a term to add, once per step however many batches are accumulated:
            ``d3fast.integrations.peft.MergedDistance``.

    Raises:
        ValueError: (when called) labels that are missing or no class indices; token labels
            for a model that answers with a tuple or a plain dict, without ``shift``.
    """

    def compute(
        outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if labels is None or labels.is_floating_point():
            got = "none" if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
            raise ValueError(f"labels must be class indices, got {got}")
        if logits.ndim == 3:
            next_ones = _is_causal(outputs) if shift is None else shift
            logits, labels = _tokens(logits, labels, next_ones)
        value: Tensor = loss(logits, labels)
        if plus is not None:
            value = value + plus().to(value.device)
        if num_items_in_batch is None:
            return value
        return value * ((labels != IGNORED).sum() / num_items_in_batch)

    return compute


def _is_causal(outputs: Any) -> bool:
    if not isinstance(outputs, ModelOutput):
        raise ValueError(
            f"a model with logits per token answers with {type(outputs).__name__}; "
            "loss_func(shift=True) holds an answer against the next token, shift=False against "
            "its own"
        )
    return "CausalLM" in type(outputs).__name__


def _tokens(logits: Tensor, labels: Tensor, shift: bool) -> tuple[Tensor, Tensor]:
    return next_tokens(logits, labels) if shift else (logits.flatten(0, 1), labels.flatten())


def clean_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """``Trainer(compute_metrics=...)``: ``accuracy`` in [0, 1], ``cross_entropy`` in nats.

    Of logits (N, C) and labels (N,), or (B, T, C) and (B, T), whose labels of -100 are left out.
    """
    return _metrics(prediction, shift=False)


def next_token_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """``clean_metrics`` for causal language models, of next tokens; logits (B, T, C).

    The ``Trainer`` holds all logits of the evaluation in memory meanwhile.
    """
    return _metrics(prediction, shift=True)


def _metrics(prediction: EvalPrediction, shift: bool) -> dict[str, float]:
    given = prediction.predictions
    logits = torch.as_tensor(given[0] if isinstance(given, tuple) else given)
    labels = torch.as_tensor(prediction.label_ids).long()
    if logits.ndim == 3:
        logits, labels = _tokens(logits, labels, shift)
    kept = labels != IGNORED
    logits, labels = logits[kept].double(), labels[kept]
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
            ``clean_metrics`` and ``next_token_metrics`` give.

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

# SPDX-License-Identifier: Apache-2.0
"""D3 in a ``transformers`` trainer: ``D3Callback``, a thin layer over ``common.Repair``.

The ``Trainer`` is given a ``D3FusedSGD`` or a ``D3FusedAdamW`` and
``compute_loss_func=loss_func(CleanLoss())``; see docs/integrations.md.
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

_KEY = "d3fast"  # in TrainerState.stateful_callbacks, which checkpoints save


def loss_func(
    loss: CleanLoss, shift: bool | None = None, plus: Callable[[], Tensor] | None = None
) -> Callable[..., Tensor]:
    """Return a ``CleanLoss`` in the form of ``Trainer(compute_loss_func=...)``.

    Labels (N,) are classes of logits (N, C). Labels (B, T) are classes of tokens, of logits
    (B, T, C): every token is a sample, and -100 is ignored. Over accumulated batches the losses
    are averaged over all samples.

    Args:
        loss: loss of the model's ``logits``.
        shift: compare the logits of a token with the next token
            (``d3fast.training.loss.next_tokens``); by default, where the model returns one of
            transformers' outputs of causal language models.
        plus: a term that is added once per step, for any number of accumulated batches:
            ``d3fast.integrations.peft.MergedDistance``.

    Raises:
        ValueError: (when called) labels that are missing or no class indices; token labels
            for a model that returns a tuple or a plain dict, without ``shift``.
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
            f"a model with logits per token returns {type(outputs).__name__}; "
            "loss_func(shift=True) compares them with the next token, shift=False with the same"
        )
    return "CausalLM" in type(outputs).__name__


def _tokens(logits: Tensor, labels: Tensor, shift: bool) -> tuple[Tensor, Tensor]:
    return next_tokens(logits, labels) if shift else (logits.flatten(0, 1), labels.flatten())


def clean_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return ``accuracy`` in [0, 1] and ``cross_entropy`` in nats, for ``compute_metrics=``.

    Logits are (N, C) and labels (N,), or (B, T, C) and (B, T); labels of -100 are ignored.
    """
    return _metrics(prediction, shift=False)


def next_token_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return ``clean_metrics`` of the next tokens, for causal language models; logits (B, T, C).

    The ``Trainer`` holds all logits of the evaluation in memory.
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
    """Callback that repairs the model of a ``Trainer``.

    Add it by ``trainer.add_callback(D3Callback(trainer))``. The warm start is taken before the
    first step; a resumed training takes none and restores its state from the trainer's
    ``trainer_state.json``, whatever ``restore_callback_states_from_checkpoint`` is. The distances
    are logged after every epoch as ``d3/distance`` and ``d3/distance/<parameter>``. With
    ``max_acc_drop`` the suspect is evaluated before the first step, which gives its accuracy.

    Args:
        trainer: the trainer, for its log.
        loss: the ``CleanLoss`` whose weight is lambda; needed for dual ascent.
        options: options of ``RepairOptions``; ``val_loss`` and ``val_acc`` are by default the names
            that ``clean_metrics`` and ``next_token_metrics`` return.

    Raises:
        ValueError: an option out of range; when training starts, an optimizer that is no D3
            optimizer, or dual ascent or ``max_acc_drop`` without evaluation.
    """

    def __init__(self, trainer: Trainer, loss: CleanLoss | None = None, **options: Any) -> None:
        names = {"val_loss": "eval_cross_entropy", "val_acc": "eval_accuracy"}
        self.repair = Repair(RepairOptions(**{**names, **options}))
        self.trainer = trainer
        self._loss = loss
        self._training = False
        self._delayed_save = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise for settings that cannot work, and load a checkpoint's state."""
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
        """Take the warm start or resume, and step the schedule."""
        self.repair.begin(kwargs["optimizer"], self._loss)
        self._training = True
        self.repair.begin_epoch(int(state.epoch or 0))
        self._save(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Delay a checkpoint that is due at an epoch's last step until the epoch is validated.

        A training resumed from it starts with the next epoch and does not repeat the validation.
        """
        if control.should_save and state.epoch == int(state.epoch or 0):
            control.should_save, self._delayed_save = False, True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the distances."""
        self.trainer.log({name: float(value) for name, value in self.repair.readings().items()})
        if self._delayed_save:
            control.should_save, self._delayed_save = True, False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the suspect, or take a step of dual ascent and check the accuracy limit."""
        metrics = kwargs["metrics"]
        if self._training:
            if self.repair.validated(metrics):
                control.should_training_stop = True
            self._save(state)
        elif self.repair.needs_suspect:
            self.repair.measure_suspect(metrics)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ignore later evaluations."""
        self._training = False

    def _save(self, state: TrainerState) -> None:
        state.stateful_callbacks[_KEY] = self.repair.state_dict()

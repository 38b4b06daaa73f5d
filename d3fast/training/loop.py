# SPDX-License-Identifier: Apache-2.0
"""The one training loop, ``fit``: attacks, fine-tuning and D3 run their epochs through it.

A step queues work and never waits for the device. Statistics of the batches (loss, correct
answers, NaNs, label range) stay on the device and are read once at the end of an epoch; bad data
is then reported with the number of its batch.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from d3fast.runtime.progress import progress_bar
from d3fast.training.loaders import class_scores, unpack, yields_nothing
from d3fast.training.metrics import evaluate


@dataclass(frozen=True)
class Epoch:
    """The record of one epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        loss: mean training loss of the epoch's samples, each before its own step.
        accuracy: accuracy on the same samples, each before its own step.
        lr: learning rate of the first param group during the epoch.
        distance: distance of the tracked weights from their reference after the epoch; ``None``
            if nothing is tracked.
        val_accuracy: accuracy on held-out clean data after the epoch; ``None`` without such data.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float
    distance: float | None = None
    val_accuracy: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a dictionary for JSON."""
        return asdict(self)


Loss = Callable[[Tensor, Tensor], Tensor]
# (model, images, labels, loss) -> (logits, labels, value): leaves the gradients of one step in
# ``.grad``, which is empty before. The labels returned are those that ``value`` was computed with.
Gradients = Callable[[nn.Module, Tensor, Tensor, Loss], tuple[Tensor, Tensor, Tensor]]

PRECISIONS = ("fp32", "bf16")

# Statistics of one batch: a float64 vector on the device.
_FIELDS = ("samples", "loss_sum", "hits", "bad_inputs", "label_min", "label_max", "bad_loss")


def _report(inputs: Tensor, labels: Tensor, logits: Tensor, loss: Tensor) -> Tensor:
    low, high = labels.aminmax()
    parts = (
        torch.full_like(low, len(labels)),
        loss * len(labels),
        (logits.argmax(dim=1) == labels).sum(),
        ~inputs.isfinite().all(),
        low,
        high,
        ~loss.isfinite(),
    )
    return torch.stack([part.detach().to(torch.float64) for part in parts])


def _check(reports: Tensor, name: str, epoch: int, classes: int, lr: float) -> None:
    columns = dict(zip(_FIELDS, reports.unbind(dim=1), strict=True))
    wrong_labels = (columns["label_min"] < 0) | (columns["label_max"] >= classes)
    for batch in range(len(reports)):
        where = f"in batch {batch + 1} of epoch {epoch}"
        if columns["bad_inputs"][batch]:
            raise ValueError(f"{name} holds NaN or inf {where}")
        if wrong_labels[batch]:
            low = int(columns["label_min"][batch])
            label = low if low < 0 else int(columns["label_max"][batch])
            raise ValueError(
                f"{name} holds label {label} {where}, the model has classes 0..{classes - 1}"
            )
        if columns["bad_loss"][batch]:
            raise ValueError(f"the loss on {name} became NaN or inf {where}; lower lr={lr:g}")


def check_weights(model: nn.Module, when: str = "") -> None:
    """Raise ``ValueError`` if a parameter or buffer of the model holds NaN or inf.

    Args:
        model: any module.
        when: end of the error message.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"the model's {name} holds NaN or inf {when}".rstrip())


@torch.no_grad()
def mean_loss(model: nn.Module, loader: Iterable[Any], device: torch.device) -> float:
    """Return the mean cross-entropy of a model, in its present mode, over a loader's samples.

    Args:
        model: returns (N, classes) scores; on ``device`` already.
        loader: yields (inputs, labels).
        device: device that batches are moved to.

    Raises:
        ValueError: the loader yields nothing.
    """
    parts = []
    for batch in loader:
        inputs, labels = unpack(batch, "val_loader", device)
        total = cross_entropy(class_scores(model, inputs), labels, reduction="sum")
        parts.append(torch.stack([total.double(), total.new_tensor(len(labels)).double()]))
    if not parts:
        raise yields_nothing("val_loader")
    total, count = torch.stack(parts).sum(dim=0).tolist()
    return float(total / count)


class _Autocast(nn.Module):
    """A model whose forward pass runs under bf16 autocast and returns float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            scores = class_scores(self.model, inputs)
        return scores.float()


def plain_gradients(
    model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of the loss; the default ``Gradients``."""
    logits = class_scores(model, inputs)
    # A label out of range would abort a CUDA process: clamp it here, report it later.
    value = loss(logits, labels.clamp(0, logits.shape[1] - 1))
    value.backward()  # type: ignore[no-untyped-call]
    return logits, labels, value


def _train_epoch(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Loss,
    optimizer: Optimizer,
    device: torch.device,
    name: str,
    gradients: Gradients,
    max_grad_norm: float | None,
) -> tuple[Tensor, int]:
    reports, classes = [], 0
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for batch in loader:
        inputs, labels = unpack(batch, name, device)
        if len(labels) == 0:
            continue
        optimizer.zero_grad(set_to_none=True)
        logits, used_labels, value = gradients(model, inputs, labels, loss)
        classes = logits.shape[1]
        if max_grad_norm is not None:
            clip_grad_norm_(params, max_grad_norm)
        optimizer.step()
        reports.append(_report(inputs, used_labels, logits, value))
    if not reports:
        raise yields_nothing(name)
    return torch.stack(reports).cpu(), classes


@torch.enable_grad()
def fit(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Loss,
    optimizer: Optimizer,
    *,
    epochs: int,
    device: torch.device,
    scheduler: LRScheduler | None = None,
    val_loader: Iterable[Any] | None = None,
    distance: Callable[[], Tensor] | None = None,
    on_epoch: Callable[[Epoch, nn.Module], None] | None = None,
    name: str = "clean_loader",
    title: str = "training",
    progress: bool = True,
    precision: str = "fp32",
    gradients: Gradients = plain_gradients,
    max_grad_norm: float | None = None,
    done: Sequence[Epoch] = (),
    stop: Callable[[Sequence[Epoch]], bool] | None = None,
) -> tuple[Epoch, ...]:
    """Train a model in place, with batch norm in train mode, and leave it in eval mode.

    Args:
        model: returns (N, classes) scores; on ``device`` already.
        loader: yields (inputs, labels) in every epoch.
        loss: (logits, labels) -> 0-dim tensor.
        optimizer: over the model's parameters.
        epochs: number of passes over the loader, including those already ``done``.
        device: device that batches are moved to.
        scheduler: stepped after every epoch.
        val_loader: held-out clean data, evaluated after every epoch for the record.
        distance: returns the distance from the reference; called after every epoch.
        on_epoch: called after every epoch with its record and the model in eval mode.
        name: the loader's name in error messages.
        title: label of the progress bar.
        progress: show a progress bar.
        precision: ``"fp32"``: in the model's own dtype; ``"bf16"``: forward pass under autocast,
            with weights, loss and step unchanged.
        gradients: computes the gradients of a batch; see ``Gradients``.
        max_grad_norm: limit on the Euclidean norm of all gradients together, without an
            optimizer's own push.
        done: records of the epochs before this call, when a run is resumed.
        stop: called before every epoch with the records so far; ``True`` ends the training.

    Returns:
        One record per epoch, those ``done`` first.

    Raises:
        ValueError: a loader that yields nothing, or batches other than (inputs, labels); NaN or
            inf in the data or the loss; labels out of range. Data errors are raised at the end of
            the epoch, so that no step waits for the device.
    """
    history = list(done)
    cast = _Autocast(model) if precision == "bf16" else model
    with progress_bar(title, epochs, progress, done=len(done)) as advance:
        for epoch in range(len(done) + 1, epochs + 1):
            if stop is not None and stop(history):
                break
            lr = float(optimizer.param_groups[0]["lr"])
            model.train()
            reports, classes = _train_epoch(
                cast, loader, loss, optimizer, device, name, gradients, max_grad_norm
            )
            model.eval()
            _check(reports, name, epoch, classes, lr)
            if scheduler is not None:
                scheduler.step()
            samples, loss_sum, hits = reports[:, :3].sum(dim=0).tolist()
            travelled = float(distance()) if distance is not None else None
            if travelled is not None and not math.isfinite(travelled):
                raise ValueError(
                    f"the distance became {travelled} in epoch {epoch}; lower lr={lr:g}"
                )
            held_out = None
            if val_loader is not None:
                held_out = evaluate(model, val_loader, None, device, name="val_loader").acc
            record = Epoch(epoch, loss_sum / samples, hits / samples, lr, travelled, held_out)
            history.append(record)
            if on_epoch is not None:
                on_epoch(record, model)
            advance("")
    # Each loss precedes its step, so damage by the last step shows in the weights only.
    check_weights(model, "after training; lower lr")
    optimizer.zero_grad(set_to_none=True)
    return tuple(history)

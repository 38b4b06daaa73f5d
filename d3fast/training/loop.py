# SPDX-License-Identifier: Apache-2.0
"""The one training loop: attacks, plain fine-tuning and D3 all run their epochs through it.

A step queues work and never waits for the device. What an epoch's batches had to say (loss, hits,
NaNs, label range) is gathered there and read once when the epoch ends; bad data is then reported
with the number of the batch it came in.
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
    """What happened in one epoch.

    Attributes:
        epoch: counted from 1.
        loss: mean training loss of the epoch's samples, as they came.
        accuracy: share of them that was answered correctly, before the step each took part in.
        lr: learning rate of the first param group during the epoch.
        distance: distance of the tracked weights from their start after the epoch; ``None``
            where nothing is tracked.
        val_accuracy: accuracy on held-out clean data after the epoch; ``None`` without such data.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float
    distance: float | None = None
    val_accuracy: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


Loss = Callable[[Tensor, Tensor], Tensor]
# (model, images, labels, loss) to (logits, labels, value): leaves the gradients of one step in
# ``.grad``, which is empty before. The labels are those that the logits were held against.
Gradients = Callable[[nn.Module, Tensor, Tensor, Loss], tuple[Tensor, Tensor, Tensor]]

PRECISIONS = ("fp32", "bf16")

# What one batch reports, as one float64 vector on the device.
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
        when: what the message ends with.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"the model's {name} holds NaN or inf {when}".rstrip())


@torch.no_grad()
def mean_loss(model: nn.Module, loader: Iterable[Any], device: torch.device) -> float:
    """Mean cross-entropy of a model, in the mode it is in, over the samples of a loader.

    Args:
        model: gives (N, classes) scores; on ``device`` already.
        loader: yields (inputs, labels).
        device: where batches are moved to.

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
    """A model whose forward pass runs under bf16 autocast and answers in float32."""

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
    """The gradients of the loss itself, a ``Gradients``."""
    logits = class_scores(model, inputs)
    # A label out of range would end a CUDA process; it is clamped here and reported later.
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
        logits, held_against, value = gradients(model, inputs, labels, loss)
        classes = logits.shape[1]
        if max_grad_norm is not None:
            clip_grad_norm_(params, max_grad_norm)
        optimizer.step()
        reports.append(_report(inputs, held_against, logits, value))
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
    """Train a model in place, batch norm in train mode, and leave it in eval mode.

    Args:
        model: gives (N, classes) scores; on ``device`` already.
        loader: yields (inputs, labels), afresh in every epoch.
        loss: (logits, labels) to a 0-dim tensor.
        optimizer: over the model's parameters.
        epochs: number of passes over the loader, those already ``done`` included.
        device: where batches are moved to.
        scheduler: stepped after every epoch.
        val_loader: held-out clean data, looked at after every epoch for the record.
        distance: asked after every epoch for the distance travelled.
        on_epoch: called after every epoch with its record and the model in eval mode.
        name: what error messages call the loader.
        title: what the progress bar says.
        progress: show a progress bar.
        precision: ``"fp32"``: in the model's own dtype; ``"bf16"``: forward pass under autocast,
            weights, loss and step as they are.
        gradients: how the gradients of a batch are computed, for those who want more than the
            loss's own; see ``Gradients``.
        max_grad_norm: Euclidean norm that all gradients together are scaled down to where they
            are larger; an optimizer's own push is no gradient.
        done: records of epochs before this call, in a run that goes on.
        stop: asked before every epoch, with the records so far, whether to leave it at that.

    Returns:
        One record per epoch, those ``done`` first.

    Raises:
        ValueError: the loader yields nothing or something else than (inputs, labels); NaN or
            inf in the data or the loss; labels out of range. Data errors are raised when the
            epoch ends, so that no step waits for the device.
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
    # Losses are taken before their step: what the very last step did shows in the weights alone.
    check_weights(model, "after training; lower lr")
    optimizer.zero_grad(set_to_none=True)
    return tuple(history)

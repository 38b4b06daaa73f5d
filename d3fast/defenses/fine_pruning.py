# SPDX-License-Identifier: Apache-2.0
"""FinePruning: prune the channels that clean samples do not activate, then fine-tune.

    a_c = mean over clean samples and positions of |h_c|,   h the head's input
    prune the k channels of smallest a_c, k as large as ACC(k) >= ACC(0) - max_acc_drop allows

A backdoor uses channels that are inactive on clean samples. Pruning zeroes the rows of the layers
that write these channels (``d3fast.defenses.channels``), not the head's columns, so the channels
stay pruned when the head is re-initialised (``Pipeline(FinePruning(), D3())``). Behind a ReLU they
get no gradient and stay zero; elsewhere later training may reactivate them.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.defenses.channels import channel_rows, fill, filled, find_writers, head_inputs
from d3fast.optim import find_head
from d3fast.runtime.checks import check_number
from d3fast.runtime.progress import progress_bar
from d3fast.training.loaders import unpack, yields_nothing
from d3fast.training.loop import Epoch
from d3fast.training.metrics import evaluate

_log = logging.getLogger("d3fast")


@dataclass(frozen=True)
class FinePruning:
    """Prune the least active inputs of the head while held-out accuracy holds, then fine-tune.

    Activity is the mean absolute value of the head's input over ``clean_train``, in eval mode;
    behind a ReLU, as in the paper, it is the mean activation. Channels are pruned in steps, least
    active first, and at least one is kept. The first step that costs more accuracy on
    ``clean_val`` than allowed is undone and ends the pruning. The number of pruned channels is
    logged by ``logging.getLogger("d3fast")`` at level INFO.

    A channel is pruned in the last layer that writes it (batch norm rather than the convolution in
    front of it), by zeroing rows of weight and bias. If several layers write a residual stream, the
    row is zeroed in all of them. These rows stay zero during fine-tuning.

    Args:
        epochs: passes over the clean samples after pruning; one more pass measures the activity.
        lr: initial learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        max_acc_drop: accuracy on ``clean_val`` that pruning may cost, as a fraction: 0.1 is ten
            percentage points.
        step: share of the channels pruned per step, in (0, 1]; at least one channel.
        seed: seeds torch's global generators during the repair (dropout, shuffling loaders).
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range; when called, no ``clean_val``, or no layer of the model
            writes the head's inputs channel by channel.

    Source:
        Liu, Dolan-Gavitt, Garg, *Fine-Pruning: Defending Against Backdooring Attacks on Deep
        Neural Networks*, RAID 2018, arXiv 1805.12185.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> defense = FinePruning(epochs=2, max_acc_drop=1.0)
        >>> repaired = defense(model, loader, loader, progress=False).model
        >>> int((repaired[1].weight == 0).all(dim=1).sum())
        7
    """

    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    max_acc_drop: float = 0.1
    step: float = 0.01
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        for name in ("max_acc_drop", "step"):
            value = getattr(self, name)
            check_number(name, value)
            if value > 1:
                raise ValueError(f"{name} must be <= 1, got {value!r}")
        if self.step == 0:
            raise ValueError(f"step must be > 0, got {self.step!r}")

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Prune and fine-tune a copy of the model; see ``Defense``."""
        if clean_val is None:
            raise ValueError("FinePruning chooses how much to prune on clean_val, got None")

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            repaired.eval()
            head = find_head(repaired)[1]
            first, activity = _activity(repaired, head, clean_train, device)
            rows = channel_rows(find_writers(repaired, head, first), len(activity))
            order = activity.argsort(stable=True)  # least active first
            count = _prune(repaired, rows, order, clean_val, self, device, progress=progress)
            with _kept_at_zero(rows, order[:count]):
                return tune(
                    repaired,
                    clean_train,
                    clean_val,
                    self,
                    device,
                    title="fine-tuning after pruning",
                    progress=progress,
                )

        return on_copy(model, device, work, self.seed)


@torch.no_grad()
def _activity(
    model: nn.Module, head: nn.Module, loader: Iterable[Any], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the inputs of the first batch, and the activities a_c: (channels,) float64."""
    first: Tensor | None = None
    sums, count = [], 0
    for batch in loader:
        inputs, labels = unpack(batch, "clean_loader", device)
        if len(labels) == 0:
            continue
        first = inputs if first is None else first
        features = head_inputs(model, head, inputs)
        values = features.reshape(-1, features.shape[-1]).abs()
        sums.append(values.sum(dim=0, dtype=torch.float64))
        count += len(values)
    if first is None:
        raise yields_nothing("clean_loader")
    activity = torch.stack(sums).sum(dim=0) / count
    if not bool(activity.isfinite().all()):
        raise ValueError("the head's inputs become NaN or inf on clean_loader")
    return first, activity


def _prune(
    model: nn.Module,
    rows: list[nn.Parameter],
    order: Tensor,
    clean_val: Iterable[Any],
    options: FinePruning,
    device: torch.device,
    *,
    progress: bool,
) -> int:
    """Prune channels in the given order while accuracy holds; return how many were pruned."""

    def accuracy() -> float:
        return evaluate(model, clean_val, None, device, name="val_loader").acc

    # Tolerance for rounding at the limit.
    start = accuracy()
    limit = start - options.max_acc_drop - 1e-9
    size, most = max(1, round(options.step * len(order))), len(order) - 1
    pruned = 0
    with progress_bar("pruning", -(-most // size), progress) as advance:
        for end in (min(k, most) for k in range(size, most + size, size)):
            with filled(rows, order[pruned:end], 0.0):
                holds = accuracy() >= limit
            if not holds:
                break
            fill(rows, order[pruned:end], 0.0)
            pruned = end
            advance("")
    _log.info("pruned %d of %d channels; accuracy was %.4f before", pruned, len(order), start)
    return pruned


@contextmanager
def _kept_at_zero(tensors: list[nn.Parameter], pruned: Tensor) -> Iterator[None]:
    """Zero the gradient of the rows inside the block, so that SGD leaves them at zero.

    ``torch.nn.utils.prune`` renames parameters and makes the weight a non-leaf tensor, which
    ``copy.deepcopy`` rejects: an ``on_epoch`` that keeps the best model would fail.
    """
    handles = [
        p.register_hook(lambda grad: grad.index_fill(0, pruned, 0.0))  # type: ignore[no-untyped-call]
        for p in tensors
        if p.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

# SPDX-License-Identifier: Apache-2.0
"""FinePruning: silence the channels that clean samples do not use, then fine-tune.

    a_c = mean over clean samples and positions of |h_c|,   h the head's input
    prune the k channels of smallest a_c, k as large as ACC(k) >= ACC(0) - max_acc_drop allows

A trigger is answered by channels that sleep on clean samples. What is set to zero is the rows of
the layers that write these channels, not the head's columns: a head that is initialised anew
afterwards (``Pipeline(FinePruning(), D3())``) finds the channels silent still. Behind a ReLU they
get no gradient and stay so; elsewhere, later training may wake them.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.optim import find_head
from d3fast.runtime.checks import check_number
from d3fast.runtime.progress import progress_bar
from d3fast.training.loaders import class_scores, unpack, yields_nothing
from d3fast.training.loop import Epoch
from d3fast.training.metrics import evaluate

# Of the spread that a channel had: below it, what is left of the channel is rounding.
_SILENT = 1e-5

_log = logging.getLogger("d3fast")


@dataclass(frozen=True)
class FinePruning:
    """Prune the least active inputs of the head while held-out accuracy holds, then fine-tune.

    Activity is the mean absolute value of the head's input over ``clean_train``, in eval mode;
    behind a ReLU, as in the paper, that is the mean activation itself. Channels go in steps, least
    active first, the last one never; the first step that costs ``clean_val`` more accuracy than
    allowed is taken back and ends it. How many went is logged by ``logging.getLogger("d3fast")``
    at level INFO.

    A channel is silenced in the last layer that writes it, batch norm rather than the convolution
    in front, by rows of weight and bias. Where a residual stream is written by several layers, all
    of them lose the row. A silent channel is constant, and these rows stay at zero while the rest
    is fine-tuned.

    Args:
        epochs: passes over the clean samples after the pruning; one more measures the activity.
        lr: learning rate.
        momentum: momentum.
        weight_decay: L2 penalty.
        max_acc_drop: accuracy on ``clean_val`` that pruning may cost, as a fraction: 0.1 is ten
            percentage points.
        step: share of the channels that go at a time, in (0, 1]; one channel at least.
        seed: draws dropout's masks, and the order of a loader that shuffles by torch's global
            generator.
        max_grad_norm: norm that gradients are clipped to, as is usual for transformers; ``None``
            leaves them as they are.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: a number out of range; when called, no ``clean_val``, or a model without a
            layer that writes the head's inputs channel by channel.

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
            raise ValueError(
                "FinePruning needs clean_val, held-out clean samples that say how much to prune"
            )
        held_out = clean_val

        def work(repaired: nn.Module, where: torch.device) -> tuple[Epoch, ...]:
            repaired.eval()
            head = find_head(repaired)[1]
            first, activity = _activity(repaired, head, clean_train, where)
            written = _rows_of(_writers(repaired, head, first), len(activity))
            order = activity.argsort(stable=True)  # least active first
            count = _prune(repaired, written, order, held_out, self, where, progress=progress)
            with _kept_at_zero(written, order[:count]):
                return tune(
                    repaired,
                    clean_train,
                    held_out,
                    self,
                    where,
                    title="fine-tuning what is left",
                    progress=progress,
                )

        return on_copy(model, device, work, self.seed)


def _head_inputs(model: nn.Module, head: nn.Module, inputs: Tensor) -> Tensor:
    """What the head is given for a batch: (N, ..., channels)."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        class_scores(model, inputs)
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"{head} was taken for the head, but a forward pass does not call it")
    return seen[-1] if isinstance(head, nn.Linear) else seen[-1].movedim(1, -1)


@torch.no_grad()
def _activity(
    model: nn.Module, head: nn.Module, loader: Iterable[Any], device: torch.device
) -> tuple[Tensor, Tensor]:
    """The inputs of the first batch, and a_c in float64, one number per channel."""
    first: Tensor | None = None
    sums, count = [], 0
    for batch in loader:
        inputs, labels = unpack(batch, "clean_loader", device)
        if len(labels) == 0:
            continue
        first = inputs if first is None else first
        seen = _head_inputs(model, head, inputs)
        values = seen.reshape(-1, seen.shape[-1]).abs()
        sums.append(values.sum(dim=0, dtype=torch.float64))
        count += len(values)
    if first is None:
        raise yields_nothing("clean_loader")
    activity = torch.stack(sums).sum(dim=0) / count
    if not bool(activity.isfinite().all()):
        raise ValueError("the head's inputs become NaN or inf on clean_loader")
    return first, activity


def _own_rows(module: nn.Module, channels: int) -> list[nn.Parameter]:
    """The module's own weight and bias, if the weight has a row per channel."""
    own = [module._parameters.get(name) for name in ("weight", "bias")]
    rows = [p for p in own if p is not None and p.ndim and len(p) == channels]
    return rows if rows and rows[0] is own[0] else []


def _run_before(
    model: nn.Module, head: nn.Module, inputs: Tensor, channels: int
) -> list[nn.Module]:
    """Modules with a row per channel in the order they ran in, up to the head."""
    order: list[nn.Module] = []
    candidates = [m for m in model.modules() if m is not head and _own_rows(m, channels)]
    handles = [m.register_forward_hook(lambda m, _, __: order.append(m)) for m in candidates]
    handles.append(head.register_forward_pre_hook(lambda m, _: order.append(m)))
    try:
        class_scores(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order[: order.index(head)]))


def _spread(values: Tensor) -> Tensor:
    """How far the samples are apart in each channel: (N, ..., channels) to (channels,)."""
    return (values - values[:1]).abs().flatten(0, -2).amax(dim=0)


@torch.no_grad()
def _writers(model: nn.Module, head: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """The modules that write the head's inputs channel by channel, the latest first.

    The last module with a row per channel is the one, unless a shortcut runs around it; then
    earlier ones are taken in until rows of zeros make their channels constant. Those that lie in
    between without writing the channel are left out again: with all others at zero, whatever they
    say does not arrive. Channels are tried by halves: were all silenced at once, the layers along
    a shortcut would have nothing left to write.
    """
    spread = _spread(_head_inputs(model, head, inputs))
    channels, limit = len(spread), _SILENT * float(spread.max())
    if limit == 0:
        raise ValueError(
            "FinePruning needs a first batch of clean_train on which the head's inputs differ"
        )
    every = torch.arange(channels, device=inputs.device)
    halves = [half for half in (every[::2], every[1::2]) if len(half)]

    def seen(silenced: list[nn.Module], half: Tensor) -> Tensor:
        with _filled(_rows_of(silenced, channels), half, 0.0):
            return _head_inputs(model, head, inputs)[..., half]

    def silent(modules: list[nn.Module]) -> bool:
        return all(float(_spread(seen(modules, half)).max()) <= limit for half in halves)

    def arrives(module: nn.Module, half: Tensor, value: float) -> bool:
        others = [m for m in chosen if m is not module]
        with _filled(_own_rows(module, channels), half, value):
            return not torch.allclose(seen(others, half), seen(chosen, half))

    chosen: list[nn.Module] = []
    for module in reversed(_run_before(model, head, inputs, channels)):
        chosen.append(module)
        if silent(chosen):
            # Of both signs, for a ReLU lets one of them through.
            tries = [(half, value) for half in halves for value in (1.0, -1.0)]
            writers = [m for m in chosen if any(arrives(m, *each) for each in tries)]
            if silent(writers):
                return writers
    raise ValueError(
        f"FinePruning needs a layer that writes the {channels} inputs of the head one by one "
        f"(a norm, linear layer or convolution in front of it); {type(model).__name__} has none"
    )


def _rows_of(modules: list[nn.Module], channels: int) -> list[nn.Parameter]:
    return [p for module in modules for p in _own_rows(module, channels)]


@torch.no_grad()
def _fill(tensors: list[nn.Parameter], rows: Tensor, value: float) -> None:
    for p in tensors:
        p.index_fill_(0, rows, value)


@contextmanager
def _filled(tensors: list[nn.Parameter], rows: Tensor, value: float) -> Iterator[None]:
    """Rows at a value inside the block alone."""
    before = [p.detach().clone() for p in tensors]
    _fill(tensors, rows, value)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(tensors, before, strict=True):
                p.copy_(old)


def _prune(
    model: nn.Module,
    written: list[nn.Parameter],
    order: Tensor,
    held_out: Iterable[Any],
    options: FinePruning,
    device: torch.device,
    *,
    progress: bool,
) -> int:
    """Prune in place as far as the held-out samples allow; how many of ``order`` went."""

    def accuracy() -> float:
        return evaluate(model, held_out, None, device, name="val_loader").acc

    # The limit is met where only rounding says that it is not.
    start = accuracy()
    limit = start - options.max_acc_drop - 1e-9
    size, most = max(1, round(options.step * len(order))), len(order) - 1
    pruned = 0
    with progress_bar("pruning", -(-most // size), progress) as advance:
        for end in (min(k, most) for k in range(size, most + size, size)):
            with _filled(written, order[pruned:end], 0.0):
                holds = accuracy() >= limit
            if not holds:
                break
            _fill(written, order[pruned:end], 0.0)
            pruned = end
            advance("")
    _log.info("pruned %d of %d channels; accuracy was %.4f before", pruned, len(order), start)
    return pruned


@contextmanager
def _kept_at_zero(tensors: list[nn.Parameter], pruned: Tensor) -> Iterator[None]:
    """Rows get no gradient inside the block: a step of SGD leaves zeros as they are.

    ``torch.nn.utils.prune`` would rename parameters meanwhile and make the weight a tensor that
    cannot be copied, so an ``on_epoch`` that keeps the best model would fail.
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

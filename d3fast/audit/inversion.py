# SPDX-License-Identifier: Apache-2.0
"""Trigger inversion: the smallest patch that makes a model predict a given class.

For a class t the search is over a mask m (1, H, W) and a pattern p (C, H, W), both in [0, 1]:

    x' = (1 - m) x + m p
    min over m, p of   mean CE(f(x'), t) + lambda ||m||_1        over clean x of other classes

A backdoor is a shortcut to its class: a much smaller mask is enough. A class whose norm is below
the median of all classes by more than twice the scaled median absolute deviation is a suspected
target (``d3fast.audit.anomaly``; Neural Cleanse: Wang et al., IEEE S&P 2019).

Both m and p are (tanh(.) + 1) / 2 of free variables, optimised by Adam. Lambda grows while the mask
succeeds and shrinks while it fails. Several classes share a forward pass and nothing else.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator
from d3fast.training.loaders import class_scores, unpack, yields_nothing
from d3fast.training.modes import frozen

_BATCH = 256


@dataclass(frozen=True)
class InversionOptions:
    """Options of a trigger inversion.

    Success is measured over rounds of ``round_steps`` steps; lambda changes between rounds. The
    cost is ``steps * batch_size`` images forward and backward per class, or less if a class stops
    early.

    Args:
        steps: optimizer steps per class.
        round_steps: steps per round.
        batch_size: images per class and step, drawn with replacement.
        lr: learning rate of Adam.
        betas: decay rates of Adam.
        success: share of images that must be predicted as the class for a mask to count.
        weight: initial lambda.
        factor: lambda grows by this factor and shrinks by its power 1.5.
        patience: rounds in a row that must succeed, or fail, before lambda changes.
        stall: a class stops after this many rounds without a smaller mask that counts.
        classes_at_once: classes in one forward pass; bounds the memory.

    Raises:
        ValueError: a number out of range.
    """

    steps: int = 500
    round_steps: int = 10
    batch_size: int = 32
    lr: float = 0.1
    betas: tuple[float, float] = (0.5, 0.9)
    success: float = 0.99
    weight: float = 1e-3
    factor: float = 1.5
    patience: int = 5
    stall: int = 25
    classes_at_once: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "round_steps", "batch_size", "patience", "stall", "classes_at_once"):
            check_integer(name, getattr(self, name), 1)
        for name in ("lr", "success", "weight"):
            check_number(name, getattr(self, name))
        check_number("factor", self.factor, 1.0)
        if self.success > 1:
            raise ValueError(f"success must be <= 1, got {self.success}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")


@dataclass(frozen=True, eq=False)
class Inversion:
    """The smallest patch found for one class.

    Attributes:
        target: the class.
        mask: (1, H, W) in [0, 1].
        pattern: (C, H, W) in [0, 1].
        norm: L1 norm of the mask, in pixels.
        success: share of the images of other classes that are predicted as the class. If no mask
            reaches ``InversionOptions.success``, this is the mask that came closest.
    """

    target: int
    mask: Tensor
    pattern: Tensor
    norm: float
    success: float

    def apply(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] with the pattern applied: (1 - m) x + m p."""
        mask, pattern = self.mask.to(images), self.pattern.to(images)
        return images + mask * (pattern - images)


def invert_trigger(
    model: nn.Module,
    clean_loader: Iterable[Any],
    target: int,
    *,
    options: InversionOptions | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Inversion:
    """Return the smallest patch for one class; arguments as in ``invert_all``.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> short = InversionOptions(steps=20)
        >>> found = invert_trigger(model, loader, 1, options=short, progress=False)
        >>> found.mask.shape, 0 <= found.norm <= 4
        (torch.Size([1, 2, 2]), True)
    """
    return invert_all(
        model, clean_loader, (target,), options=options, device=device, seed=seed, progress=progress
    )[0]


def invert_all(
    model: nn.Module,
    clean_loader: Iterable[Any],
    targets: Sequence[int] | None = None,
    *,
    options: InversionOptions | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Inversion, ...]:
    """Return the smallest patch for every class.

    The model is in eval mode with frozen weights meanwhile; its state is restored afterwards.

    Args:
        model: gives (N, classes) scores of images in [0, 1]; a normalisation belongs inside it.
            It is moved to ``device``.
        clean_loader: yields (images, labels) of clean samples, images (N, C, H, W) in [0, 1];
            read once and kept on the device.
        targets: the classes, all if ``None``.
        options: ``InversionOptions()`` if ``None``.
        device: where to compute; the model's device if ``None``.
        seed: of the initial masks and patterns and of the batches; every class has its own stream.
        progress: show a progress bar.

    Returns:
        One inversion per target, in order.

    Raises:
        ValueError: no images, or images outside [0, 1]; labels or targets outside
            the classes; no image of another class than a target; NaN or inf in the scores.

    Source:
        Wang et al. 2019: loss, Adam, success 99 %, adaptive lambda. Steps and rounds are chosen
        for time: ten classes cost 160,000 images forward and backward.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> loader = [(torch.rand(18, 1, 2, 2), torch.arange(18) % 3)]
        >>> short = InversionOptions(steps=20)
        >>> found = invert_all(model, loader, options=short, progress=False)
        >>> [inversion.target for inversion in found]
        [0, 1, 2]
    """
    chosen = options or InversionOptions()
    where = resolve_device(device, model)
    model.to(where)
    with frozen(model), torch.enable_grad():
        pool, classes = _gather(model, clean_loader, where)
        asked = range(classes) if targets is None else targets
        searches = [_start(pool, target, classes, seed) for target in asked]
        rounds = -(-chosen.steps // chosen.round_steps)
        size = chosen.classes_at_once
        total = -(-len(searches) // size) * rounds
        with progress_bar("inverting triggers", total, progress) as advance:
            for at in range(0, len(searches), size):
                _run(model, pool.images, searches[at : at + size], chosen, advance)
        return tuple(_finish(model, pool, search) for search in searches)


@dataclass(frozen=True)
class _Pool:
    """The clean images on the device, their labels on the CPU."""

    images: Tensor  # (N, C, H, W)
    labels: Tensor  # (N,)

    def others(self, target: int) -> Tensor:
        return (self.labels != target).nonzero()[:, 0]


def _gather(model: nn.Module, loader: Iterable[Any], device: torch.device) -> tuple[_Pool, int]:
    batches = [unpack(batch, "clean_loader", device) for batch in loader]
    if not sum(len(labels) for _, labels in batches):
        raise yields_nothing("clean_loader")
    images = torch.cat([inputs for inputs, _ in batches])
    labels = torch.cat([labels for _, labels in batches]).cpu()
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "clean_loader must yield float images (N, C, H, W), got shape "
            f"{tuple(images.shape)} of {images.dtype}"
        )
    if not bool(((images >= 0) & (images <= 1)).all()):  # NaN is neither
        raise ValueError(
            "clean_loader must yield images in [0, 1]; put a normalisation into the model"
        )
    with torch.no_grad():
        classes = class_scores(model, images[:1]).shape[1]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"clean_loader holds label {low if low < 0 else high}, the model has classes "
            f"0..{classes - 1}"
        )
    return _Pool(images, labels), classes


@dataclass
class _Search:
    """The search for one class. Mask and pattern are (tanh(.) + 1) / 2 of the raw tensors."""

    target: int
    others: Tensor  # (M,) indices of the images of other classes, on the CPU
    draws: torch.Generator
    raw_mask: Tensor  # (1, H, W)
    raw_pattern: Tensor  # (C, H, W)
    best: tuple[Tensor, Tensor] = field(init=False)
    best_norm: float = float("inf")
    best_success: float = -1.0
    reached: bool = False
    stale: int = 0

    def __post_init__(self) -> None:
        self.best = (self.raw_mask, self.raw_pattern)

    def record(self, success: float, norm: float, threshold: float) -> None:
        """Keep the smallest mask that counts, or the most successful one while none counts."""
        counts = success >= threshold
        better = success > self.best_success
        if self.reached:
            better = counts and norm < self.best_norm
        if better or (counts and not self.reached):
            self.best = (self.raw_mask.detach().clone(), self.raw_pattern.detach().clone())
            self.best_norm, self.best_success, self.stale = norm, success, 0
        elif self.reached:
            self.stale += 1
        self.reached = self.reached or counts


@dataclass
class _Weight:
    """Lambda of one class."""

    value: float
    ups: int = 0
    downs: int = 0

    def follow(self, succeeded: bool, options: InversionOptions) -> None:
        """Grow after ``patience`` successes in a row, shrink faster after as many failures."""
        self.ups, self.downs = (self.ups + 1, 0) if succeeded else (0, self.downs + 1)
        if self.ups >= options.patience:
            self.value *= options.factor
            self.ups = 0
        elif self.downs >= options.patience:
            self.value /= options.factor**1.5
            self.downs = 0


def _start(pool: _Pool, target: int, classes: int, seed: int) -> _Search:
    if not 0 <= target < classes:
        raise ValueError(f"target must be in 0..{classes - 1} for this model, got {target}")
    others = pool.others(target)
    if not len(others):
        raise ValueError(f"every image of clean_loader has the target class {target}")
    draws = generator(seed, f"inversion of class {target}")
    _, channels, height, width = pool.images.shape
    start = torch.rand(1 + channels, height, width, generator=draws).clamp(0.01, 0.99)
    raw = torch.atanh(2 * start - 1).to(pool.images)
    return _Search(target, others, draws, raw[:1].clone(), raw[1:].clone())


def _squash(raw: Tensor) -> Tensor:
    return (raw.tanh() + 1) / 2


def _run(
    model: nn.Module,
    images: Tensor,
    searches: Sequence[_Search],
    options: InversionOptions,
    advance: Callable[[str], None],
) -> None:
    """Search for some classes together; each round synchronizes with the device once."""
    free = [raw.requires_grad_() for s in searches for raw in (s.raw_mask, s.raw_pattern)]
    optimizer = torch.optim.Adam(free, options.lr, options.betas)
    running = [(search, _Weight(options.weight)) for search in searches]
    left = options.steps
    while left and running:
        steps = min(options.round_steps, left)
        left -= steps
        report = _round(model, images, running, optimizer, steps, options.batch_size)
        for (search, weight), (success, norm) in zip(running, report, strict=True):
            search.record(success, norm, options.success)
            weight.follow(success >= options.success, options)
        running = [pair for pair in running if pair[0].stale < options.stall]
        advance("")


def _round(
    model: nn.Module,
    images: Tensor,
    running: Sequence[tuple[_Search, _Weight]],
    optimizer: torch.optim.Optimizer,
    steps: int,
    batch_size: int,
) -> list[list[float]]:
    """Take some steps for K classes; return (success, last norm) of each class."""
    searches = [search for search, _ in running]
    device, shape = images.device, (steps, batch_size)
    picks = torch.stack(
        [s.others[torch.randint(len(s.others), shape, generator=s.draws)] for s in searches], dim=1
    ).to(device)  # (steps, K, N)
    weights = torch.tensor([weight.value for _, weight in running], device=device)
    goals = torch.tensor([s.target for s in searches], device=device)
    goals = goals.repeat_interleave(batch_size)
    hits = torch.zeros(len(searches), device=device)
    for pick in picks:
        mask = _squash(torch.stack([s.raw_mask for s in searches]))[:, None]  # (K, 1, 1, H, W)
        pattern = _squash(torch.stack([s.raw_pattern for s in searches]))[:, None]
        x = images[pick]  # (K, N, C, H, W)
        scores = class_scores(model, (x + mask * (pattern - x)).flatten(0, 1))
        # Classes share no variable, so the gradient of the sum is that of each.
        misses = functional.cross_entropy(scores, goals, reduction="sum") / batch_size
        loss = misses + (weights * mask.flatten(1).sum(dim=1)).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        hits += (scores.detach().argmax(dim=1) == goals).view(-1, batch_size).sum(dim=1)
    norms = torch.stack([_squash(s.raw_mask.detach()).sum() for s in searches])
    return torch.stack([hits / (steps * batch_size), norms], dim=1).tolist()


def class_groups(classes: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Return the classes in groups of at most ``size``, for one forward pass each.

    Example:
        >>> class_groups(range(5), 2)
        [(0, 1), (2, 3), (4,)]
    """
    return [tuple(classes[at : at + size]) for at in range(0, len(classes), size)]


@torch.no_grad()
def _finish(model: nn.Module, pool: _Pool, search: _Search) -> Inversion:
    """Measure the result of a search on every image of another class."""
    mask, pattern = (_squash(raw.detach()) for raw in search.best)
    found = Inversion(search.target, mask, pattern, float(mask.sum()), 0.0)
    counts = torch.zeros(2, dtype=torch.long, device=pool.images.device)
    for pick in torch.split(search.others, _BATCH):
        scores = class_scores(model, found.apply(pool.images[pick.to(pool.images.device)]))
        hits = scores.argmax(dim=1) == search.target
        counts += torch.stack([hits.sum(), (~scores.isfinite()).sum()])
    hit, broken = counts.tolist()
    if broken:
        raise ValueError(f"the model gives NaN or inf scores under the patch of {search.target}")
    return Inversion(search.target, mask, pattern, found.norm, hit / len(search.others))

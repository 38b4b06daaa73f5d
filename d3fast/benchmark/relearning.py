# SPDX-License-Identifier: Apache-2.0
"""The relearning test: how few poisoned samples bring a backdoor back.

    regained(k) = ASR_k - ASR_0
    area = integral of ASR_k d(log k) / log(k_max / k_min)

A repaired model may have lost the backdoor or may only hide it. Copies of the model are fine-tuned
on k poisoned samples, for several k, and their ASR is measured; a repair that a few samples undo
was shallow. Compare the numbers with those of a clean model under the same arguments, which learns
the trigger for the first time: the samples depend on the seed and the data, not on the model.
Compare ACC too: half of each batch has the target label, and a model with a low ACC may predict the
target for any input.

This is a measurement, not a defence: it uses the trigger and the test images.
"""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.attacks.poisoning import check_target
from d3fast.data.base import ImageData, as_float
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator
from d3fast.training.labels import target_labels
from d3fast.training.loop import Loss, check_weights, fit, plain_gradients
from d3fast.training.metrics import Metrics, Trigger, evaluate

KS = (1, 2, 5, 10, 20, 50, 100)

_TEST_BATCH = 1000


@dataclass(frozen=True)
class RelearnConfig:
    """Options of the fine-tuning: SGD at a constant rate for a fixed number of steps.

    The number of steps is the same for every k: more samples do not mean more training.

    Attributes:
        steps: number of SGD steps; 0 measures the model as it is.
        batch_size: images per step, half of them poisoned (rounded down), half clean.
        lr: learning rate.
        momentum: momentum.
        weight_decay: L2 penalty.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> RelearnConfig(batch_size=1)
        Traceback (most recent call last):
            ...
        ValueError: batch_size must be an integer >= 2, got 1
    """

    steps: int = 100
    batch_size: int = 64
    lr: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_integer("steps", self.steps, 0)
        check_integer("batch_size", self.batch_size, 2)
        for name in ("lr", "momentum", "weight_decay"):
            check_number(name, getattr(self, name))


@dataclass(frozen=True)
class Relearning:
    """The outcome of a relearning test.

    Attributes:
        ks: numbers of poisoned samples, ascending; the first is 0, fine-tuning on clean samples.
        acc: accuracy on clean test images after fine-tuning, one per k.
        asr: attack success rate after fine-tuning, one per k.
        before: the model before the fine-tuning.

    Example:
        >>> before = Metrics(correct=9, images=10, hits=0, robust=8, triggered=9)
        >>> back = Relearning((0, 1, 10, 100), (0.9,) * 4, (0.1, 0.2, 0.6, 1.0), before)
        >>> [round(gain, 3) for gain in back.regained], round(back.area, 3)
        ([0.0, 0.1, 0.5, 0.9], 0.6)
    """

    ks: tuple[int, ...]
    acc: tuple[float, ...]
    asr: tuple[float, ...]
    before: Metrics

    @property
    def regained(self) -> tuple[float, ...]:
        """Gain of ASR over fine-tuning on clean samples, one per k."""
        return tuple(asr - self.asr[0] for asr in self.asr)

    @property
    def area(self) -> float:
        """Mean ASR over log k (trapezoidal rule), in [0, 1], without k = 0; smaller is deeper."""
        if len(self.ks) == 2:
            return self.asr[1]
        logs = torch.tensor(self.ks[1:], dtype=torch.float64).log()
        rates = torch.tensor(self.asr[1:], dtype=torch.float64)
        return float(torch.trapezoid(rates, logs) / (logs[-1] - logs[0]))

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON."""
        return {
            "ks": list(self.ks),
            "acc": list(self.acc),
            "asr": list(self.asr),
            "regained": list(self.regained),
            "area": self.area,
            "before": self.before.as_dict(),
        }


@dataclass(frozen=True)
class _Samples:
    """The samples of a run, on its device, the same for every k."""

    images: Tensor  # (k_max, C, H, W), triggered, floats; the first k are those of k
    labels: Tensor  # (k_max,), the labels of the attacker
    clean: ImageData


def poison_order(clean: ImageData, attack: Trigger, seed: int) -> Tensor:
    """Return the order in which clean images are poisoned; a run with k uses the first k.

    Args:
        clean: the images to draw from.
        attack: its target and its mapping select the images whose label the attack changes.
        seed: draws the order.

    Returns:
        Positions in ``clean``, in random order, on the CPU.

    Raises:
        ValueError: a target that is no class; a seed that is negative or no integer.

    Example:
        >>> from d3fast.attacks import BadNets
        >>> data = ImageData(torch.zeros(6, 1, 8, 8), torch.arange(6) % 3, ("a", "b", "c"))
        >>> sorted(poison_order(data, BadNets(target=0), seed=0).tolist())
        [1, 2, 4, 5]
    """
    classes = len(clean.classes)
    check_target(attack.target, None, classes)
    goal = target_labels(
        clean.labels, attack.target, classes, getattr(attack, "mapping", "all-to-one")
    )
    others = (goal != clean.labels).nonzero().flatten().cpu()
    return others[torch.randperm(len(others), generator=generator(seed, "relearning samples"))]


def _check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    if not ks:
        raise ValueError("ks must hold one number or more, got none")
    for k in ks:
        check_integer("every k of ks", k, 1)
    if any(a >= b for a, b in itertools.pairwise(ks)):
        raise ValueError(f"ks must ascend, got {tuple(ks)}")
    return tuple(ks)


@torch.no_grad()  # a learned trigger may be a network
def _draw_samples(clean: ImageData, attack: Trigger, ks: tuple[int, ...], seed: int) -> _Samples:
    order = poison_order(clean, attack, seed)
    too_large = next((k for k in ks if k > len(order)), None)
    if too_large is not None:
        raise ValueError(
            f"k={too_large} needs {too_large} clean images that the attack changes the label of "
            f"(target {attack.target}), there are {len(order)}"
        )
    # Left out for every k: two points of a curve differ in their poisoned samples alone.
    rest = torch.ones(len(clean), dtype=torch.bool)
    rest[order[: ks[-1]]] = False
    if not rest.any():
        raise ValueError(f"k={ks[-1]} leaves none of the {len(clean)} clean images clean")
    chosen = clean.subset(order[: ks[-1]])
    mapping = getattr(attack, "mapping", "all-to-one")
    return _Samples(
        attack.trigger(as_float(chosen.images)),
        target_labels(chosen.labels, attack.target, len(clean.classes), mapping),
        clean.subset(rest.nonzero().flatten()),
    )


def _batches(
    samples: _Samples, k: int, config: RelearnConfig, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    device = samples.labels.device
    half = config.batch_size // 2 if k else 0
    # The same number for every k, so that all k have the same clean images in the same steps.
    clean = torch.randint(
        len(samples.clean),
        (config.steps, config.batch_size),
        generator=generator(seed, "relearning clean"),
    )[:, half:].to(device)
    poisoned = torch.randint(
        max(k, 1), (config.steps, half), generator=generator(seed, "relearning poisoned")
    ).to(device)
    for ours, theirs in zip(clean, poisoned, strict=True):
        drawn = samples.clean.subset(ours)
        yield (
            torch.cat([as_float(drawn.images), samples.images[theirs]]),
            torch.cat([drawn.labels, samples.labels[theirs]]),
        )


def _frozen_statistics(
    model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
) -> tuple[Tensor, Tensor, Tensor]:
    """Return plain gradients of a model in eval mode (a ``Gradients``)."""
    model.eval()
    return plain_gradients(model, inputs, labels, loss)


def _fine_tuned(
    model: nn.Module, samples: _Samples, k: int, config: RelearnConfig, seed: int
) -> nn.Module:
    tuned = copy.deepcopy(model)
    params = [p for p in tuned.parameters() if p.requires_grad]
    if not params:
        raise ValueError("the model has no weight to fine-tune: requires_grad is False for all")
    if config.steps == 0:
        return tuned
    fit(
        tuned,
        _batches(samples, k, config, seed),
        nn.CrossEntropyLoss(),
        torch.optim.SGD(params, config.lr, config.momentum, weight_decay=config.weight_decay),
        epochs=1,
        device=samples.labels.device,
        name=f"the relearning data of k={k}",
        progress=False,
        gradients=_frozen_statistics,
    )
    return tuned


def evaluate_relearning(
    model: nn.Module,
    clean: ImageData,
    test: ImageData,
    attack: Trigger,
    *,
    ks: Sequence[int] = KS,
    config: RelearnConfig | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Relearning:
    """Fine-tune copies of a model on k poisoned samples each, and measure ACC and ASR.

    Half of every batch is drawn with replacement from the k poisoned samples, half from the clean
    images; for k = 0 the whole batch is clean, which measures the effect of clean fine-tuning. The
    clean halves are the same for all k. The model stays in eval mode: batch norm uses its stored
    statistics and does not change them, and dropout is off. Frozen weights stay frozen.

    The poisoned samples are the first k of one random order of the clean images whose label a hit
    changes, so the samples of a smaller k are among those of a larger one. They carry the trigger
    and the label that counts as a hit at test time. This also holds for ``"clean-label"`` attacks,
    which poisoned images of the target alone: here, images of other classes get the target label.
    An image that is poisoned for the largest k is never used as a clean one.

    Args:
        model: the repaired model; gives (N, classes) scores. It is not changed.
        clean: images to poison and to train on, none of them from ``test``; more than the largest
            k.
        test: images for ACC and ASR.
        attack: any object with ``trigger(images)`` and ``target``, and optionally ``mapping``.
        ks: numbers of poisoned samples, ascending.
        config: options of the fine-tuning; ``RelearnConfig()`` if ``None``.
        seed: draws samples and batches, the same for every model.
        device: device of the fine-tuning; the model's if ``None``.
        progress: show a progress bar.

    Returns:
        ACC and ASR for k = 0 and every k of ``ks``.

    Raises:
        ValueError: ks that are not ascending integers >= 1; a k above the number of images whose
            label the attack changes; a target that is no class; a model without trainable weights;
            NaN or inf in weights or losses; an error of ``evaluate``.

    Source:
        Min, Qin, Zhang, Shen, Cheng, *Uncovering, Explaining, and Mitigating the Superficial
        Safety of Backdoor Defense*, NeurIPS 2024, arXiv 2410.09838, for the question. Steps, batch
        and the measure of depth are choices made here.

    Example:
        >>> from d3fast.attacks import BadNets
        >>> data = ImageData(torch.rand(40, 1, 8, 8), torch.arange(40) % 2, ("a", "b"))
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> result = evaluate_relearning(
        ...     model, data, data, BadNets(target=0), ks=(1, 10), config=RelearnConfig(steps=5),
        ...     progress=False)
        >>> result.ks, len(result.asr), 0 <= result.area <= 1
        ((0, 1, 10), 3, True)
    """
    counts = _check_ks(ks)
    config = config or RelearnConfig()
    where = resolve_device(device, model)
    check_weights(model)
    suspect = copy.deepcopy(model).to(where)
    samples = _draw_samples(clean.to(where), attack, counts, seed)
    loader = test.to(where).batches(_TEST_BATCH)
    before = evaluate(suspect, loader, attack, name="test")
    after = []
    with progress_bar("relearning", 1 + len(counts), progress) as advance:
        for k in (0, *counts):
            tuned = _fine_tuned(suspect, samples, k, config, seed)
            after.append(evaluate(tuned, loader, attack, name="test"))
            advance("")
    return Relearning(
        ks=(0, *counts),
        acc=tuple(m.acc for m in after),
        asr=tuple(m.hits / m.triggered for m in after),
        before=before,
    )

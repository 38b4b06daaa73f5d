# SPDX-License-Identifier: Apache-2.0
"""Checks that a suspect gets the images and the labels that it was made for.

A wrong normalisation or a wrong order of the classes lowers the accuracy quietly, and every result
after it is about another model. Three comparisons find it, each on the same labelled samples::

    normalisation   the accuracy with the common normalisations
    label order     the accuracy after the classes are renumbered; the order is chosen on one half
                    of the samples and judged on the other
    answers         the accuracy against the model's mean confidence

The first two are errors. Each counts if McNemar's exact test of the paired answers rejects equality
at 0.1 %, divided by the number of comparisons, and half of the errors disappear at least. The third
is a note: the upper end of the accuracy's 95 % interval is below half the mean confidence.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from d3fast.hub.classifier import Classifier
from d3fast.hub.samples import CleanSamples
from d3fast.hub.suspect import ImageInput, Suspect
from d3fast.io.untrusted import printable
from d3fast.runtime.extras import require
from d3fast.training.intervals import wilson
from d3fast.training.loaders import class_scores
from d3fast.training.modes import eval_mode

LEVEL = 0.001  # of a false alarm, of all comparisons of a kind together
_SAMPLES, _BATCH = 256, 64
_SHOWN = 3
# Mean and std of images in [0, 1], one number where the channels share it.
NORMALISATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "none": ((0.0,), (1.0,)),
        "0.5": ((0.5,), (0.5,)),
        "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "MNIST": ((0.1307,), (0.3081,)),
        "Fashion-MNIST": ((0.2860,), (0.3530,)),
        "0 to 255": ((0.0,), (1 / 255,)),
    }
)


@dataclass(frozen=True)
class InputCheck:
    """What ``check_inputs`` found, one line each.

    Attributes:
        error: a normalisation or an order of classes that is wrong, with the options that mend it;
            a command goes on despite it only if it is told to.
        note: a doubt that may have other reasons.
    """

    error: str | None
    note: str | None


def check_inputs(
    suspect: Suspect, samples: CleanSamples, *, device: torch.device | str = "cpu"
) -> InputCheck:
    """Return what is wrong with normalisation or labels, and how to mend it.

    Unlabelled samples are checked for an impossible normalisation only.

    Args:
        suspect: the model; it is moved to the device.
        samples: as the suspect takes them; at most 256 of them are used, evenly spaced.
        device: where to compute.
    """
    impossible = _impossible(suspect)
    if impossible or not samples.labelled:
        return InputCheck(impossible, None)
    data = samples.data
    some = torch.linspace(0, len(data) - 1, min(len(data), _SAMPLES)).long()
    batches = list(data.subset(some.to(data.labels.device)).batches(_BATCH))
    labels = torch.cat([labels for _, labels in batches]).cpu()
    suspect.model.to(device)
    scores = _scores(suspect.model, batches, device)
    right = scores.argmax(1) == labels
    error = _other_normalisation(suspect, batches, labels, right, device)
    error = error or _other_order(scores, labels, data.classes)
    return InputCheck(error, None if error else _confidently_wrong(scores, right))


def _impossible(suspect: Suspect) -> str | None:
    """Return the error text for a mean or std that images in [0, 1] cannot have."""
    image = suspect.input
    if not isinstance(image, ImageInput) or image.mean is None or image.std is None:
        return None
    if all(0 <= value <= 1 for value in image.mean) and all(0 < v <= 1 for v in image.std):
        return None
    return (
        f"mean and std must be those of images in [0, 1], got mean {_numbers(image.mean)} and std "
        f"{_numbers(image.std)}: divide numbers of 0 to 255 by 255 for --mean and --std"
    )


@torch.no_grad()
def _scores(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], device: torch.device | str
) -> Tensor:
    """Return the scores (N, classes) of all batches, on the CPU."""
    with eval_mode(model):
        return torch.cat([class_scores(model, inputs.to(device)).cpu() for inputs, _ in batches])


def far_better(now: Tensor, other: Tensor, comparisons: int = 1) -> bool:
    """Return whether other answers are far better on the same samples.

    McNemar's exact test rejects equality at ``LEVEL / comparisons``, and at least half of the
    errors are gone.

    Args:
        now: (N,) bool, the sample is answered correctly now.
        other: (N,) bool, the same of the other answers.
        comparisons: number of tests of this kind.

    Example:
        >>> now = torch.arange(40) < 20
        >>> far_better(now, torch.ones(40, dtype=torch.bool)), far_better(now, now)
        (True, False)
    """
    gained, lost = int((other & ~now).sum()), int((now & ~other).sum())
    if gained <= lost or 2 * int((~other).sum()) > int((~now).sum()):
        return False
    require("the check of the normalisation", "scipy")
    from scipy.stats import binomtest

    test = binomtest(gained, gained + lost, 0.5, alternative="greater")
    return float(test.pvalue) < LEVEL / comparisons


def _alternatives(channels: int) -> Iterator[tuple[str, tuple[float, ...], tuple[float, ...]]]:
    for name, (mean, std) in NORMALISATIONS.items():
        if len(mean) in (1, channels):
            wide = channels // len(mean)
            yield name, mean * wide, std * wide


def _other_normalisation(
    suspect: Suspect,
    batches: list[tuple[Tensor, Tensor]],
    labels: Tensor,
    right: Tensor,
    device: torch.device | str,
) -> str | None:
    """Return the advice for a common normalisation that gives far better answers."""
    image, model = suspect.input, suspect.model
    if not isinstance(image, ImageInput) or not isinstance(model, Classifier):
        return None
    choices = list(_alternatives(image.channels))
    if not far_better(right, torch.ones_like(right), len(choices)):  # too few errors to tell
        return None
    best = right
    advice = None
    for name, mean, std in choices:
        other = Classifier(model.inner, mean, std).eval()
        answers = _scores(other, batches, device).argmax(1) == labels
        if far_better(right, answers, len(choices)) and int(answers.sum()) > int(best.sum()):
            best = answers
            advice = (
                f"the normalisation looks wrong: {_share(right)} of the samples are answered "
                f"correctly, {_share(answers)} with that of {name}: give "
                f"--mean {_numbers(mean)} --std {_numbers(std)}"
            )
    return advice


def _other_order(scores: Tensor, labels: Tensor, classes: tuple[str, ...]) -> str | None:
    """Return the advice if the classes are far better numbered in another order."""
    answers, count = scores.argmax(1), scores.shape[1]
    first = torch.arange(len(labels)) % 2 == 0
    order = _best_order(answers[first], labels[first], count)
    judged_answers, judged_labels = answers[~first], labels[~first]
    now, other = judged_answers == judged_labels, order[judged_answers] == judged_labels
    if not far_better(now, other):
        return None
    moved = [number for number in range(count) if int(order[number]) != number]
    seen = [n for n in moved if bool((labels == int(order[n])).any())]
    pairs = ", ".join(
        f"{_class(classes, int(order[n]))} as {_class(classes, n)}" for n in seen[:_SHOWN]
    )
    return (
        f"the order of the classes looks wrong: {_share(now)} of the samples are answered "
        f"correctly, {_share(other)} after renumbering; the model answers {pairs}"
        f"{' and so on' if len(seen) > _SHOWN else ''}: list the names in the order of the model's "
        "outputs in a file for --classes"
    )


def _best_order(answers: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the class of each output that agrees best with the labels, each class once."""
    require("the check of the class order", "scipy")
    from scipy.optimize import linear_sum_assignment

    agree = torch.zeros(count, count)
    agree.index_put_((answers, labels), torch.ones(len(labels)), accumulate=True)
    agree += 0.5 * torch.eye(count)  # outputs that no sample tells about stay
    _, columns = linear_sum_assignment(agree.numpy(), maximize=True)
    return torch.from_numpy(columns)


def _confidently_wrong(scores: Tensor, right: Tensor) -> str | None:
    """Return the error text for an accuracy far below the model's confidence."""
    confidence = float(scores.softmax(1).amax(1).mean())
    if wilson(int(right.sum()), len(right))[1] >= confidence / 2:
        return None
    return (
        f"the model is sure and wrong: {_share(right)} of the samples are answered correctly, at a "
        f"mean confidence of {100 * confidence:.0f} %: check --mean, --std, --size and the order "
        "of the classes (--classes), and whether the samples are of the model's task"
    )


def _class(classes: tuple[str, ...], number: int) -> str:
    return repr(printable(classes[number], 40)) if number < len(classes) else str(number)


def _share(right: Tensor) -> str:
    return f"{100 * float(right.float().mean()):.1f} %"


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.4g}" for value in values)

# SPDX-License-Identifier: Apache-2.0
"""Is a checkpoint likely backdoored? All signs of one model, without a trigger.

    inspect_model   inverts a trigger per class, asks every sign, measures the accuracy
    Inspection      what was found; ``rows`` is what inspect.json and card.json hold of it

What a sign is stands in ``d3fast.audit.detectors.base``, what the verdict says in ``verdict``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from d3fast.audit.anomaly import anomaly_indices, outliers
from d3fast.audit.detectors.base import Finding, ask
from d3fast.audit.detectors.context import Subject, open_subject
from d3fast.audit.detectors.registry import SIGNS
from d3fast.audit.findings import SUSPECT
from d3fast.audit.inversion import Inversion, InversionOptions, invert_all
from d3fast.audit.pictures import picture_of
from d3fast.audit.verdict import Verdict, verdict
from d3fast.data.base import ImageData, stratified_split
from d3fast.optim.heads import find_head
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator
from d3fast.training.metrics import Metrics, evaluate

_BATCH = 250
_PICTURES = 4  # of the smallest patches


# What two cores can pay for, and what the rates of docs/inspect.md were measured with.
SHORT = InversionOptions(steps=100, batch_size=16)


@dataclass(frozen=True)
class InspectOptions:
    """How a model is inspected.

    Args:
        inversion: how triggers are inverted; ``SHORT`` shows a tenth of the usual images.
        outlier: anomaly index above which an inverted trigger is marked.
        signs: names of the registry, in the order asked.
        rate: of false alarms per sign, were the statistics of a clean model normally distributed;
            it sets the thresholds.
        samples: at most so many of the clean samples are used by inversion and signs, stratified.

    Raises:
        ValueError: a number out of range, no sign or an unknown one.

    Example:
        >>> InspectOptions(signs=("horoscope",))
        Traceback (most recent call last):
        ValueError: sign must be one of 'patch', 'head', 'shift', 'margin', got 'horoscope'
    """

    inversion: InversionOptions = SHORT
    outlier: float = 2.0
    signs: tuple[str, ...] = tuple(SIGNS)
    rate: float = 0.01
    samples: int = 1000

    def __post_init__(self) -> None:
        check_number("outlier", self.outlier)
        check_number("rate", self.rate)
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must be > 0 and < 1, got {self.rate}")
        check_integer("samples", self.samples, 1)
        if not self.signs or len(set(self.signs)) < len(self.signs):
            raise ValueError(f"signs must be one or more, each once, got {self.signs}")
        for name in self.signs:
            check_choice("sign", name, SIGNS)


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found out about one model.

    Attributes:
        classes: their names.
        parameters: number of weights.
        head: qualified name of the classification head.
        metrics: accuracy on all samples given.
        inversions: the smallest patch for each class.
        indices: their anomaly indices; infinite where all others are equal.
        outliers: classes whose patch is suspiciously small.
        findings: what the signs say.
    """

    classes: tuple[str, ...]
    parameters: int
    head: str
    metrics: Metrics
    inversions: tuple[Inversion, ...]
    indices: tuple[float, ...]
    outliers: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """All signs in one sentence or two."""
        return verdict(self.findings, self.classes)

    def rows(
        self,
        role: str = SUSPECT,
        *,
        sha256: str,
        metrics: Metrics | None = None,
        pictured: Sequence[int] = (),
    ) -> list[dict[str, Any]]:
        """The rows of a results file: model, inversions, signs, verdict.

        Args:
            role: ``"suspect"`` or ``"repaired"``.
            sha256: of the file with the weights.
            metrics: shown instead of those on the samples of the inspection.
            pictured: classes whose triggers are drawn besides the smallest ones.
        """
        shown = (self.metrics if metrics is None else metrics).as_dict()
        model = {
            "kind": "model",
            "role": role,
            "sha256": sha256,
            "parameters": self.parameters,
            "head": self.head,
            **shown,
        }
        signs = [
            {
                "kind": "sign",
                "role": role,
                "name": found.name,
                "value": _finite(found.value),
                "threshold": found.threshold,
                "raised": found.raised,
                "target": found.target,
                "meaning": found.meaning,
            }
            for found in self.findings
        ]
        final = {
            "kind": "verdict",
            "role": role,
            "suspicious": self.verdict.suspicious,
            "targets": list(self.verdict.targets),
            "text": self.verdict.text,
        }
        return [model, *self._inversion_rows(role, pictured), *signs, final]

    def _inversion_rows(self, role: str, besides: Sequence[int]) -> list[dict[str, Any]]:
        by_size = sorted(self.inversions, key=lambda found: found.norm)
        pictured = {*(found.target for found in by_size[:_PICTURES]), *besides[:_PICTURES]}
        return [
            {
                "kind": "inversion",
                "role": role,
                "target": found.target,
                "class": self.classes[found.target],
                "norm": found.norm,
                "success": found.success,
                "index": _finite(index),
                "outlier": found.target in self.outliers,
                "picture": picture_of(found) if found.target in pictured else None,
            }
            for found, index in zip(self.inversions, self.indices, strict=True)
        ]


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else value


def inspect_model(
    model: nn.Module,
    data: ImageData,
    *,
    options: InspectOptions | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Inspection:
    """Look for signs of a backdoor in a model, without a trigger.

    The model is in eval mode with frozen weights meanwhile and comes back as it was. What no sign
    found means, and what not: docs/inspect.md.

    Args:
        model: gives (N, classes) scores of images in [0, 1]; a normalisation belongs inside it.
        data: clean samples, which should be of all classes and a few dozen at least.
        options: ``InspectOptions()`` if ``None``.
        device: where to compute; where the model is if ``None``.
        seed: of the samples taken and of everything random.
        progress: show progress bars.

    Raises:
        ValueError: no samples, or of one class only; images outside [0, 1]; NaN or inf in the
            scores; a model with another number of classes than the samples, or without a head.

    Example:
        >>> data = ImageData(torch.rand(18, 1, 4, 4), torch.arange(18) % 3, ("a", "b", "c"))
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        >>> short = InspectOptions(inversion=InversionOptions(steps=20))
        >>> found = inspect_model(net, data, options=short, progress=False)
        >>> len(found.inversions), [finding.name for finding in found.findings]
        (3, ['patch', 'head', 'shift', 'margin'])
    """
    chosen = options or InspectOptions()
    where = resolve_device(device, model)
    samples = _drawn(data, chosen.samples, seed)
    with open_subject(model, samples, where, seed) as subject:
        head, _ = find_head(model)
        found = _invert(model, samples, chosen, where, seed, progress)
        subject = replace(subject, inversions=found)
        findings = _ask_all(chosen, subject, data.classes, progress)
        metrics = evaluate(model, data.batches(_BATCH), None, where, name="data")
    norms = [inversion.norm for inversion in found]
    return Inspection(
        classes=data.classes,
        parameters=sum(param.numel() for param in model.parameters()),
        head=head,
        metrics=metrics,
        inversions=found,
        indices=anomaly_indices(norms),
        outliers=outliers(norms, chosen.outlier),
        findings=findings,
    )


def _drawn(data: ImageData, most: int, seed: int) -> ImageData:
    if len(data) <= most:
        return data
    (chosen,) = stratified_split(data.labels, [most], generator(seed, "inspected samples"))
    return data.subset(chosen.sort().values)


def _invert(
    model: nn.Module,
    data: ImageData,
    options: InspectOptions,
    device: torch.device,
    seed: int,
    progress: bool,
) -> tuple[Inversion, ...]:
    batches = data.batches(_BATCH)
    return invert_all(
        model, batches, options=options.inversion, device=device, seed=seed, progress=progress
    )


def _ask_all(
    options: InspectOptions, subject: Subject, names: Sequence[str], progress: bool
) -> tuple[Finding, ...]:
    findings = []
    with progress_bar("asking the signs", len(options.signs), progress) as advance:
        for name in options.signs:
            findings.append(ask(SIGNS[name](), subject, names, options.rate))
            advance("")
    return tuple(findings)

# SPDX-License-Identifier: Apache-2.0
"""Inspection of one model: every detector, without a trigger.

    inspect_model   inverts a trigger per class, runs every detector, measures the accuracy
    Inspection      the results; ``rows`` gives the rows of inspect.json and card.json

Detectors are in ``d3fast.audit.detectors``, the verdict in ``d3fast.audit.verdict``.
"""

import warnings
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace
from typing import Any, overload

import torch
from torch import nn

from d3fast.audit.anomaly import anomaly_indices, outliers
from d3fast.audit.calibration import Calibrated, Calibration, fitting_calibration, options_text
from d3fast.audit.detectors.base import DetectorResult, run_detector
from d3fast.audit.detectors.context import InspectionContext, open_context
from d3fast.audit.detectors.head import HeadWeights
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS, DETECTORS
from d3fast.audit.detectors.scores import MIN_CLASSES
from d3fast.audit.detectors.text_base import TEXT_DETECTORS
from d3fast.audit.inspect_text import TextInspection, TextInspectOptions, check_names, inspect_text
from d3fast.audit.inversion import Inversion, InversionOptions, invert_all
from d3fast.audit.model_report import SUSPECT
from d3fast.audit.pictures import picture_of
from d3fast.audit.verdict import Verdict, not_calibrated, verdict
from d3fast.data.base import ImageData, stratified_split
from d3fast.hub.samples import Data
from d3fast.optim.heads import find_head
from d3fast.results.schema.audit import InversionRow, ModelRow, Role
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.plugins import is_spec
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator
from d3fast.training.metrics import Metrics, evaluate

_BATCH = 250
_PICTURES = 4  # of the smallest patches

# A tenth of the usual images; the rates of docs/inspect.md were measured with it.
SHORT = InversionOptions(steps=100, batch_size=16)


@dataclass(frozen=True)
class InspectOptions:
    """Options of an inspection.

    Args:
        inversion: options of the trigger inversion; ``SHORT`` shows a tenth of the usual images.
        outlier: anomaly index above which an inverted trigger is an outlier.
        detectors: names of ``DETECTORS`` or ``package.module:Name``, in the order in which they
            run; ``None`` for ``DEFAULT_DETECTORS``, with a calibration for those that it has scores
            of. Of a text classifier, names of ``TEXT_DETECTORS``.
        rate: of false alarms: with a calibration, of all detectors together; without one, per
            detector, were the statistics of a clean model normally distributed.
        samples: largest number of clean samples used by inversion and detectors, stratified.
        classes: largest number of classes that a search looks at. Of more classes it takes half by
            the support in the head and half at random; the verdict says so.
        signs: the name of ``detectors`` until 0.1; deprecated.

    Raises:
        ValueError: a number out of range, no detector or an unknown one; one of another package
            that cannot be imported.

    Example:
        >>> InspectOptions(detectors=())
        Traceback (most recent call last):
        ValueError: detectors must be one or more, each once, got ()
    """

    inversion: InversionOptions = SHORT
    outlier: float = 2.0
    detectors: tuple[str, ...] | None = None
    rate: float = 0.01
    samples: int = 1000
    classes: int = 100
    signs: InitVar[tuple[str, ...] | None] = None

    def __post_init__(self, signs: tuple[str, ...] | None) -> None:
        if signs is not None:
            warnings.warn("signs is now detectors", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "detectors", signs)
        check_number("outlier", self.outlier)
        check_number("rate", self.rate)
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must be > 0 and < 1, got {self.rate}")
        check_integer("samples", self.samples, 1)
        check_integer("classes", self.classes, MIN_CLASSES)
        if self.detectors is not None:
            check_names(self.detectors, [*_known(self.detectors), *TEXT_DETECTORS])
            for name in set(self.detectors) - set(TEXT_DETECTORS):
                DETECTORS.find(name)

    def for_images(self, calibration: Calibration | None = None) -> tuple[str, ...]:
        """Return the names of the detectors of images, in the order in which they run.

        Args:
            calibration: that the model is compared with.

        Raises:
            ValueError: a detector of texts.
        """
        if self.detectors is None:
            known = () if calibration is None else calibration.detectors
            return tuple(name for name in DETECTORS if name in known) or DEFAULT_DETECTORS
        check_names(self.detectors, _known(self.detectors))
        return self.detectors

    def for_texts(self) -> TextInspectOptions:
        """Return the same options for texts; steps of the inversion as far as they were changed.

        Raises:
            ValueError: a detector of images.
        """
        chosen = TextInspectOptions(samples=self.samples)
        if self.detectors is not None:
            chosen = replace(chosen, detectors=self.detectors)
        if self.inversion.steps != SHORT.steps:
            chosen = replace(
                chosen, inversion=replace(chosen.inversion, steps=self.inversion.steps)
            )
        return chosen


def _known(names: Sequence[str]) -> list[str]:
    return [*DETECTORS, *filter(is_spec, names)]


@dataclass(frozen=True, eq=False)
class Inspection:
    """Results of one inspection.

    Attributes:
        classes: names of the classes.
        parameters: number of weights.
        head: qualified name of the classification head.
        metrics: accuracy on all samples given.
        shape: (C, H, W) of an image.
        searched: the classes that a search looked at.
        inversions: the smallest patch for each of them; empty if no detector needs them.
        indices: their anomaly indices; infinite where all others are equal.
        outliers: classes whose patch is unusually small.
        results: of the detectors.
        calibrated: what a calibration says of them; ``None`` without one.
        repaired: the model is a repaired copy.
    """

    classes: tuple[str, ...]
    parameters: int
    head: str
    metrics: Metrics
    shape: tuple[int, int, int]
    searched: tuple[int, ...]
    inversions: tuple[Inversion, ...]
    indices: tuple[float, ...]
    outliers: tuple[int, ...]
    results: tuple[DetectorResult, ...]
    calibrated: Calibrated | None = None
    repaired: bool = False

    @property
    def verdict(self) -> Verdict:
        """The conclusion from all detectors."""
        return verdict(
            self.results,
            self.classes,
            basis=not_calibrated(self.shape, len(self.classes), self.repaired),
            searched=len(self.searched),
            calibrated=self.calibrated,
        )

    @property
    def findings(self) -> tuple[DetectorResult, ...]:
        """The name of ``results`` until 0.1; deprecated."""
        warnings.warn("Inspection.findings is now results", DeprecationWarning, stacklevel=2)
        return self.results

    def rows(
        self,
        role: Role = SUSPECT,
        *,
        sha256: str,
        metrics: Metrics | None = None,
        pictured: Sequence[int] = (),
    ) -> list[dict[str, Any]]:
        """Return the rows of a results file: model, inversions, detectors, verdict.

        Args:
            role: ``"suspect"`` or ``"repaired"``.
            sha256: of the file with the weights.
            metrics: replace those on the samples of the inspection.
            pictured: classes whose triggers get a picture besides the smallest ones.
        """
        shown = self.metrics if metrics is None else metrics
        model = ModelRow(
            role=role,
            sha256=sha256,
            parameters=self.parameters,
            head=self.head,
            **shown.as_dict(),
        )
        detectors = [result.row(role) for result in self.results]
        rows = [model, *self._inversion_rows(role, pictured), *detectors, self.verdict.row(role)]
        return [row.to_row() for row in rows]

    def _inversion_rows(self, role: Role, besides: Sequence[int]) -> list[InversionRow]:
        by_size = sorted(self.inversions, key=lambda found: found.norm)
        pictured = {*(found.target for found in by_size[:_PICTURES]), *besides[:_PICTURES]}
        return [
            InversionRow(
                role=role,
                target=found.target,
                name=self.classes[found.target],
                norm=found.norm,
                success=found.success,
                index=_finite(index),
                outlier=found.target in self.outliers,
                picture=picture_of(found) if found.target in pictured else None,
            )
            for found, index in zip(self.inversions, self.indices, strict=True)
        ]


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else value


@overload
def inspect_model(
    model: nn.Module,
    data: ImageData,
    *,
    options: InspectOptions | None = None,
    calibration: Calibration | None = None,
    repaired: bool = False,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Inspection: ...


@overload
def inspect_model(
    model: nn.Module,
    data: Data,
    *,
    options: InspectOptions | TextInspectOptions | None = None,
    calibration: Calibration | None = None,
    repaired: bool = False,
    tokenizer: Any | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Inspection | TextInspection: ...


def inspect_model(
    model: nn.Module,
    data: Data,
    *,
    options: InspectOptions | TextInspectOptions | None = None,
    calibration: Calibration | None = None,
    repaired: bool = False,
    tokenizer: Any | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Inspection | TextInspection:
    """Run the backdoor detectors on a model, without a trigger.

    The model is in eval mode with frozen weights meanwhile; its state is restored afterwards.
    docs/inspect.md says how reliable the result is.

    Args:
        model: gives (N, classes) scores of images in [0, 1]; a normalisation belongs inside it.
            For texts, of token ids.
        data: clean samples, a few dozen or more, preferably of all classes.
        options: ``InspectOptions()`` if ``None``; of texts ``TextInspectOptions()``.
        calibration: gives p-values; of images alone. ``None``: one of the package, if it has one
            that fits.
        repaired: the model is a repaired copy, unlike the clean models of the package.
        tokenizer: of texts, to show tokens as such; see ``inspect_text``.
        device: where to compute; the model's device if ``None``.
        seed: of the choice of samples and of everything random.
        progress: show progress bars.

    Raises:
        ValueError: no samples, or of one class only; images outside [0, 1]; NaN or inf in the
            scores; a model with another number of classes than the samples, or without a head; a
            calibration that does not fit.

    Example:
        >>> data = ImageData(torch.rand(18, 1, 4, 4), torch.arange(18) % 3, ("a", "b", "c"))
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        >>> short = InspectOptions(inversion=InversionOptions(steps=20))
        >>> found = inspect_model(net, data, options=short, progress=False)
        >>> len(found.inversions), [result.name for result in found.results]
        (3, ['patch', 'head', 'shift', 'margin'])
    """
    if not isinstance(data, ImageData):
        if calibration is not None:
            raise ValueError("a calibration is of models of images, the samples are texts")
        return inspect_text(
            model,
            data,
            tokenizer=tokenizer,
            options=options.for_texts() if isinstance(options, InspectOptions) else options,
            device=device,
            seed=seed,
            progress=progress,
        )
    if isinstance(options, TextInspectOptions):
        raise ValueError("options must be InspectOptions for images, got TextInspectOptions")
    chosen = options or InspectOptions()
    fitting = None
    if calibration is not None or not repaired:
        text = options_text(chosen.inversion, chosen.classes)
        fitting = fitting_calibration(calibration, model, data.shape, text, data.classes)
    where = resolve_device(device, model)
    samples = _drawn(data, chosen.samples, seed)
    with open_context(model, samples, where, seed) as context:
        head, _ = find_head(model)
        context = replace(context, sample=_sampled(context, chosen.classes))
        names = chosen.for_images(fitting)
        if any(getattr(DETECTORS.find(name), "inverts", False) for name in names):
            found = invert_all(
                model,
                samples.batches(_BATCH),
                context.searched,
                options=chosen.inversion,
                device=where,
                seed=seed,
                progress=progress,
            )
            context = replace(context, inversions=found)
        results = _run_detectors(names, context, data.classes, chosen.rate, progress)
        metrics = evaluate(model, data.batches(_BATCH), None, where, name="data")
    calibrated = None
    if fitting is not None:
        results, calibrated = fitting.apply(results, chosen.rate, data.classes, metrics)
    found = context.inversions
    norms = [inversion.norm for inversion in found]
    return Inspection(
        classes=data.classes,
        parameters=sum(param.numel() for param in model.parameters()),
        head=head,
        metrics=metrics,
        shape=data.shape,
        searched=context.searched,
        inversions=found,
        indices=anomaly_indices(norms) if found else (),
        outliers=tuple(found[at].target for at in outliers(norms, chosen.outlier)) if found else (),
        results=results,
        calibrated=calibrated,
        repaired=repaired,
    )


def _drawn(data: ImageData, most: int, seed: int) -> ImageData:
    if len(data) <= most:
        return data
    (chosen,) = stratified_split(data.labels, [most], generator(seed, "inspected samples"))
    return data.subset(chosen.sort().values)


def _sampled(context: InspectionContext, most: int) -> tuple[int, ...]:
    """Return the classes that a search looks at; none stands for all."""
    if context.classes <= most:
        return ()
    order = torch.randperm(context.classes, generator=context.draws("sample of classes")).tolist()
    try:
        support = HeadWeights()(context)
    except ValueError:  # a head without a row per class
        support = [0.0] * context.classes
    likely = sorted(order, key=lambda target: -support[target])[: most // 2]
    rest = [target for target in order if target not in set(likely)]
    return tuple(sorted([*likely, *rest[: most - len(likely)]]))


def _run_detectors(
    detectors: Sequence[str],
    context: InspectionContext,
    names: Sequence[str],
    rate: float,
    progress: bool,
) -> tuple[DetectorResult, ...]:
    results = []
    with progress_bar("running detectors", len(detectors), progress) as advance:
        for name in detectors:
            results.append(run_detector(DETECTORS.find(name)(), context, names, rate))
            advance("")
    return tuple(results)

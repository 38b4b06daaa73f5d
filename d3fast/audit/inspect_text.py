# SPDX-License-Identifier: Apache-2.0
"""Inspection of a text classifier: searches for tokens, without a trigger.

inspect_text     runs every text detector and measures the accuracy
TextInspection   the results; ``rows`` gives the rows of inspect.json and card.json
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.detectors.text_base import TEXT_DETECTORS, TextDetector, strongest, text_result
from d3fast.audit.detectors.text_context import TokenTrigger, open_text_context
from d3fast.audit.detectors.token_inversion import TokenInversion
from d3fast.audit.detectors.token_sweep import TokenSweep
from d3fast.audit.model_report import SUSPECT
from d3fast.audit.text_verdict import text_verdict
from d3fast.audit.verdict import Verdict
from d3fast.data.base import stratified_split
from d3fast.optim.heads import find_head
from d3fast.results.schema.audit import DetectorRow, InversionRow, ModelRow, Role
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator
from d3fast.text import TextData
from d3fast.text.vocabulary import ordinary_ids, token_text
from d3fast.training.metrics import Metrics, evaluate

_BATCH = 100
SWEEP, INVERSION = TokenSweep(), TokenInversion()


def check_names(names: Sequence[str], known: Collection[str]) -> None:
    """Raise ``ValueError`` unless the names of detectors are known, one or more, each once."""
    if not names or len(set(names)) < len(names):
        raise ValueError(f"detectors must be one or more, each once, got {names}")
    for name in names:
        check_choice("detectors", name, known)


@dataclass(frozen=True)
class TextInspectOptions:
    """Options of an inspection of a text classifier.

    Args:
        detectors: names of ``TEXT_DETECTORS``, in the order in which they run.
        sweep: options of the detector ``token``.
        inversion: options of the detector ``phrase``.
        samples: largest number of clean texts that the detectors use, stratified.

    Raises:
        ValueError: a number out of range, no detector or an unknown one.

    Example:
        >>> TextInspectOptions(detectors=("patch",))
        Traceback (most recent call last):
        ValueError: detectors must be one of 'token', 'phrase', got 'patch'
    """

    detectors: tuple[str, ...] = tuple(TEXT_DETECTORS)
    sweep: TokenSweep = SWEEP
    inversion: TokenInversion = INVERSION
    samples: int = 1000

    def __post_init__(self) -> None:
        check_integer("samples", self.samples, 1)
        check_names(self.detectors, TEXT_DETECTORS)

    def chosen(self) -> tuple[TextDetector, ...]:
        """Return the detectors, in order."""
        made: dict[str, TextDetector] = {"token": self.sweep, "phrase": self.inversion}
        return tuple(made[name] for name in self.detectors)


@dataclass(frozen=True, eq=False)
class TextInspection:
    """Results of one inspection of a text classifier.

    Attributes:
        classes: names of the classes.
        parameters: number of weights.
        head: qualified name of the classification head.
        metrics: accuracy on all texts given.
        results: of the detectors.
        seconds: that each of them took.
        triggers: the strongest tokens of each class.
        texts: the same as text.
    """

    classes: tuple[str, ...]
    parameters: int
    head: str
    metrics: Metrics
    results: tuple[DetectorResult, ...]
    seconds: tuple[float, ...]
    triggers: tuple[TokenTrigger, ...]
    texts: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The conclusion from all detectors."""
        return text_verdict(self.results, self.classes)

    def rows(
        self,
        role: Role = SUSPECT,
        *,
        sha256: str,
        metrics: Metrics | None = None,
        pictured: Sequence[int] = (),
    ) -> list[dict[str, Any]]:
        """Return the rows of a results file: model, triggers, detectors, verdict.

        Args:
            role: ``"suspect"`` or ``"repaired"``.
            sha256: of the file with the weights.
            metrics: replace those on the texts of the inspection.
            pictured: as for images; every class has its tokens here.
        """
        shown = self.metrics if metrics is None else metrics
        model = ModelRow(
            role=role,
            sha256=sha256,
            parameters=self.parameters,
            head=self.head,
            **shown.as_dict(),
        )
        detectors = [
            DetectorRow(
                role=role,
                name=result.name,
                value=result.value,
                threshold=result.threshold,
                flagged=result.flagged,
                target=result.target,
                meaning=result.meaning,
                seconds=seconds,
            )
            for result, seconds in zip(self.results, self.seconds, strict=True)
        ]
        rows = (model, *self._triggers(role), *detectors, self.verdict.row(role))
        return [row.to_row() for row in rows]

    def _triggers(self, role: Role) -> list[InversionRow]:
        return [
            InversionRow(
                role=role,
                target=trigger.target,
                name=self.classes[trigger.target],
                norm=len(trigger.tokens),
                success=trigger.success,
                index=max(0.0, trigger.strength),
                outlier=trigger.target in self.verdict.targets,
                tokens=text,
            )
            for trigger, text in zip(self.triggers, self.texts, strict=True)
        ]


def inspect_text(
    model: nn.Module,
    data: TextData,
    *,
    tokenizer: Any | None = None,
    options: TextInspectOptions | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = True,
) -> TextInspection:
    """Run the backdoor detectors on a text classifier, without a trigger.

    The model is in eval mode with frozen weights meanwhile; its state is restored afterwards.
    docs/text.md says how reliable the result is.

    Args:
        model: gives (N, classes) scores of token ids (N, L).
        data: clean texts, a few dozen or more, preferably of all classes.
        tokenizer: of transformers; shows tokens as text and leaves out special ones. Tokens are
            numbers without one.
        options: ``TextInspectOptions()`` if ``None``.
        device: where to compute; the model's device if ``None``.
        seed: of the choice of texts and of everything random.
        progress: show progress bars.

    Raises:
        ValueError: see ``open_text_context``; a model without a head.

    Example:
        >>> ids = torch.randint(1, 30, (24, 5), generator=torch.Generator().manual_seed(0))
        >>> class Mean(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.words, self.head = nn.Embedding(30, 4), nn.Linear(4, 3)
        ...     def forward(self, ids):
        ...         return self.head(self.words(ids).mean(dim=1))
        >>> _ = torch.manual_seed(0)
        >>> data = TextData(ids, torch.arange(24) % 3, ("a", "b", "c"))
        >>> found = inspect_text(Mean(), data, progress=False)
        >>> [result.name for result in found.results], len(found.triggers)
        (['token', 'phrase'], 3)
    """
    chosen = options or TextInspectOptions()
    where = resolve_device(device, model)
    ordinary = None if tokenizer is None else ordinary_ids(tokenizer)
    samples, results, seconds, found = _drawn(data, chosen.samples, seed), [], [], []
    with (
        open_text_context(model, samples, where, seed, ordinary) as context,
        progress_bar("running detectors", len(chosen.detectors), progress) as advance,
    ):
        head, _ = find_head(model)
        for detector in chosen.chosen():
            started = time.perf_counter()
            found.append(tuple(detector(context)))
            seconds.append(time.perf_counter() - started)
            results.append(text_result(detector, found[-1], data.classes, tokenizer))
            advance("")
        metrics = evaluate(model, data.batches(_BATCH), None, where, name="data")
    triggers = strongest(found)
    return TextInspection(
        classes=data.classes,
        parameters=sum(param.numel() for param in model.parameters()),
        head=head,
        metrics=metrics,
        results=tuple(results),
        seconds=tuple(seconds),
        triggers=triggers,
        texts=tuple(token_text(trigger.tokens, tokenizer) for trigger in triggers),
    )


def _drawn(data: TextData, most: int, seed: int) -> TextData:
    if len(data) <= most:
        return data
    (chosen,) = stratified_split(data.labels, [most], generator(seed, "inspected samples"))
    return data.subset(chosen.sort().values)

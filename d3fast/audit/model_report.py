# SPDX-License-Identifier: Apache-2.0
"""Everything that inspect.json or card.json says of one model.

Both files have the same kinds of rows: a model, an inversion per class, detector results, a
verdict. card.json has them for the suspect and for the repaired model. ``d3fast report`` and
``d3fast monitor`` read them here; the files may be hostile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d3fast._renamed import renamed_names
from d3fast.results.schema.audit import DetectorRow, InversionRow, ModelRow, Role, VerdictRow
from d3fast.results.schema.document import Settings
from d3fast.results.schema.fields import read_only_row, read_record, read_rows
from d3fast.training.metrics import Metrics

SUSPECT: Role = "suspect"
REPAIRED: Role = "repaired"

MAX_DETECTORS = 100


@dataclass(frozen=True)
class ModelReport:
    """The rows about one model.

    Attributes:
        model: its file and its accuracy.
        inversions: one per class, or none.
        detectors: one result per detector, or none.
        verdict: ``None`` where the model was not inspected.
    """

    model: ModelRow
    inversions: tuple[InversionRow, ...] = ()
    detectors: tuple[DetectorRow, ...] = ()
    verdict: VerdictRow | None = None

    @property
    def metrics(self) -> Metrics:
        """Counts on clean samples, and on triggered ones if a trigger was known."""
        m = self.model
        return Metrics(
            m.correct,
            m.images,
            m.hits or 0,
            m.robust or 0,
            m.triggered or 0,
            m.untriggered_hits,
            m.both_hits,
        )

    @property
    def suspicious(self) -> bool | None:
        """The verdict; ``None`` where there is none."""
        return None if self.verdict is None else self.verdict.suspicious

    @property
    def targets(self) -> tuple[int, ...]:
        """Classes that the verdict names."""
        return () if self.verdict is None else self.verdict.targets

    @property
    def undecidable(self) -> bool:
        """The verdict is empty: two classes are too few without a calibration."""
        no_scores = all(result.value is None for result in self.detectors)
        return self.suspicious is False and len(self.inversions) < 3 and no_scores

    @property
    def of_texts(self) -> bool:
        """The model classifies texts: its triggers are tokens."""
        return any(found.tokens is not None for found in self.inversions)

    @property
    def outliers(self) -> tuple[InversionRow, ...]:
        """Inverted triggers that are unusually small, the smallest first."""
        return tuple(sorted((i for i in self.inversions if i.outlier), key=lambda i: i.norm))

    @property
    def flagged(self) -> tuple[DetectorRow, ...]:
        """Results of the detectors that flag the model."""
        return tuple(result for result in self.detectors if result.flagged)

    def class_name(self, target: int) -> str:
        """Return the name of a class, or its index where no inversion names it."""
        names = (found.name for found in self.inversions if found.target == target)
        return next(names, str(target))


def parse_model_report(rows: Sequence[Mapping[str, Any]], role: Role) -> ModelReport | None:
    """Check the rows about one model.

    Args:
        rows: of inspect.json or card.json.
        role: ``"suspect"`` or ``"repaired"``.

    Returns:
        The report; ``None`` if there is no such model.

    Raises:
        ValueError: a field that is missing or out of its bounds; two inversions of one class, two
            results of one detector, two verdicts.

    Example:
        >>> rows = [{"kind": "model", "role": "suspect", "sha256": 64 * "0", "parameters": 9,
        ...          "head": "fc", "correct": 8, "images": 10}]
        >>> found = parse_model_report(rows, "suspect")
        >>> found.metrics.acc, found.suspicious
        (0.8, None)
        >>> print(parse_model_report(rows, "repaired"))
        None
    """
    model = read_only_row(rows, ModelRow, role=role)
    if model is None:
        return None
    report = ModelReport(
        model,
        read_rows(rows, InversionRow, role=role),
        read_rows(rows, DetectorRow, MAX_DETECTORS, role=role),
        read_only_row(rows, VerdictRow, role=role),
    )
    if len({found.target for found in report.inversions}) < len(report.inversions):
        raise ValueError(f"two inversion rows of the {role} model have the same target")
    if len({result.name for result in report.detectors}) < len(report.detectors):
        raise ValueError(f"two sign rows of the {role} model have the same name")
    return report


def class_names(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the classes that a file's settings list; none where they do not.

    Raises:
        ValueError: classes that are no list of texts.
    """
    return read_record(settings, Settings, "settings").classes or ()


__getattr__ = renamed_names(__name__, {"Findings": "ModelReport", "findings": "parse_model_report"})

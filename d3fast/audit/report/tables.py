# SPDX-License-Identifier: Apache-2.0
"""Tables of an audit: before and after, one line per class, one line per detector."""

import math
from collections.abc import Sequence

from d3fast.audit.model_report import ModelReport
from d3fast.audit.report.folder import AuditDocuments
from d3fast.audit.report.words import index, size, trigger_words
from d3fast.results.format import MISSING, fixed, interval, percent, points, significant
from d3fast.results.schema.audit import DetectorRow, InversionRow
from d3fast.results.table import Cell, Table

_NONE = Cell(MISSING)
_MAX_CLASSES = 20
# Of images, and of texts.
_SMALLEST = ("Smallest inverted trigger", "Strongest inverted tokens")
_OUTLIERS = ("Classes with an unusually small trigger", "Classes with tokens above the threshold")


def _models(audit: AuditDocuments) -> list[ModelReport]:
    return [report for report in (audit.before, audit.after) if report is not None]


def _headings(audit: AuditDocuments, first: str) -> tuple[str, ...]:
    return (first, "the model") if audit.after is None else (first, "before", "after")


def _accuracy(report: ModelReport) -> Cell:
    m = report.metrics
    return Cell(percent(m.acc, unit="%"), detail=f"{interval(*m.acc_interval)}, {m.images} samples")


def _asr(report: ModelReport) -> Cell:
    m = report.metrics
    if m.asr is None or m.asr_interval is None:
        return _NONE
    return Cell(
        percent(m.asr, unit="%"), detail=f"{interval(*m.asr_interval)}, {m.triggered} samples"
    )


def _lift(report: ModelReport) -> Cell:
    m = report.metrics
    if m.lift is None or m.untriggered is None:
        return _NONE
    detail = f"{percent(m.untriggered, unit='%')} without the trigger"
    if m.lift_interval is not None:
        low, high = (100 * end for end in m.lift_interval)
        detail = f"{fixed(low)} to {points(high)}; {detail}"
    return Cell(points(100 * m.lift), detail=detail)


def _smallest(report: ModelReport) -> Cell:
    if not report.inversions:
        return _NONE
    least = min(report.inversions, key=_rank)
    word = "index" if least.tokens is None else "strength"
    return Cell(trigger_words(least), detail=f"class “{least.name}”, {word} {_index(least)}")


def _rank(row: InversionRow) -> float:
    """Return the position of a trigger: small patches come first, and strong tokens."""
    if row.tokens is None:
        return row.norm
    return -math.inf if row.index is None else -row.index


def _outliers(report: ModelReport) -> Cell:
    if not report.inversions:
        return _NONE
    names = [f"“{row.name}”" for row in report.outliers[:4]]
    more = len(report.outliers) - len(names)
    beside = ", ".join([*names, *([f"{more} more"] if more > 0 else [])])
    return Cell(f"{len(report.outliers)} of {len(report.inversions)}", detail=beside)


def _flagged(report: ModelReport) -> Cell:
    if not report.detectors:
        return _NONE
    return Cell(f"{len(report.flagged)} of {len(report.detectors)}")


def before_and_after(audit: AuditDocuments) -> Table:
    """Return one line per measure and one column per model; intervals stand below the numbers."""
    models = _models(audit)
    texts = any(report.of_texts for report in models)
    measures = {"Accuracy on clean samples (ACC)": _accuracy}
    if any(report.metrics.triggered for report in models):
        measures["Attack success rate of the known trigger (ASR)"] = _asr
        measures["Lift: ASR minus the share without the trigger"] = _lift
    measures |= {
        _SMALLEST[texts]: _smallest,
        _OUTLIERS[texts]: _outliers,
        "Detectors that flag the model": _flagged,
    }
    lines = [(name, tuple(read(report) for report in models)) for name, read in measures.items()]
    if audit.card is not None:
        repair = audit.card.repair
        beside = f"{fixed(repair.acc_drop_low)} to {points(repair.acc_drop_high)}"
        if repair.max_acc_drop is not None:
            beside += f", limit {points(repair.max_acc_drop)}"
        lines.insert(1, ("Accuracy lost", (_NONE, Cell(points(repair.acc_drop), detail=beside))))
        lines.append(("Distance from the suspect’s weights", (_NONE, _distance(audit))))
    return Table(_headings(audit, "measure"), tuple(lines))


def _distance(audit: AuditDocuments) -> Cell:
    card = audit.card
    if card is None:
        return _NONE
    total = card.distances and card.distances.total
    if total and total.relative is not None:
        return Cell(percent(total.relative, unit="%"), detail="of the norm of all weights")
    if card.repair.distance is not None:
        return Cell(index(card.repair.distance), detail="of the tracked weights")
    return _NONE


def _index(row: InversionRow) -> str:
    return index(math.inf if row.index is None else row.index)


def _inversion_cells(row: InversionRow | None) -> tuple[Cell, Cell]:
    if row is None:
        return _NONE, _NONE
    beside = "unusual" if row.outlier else ""
    trigger = Cell(trigger_words(row), bold=row.outlier)
    if row.tokens is not None:
        beside = f"turns {percent(row.success, unit='%')} of other texts"
        trigger = Cell(trigger_words(row), bold=row.outlier, detail=beside)
        beside = "above the threshold" if row.outlier else ""
    return trigger, Cell(_index(row), bold=row.outlier, detail=beside)


def inversion_caption(row: InversionRow) -> str:
    """Return size and anomaly index of an inverted trigger, for the caption of its picture."""
    return f"{size(row.norm)}, index {_index(row)}"


def class_table(audit: AuditDocuments) -> tuple[Table, int]:
    """Return one line per class: size and anomaly index of its trigger, before and after.

    Of a text classifier, tokens and their strength. Outliers come first, then the smallest patches
    or the strongest tokens.

    Returns:
        The table, and the number of classes with larger triggers that it leaves out.
    """
    models = [{row.target: row for row in report.inversions} for report in _models(audit)]
    rows = [row for model in models for row in model.values()]
    least: dict[int, float] = {}
    for row in rows:
        least[row.target] = min(_rank(row), least.get(row.target, math.inf))
    outliers = {row.target for row in rows if row.outlier}
    order = sorted(least, key=lambda target: (target not in outliers, least[target], target))
    lines = []
    for target in order[:_MAX_CLASSES]:
        name = next(model[target].name for model in models if target in model)
        cells = tuple(item for model in models for item in _inversion_cells(model.get(target)))
        lines.append((name, cells))
    texts = any(row.tokens is not None for row in rows)
    columns = ("tokens", "strength") if texts else ("trigger", "index")
    headings = ["class", *columns]
    if len(models) > 1:
        headings = ["class", *(f"{c} {when}" for when in ("before", "after") for c in columns)]
    return Table(tuple(headings), tuple(lines)), len(order) - len(lines)


def _score(result: DetectorRow | None) -> Cell:
    if result is None:
        return _NONE
    word = "flagged" if result.flagged else "not flagged"
    if result.p_value is not None:
        word += f", p = {significant(result.p_value, 2)}"
    # The score of a flagged model is only missing where it is infinite.
    value = math.inf if result.flagged and result.value is None else result.value
    return Cell(index(value), bold=result.flagged, detail=word)


def detector_table(audit: AuditDocuments) -> Table:
    """Return one line per detector: threshold, score before and after."""
    models = [{result.name: result for result in report.detectors} for report in _models(audit)]
    lines = []
    for name in dict.fromkeys(name for model in models for name in model):
        threshold = next(model[name].threshold for model in models if name in model)
        cells = (Cell(index(threshold)), *(_score(model.get(name)) for model in models))
        lines.append((name, cells))
    first, *others = _headings(audit, "detector")
    return Table((first, "threshold", *others), tuple(lines))


def detector_meanings(audit: AuditDocuments) -> Sequence[tuple[str, str]]:
    """Return the result of each detector in words, before and after."""
    when = ("Before: ", "After: ") if audit.after is not None else ("",)
    texts: dict[str, list[str]] = {}
    for report, prefix in zip(_models(audit), when, strict=False):
        for result in report.detectors:
            texts.setdefault(result.name, []).append(prefix + result.meaning)
    return tuple((name, " ".join(parts)) for name, parts in texts.items())

# SPDX-License-Identifier: Apache-2.0
"""The tables of a case: before and after, one class per line, one sign per line."""

import math
from collections.abc import Sequence

from d3fast.audit.findings import Findings, Inverted, Sign
from d3fast.audit.report.folder import CaseDocuments
from d3fast.audit.report.words import index, size
from d3fast.results.format import fixed, interval, percent, points
from d3fast.results.table import Cell, Table

_NONE = Cell("–")
_MOST_CLASSES = 20


def _models(case: CaseDocuments) -> list[Findings]:
    return [found for found in (case.before, case.after) if found is not None]


def _headings(case: CaseDocuments, first: str) -> tuple[str, ...]:
    if case.after is None:
        return (first, "the model")
    return (first, "before", "after")


def _accuracy(found: Findings) -> Cell:
    m = found.metrics
    return Cell(percent(m.acc, unit="%"), detail=f"{interval(*m.acc_interval)}, {m.images} samples")


def _asr(found: Findings) -> Cell:
    m = found.metrics
    if m.asr is None or m.asr_interval is None:
        return _NONE
    return Cell(
        percent(m.asr, unit="%"), detail=f"{interval(*m.asr_interval)}, {m.triggered} samples"
    )


def _smallest(found: Findings) -> Cell:
    if not found.inversions:
        return _NONE
    least = min(found.inversions, key=lambda inverted: inverted.norm)
    return Cell(size(least.norm), detail=f"class “{least.name}”, index {index(least.index)}")


def _outliers(found: Findings) -> Cell:
    if not found.inversions:
        return _NONE
    names = [f"“{inverted.name}”" for inverted in found.outliers[:4]]
    more = len(found.outliers) - len(names)
    beside = ", ".join([*names, *([f"{more} more"] if more > 0 else [])])
    return Cell(f"{len(found.outliers)} of {len(found.inversions)}", detail=beside)


def _raised(found: Findings) -> Cell:
    if not found.signs:
        return _NONE
    return Cell(f"{len(found.raised)} of {len(found.signs)}")


def before_and_after(case: CaseDocuments) -> Table:
    """One line per measure, a column per model; intervals stand below the numbers."""
    models = _models(case)
    readers = {"Accuracy on clean samples (ACC)": _accuracy}
    if any(found.metrics.triggered for found in models):
        readers["Attack success rate under a known trigger (ASR)"] = _asr
    readers |= {
        "Smallest inverted trigger": _smallest,
        "Classes with an unusually small trigger": _outliers,
        "Signs raised": _raised,
    }
    lines = [(name, tuple(read(found) for found in models)) for name, read in readers.items()]
    if case.card is not None:
        drop, low, high = case.card.repair.drop
        beside, allowed = f"{fixed(low)} to {points(high)}", case.card.repair.allowed
        beside += "" if allowed is None else f", {points(allowed)} allowed"
        lines.insert(1, ("Loss of accuracy", (_NONE, Cell(points(drop), detail=beside))))
        lines.append(("Distance from the suspect’s weights", (_NONE, _distance(case))))
    return Table(_headings(case, "measure"), tuple(lines))


def _distance(case: CaseDocuments) -> Cell:
    card = case.card
    if card is None:
        return _NONE
    if card.way is not None and card.way.total is not None:
        return Cell(percent(card.way.total, unit="%"), detail="of the norm of all weights")
    if card.repair.distance is not None:
        return Cell(index(card.repair.distance), detail="of the weights that were pushed")
    return _NONE


def _inverted(found: Inverted | None) -> tuple[Cell, Cell]:
    if found is None:
        return _NONE, _NONE
    beside = "unusual" if found.outlier else ""
    return Cell(size(found.norm), bold=found.outlier), Cell(
        index(found.index), bold=found.outlier, detail=beside
    )


def inverted_words(found: Inverted) -> str:
    """Size and anomaly index of an inverted trigger, below its picture."""
    return f"{size(found.norm)}, index {index(found.index)}"


def class_table(case: CaseDocuments) -> tuple[Table, int]:
    """One line per class: size of its trigger and anomaly index, before and after.

    Unusual ones come first, then the smallest.

    Returns:
        The table, and how many classes with larger triggers are not in it.
    """
    models = [{i.target: i for i in found.inversions} for found in _models(case)]
    least = {
        target: min(m[target].norm for m in models if target in m)
        for target in {target for m in models for target in m}
    }
    chosen = sorted(least, key=lambda target: (least[target], target))
    suspicious = [t for t in chosen if any(t in m and m[t].outlier for m in models)]
    shown = (suspicious + [t for t in chosen if t not in suspicious])[:_MOST_CLASSES]
    lines = []
    for target in shown:
        name = next(m[target].name for m in models if target in m)
        items = tuple(item for m in models for item in _inverted(m.get(target)))
        lines.append((name, items))
    headings = ["class", "trigger", "index"]
    if len(models) > 1:
        headings = ["class", "trigger before", "index before", "trigger after", "index after"]
    return Table(tuple(headings), tuple(lines)), len(chosen) - len(shown)


def _sign(sign: Sign | None) -> Cell:
    if sign is None:
        return _NONE
    word = "raised" if sign.raised else "not raised"
    # A raised sign without a value is one whose value is infinite.
    value = math.inf if sign.raised and sign.value is None else sign.value
    return Cell(index(value), bold=sign.raised, detail=word)


def sign_table(case: CaseDocuments) -> Table:
    """One line per sign that needs no trigger."""
    models = [{sign.name: sign for sign in found.signs} for found in _models(case)]
    lines = []
    for name in dict.fromkeys(name for m in models for name in m):
        threshold = next(m[name].threshold for m in models if name in m)
        cells = (Cell(index(threshold)), *(_sign(m.get(name)) for m in models))
        lines.append((name, cells))
    first, *others = _headings(case, "sign")
    return Table((first, "raised above", *others), tuple(lines))


def sign_meanings(case: CaseDocuments) -> Sequence[tuple[str, str]]:
    """What every sign says in words, of the model before and after."""
    when = ("Before: ", "After: ") if case.after is not None else ("",)
    said: dict[str, list[str]] = {}
    for found, prefix in zip(_models(case), when, strict=False):
        for sign in found.signs:
            said.setdefault(sign.name, []).append(prefix + sign.meaning)
    return tuple((name, " ".join(texts)) for name, texts in said.items())

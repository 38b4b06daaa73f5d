# SPDX-License-Identifier: Apache-2.0
"""Compare two inspections of a model: accuracy, inverted triggers, detector results.

Accuracy has changed where Newcombe's 95 % interval of the difference excludes 0, an inverted
trigger where it is an outlier in only one file, a detector where it flags the model in only one
file. ``d3fast monitor`` prints the comparison.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d3fast.audit.model_report import REPAIRED, SUSPECT, ModelReport
from d3fast.results.format import fixed, percent, signed, significant
from d3fast.results.schema.audit import DetectorRow, InversionRow
from d3fast.training.intervals import difference_interval


@dataclass(frozen=True)
class Change:
    """The comparison of one measurement.

    Attributes:
        name: of the measurement.
        old: its earlier value, in words.
        new: its later value.
        change: the difference, with its interval where it has one.
        worse: ``True`` for worse, ``False`` for better, ``None`` for unchanged.
    """

    name: str
    old: str
    new: str
    change: str
    worse: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """The comparison of two inspections.

    Attributes:
        changes: one per measurement, changed or not.
        notes: differences between the two files, a sentence each.
    """

    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def worse(self) -> tuple[Change, ...]:
        """Measurements that became worse."""
        return tuple(change for change in self.changes if change.worse)

    @property
    def better(self) -> tuple[Change, ...]:
        """Measurements that became better."""
        return tuple(change for change in self.changes if change.worse is False)

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if not self.changes:
            return "Nothing could be compared."
        if self.worse:
            text = f"Worse: {_joined(self.worse)}"
            return f"{text}; better: {_joined(self.better)}." if self.better else f"{text}."
        if self.better:
            return f"Nothing is worse; better: {_joined(self.better)}."
        return "No change beyond chance."


def _joined(changes: Sequence[Change]) -> str:
    return ", ".join(change.name for change in changes)


def _accuracy(old: ModelReport, new: ModelReport) -> Change:
    """Return the difference of two accuracies, in points."""
    a, b = new.metrics, old.metrics
    low, high = difference_interval(a.correct, a.images, b.correct, b.images)
    change = f"{signed(100 * (a.acc - b.acc))} points ({signed(100 * low)} to {signed(100 * high)})"
    worse = True if high < 0 else False if low > 0 else None
    was, now = (f"{percent(m.acc)} % of {m.images}" for m in (b, a))
    return Change("accuracy (ACC)", was, now, change, worse)


def _inversion(row: InversionRow | None) -> str:
    if row is None:
        return "not measured"
    index = "infinite" if row.index is None else fixed(row.index)
    if row.tokens is not None:
        return f"strength {index}, “{row.tokens}”"
    return f"index {index}, {fixed(row.norm)} pixels"


def _by_class(report: ModelReport) -> dict[str, InversionRow]:
    """Return inversions by class name, with the index where two classes have the same name."""
    rows = report.inversions
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        names = [f"{row.name} ({row.target})" for row in rows]
    return dict(zip(names, rows, strict=True))


def _largest(report: ModelReport) -> InversionRow:
    return max(report.inversions, key=lambda row: math.inf if row.index is None else row.index)


def _inversions(old: ModelReport, new: ModelReport) -> list[Change]:
    """Return one change per class that is an outlier in either file; one line if there is none."""
    before, after = _by_class(old), _by_class(new)
    changes = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        outlier = (was is not None and was.outlier, now is not None and now.outlier)
        if not any(outlier):
            continue
        words = {
            (True, True): ("still an outlier", None),
            (False, True): ("now an outlier", True),
            (True, False): ("no longer an outlier", False),
        }
        word, worse = words[outlier]
        if now is None:
            word, worse = "no longer measured", None
        title = f"inverted trigger of class “{name}”"
        changes.append(Change(title, _inversion(was), _inversion(now), word, worse))
    if changes or not (before and after):
        return changes
    was_largest, now_largest = (f"none (largest {_inversion(_largest(r))})" for r in (old, new))
    title = "outliers among inverted triggers"
    return [Change(title, was_largest, now_largest, "none in either")]


def _result(result: DetectorRow | None) -> str:
    if result is None:
        return "not measured"
    word = "flagged" if result.flagged else "not flagged"
    if result.value is None:
        return word
    share = "" if result.p_value is None else f", p = {significant(result.p_value, 2)}"
    return f"{word} ({fixed(result.value)}, threshold {fixed(result.threshold)}{share})"


def _detectors(old: ModelReport, new: ModelReport) -> list[Change]:
    before, after = ({result.name: result for result in r.detectors} for r in (old, new))
    changes = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        word, worse = {
            (True, True): ("still flagged", None),
            (False, True): ("now flagged", True),
            (True, False): ("no longer flagged", False),
            (False, False): ("same", None),
        }[was is not None and was.flagged, now is not None and now.flagged]
        if now is None:
            word, worse = "no longer measured", None
        elif was is None and not now.flagged:
            word = "first measured now"
        changes.append(Change(f"detector “{name}”", _result(was), _result(now), word, worse))
    return changes


def _verdict(old: ModelReport, new: ModelReport) -> list[Change]:
    pair = (old.suspicious, new.suspicious)
    if pair == (None, None):
        return []
    words = {None: "no verdict", True: "suspicious", False: "not suspicious"}
    worse = None
    if new.suspicious and not old.suspicious:
        worse = True
    elif pair == (True, False):
        worse = False
    change = "same" if pair[0] == pair[1] else "different"
    return [Change("verdict", words[pair[0]], words[pair[1]], change, worse)]


def compare(
    old: ModelReport,
    new: ModelReport,
    classes: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Comparison:
    """Compare two inspections of a model.

    Classes are matched by name. Where the lists of classes differ, accuracy is not compared.

    Args:
        old: the earlier inspection.
        new: the later one.
        classes: names of all classes in both, in the order of the model's outputs; empty where
            they are not known.

    Example:
        >>> from d3fast.results.schema.audit import ModelRow
        >>> def report(correct):
        ...     return ModelReport(ModelRow(role="suspect", sha256="0" * 64, parameters=9,
        ...                                 correct=correct, images=1000))
        >>> compare(report(970), report(930)).sentence
        'Worse: accuracy (ACC).'
        >>> compare(report(970), report(968)).sentence
        'No change beyond chance.'
    """
    was, now = old.model, new.model
    if was.sha256 == now.sha256:
        notes = ["The weights are the same: every change is due to the samples."]
    else:
        notes = [f"The weights differ: SHA-256 {was.sha256[:12]}… then, {now.sha256[:12]}… now."]
    if was.parameters != now.parameters:
        notes.append(f"Another architecture: {was.parameters} then, {now.parameters} weights now.")
    if was.images != now.images:
        notes.append(f"{was.images} samples then, {now.images} now.")
    changes = [*_verdict(old, new), *_inversions(old, new), *_detectors(old, new)]
    if _same_classes(*classes):
        changes.insert(0, _accuracy(old, new))
    else:
        notes.append(
            "The lists of classes differ: accuracies are not compared, classes are matched by name."
        )
    return Comparison(tuple(changes), tuple(notes))


def _same_classes(old: Sequence[str], new: Sequence[str]) -> bool:
    return not old or not new or list(old) == list(new)


def latest(by_role: Mapping[str, ModelReport | None]) -> ModelReport:
    """Return the repaired model of a file, or else the suspect.

    Args:
        by_role: reports by role.

    Raises:
        ValueError: neither is there.
    """
    for role in (REPAIRED, SUSPECT):
        report = by_role.get(role)
        if report is not None:
            return report
    raise ValueError("holds no model: it is neither inspect.json nor card.json")

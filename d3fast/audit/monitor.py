# SPDX-License-Identifier: Apache-2.0
"""Has a model moved since the last card? Accuracy, inverted triggers and signs, then and now.

``compare`` takes what ``d3fast.audit.findings`` read from two files, ``d3fast monitor`` prints it.
Accuracy has moved where Newcombe's 95 % interval of the difference leaves out 0; an inverted
trigger where it is an outlier in one file alone; a sign where it is raised in one file alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d3fast.audit.findings import Findings, Inverted, Sign
from d3fast.results.format import fixed, percent, signed
from d3fast.training.metrics import difference_interval


@dataclass(frozen=True)
class Change:
    """One thing that was compared.

    Attributes:
        what: its name.
        old: as it was, in words.
        new: as it is.
        change: how it moved, with its interval where it has one.
        worse: ``True`` for the worse, ``False`` for the better, ``None``: it has not moved.
    """

    what: str
    old: str
    new: str
    change: str
    worse: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """All that was compared.

    Attributes:
        changes: one per thing, moved or not.
        notes: what to know when comparing the two files, a sentence each.
    """

    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def worse(self) -> tuple[Change, ...]:
        """What moved for the worse."""
        return tuple(change for change in self.changes if change.worse)

    @property
    def better(self) -> tuple[Change, ...]:
        """What moved for the better."""
        return tuple(change for change in self.changes if change.worse is False)

    @property
    def sentence(self) -> str:
        """The outcome, in one sentence."""
        if not self.changes:
            return "Nothing could be compared."
        if self.worse:
            text = f"Moved for the worse: {_joined(self.worse)}"
            return f"{text}; for the better: {_joined(self.better)}." if self.better else f"{text}."
        if self.better:
            return f"Nothing moved for the worse; for the better: {_joined(self.better)}."
        return "Nothing moved beyond what chance explains."


def _joined(changes: Sequence[Change]) -> str:
    return ", ".join(change.what for change in changes)


def _accuracy(old: Findings, new: Findings) -> Change:
    """Difference of two accuracies, in points."""
    a, b = new.metrics, old.metrics
    low, high = difference_interval(a.correct, a.images, b.correct, b.images)
    change = f"{signed(100 * (a.acc - b.acc))} points ({signed(100 * low)} to {signed(100 * high)})"
    worse = True if high < 0 else False if low > 0 else None
    was, now = (f"{percent(m.acc)} % of {m.images}" for m in (b, a))
    return Change("accuracy (ACC)", was, now, change, worse)


def _index(found: Inverted | None) -> str:
    if found is None:
        return "not measured"
    index = "infinite" if math.isinf(found.index) else fixed(found.index)
    return f"index {index}, {fixed(found.norm)} pixels"


def _by_class(findings: Findings) -> dict[str, Inverted]:
    """Inversions by the names of their classes, told apart by index where two are alike."""
    found = findings.inversions
    names = [inverted.name for inverted in found]
    if len(set(names)) < len(names):
        names = [f"{inverted.name} ({inverted.target})" for inverted in found]
    return dict(zip(names, found, strict=True))


def _inversions(old: Findings, new: Findings) -> list[Change]:
    """One change per class that is an outlier in either file; one line if there is none."""
    before, after = _by_class(old), _by_class(new)
    changes = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        pair = (was is not None and was.outlier, now is not None and now.outlier)
        if not any(pair):
            continue
        what = f"inverted trigger of class “{name}”"
        words = {
            (True, True): ("outlier still", None),
            (False, True): ("outlier now", True),
            (True, False): ("no outlier any more", False),
        }
        word, worse = words[pair]
        if now is None:
            word, worse = "not measured any more", None
        changes.append(Change(what, _index(was), _index(now), word, worse))
    if changes or not (before and after):
        return changes
    then, today = (_index(max(f.inversions, key=lambda found: found.index)) for f in (old, new))
    what = "outliers among inverted triggers"
    return [Change(what, f"none (largest {then})", f"none (largest {today})", "none in either")]


def _raised(sign: Sign | None) -> str:
    if sign is None:
        return "not measured"
    value = (
        ""
        if sign.value is None
        else f" ({fixed(sign.value)}, raised above {fixed(sign.threshold)})"
    )
    return ("raised" if sign.raised else "not raised") + value


def _signs(old: Findings, new: Findings) -> list[Change]:
    before, after = ({sign.name: sign for sign in f.signs} for f in (old, new))
    changes = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        pair = (was is not None and was.raised, now is not None and now.raised)
        word, worse = {
            (True, True): ("raised still", None),
            (False, True): ("raised now", True),
            (True, False): ("not raised any more", False),
            (False, False): ("same", None),
        }[pair]
        if now is None:
            word, worse = "not measured any more", None
        elif was is None and not now.raised:
            word = "measured for the first time"
        changes.append(Change(f"sign “{name}”", _raised(was), _raised(now), word, worse))
    return changes


def _verdict(old: Findings, new: Findings) -> list[Change]:
    if old.suspicious is None and new.suspicious is None:
        return []
    words = {None: "no verdict", True: "suspicious", False: "not suspicious"}
    pair = (old.suspicious, new.suspicious)
    worse = None
    if new.suspicious and not old.suspicious:
        worse = True
    elif pair == (True, False):
        worse = False
    change = "same" if pair[0] == pair[1] else "other"
    return [Change("verdict", words[pair[0]], words[pair[1]], change, worse)]


def compare(
    old: Findings,
    new: Findings,
    classes: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Comparison:
    """What has moved between two looks at a model.

    Classes are matched by name. Where they differ, accuracy is not compared.

    Args:
        old: the earlier look.
        new: the later one.
        classes: names of all classes then and now, in the order of the model's outputs; empty
            where they are not known.

    Returns:
        The changes, and what to know about the two files.

    Example:
        >>> from d3fast.training.metrics import Metrics
        >>> def look(correct):
        ...     m = Metrics(correct=correct, images=1000)
        ...     return Findings("0" * 64, 9, "fc", m, (), (), None, (), "")
        >>> compare(look(970), look(930)).sentence
        'Moved for the worse: accuracy (ACC).'
        >>> compare(look(970), look(968)).sentence
        'Nothing moved beyond what chance explains.'
    """
    if old.sha256 == new.sha256:
        notes = ["The same weights as then: what moved, moved with the samples."]
    else:
        hashes = f"{old.sha256[:12]}… then, {new.sha256[:12]}… now"
        notes = [f"Other weights than then: SHA-256 {hashes}."]
    if old.parameters != new.parameters:
        notes.append(f"{old.parameters} weights then, {new.parameters} now: another architecture.")
    if old.metrics.images != new.metrics.images:
        notes.append(f"{old.metrics.images} samples then, {new.metrics.images} now.")
    changes = [*_verdict(old, new), *_inversions(old, new), *_signs(old, new)]
    if _same_classes(*classes):
        changes.insert(0, _accuracy(old, new))
    else:
        notes.append(
            "Other classes, or the same in another order: accuracies are not compared, and "
            "classes are matched by name."
        )
    return Comparison(tuple(changes), tuple(notes))


def _same_classes(old: Sequence[str], new: Sequence[str]) -> bool:
    return not old or not new or list(old) == list(new)


def latest(by_role: Mapping[str, Findings | None]) -> Findings:
    """Of the models in a file, the one to watch: the repaired one, else the suspect.

    Args:
        by_role: findings by role.

    Raises:
        ValueError: neither is there.
    """
    for role in ("repaired", "suspect"):
        found = by_role.get(role)
        if found is not None:
            return found
    raise ValueError("holds no model: it is neither inspect.json nor card.json")

# SPDX-License-Identifier: Apache-2.0
"""What was found out about one model, read from the rows of inspect.json or card.json.

Both files have the same kinds of rows: a model, an inversion per class, signs, a verdict; card.json
has them for the suspect and for the repaired model. ``d3fast report`` and ``d3fast monitor`` read
them by what is here. The files may be hostile: everything is checked, see ``d3fast.results.rows``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d3fast.io.untrusted import printable
from d3fast.results.rows import digest, flag, integer, listed, maybe, number, of_kind, only, text
from d3fast.training.metrics import Metrics

SUSPECT, REPAIRED = "suspect", "repaired"

Row = Mapping[str, Any]

_NAME = 80  # characters of a class or a sign


@dataclass(frozen=True)
class Inverted:
    """The smallest trigger found for one class.

    Attributes:
        target: index of the class.
        name: of the class.
        norm: size of the trigger, in pixels.
        success: share of the samples that it turns into the class.
        index: anomaly index, may be infinite.
        outlier: whether it is suspiciously small.
        picture: data URI of it as written in the file, not yet looked at; or ``None``.
    """

    target: int
    name: str
    norm: float
    success: float
    index: float
    outlier: bool
    picture: str | None


@dataclass(frozen=True)
class Sign:
    """What a sign that needs no trigger says.

    Attributes:
        name: of the sign.
        value: how far a class stands out; ``None`` where that is infinite or cannot be said.
        threshold: value above which it is raised.
        raised: whether it is.
        target: index of the class it points to, or ``None``.
        meaning: a plain sentence.
    """

    name: str
    value: float | None
    threshold: float
    raised: bool
    target: int | None
    meaning: str


@dataclass(frozen=True)
class Findings:
    """One model.

    Attributes:
        sha256: of the file with its weights.
        parameters: how many weights it has.
        head: name of its last layer, where it was found.
        metrics: counts on clean samples, and under a trigger if one was known.
        inversions: one per class, or none.
        signs: as many as were asked.
        suspicious: the verdict; ``None`` where there is none.
        targets: classes that the verdict names.
        text: the verdict in words.
    """

    sha256: str
    parameters: int
    head: str | None
    metrics: Metrics
    inversions: tuple[Inverted, ...]
    signs: tuple[Sign, ...]
    suspicious: bool | None
    targets: tuple[int, ...]
    text: str

    def name(self, target: int) -> str:
        """A class by its name; by its index where no inversion names it."""
        names = {found.target: found.name for found in self.inversions}
        return names.get(target, str(target))

    @property
    def blind(self) -> bool:
        """Whether the verdict is empty: signs compare classes, and two are too few."""
        nothing = len(self.inversions) < 3 and all(sign.value is None for sign in self.signs)
        return self.suspicious is False and nothing

    @property
    def outliers(self) -> tuple[Inverted, ...]:
        """The inverted triggers that are suspiciously small, the smallest first."""
        return tuple(sorted((i for i in self.inversions if i.outlier), key=lambda i: i.norm))

    @property
    def raised(self) -> tuple[Sign, ...]:
        """The signs that are raised."""
        return tuple(sign for sign in self.signs if sign.raised)


def _metrics(row: Row) -> Metrics:
    images = integer(row, "images", 1)
    triggered = maybe(integer, row, "triggered") or 0
    return Metrics(
        correct=integer(row, "correct", 0, images),
        images=images,
        hits=maybe(integer, row, "hits", high=triggered) or 0,
        robust=maybe(integer, row, "robust", high=triggered) or 0,
        triggered=triggered,
    )


def _inverted(row: Row) -> Inverted:
    index = maybe(number, row, "index", low=0)
    picture = row.get("picture")
    if not (picture is None or isinstance(picture, str)):
        raise ValueError("inversion row: picture must be a text or null")
    return Inverted(
        target=integer(row, "target"),
        name=text(row, "class", _NAME),
        norm=number(row, "norm", 0),
        success=number(row, "success", 0, 1),
        index=math.inf if index is None else index,
        outlier=flag(row, "outlier"),
        picture=picture,
    )


def _sign(row: Row) -> Sign:
    return Sign(
        name=text(row, "name", _NAME),
        value=maybe(number, row, "value"),
        threshold=number(row, "threshold"),
        raised=flag(row, "raised"),
        target=maybe(integer, row, "target"),
        meaning=text(row, "meaning"),
    )


def _targets(row: Row) -> tuple[int, ...]:
    return tuple(
        integer({"kind": "verdict", "targets": t}, "targets") for t in listed(row, "targets")
    )


def findings(rows: Sequence[Row], role: str) -> Findings | None:
    """What rows say of one model.

    Args:
        rows: of inspect.json or card.json.
        role: ``"suspect"`` or ``"repaired"``.

    Returns:
        The findings; ``None`` if there is no such model.

    Raises:
        ValueError: a field that is missing or cannot be, a class with two inversions, a sign or
            a verdict given twice.

    Example:
        >>> rows = [{"kind": "model", "role": "suspect", "sha256": 64 * "0", "parameters": 9,
        ...          "head": "fc", "correct": 8, "images": 10}]
        >>> found = findings(rows, "suspect")
        >>> found.metrics.acc, found.suspicious
        (0.8, None)
        >>> print(findings(rows, "repaired"))
        None
    """
    model = only(rows, "model", role=role)
    if model is None:
        return None
    inversions = [_inverted(row) for row in of_kind(rows, "inversion", role=role)]
    if len({found.target for found in inversions}) < len(inversions):
        raise ValueError(f"two inversion rows of the {role} model have the same target")
    signs = [_sign(row) for row in of_kind(rows, "sign", 100, role=role)]
    if len({sign.name for sign in signs}) < len(signs):
        raise ValueError(f"two sign rows of the {role} model have the same name")
    verdict = only(rows, "verdict", role=role)
    return Findings(
        sha256=digest(model, "sha256"),
        parameters=integer(model, "parameters"),
        head=maybe(text, model, "head", most=_NAME),
        metrics=_metrics(model),
        inversions=tuple(inversions),
        signs=tuple(signs),
        suspicious=None if verdict is None else flag(verdict, "suspicious"),
        targets=() if verdict is None else _targets(verdict),
        text="" if verdict is None else text(verdict, "text", 1500),
    )


def class_names(settings: Row) -> tuple[str, ...]:
    """The classes that a file's settings list; none where they do not.

    Raises:
        ValueError: classes that are no list of texts.
    """
    if settings.get("classes") is None:
        return ()
    names = listed({"kind": "settings", "classes": settings["classes"]}, "classes")
    if not all(isinstance(name, str) for name in names):
        raise ValueError("settings row: classes must be a list of texts")
    return tuple(printable(name, _NAME) for name in names)

# SPDX-License-Identifier: Apache-2.0
"""Two audits side by side: verdicts, options that differ, measurements, detectors, curves."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d3fast.audit.report.documents import Card
from d3fast.audit.report.folder import AuditDocuments
from d3fast.audit.report.plots import compared_figures
from d3fast.audit.report.tables import before_and_after, detector_table
from d3fast.audit.report.verdict import audit_verdict
from d3fast.io.untrusted import printable
from d3fast.results.format import MISSING, joined
from d3fast.results.plot import inline_svg
from d3fast.results.store import Results
from d3fast.results.table import Cell, Table

LABELS = ("A", "B")
_MOST_DEPTH = 6
_MOST_OPTIONS = 2000  # of a document
_MOST_LINES = 100
_MOST_TEXT = 80  # characters of a value
_WHOLE = "the model"  # heading of tables without a repair


@dataclass(frozen=True)
class Side:
    """One of the two audits.

    Attributes:
        name: of its folder.
        audit: its checked documents.
        documents: the same by file name, for the options.
    """

    name: str
    audit: AuditDocuments
    documents: Mapping[str, Results]


def side_by_side(tables: Sequence[Table]) -> Table:
    """Return one table of two with the same first column, the headings with the letters A and B.

    Example:
        >>> from d3fast.results.table import text_table
        >>> made = side_by_side([text_table(("measure", "before"), [("ACC", "97")])] * 2)
        >>> made.headings, [cell.text for cell in made.lines[0][1]]
        (('measure', 'A before', 'B before'), ['97', '97'])
    """
    names = dict.fromkeys(name for table in tables for name, _ in table.lines)
    headings = [tables[0].headings[0]]
    lines: dict[str, list[Cell]] = {name: [] for name in names}
    for label, table in zip(LABELS, tables, strict=True):
        columns = table.headings[1:]
        headings += [label if c == _WHOLE else f"{label} {c}" for c in columns]
        own = dict(table.lines)
        for name, cells in lines.items():
            cells += own.get(name, (Cell(MISSING),) * len(columns))
    return Table(tuple(headings), tuple((name, tuple(cells)) for name, cells in lines.items()))


def _leaves(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield path and text of every value inside the settings of a document."""
    if isinstance(value, dict) and value and depth < _MOST_DEPTH:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key), depth + 1)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield printable(path, _MOST_TEXT), printable(text, _MOST_TEXT)


def _options(side: Side, documents: Sequence[str]) -> dict[str, str]:
    """Return command, time, versions and settings of some documents by a path."""
    found: dict[str, str] = {}
    for name in documents:
        results = side.documents[name]
        held = {
            "command": results.command,
            "created": results.created,
            "versions": dict(results.versions),
            **results.settings,
        }
        document = name.partition(".")[0]
        for at, (path, text) in enumerate(_leaves(held, "")):
            if at >= _MOST_OPTIONS:
                break
            found[f"{document}: {path}"] = text
    return found


def option_table(first: Side, second: Side) -> tuple[Table, int]:
    """Return the options that differ in documents of both, and how many the table leaves out."""
    shared = [name for name in first.documents if name in second.documents]
    ours, theirs = (_options(side, shared) for side in (first, second))
    names = [n for n in dict.fromkeys([*ours, *theirs]) if ours.get(n) != theirs.get(n)]
    lines = [
        (name, tuple(Cell(options.get(name, MISSING)) for options in (ours, theirs)))
        for name in names
    ]
    shown = tuple(lines[:_MOST_LINES])
    return Table(("option", *LABELS), shown), len(lines) - len(shown)


def lone_documents(first: Side, second: Side) -> list[str]:
    """Return a sentence for each side that has documents which the other one lacks."""
    pairs = zip(LABELS, ((first, second), (second, first)), strict=True)
    lone = {
        label: [name for name in own.documents if name not in other.documents]
        for label, (own, other) in pairs
    }
    return [f"Only {label} has {joined(names)}." for label, names in lone.items() if names]


def verdict_table(first: Side, second: Side) -> Table:
    """Return the findings of both, one line per question."""
    found = [audit_verdict(side.audit).findings for side in (first, second)]
    lines = (
        (a.question, tuple(Cell(each.word, detail=each.text) for each in (a, b)))
        for a, b in zip(*found, strict=True)
    )
    return Table(("question", *LABELS), tuple(lines))


def comparison(first: Side, second: Side) -> dict[str, Any]:
    """Return what the template compare.html shows of two audits."""
    sides = (first, second)
    options, more = option_table(first, second)
    cards = [side.audit.card for side in sides]
    return {
        "title": f"{first.name} and {second.name}",
        "sides": [
            {"label": label, "name": side.name, "verdict": audit_verdict(side.audit)}
            for label, side in zip(LABELS, sides, strict=True)
        ],
        "verdicts": verdict_table(first, second),
        "options": options,
        "more_options": more,
        "lone": lone_documents(first, second),
        "measures": side_by_side([before_and_after(side.audit) for side in sides]),
        "detectors": side_by_side([detector_table(side.audit) for side in sides]),
        "figures": _figures(cards),
    }


def _figures(cards: Sequence[Card | None]) -> list[dict[str, Any]]:
    epochs = {
        label: card.epochs for label, card in zip(LABELS, cards, strict=True) if card is not None
    }
    if len(epochs) < 2 or not all(epochs.values()):
        return []
    figures = compared_figures(epochs)
    return [
        {"title": title, "svg": inline_svg(figure, f"{title} over the epochs, A and B")}
        for title, figure in figures.items()
    ]

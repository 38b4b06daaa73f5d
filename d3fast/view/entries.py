# SPDX-License-Identifier: Apache-2.0
"""What the list says of a run: model, verdict, rates before and after, seconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from d3fast.audit.model_report import ModelReport
from d3fast.audit.report.documents import Rows
from d3fast.audit.report.folder import AuditDocuments, read_audit
from d3fast.audit.report.verdict import audit_verdict, backdoored
from d3fast.audit.resolve import CARD
from d3fast.benchmark.demo import BACKDOORED, shortfalls
from d3fast.benchmark.labels import D3, NONE
from d3fast.benchmark.presets import REPAIRED
from d3fast.benchmark.report.attacks import attack_shortfalls
from d3fast.benchmark.report.goals import judge_goals
from d3fast.benchmark.report.numbers import grid, sections
from d3fast.io.untrusted import error_text, printable
from d3fast.results.format import count, mean
from d3fast.results.schema.benchmark import (
    AttackRow,
    DemoRow,
    GridRow,
    read_attacks,
    read_demo,
    read_grid,
)
from d3fast.results.store import Results, read_results
from d3fast.view.folders import KINDS, Run

Read = TypeVar("Read")
GOOD, BAD, OPEN = "reached", "missed", "unmeasured"  # names of styles
_MOST_PROBLEMS = 20
_READERS: Mapping[str, Callable[[Rows], Sequence[Any]]] = {
    "benchmark": read_grid,
    "attacks": read_attacks,
    "demo": read_demo,
}


@dataclass(frozen=True)
class Rates:
    """A model before or after a repair, or a mean over models; fractions, ``None``: not measured.

    Attributes:
        acc: accuracy.
        asr: attack success rate.
        lift: of the trigger.
    """

    acc: float | None = None
    asr: float | None = None
    lift: float | None = None


@dataclass(frozen=True)
class Entry:
    """One line of the list.

    Attributes:
        run: where it was read.
        kind: a key of ``KINDS``; a card of ``d3fast attack`` counts as attacks.
        model: name of the model or of data set and model.
        verdict: in one sentence.
        state: ``GOOD``, ``BAD`` or ``OPEN``.
        before: the suspect, or the mean of backdoored models.
        after: the repaired model, or the mean after D3.
        seconds: of detectors and repairs.
        problems: rows that were left out and why.
    """

    run: Run
    kind: str
    model: str
    verdict: str
    state: str
    before: Rates = field(default_factory=Rates)
    after: Rates = field(default_factory=Rates)
    seconds: float | None = None
    problems: tuple[str, ...] = ()


def read_entry(run: Run) -> Entry:
    """Summarise a run.

    Raises:
        ValueError: documents that cannot be read; one line that names the run.
    """
    try:
        if run.kind == "audit" and not is_attack(run):
            return _of_audit(run, read_audit(run.folder, hash_output=False))
        results, rows, problems = read_rows(run)
        return _of_rows(run, results, rows, problems)
    except (ValueError, OSError) as error:
        raise ValueError(f"{printable(run.name)}: {error_text(error)}") from None
    except (TypeError, AttributeError, ArithmeticError, LookupError) as error:
        # Rows that are valid one by one, and do not make a run together.
        raise ValueError(f"{printable(run.name)}: its rows make no run ({error!r:.80})") from None


def is_attack(run: Run) -> bool:
    """Return whether card.json is that of ``d3fast attack``, which has no kinds of rows."""
    if [name for name, *_ in run.stamp] != [CARD]:
        return False
    return read_results(run.folder / CARD).command.startswith("d3fast attack ")


def read_rows(run: Run) -> tuple[Results, list[Any], tuple[str, ...]]:
    """Read the rows of a run other than an audit; damaged ones are left out.

    Returns:
        The document, its rows, and a sentence for each row that was left out.

    Raises:
        ValueError: a document that cannot be read, or without a row that can.
    """
    name = KINDS[run.kind][0]
    results = read_results(run.folder / name)
    reader = _READERS.get(run.kind, _READERS["attacks"])
    rows: list[Any] = []
    problems: list[str] = []
    for number, row in enumerate(results.rows, start=1):
        try:
            rows += reader([row])
        except ValueError as error:
            problems.append(f"{name}, row {number}: {error_text(error)}")
    if not rows:
        raise ValueError(problems[0] if problems else f"{name} has no rows")
    if (more := len(problems) - _MOST_PROBLEMS) > 0:
        problems[_MOST_PROBLEMS:] = [f"{name}: {count(more, 'more row')} left out"]
    return results, rows, tuple(problems)


def _of_audit(run: Run, audit: AuditDocuments) -> Entry:
    signs, card = backdoored(audit.after or audit.before), audit.card
    if audit.before is None and audit.weights is not None:
        signs = audit.weights.verdict.suspicious
    missed = signs or (card is not None and not card.repair.within_limit)
    settings = [origin.settings for origin in audit.origins.values()]
    spent = [
        result.seconds
        for report in (audit.before, audit.after)
        if report is not None
        for result in report.detectors
    ]
    spent += [None if card is None else card.repair.seconds]
    known = [value for value in spent if value is not None]
    return Entry(
        run=run,
        kind=run.kind,
        model=next((s.checkpoint or s.model or "" for s in settings), ""),
        verdict=audit_verdict(audit).headline,
        state=BAD if missed else OPEN if signs is None or audit.after is None else GOOD,
        before=_rates(audit.before),
        after=_rates(audit.after),
        seconds=sum(known) if known else None,
    )


def _rates(report: ModelReport | None) -> Rates:
    if report is None:
        return Rates()
    m = report.metrics
    return Rates(m.acc, m.asr, m.lift)


def _of_rows(run: Run, results: Results, rows: list[Any], problems: tuple[str, ...]) -> Entry:
    if run.kind == "benchmark":
        fields = _of_benchmark(rows)
    elif run.kind == "demo":
        fields = _of_demo(rows, results)
    else:
        fields = _of_attacks(rows, results)
    kind = "attacks" if run.kind == "audit" else run.kind
    spent = [row.seconds for row in rows if getattr(row, "seconds", None) is not None]
    total = sum(spent) if spent else None
    return Entry(run=run, kind=kind, problems=problems, seconds=total, **fields)


def _means(rows: Sequence[Any]) -> Rates:
    return Rates(*(mean(getattr(row, name) for row in rows) for name in ("acc", "asr", "lift")))


def _of_benchmark(rows: Sequence[GridRow]) -> dict[str, Any]:
    settings = sections(rows)
    goals = [goal for own in settings.values() for goal in judge_goals(own)]
    measured = [goal for goal in goals if goal.reached is not None]
    reached = sum(goal.reached is True for goal in measured)
    grids = [grid(own) for own in settings.values()]
    names = dict.fromkeys(f"{row.data or '?'}, {row.model or '?'}" for row in rows)
    return {
        "model": "; ".join(names),
        "verdict": f"D3 reached {reached} of {count(len(measured), 'goal')}",
        "state": OPEN if not measured else GOOD if reached == len(measured) else BAD,
        "before": _means([row for made in grids for row in made.all_rows(NONE)]),
        "after": _means([row for made in grids for row in made.all_rows(D3)]),
    }


def _of_demo(rows: Sequence[DemoRow], results: Results) -> dict[str, Any]:
    missed = shortfalls(rows)
    return {
        "model": _setting(results),
        "verdict": f"Goal of D3 missed: {missed[0]}" if missed else "Goal of D3 reached",
        "state": BAD if missed else GOOD,
        "before": _means([row for row in rows if row.model == BACKDOORED]),
        "after": _means([row for row in rows if row.model == REPAIRED]),
    }


def _of_attacks(rows: Sequence[AttackRow], results: Results) -> dict[str, Any]:
    missed = attack_shortfalls(rows)
    names = [row.attack for row in rows if row.attack != "clean"]
    verdict = f"Goal missed: {missed[0]}" if missed else "Goal reached by every attack"
    if len(missed) > 1:
        verdict += f", and {len(missed) - 1} more"
    return {
        "model": _setting(results) or ", ".join(dict.fromkeys(names)),
        "verdict": verdict,
        "state": BAD if missed else GOOD,
        "before": _means([row for row in rows if row.attack != "clean" and not row.refused]),
    }


def _setting(results: Results) -> str:
    """Return data set and model of the settings of a demo or of attacks."""
    settings: Mapping[str, Any] = results.settings
    suspects = settings.get("suspects")
    if isinstance(suspects, list) and suspects and isinstance(suspects[0], dict):
        settings = suspects[0]
    base = settings.get("base", settings.get("twin"))  # "twin": in files of release 0.1
    settings = base if isinstance(base, dict) else settings
    parts = (settings.get("data"), settings.get("model"))
    return ", ".join(printable(part, 60) for part in parts if isinstance(part, str))

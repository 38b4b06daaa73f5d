# SPDX-License-Identifier: Apache-2.0
"""``d3fast report``: a case folder to one page that a person without background can read."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from d3fast.audit.findings import REPAIRED, SUSPECT, Findings
from d3fast.audit.report.folder import CaseDocuments, read_case
from d3fast.audit.report.pilot_plots import pareto_figure, sensitivity_figure
from d3fast.audit.report.plots import course_figures, layer_figure
from d3fast.audit.report.spectrum import models_of, spectrum_table
from d3fast.audit.report.spectrum_plots import density_figure, eigenvalue_figure
from d3fast.audit.report.tables import (
    before_and_after,
    class_table,
    inverted_words,
    sign_meanings,
    sign_table,
)
from d3fast.audit.report.verdict import verdict
from d3fast.audit.resolve import CARD, INSPECTION, PILOT, SPECTRUM
from d3fast.results.format import percent, seconds, shortest
from d3fast.results.page import write_page
from d3fast.results.plot import inline_svg
from d3fast.results.rows import of_kind


def _svg(figure: Figure, alt: str) -> Markup:
    with warnings.catch_warnings():
        # The page's own fonts have letters that the one used for measuring lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        return inline_svg(figure, alt)


def _side(case: CaseDocuments, role: str, found: Findings, target: int) -> dict[str, Any]:
    """One picture and what stands below it; the picture may be missing."""
    inverted = next((i for i in found.inversions if i.target == target), None)
    return {
        "when": "" if case.after is None else {SUSPECT: "before", REPAIRED: "after"}[role],
        "uri": case.pictures.get((role, target)),
        "words": "not measured" if inverted is None else inverted_words(inverted),
        "outlier": inverted is not None and inverted.outlier,
    }


def _pictures(case: CaseDocuments) -> list[dict[str, Any]]:
    """One per class: before and after, with their sizes.

    Left out are classes that have but one of the two and stand out in neither.
    """
    models = [(r, f) for r, f in ((SUSPECT, case.before), (REPAIRED, case.after)) if f is not None]
    names = {
        inverted.target: inverted.name
        for role, found in models
        for inverted in sorted(found.inversions, key=lambda i: i.norm)
        if (role, inverted.target) in case.pictures
    }
    shown = []
    for target, name in names.items():
        sides = [_side(case, role, found, target) for role, found in models]
        if all(side["uri"] for side in sides) or any(side["outlier"] for side in sides):
            shown.append({"name": name, "sides": sides})
    return shown


def _spectrum(case: CaseDocuments) -> dict[str, Any] | None:
    if not case.spectrum:
        return None
    rows = [{**row, "model": _plain(row["model"])} for row in case.spectrum]
    models, figures = models_of(rows), []
    drawn: Sequence[tuple[str, Callable[..., Figure]]] = (
        ("Density", density_figure),
        ("Eigenvalues", eigenvalue_figure),
    )
    for loss in dict.fromkeys(row["loss"] for row in rows if row["kind"] == "spectrum"):
        own = [row for row in rows if row["kind"] == "spectrum" and row["loss"] == loss]
        for name, draw in drawn:
            title = f"{name}, {loss} loss"
            figures.append({"title": title, "svg": _svg(draw(own, models), title)})
    return {"table": spectrum_table(rows), "figures": figures}


def _pilot(case: CaseDocuments) -> dict[str, Any] | None:
    if not case.pilot:
        return None
    trials = of_kind(case.pilot, "trial")
    chosen = next(iter(of_kind(case.pilot, "recommendation")), None)
    keys = {
        "distance_weight": "weight of the distance",
        "clean_weight": "weight of the clean loss",
        "epsilon": "ε",
    }
    return {
        "runs": len(trials),
        "trigger": any(trial["asr"] is not None for trial in trials),
        "settings": len({trial["trial"] for trial in trials}),
        "seconds": seconds(sum(trial["seconds"] for trial in trials)),
        "why": chosen and chosen["why"],
        "chosen": chosen and {name: shortest(chosen[key]) for key, name in keys.items()},
        "figures": _pilot_figures(case),
    }


def _plain(name: str) -> str:
    """A name that matplotlib does not take for mathematics, nor for one to be hidden."""
    return name.replace("$", "＄").lstrip("_") or "?"


def _pilot_figures(case: CaseDocuments) -> list[dict[str, Any]]:
    rows = [
        {**row, "parameter": _plain(row["parameter"])} if "parameter" in row else row
        for row in case.pilot
    ]
    made = [("Accuracy against what is left", pareto_figure(rows))]
    if of_kind(case.pilot, "sensitivity"):
        made.append(("What each setting changes", sensitivity_figure(rows)))
    return [{"title": title, "svg": _svg(figure, title)} for title, figure in made]


def _repair(case: CaseDocuments) -> dict[str, Any] | None:
    if case.card is None:
        return None
    done = case.card.repair
    course = course_figures(case.card.epochs) if case.card.epochs else {}
    way = case.card.way
    layers = [layer for layer in (way.layers if way else ()) if layer[1] is not None]
    return {
        "done": done,
        "seconds": seconds(done.seconds),
        "clean_weight": shortest(done.clean_weight, 3),
        "figures": [
            {"title": t, "svg": _svg(f, f"{t} over the epochs")} for t, f in course.items()
        ],
        "layers": _svg(layer_figure(layers), "Distance per layer") if layers else None,
        "more_layers": max(0, len(layers) - 40),
        "total": None if way is None or way.total is None else percent(way.total, unit="%"),
    }


def _origin(case: CaseDocuments) -> dict[str, Any]:
    """How the page was made: documents, model, files with their hashes, machines."""
    made = list(case.documents.values())
    files = []
    if case.before is not None:
        name = next((origin.checkpoint for origin in made if origin.checkpoint), "the suspect")
        files.append((name, case.before.sha256))
    if case.card is not None:
        files.append((case.card.repair.output, case.card.repair.output_sha256))
    return {
        "documents": case.documents,
        "files": files,
        "machines": list(dict.fromkeys(origin.machine for origin in made)),
        "head": case.before and case.before.head,
        "weights": case.before and f"{case.before.parameters:,}",
        "model": next((origin.model for origin in made if origin.model), None),
    }


def write_case(folder: str | Path, out: str | Path) -> tuple[str, ...]:
    """Write the page of a case folder.

    Args:
        folder: with one or more of inspect.json, pilot.json, card.json and spectrum.json.
        out: the page; its folder exists.

    Returns:
        The headline and the sentences that warn, for the terminal.

    Raises:
        ValueError: no document, one that cannot be used, a page that cannot be written.
        OSError: a file that cannot be read.
    """
    case = read_case(folder)
    said = verdict(case)
    classes, more_classes = class_table(case)
    samples = {m.metrics.images for m in (case.before, case.after) if m is not None}
    write_page(
        out,
        "case.html",
        "d3fast.audit.report",
        title=said.headline,
        verdict=said,
        case=case,
        measures=before_and_after(case),
        classes=classes,
        more_classes=more_classes,
        signs=sign_table(case),
        meanings=sign_meanings(case),
        pictures=_pictures(case),
        repair=_repair(case),
        spectrum=_spectrum(case),
        pilot=_pilot(case),
        origin=_origin(case),
        samples=max(samples, default=None),
        has={
            name.partition(".")[0]: name in case.documents
            for name in (INSPECTION, CARD, PILOT, SPECTRUM)
        },
    )
    return (said.headline, *case.warnings)

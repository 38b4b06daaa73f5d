# SPDX-License-Identifier: Apache-2.0
"""``d3fast report``: one page for an audit folder, readable without background knowledge."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from d3fast.audit.model_report import REPAIRED, SUSPECT, ModelReport
from d3fast.audit.report.documents import Card, PilotReport, SpectrumReport
from d3fast.audit.report.folder import AuditDocuments, read_audit
from d3fast.audit.report.pilot_plots import pareto_figure, sensitivity_figure
from d3fast.audit.report.plots import MAX_LAYERS, epoch_figures, layer_figure
from d3fast.audit.report.spectrum import spectrum_table
from d3fast.audit.report.spectrum_plots import density_figure, eigenvalue_figure
from d3fast.audit.report.tables import (
    before_and_after,
    class_table,
    detector_meanings,
    detector_table,
    inversion_caption,
)
from d3fast.audit.report.verdict import AuditVerdict, audit_verdict
from d3fast.audit.resolve import CARD, INSPECTION, PILOT, SPECTRUM
from d3fast.results.format import percent, seconds, shortest
from d3fast.results.page import render, write_page
from d3fast.results.plot import inline_svg
from d3fast.results.schema.audit import FindingRow, HeadlineRow, Role
from d3fast.results.schema.document import Machine, Origin
from d3fast.results.store import Results

_TEMPLATE = ("audit.html", "d3fast.audit.report")
_SETTINGS = {
    "distance_weight": "weight of the distance",
    "clean_weight": "weight of the clean loss",
    "epsilon": "ε",
}
_SPECTRUM_FIGURES: Sequence[tuple[str, Callable[..., Figure]]] = (
    ("Density", density_figure),
    ("Eigenvalues", eigenvalue_figure),
)


def _figure(figure: Figure, title: str, alt: str = "") -> dict[str, Any]:
    with warnings.catch_warnings():
        # The page's own fonts have letters that the one used for measuring lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        return {"title": title, "svg": inline_svg(figure, alt or title)}


def _side(audit: AuditDocuments, role: Role, report: ModelReport, target: int) -> dict[str, Any]:
    """Return one picture and its caption; the picture may be missing."""
    when = {SUSPECT: "before", REPAIRED: "after"}
    row = next((row for row in report.inversions if row.target == target), None)
    return {
        "when": "" if audit.after is None else when[role],
        "uri": audit.pictures.get((role, target)),
        "caption": "not measured" if row is None else inversion_caption(row),
        "outlier": row is not None and row.outlier,
    }


def _pictures(audit: AuditDocuments) -> list[dict[str, Any]]:
    """Return the pictures of each class, before and after.

    A class with one of the two pictures is left out unless its trigger is an outlier.
    """
    models = [(r, m) for r, m in ((SUSPECT, audit.before), (REPAIRED, audit.after)) if m]
    names = {
        row.target: row.name
        for role, report in models
        for row in sorted(report.inversions, key=lambda row: row.norm)
        if (role, row.target) in audit.pictures
    }
    shown = []
    for target, name in names.items():
        sides = [_side(audit, role, report, target) for role, report in models]
        if all(side["uri"] for side in sides) or any(side["outlier"] for side in sides):
            shown.append({"name": name, "sides": sides})
    return shown


def _spectrum(found: SpectrumReport | None) -> dict[str, Any] | None:
    if found is None:
        return None
    figures = [
        _figure(draw(found.of_loss(loss), found.names), f"{name}, {loss} loss")
        for loss in found.losses
        for name, draw in _SPECTRUM_FIGURES
    ]
    return {"table": spectrum_table(found), "figures": figures}


def _pilot(found: PilotReport | None) -> dict[str, Any] | None:
    if found is None:
        return None
    chosen = found.recommendation
    figures = [_figure(pareto_figure(found), "Accuracy lost against attack success")]
    if found.sensitivities:
        figures.append(_figure(sensitivity_figure(found), "Effect of each option"))
    return {
        "runs": len(found.trials),
        "trigger": found.trigger_known,
        "settings": len({trial.trial for trial in found.trials}),
        "seconds": seconds(sum(trial.seconds for trial in found.trials)),
        "why": chosen and chosen.why,
        "chosen": chosen and {name: shortest(getattr(chosen, k)) for k, name in _SETTINGS.items()},
        "figures": figures,
    }


def _repair(card: Card | None) -> dict[str, Any] | None:
    if card is None:
        return None
    figures = epoch_figures(card.epochs) if card.epochs else {}
    layers = card.distances.layers if card.distances else ()
    layers = tuple(layer for layer in layers if layer.relative is not None)
    total = card.distances and card.distances.total
    return {
        "row": card.repair,
        "seconds": seconds(card.repair.seconds),
        "clean_weight": shortest(card.repair.clean_weight, 3),
        "figures": [_figure(figure, t, f"{t} over the epochs") for t, figure in figures.items()],
        "layers": _figure(layer_figure(layers), "Distance per layer")["svg"] if layers else None,
        "more_layers": max(0, len(layers) - MAX_LAYERS),
        "total": None if not total or total.relative is None else percent(total.relative, unit="%"),
    }


def _written(origin: Origin) -> str:
    """Return time and versions of a document in one line."""
    created = origin.created.replace("T", " ").replace("+00:00", " UTC")
    d3fast, torch = origin.versions.d3fast, origin.versions.torch
    return f"{created}, d3fast {d3fast or '?'}, torch {torch or '?'}"


def _machine(machine: Machine) -> str:
    cores = None if machine.cores is None else f"{machine.cores} cores"
    parts = (machine.cpu, cores, machine.system, *(machine.gpus or ())[:8])
    return ", ".join(part for part in parts if part)


def _provenance(audit: AuditDocuments) -> dict[str, Any]:
    """Return documents, model, files with their hashes, machines."""
    origins = list(audit.origins.values())
    settings = [origin.settings for origin in origins]
    files = []
    if audit.before is not None:
        name = next((found.checkpoint for found in settings if found.checkpoint), "the suspect")
        files.append((name, audit.before.model.sha256))
    if audit.card is not None:
        files.append((audit.card.repair.output, audit.card.repair.output_sha256))
    return {
        "documents": {name: (o.command, _written(o)) for name, o in audit.origins.items()},
        "files": files,
        "machines": list(dict.fromkeys(_machine(origin.machine) for origin in origins)),
        "head": audit.before and audit.before.model.head,
        "parameters": audit.before and f"{audit.before.model.parameters:,}",
        "model": next((found.model for found in settings if found.model), None),
    }


def report_document(audit: AuditDocuments) -> Results:
    """Return the verdict of a page as a results document.

    Args:
        audit: of ``read_audit``.
    """
    found = audit_verdict(audit)
    head = HeadlineRow(
        text=found.headline, basis=found.basis, advice=found.advice, warnings=audit.warnings
    )
    settings = next((o.settings for o in audit.origins.values()), None)
    facts = {} if settings is None else {"model": settings.model, "sha256": settings.sha256}
    rows = [head, *(FindingRow(**asdict(finding)) for finding in found.findings)]
    return Results("d3fast report", facts, rows)


def _content(audit: AuditDocuments, verdict: AuditVerdict) -> dict[str, Any]:
    """Return what the template shows."""
    classes, more_classes = class_table(audit)
    reports = [report for report in (audit.before, audit.after) if report]
    results = [result for report in reports for result in report.detectors]
    return {
        "title": verdict.headline,
        "verdict": verdict,
        "audit": audit,
        "texts": any(report.of_texts for report in reports),
        "rated": any(result.p_value is not None for result in results),
        "measures": before_and_after(audit),
        "classes": classes,
        "more_classes": more_classes,
        "detectors": detector_table(audit),
        "meanings": detector_meanings(audit),
        "pictures": _pictures(audit),
        "repair": _repair(audit.card),
        "spectrum": _spectrum(audit.spectrum),
        "pilot": _pilot(audit.pilot),
        "origin": _provenance(audit),
        "samples": max((report.metrics.images for report in reports), default=None),
        "has": {
            name.partition(".")[0]: name in audit.origins
            for name in (INSPECTION, CARD, PILOT, SPECTRUM)
        },
    }


def audit_page(audit: AuditDocuments, home: str) -> str:
    """Return the page of an audit for ``d3fast view``.

    Args:
        audit: of ``read_audit``.
        home: address of the list that the page links to.
    """
    return render(*_TEMPLATE, **_content(audit, audit_verdict(audit)), home=home)


def write_audit_page(
    folder: str | Path, out: str | Path, newer: Path | None = None
) -> tuple[str, ...]:
    """Write the page of an audit folder.

    Args:
        folder: with one or more of inspect.json, pilot.json, card.json and spectrum.json.
        out: the page; its folder exists.
        newer: folder of files that are to replace those of ``folder``.

    Returns:
        The headline, the basis of the verdict and the warnings, for the terminal.

    Raises:
        ValueError: no document, one that cannot be read, a page that cannot be written.
        OSError: a file that cannot be opened.
    """
    audit = read_audit(folder, newer)
    verdict = audit_verdict(audit)
    write_page(out, *_TEMPLATE, **_content(audit, verdict))
    return (verdict.headline, *([verdict.basis] if verdict.basis else []), *audit.warnings)

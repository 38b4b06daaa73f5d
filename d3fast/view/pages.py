# SPDX-License-Identifier: Apache-2.0
"""The pages of ``d3fast view``: the list, two audits side by side, and the page of each run."""

import base64
import io
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.page import audit_page
from d3fast.benchmark.report import attacks, demo
from d3fast.benchmark.report.benchmark import benchmark_page
from d3fast.io.images import read_image
from d3fast.io.paths import check_inside
from d3fast.io.untrusted import error_text, printable
from d3fast.results.format import MISSING, count, percent, seconds
from d3fast.results.page import render
from d3fast.results.store import read_results
from d3fast.view.compare import Side, comparison
from d3fast.view.entries import Entry, is_attack, read_entry, read_rows
from d3fast.view.folders import KINDS, Run
from d3fast.view.listing import Library
from d3fast.view.query import Query

PACKAGE = __name__.rpartition(".")[0]
COLUMNS = {
    "name": "run",
    "verdict": "verdict",
    "acc": "ACC %",
    "asr": "ASR %",
    "lift": "lift",
    "seconds": "seconds",
    "kind": "kind",
    "written": "written, UTC",
}
_MARKS = {"reached": "✓", "missed": "✗", "unmeasured": "–"}
_PICTURES = {"demo": "demo.png", "attacks": "attacks.png"}
_MOST_SIDE = 4096  # pixels of a picture


def list_page(library: Library, query: Query) -> str:
    """Return the list of runs."""
    listing = library.listing(query)
    shown = {entry.run.key for entry in listing.entries}
    return render(
        "list.html",
        PACKAGE,
        title="Runs",
        query=query,
        columns=COLUMNS,
        kinds=list(KINDS),
        listing=listing,
        entries=[_line(entry) for entry in listing.entries],
        total=count(listing.total, "run"),
        hidden=[key for key in query.runs if key not in shown],
        filtered=bool(query.words or query.kind),
        folder=printable(library.root.name or str(library.root)),
    )


def _line(entry: Entry) -> dict[str, Any]:
    """Return the texts of one line of the list."""
    before, after = entry.before, entry.after
    written = datetime.fromtimestamp(entry.run.written, timezone.utc)
    return {
        "key": entry.run.key,
        "name": printable(entry.run.name, 120),
        "kind": entry.kind,
        "comparable": entry.kind == "audit",
        "model": entry.model,
        "written": written.strftime("%Y-%m-%d %H:%M"),
        "verdict": printable(entry.verdict, 200),
        "state": entry.state,
        "mark": _MARKS[entry.state],
        "rates": [
            _change(before.acc, after.acc),
            _change(before.asr, after.asr),
            _change(before.lift, after.lift),
        ],
        "seconds": seconds(entry.seconds),
    }


def _change(before: float | None, after: float | None) -> tuple[str, str]:
    """Return the value of the model that is delivered, and the one before the repair."""
    if after is None:
        return percent(before), ""
    return percent(after), "" if before is None else f"{percent(before)} before"


def run_page(run: Run, root: Path, home: str) -> str:
    """Return the page of one run.

    Args:
        run: of ``find_runs``.
        root: the folder that it is in.
        home: address of the list.

    Raises:
        ValueError, OSError: documents that cannot be read.
    """
    if run.kind == "audit" and not is_attack(run):
        return audit_page(read_audit(run.folder, root=root), home)
    entry = read_entry(run)
    results, rows, problems = read_rows(run)
    if run.kind == "benchmark":
        return benchmark_page(rows, results, home)
    report: Mapping[str, Any] = {
        "demo": {"table": demo.demo_table, "caption": demo.CAPTION},
    }.get(run.kind, {"table": attacks.attacks_table, "caption": attacks.CAPTION})
    return render(
        "run.html",
        PACKAGE,
        home=home,
        title=printable(run.name, 120),
        line=_line(entry),
        table=report["table"](rows),
        caption=report["caption"],
        picture=_picture(run, root),
        problems=problems,
        results=results,
        command=printable(results.command, 600),
        created=printable(results.created, 40),
        machine=printable(results.machine.get("cpu", MISSING), 80),
    )


def _picture(run: Run, root: Path) -> str | None:
    """Return the picture of a run, encoded anew from its pixels, as a data URI; or ``None``."""
    path = run.folder / _PICTURES.get(run.kind, "")
    if run.kind not in _PICTURES or not path.is_file():
        return None
    try:
        check_inside(path, root)
        pixels = read_image(path, channels=3)
    except (ValueError, OSError):
        return None
    if max(pixels.shape) > _MOST_SIDE:
        return None
    file = io.BytesIO()
    from PIL import Image  # of the extra cli: the imports above name it where it is missing

    Image.fromarray(pixels.movedim(0, -1).contiguous().numpy()).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def compare_page(library: Library, query: Query, home: str) -> str:
    """Return two audits side by side.

    Args:
        library: the runs.
        query: with the keys of two audits in ``runs``.
        home: address of the list.

    Raises:
        ValueError: another number of audits; an audit that cannot be read.
        KeyError: a run that is not there.
    """
    if len(query.runs) != 2:
        raise ValueError(f"Choose two audits to compare: {len(query.runs)} are chosen.")
    runs = library.found().runs
    sides = [_side(runs[key]) for key in query.runs]
    return render("compare.html", PACKAGE, home=home, keys=query.runs, **comparison(*sides))


def _side(run: Run) -> Side:
    if run.kind != "audit" or is_attack(run):
        raise ValueError(f"{printable(run.name)} is no audit.")
    try:
        audit = read_audit(run.folder, hash_output=False)
        documents = {name: read_results(run.folder / name) for name in audit.origins}
    except (ValueError, OSError) as error:
        raise ValueError(f"{printable(run.name)}: {error_text(error)}") from None
    return Side(printable(run.name, 120), audit, documents)


def error_page(title: str, text: str, home: str) -> str:
    """Return the page of an error."""
    return render("error.html", PACKAGE, home=home, title=title, text=text)

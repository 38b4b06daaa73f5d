"""Hostile documents in an audit folder."""

import json
from collections.abc import Callable
from typing import Any

from d3fast.results.store import Results
from tests.audit.report.documents import ROWS, png, settings
from tests.hostile.files import BAD_NAME, Case, content


def document(name: str, rows: list[dict[str, Any]] | None = None, **changes: Any) -> bytes:
    """One document of an audit; ``changes`` go into its settings."""
    rows = ROWS[name]() if rows is None else rows
    results = Results(f"d3fast {name}", {**settings(), **changes}, rows)
    return json.dumps(results.as_dict()).encode()


def _case(name: str, title: str, rows: Callable[[], list[dict[str, Any]]], says: str) -> Case:
    """A document with other rows; they are made when they are needed."""
    return Case(
        f"{name}.json: {title}",
        content(f"{name}.json", lambda: document(name, rows())),
        rf"^{name}\.json: {says}",
    )


def _edited(name: str, kind: str, says: str, **fields: Any) -> Case:
    """A document with some fields of its first row of a kind changed."""

    def rows() -> list[dict[str, Any]]:
        found = ROWS[name]()
        next(row for row in found if row["kind"] == kind).update(fields)
        return found

    title = f"{kind} with " + ", ".join(f"{k} {v!r:.20}" for k, v in fields.items())
    return _case(name, title, rows, f"{kind} row: {says}")


def _many(name: str, kind: str, count: int, **fields: Any) -> Callable[[], list[dict[str, Any]]]:
    """The first row of a kind many times, each with another target and name."""

    def rows() -> list[dict[str, Any]]:
        found = ROWS[name]()
        first = next(row for row in found if row["kind"] == kind)
        numbered = [
            {**first, **fields, "target": n, "name": f"n{n}", "epoch": n + 1} for n in range(count)
        ]
        return [*(row for row in found if row["kind"] != kind), *numbered]

    return rows


AUDITS = [
    _case(
        "inspect",
        "60,000 outliers",
        _many("inspect", "inversion", 60_000, outlier=True, picture=None),
        "rows of kind inversion must be at most 25000, got 60000",
    ),
    _case(
        "inspect",
        "5,000 pictures",
        _many("inspect", "inversion", 5000, picture=png()),
        "pictures of a model must be at most 16, got 5000",
    ),
    _case("inspect", "101 detectors", _many("inspect", "sign", 101), "rows of kind sign"),
    _case("card", "20,001 epochs", _many("card", "epoch", 20_001), "rows of kind epoch"),
    _case("pilot", "1,001 trials", _many("pilot", "trial", 1001), "rows of kind trial"),
    _case("spectrum", "13 models", _many("spectrum", "model", 13), "rows of kind model"),
    _edited("inspect", "model", "sha256 must be", sha256=BAD_NAME),
    _edited("inspect", "model", "head must be", head=[BAD_NAME]),
    _edited("inspect", "model", "correct must be", correct=BAD_NAME),
    _edited("inspect", "model", "parameters must be", parameters=10**4000),
    _edited("inspect", "inversion", "norm must be", norm=10**400),
    _edited("inspect", "inversion", "class must be", **{"class": {BAD_NAME: BAD_NAME}}),
    _edited("inspect", "sign", "value must be", value=True),
    _edited("inspect", "verdict", "targets must be", targets=[0] * 30_000),
    _edited("card", "repair", "output must be", output=BAD_NAME),
    _edited("card", "repair", "output must be", output="../" * 1000 + "etc/passwd"),
    _edited("card", "repair", "acc_drop must be", acc_drop=99.0),
    _edited("card", "distance", "layers must be", layers=[{}] * 30_000),
    _edited("card", "distance", r"layers\[0\]", layers=[[[[[BAD_NAME]]]]]),
    _edited("pilot", "trial", "seconds must be", seconds=1e300),
    _edited("pilot", "sensitivity", "values must be", values=[0.0] * 1000),
    _edited("pilot", "recommendation", "why must be", why=[BAD_NAME] * 10_000),
    _edited("spectrum", "spectrum", "nodes must be", nodes=[[0.0]] * 1001),
    _edited("spectrum", "spectrum", r"nodes\[0\] must be", nodes=[[0.0] * 100_000]),
    _edited("spectrum", "spectrum", "eigenvalues must be", eigenvalues=[1.0] * 1001),
    _edited("spectrum", "path", "points must be", points=[{"at": [0.0]}] * 2000),
    Case(
        "settings with 200,000 classes",
        content("inspect.json", lambda: document("inspect", classes=[""] * 200_000)),
        r"settings\.classes must be of length",
    ),
    Case(
        "settings with a hash that prints badly",
        content("inspect.json", document("inspect", sha256=BAD_NAME)),
        r"settings\.sha256 must be",
    ),
]

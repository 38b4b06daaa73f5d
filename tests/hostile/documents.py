"""Hostile results."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from d3fast.results.store import Results
from tests.hostile.files import BAD_NAME, Case, content, damaged, sparse_file, special

_json = partial(content, "w.json")


def results(**changes: Any) -> bytes:
    document = Results("d3fast inspect", {"seed": 0}, ({"kind": "model", "acc": 0.5},)).as_dict()
    return json.dumps({**document, **changes}).encode()


def _results(**changes: Any) -> Callable[[Path], Path]:
    return _json(results(**changes))


def _rows(text: bytes) -> Callable[[Path], Path]:
    """A document whose rows are a given piece of JSON."""
    return _json(results(rows="ROWS").replace(b'"ROWS"', text))


RESULTS = [
    *special(".json"),
    Case("a text", _json(b"hello"), "no JSON"),
    Case("no UTF-8", _json(b"\xff\xfe"), "no JSON"),
    Case("brackets 100,000 deep", _json(b"[" * 10**5), "no JSON"),
    Case("rows 100,000 deep", _rows(b"[" * 10**5 + b"]" * 10**5), ""),
    Case("NaN", _rows(b'[{"acc": NaN}]'), "NaN"),
    Case("inf", _rows(b'[{"acc": -Infinity}]'), "Infinity"),
    Case("a number past what floats hold", _rows(b'[{"acc": 1e999}]'), ""),
    Case("a number of a million digits", _rows(b'[{"acc": ' + b"9" * 10**6 + b"}]"), ""),
    Case("200 MB", sparse_file("w.json", b" ", 2 * 10**8), "longer than"),
    Case("another document", _json(b'{"schema": "other"}'), "no d3fast.results"),
    Case("another version", _results(version=10**9), "has version"),
    Case("a version that prints badly", _results(version=BAD_NAME), "has version"),
    Case("a field whose name prints badly", _results(**{BAD_NAME: 1}), "is unknown"),
    Case(
        "10,000 unknown fields",
        _results(**{f"f{n}": 1 for n in range(10_000)}),
        "is unknown",
    ),
    Case("rows that are numbers", _results(rows=[1]), "row"),
    *(
        Case(f"{name} of another type: {value!r}", _results(**{name: value}), name)
        for name, value in [
            ("command", 1),
            ("command", None),
            ("settings", []),
            ("settings", "x"),
            ("rows", {}),
            ("rows", None),
            ("rows", "x"),
            ("versions", 1),
            ("machine", []),
            ("commit", 1),
            ("created", None),
        ]
    ),
    *damaged(results(), ".json"),
]

# SPDX-License-Identifier: Apache-2.0
"""The one JSON format of results: what was run, on what, and one row per measurement.

A row is a flat mapping of names to numbers, texts, lists or ``null``; what its columns mean is
said by the command that wrote it. The envelope is the same everywhere and versioned: a file of a
newer version is refused instead of being misread.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from d3fast.io.files import atomic_write
from d3fast.io.untrusted import error_text, printable, read_limited
from d3fast.runtime import environment

SCHEMA = "d3fast.results"
VERSION = 1
_MOST_BYTES = 2**24


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Results:
    """One run of one command.

    Attributes:
        command: the command line that makes these numbers, without paths.
        settings: every choice that went into them.
        rows: the measurements.
        versions: of d3fast, python and torch.
        machine: CPU, cores, threads, GPUs; nothing that names the machine.
        commit: git commit of the source checkout, or ``None``.
        created: when, UTC, ISO 8601.

    Example:
        >>> results = Results("d3fast demo", {"seeds": 1}, ({"seed": 0, "acc": 0.97},))
        >>> results.rows[0]["acc"], results.as_dict()["schema"]
        (0.97, 'd3fast.results')
    """

    command: str
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    versions: Mapping[str, str] = field(default_factory=environment.versions)
    machine: Mapping[str, Any] = field(default_factory=environment.machine)
    commit: str | None = field(default_factory=environment.commit)
    created: str = field(default_factory=_now)

    def as_dict(self) -> dict[str, Any]:
        """The whole document."""
        return {"schema": SCHEMA, "version": VERSION, **asdict(self)}

    def write(self, path: str | Path) -> None:
        """Write the document, whole or not at all.

        Raises:
            ValueError: a NaN or inf among the numbers, or a folder that does not exist.
        """
        text = json.dumps(self.as_dict(), indent=2, allow_nan=False, ensure_ascii=False)
        with atomic_write(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


# What each field must be: the file may be a stranger's.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "command": (str,),
    "settings": (dict,),
    "rows": (list,),
    "versions": (dict,),
    "machine": (dict,),
    "commit": (str, type(None)),
    "created": (str,),
}


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} among the numbers")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(f"{text:.40}")


def read_results(path: str | Path) -> Results:
    """Read a document that ``Results.write`` wrote; the file may be hostile.

    What the fields hold is left to the reader: rows are mappings, their values any JSON.

    Raises:
        ValueError: a file that is no such document, of a newer version, or above 16 MiB.
        OSError: a file that cannot be opened.
    """
    path = Path(path)
    name, content = printable(path.name), read_limited(path, _MOST_BYTES)
    try:
        document = json.loads(
            content.decode("utf-8"), parse_constant=_no_number, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise ValueError(f"{name} is no JSON: it is not UTF-8") from None
    except RecursionError:
        raise ValueError(f"{name} is no JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error_text(error)}") from None
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise ValueError(f"{name} is no {SCHEMA} document")
    version = document.pop("version", None)
    if version != VERSION:
        shown = printable(repr(version), 40)
        raise ValueError(f"{name} has version {shown}, this d3fast reads {VERSION}")
    # A missing field must not be filled with what holds on the machine that reads the file.
    wrong = {f.name for f in fields(Results)} ^ document.keys()
    if wrong:
        listed = printable(", ".join(sorted(wrong)))
        raise ValueError(f"{name} is no {SCHEMA} document: {listed} missing or unknown")
    for field_name, types in _TYPES.items():
        if not isinstance(document[field_name], types):
            raise ValueError(f"{name} is no {SCHEMA} document: {field_name} is of another type")
    if not all(isinstance(row, dict) for row in document["rows"]):
        raise ValueError(f"{name} is no {SCHEMA} document: a row that is no mapping")
    return Results(**document)

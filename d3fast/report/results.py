# SPDX-License-Identifier: Apache-2.0
"""The one JSON format of results: what was run, on what, and one row per measurement.

A row is a flat mapping of names to numbers, texts, lists or ``null``; what its columns mean is
said by the command that wrote it. The envelope is the same everywhere and versioned: a file of a
newer version is refused instead of being misread.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from d3fast import environment
from d3fast.files import whole_file

SCHEMA = "d3fast.results"
VERSION = 1


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
        with whole_file(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def read_results(path: str | Path) -> Results:
    """Read a document that ``Results.write`` wrote.

    Raises:
        ValueError: a file that is no such document, or of a newer version.
        OSError: a file that cannot be opened.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from None
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path.name} is no {SCHEMA} document")
    version = document.pop("version", None)
    if version != VERSION:
        raise ValueError(f"{path.name} has version {version!r}, this d3fast reads {VERSION}")
    # A missing field must not be filled with what holds on the machine that reads the file.
    wrong = {f.name for f in fields(Results)} ^ document.keys()
    if wrong:
        raise ValueError(
            f"{path.name} is no {SCHEMA} document: {', '.join(sorted(wrong))} missing or unknown"
        )
    return Results(**document)

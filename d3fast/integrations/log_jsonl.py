# SPDX-License-Identifier: Apache-2.0
"""JSON lines: ``epochs.jsonl``, first the settings, then one line per epoch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

LIBRARY = None
FILE = "epochs.jsonl"


@dataclass(frozen=True)
class JsonLines:
    """An open file of JSON lines; every line is on disk before the next epoch.

    Attributes:
        file: the file.
    """

    file: TextIO

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one epoch."""
        self.write({"epoch": step, **values})

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line."""
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def open_sink(folder: Path, run: str, settings: Mapping[str, Any], resume: bool) -> JsonLines:
    """Open ``folder/epochs.jsonl``; a new run replaces the file of an old one."""
    path = folder / FILE
    goes_on = resume and path.exists()
    sink = JsonLines(path.open("a" if goes_on else "w", encoding="utf-8"))
    if not goes_on:
        sink.write({"run": run, "settings": settings})
    return sink

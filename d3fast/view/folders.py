# SPDX-License-Identifier: Apache-2.0
"""Find audits and benchmarks below a folder by the names of their documents; nothing is read."""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from d3fast.audit.places import DOCUMENTS
from d3fast.io.paths import check_inside
from d3fast.io.untrusted import error_text, is_displayable, printable
from d3fast.results.format import count
from d3fast.results.jobs import cache_folder

# Documents by the kind of run that they tell of.
KINDS = {
    "audit": DOCUMENTS,
    "benchmark": ("table.json",),
    "attacks": ("attacks.json",),
    "demo": ("results.json",),
}
_MOST_DEPTH = 6
_MOST_FOLDERS = 20_000
_MOST_ENTRIES = 10_000  # of one folder
_CACHE = cache_folder(Path()).name

Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Run:
    """The documents of one kind in one folder.

    Attributes:
        kind: a key of ``KINDS``.
        name: path of the folder below the folder that is shown, with ``/``; ``.`` is that folder.
        folder: where it is.
        stamp: name, time of writing in ns and size of each document.
    """

    kind: str
    name: str
    folder: Path
    stamp: Stamp

    @property
    def key(self) -> str:
        """How an address names the run."""
        return f"{self.kind}/{self.name}"

    @property
    def written(self) -> float:
        """When a document was last written, in seconds since 1970."""
        return max(time for _, time, _ in self.stamp) / 1e9


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        runs: by their key.
        problems: what was left out and why, a sentence each.
    """

    runs: dict[str, Run]
    problems: tuple[str, ...]


def find_runs(root: Path) -> Found:
    """Find every run below a folder, breadth first.

    Links to folders are not followed; hidden folders and caches of jobs are skipped.

    Args:
        root: an existing folder.
    """
    runs: dict[str, Run] = {}
    problems: list[str] = []
    waiting = deque([(root, 0)])
    seen = 0
    while waiting and seen < _MOST_FOLDERS:
        folder, depth = waiting.popleft()
        seen += 1
        name = folder.relative_to(root).as_posix()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(islice(listing, _MOST_ENTRIES), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{printable(name)}: {error_text(error)}")
            continue
        for run in _runs(folder, name, root, {entry.name for entry in entries}, problems):
            runs[run.key] = run
        inner = [folder / entry.name for entry in entries if _is_shown(entry)]
        if depth < _MOST_DEPTH:
            waiting.extend((path, depth + 1) for path in inner)
    if waiting:
        problems.append(f"Only the first {count(_MOST_FOLDERS, 'folder')} were searched.")
    return Found(runs, tuple(problems))


def _is_shown(entry: "os.DirEntry[str]") -> bool:
    hidden = entry.name.startswith(".") or entry.name == _CACHE
    return not hidden and is_displayable(entry.name) and entry.is_dir(follow_symlinks=False)


def _runs(
    folder: Path, name: str, root: Path, names: set[str], problems: list[str]
) -> Iterator[Run]:
    for kind, documents in KINDS.items():
        try:
            stamp = tuple(_stamped(folder / each, root) for each in documents if each in names)
        except (ValueError, OSError) as error:
            problems.append(f"{printable(name)}: {error_text(error)}")
            continue
        if stamp:
            yield Run(kind, name, folder, stamp)


def _stamped(path: Path, root: Path) -> tuple[str, int, int]:
    check_inside(path, root)
    status = path.stat()
    return path.name, status.st_mtime_ns, status.st_size

# SPDX-License-Identifier: Apache-2.0
"""The list of runs that a query asks for; documents are read when they are needed, and once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from d3fast.view.entries import Entry, read_entry
from d3fast.view.folders import Found, Run, Stamp, find_runs
from d3fast.view.query import ENTRY_KEYS, RUN_KEYS, Query, ordered

PER_PAGE = 100
_MOST_PROBLEMS = 50
Item = TypeVar("Item")


@dataclass(frozen=True)
class Listing:
    """One page of the list.

    Attributes:
        entries: of the page, in their order.
        total: runs that the filter lets through; those that were not read count.
        page: number of the page, from 1.
        pages: number of pages.
        problems: what was left out and why.
    """

    entries: tuple[Entry, ...]
    total: int
    page: int
    pages: int
    problems: tuple[str, ...]


class Library:
    """The runs below a folder. Summaries are kept until a document changes.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[tuple[str, Stamp], Entry | str] = {}

    def found(self) -> Found:
        """Return the runs that are there now."""
        return find_runs(self.root)

    def entry(self, run: Run) -> Entry | str:
        """Return the summary of a run, or why there is none."""
        key = (run.key, run.stamp)
        if key not in self._read:
            try:
                self._read[key] = read_entry(run)
            except ValueError as error:
                self._read[key] = str(error)
        return self._read[key]

    def _forget(self, runs: Sequence[Run]) -> None:
        """Drop summaries of documents that are gone or changed."""
        current = {(run.key, run.stamp) for run in runs}
        self._read = {key: entry for key, entry in self._read.items() if key in current}

    def listing(self, query: Query) -> Listing:
        """Return the page of the list that a query asks for."""
        found = self.found()
        runs = list(found.runs.values())
        self._forget(runs)
        if query.column in RUN_KEYS:
            runs = ordered(runs, RUN_KEYS[query.column], query.descending)
        if not query.reads_all:
            pages = _pages(len(runs))
            page = min(query.page, pages)
            entries, problems = self._entries(_part(runs, page))
            total = len(runs)
        else:
            every, problems = self._entries(runs)
            kept = [entry for entry in every if query.keeps(entry)]
            if query.column in ENTRY_KEYS:
                kept = ordered(kept, ENTRY_KEYS[query.column], query.descending)
            pages, total = _pages(len(kept)), len(kept)
            page = min(query.page, pages)
            entries = _part(kept, page)
        skipped = (*found.problems, *problems)
        return Listing(tuple(entries), total, page, pages, skipped[:_MOST_PROBLEMS])

    def _entries(self, runs: Sequence[Run]) -> tuple[list[Entry], list[str]]:
        """Read runs; return their summaries and what was left out."""
        read = [self.entry(run) for run in runs]
        entries = [entry for entry in read if isinstance(entry, Entry)]
        problems = [entry for entry in read if isinstance(entry, str)]
        problems += [f"{entry.run.name}: {text}" for entry in entries for text in entry.problems]
        return entries, problems


def _pages(count: int) -> int:
    return max(1, -(-count // PER_PAGE))


def _part(items: list[Item], page: int) -> list[Item]:
    return items[PER_PAGE * (page - 1) : PER_PAGE * page]

# SPDX-License-Identifier: Apache-2.0
"""The query of an address: filter, order, page and chosen runs. A form or a person writes it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from d3fast.view.entries import Entry
from d3fast.view.folders import KINDS, Run

_MOST_FIELDS = 64
_MOST_TEXT = 200  # characters
NEWEST = "-written"

# Value of an entry by the name of its column; ``None`` stands last in both orders.
ENTRY_KEYS: Mapping[str, Callable[[Entry], Any]] = {
    "kind": lambda entry: entry.kind,
    "verdict": lambda entry: entry.verdict.lower(),
    "acc": lambda entry: _last(entry.after.acc, entry.before.acc),
    "asr": lambda entry: _last(entry.after.asr, entry.before.asr),
    "lift": lambda entry: _last(entry.after.lift, entry.before.lift),
    "seconds": lambda entry: entry.seconds,
}
# The same of runs whose documents need not be read for it.
RUN_KEYS: Mapping[str, Callable[[Run], Any]] = {
    "name": lambda run: run.name.lower(),
    "written": lambda run: run.written,
}


def _last(after: float | None, before: float | None) -> float | None:
    return before if after is None else after


@dataclass(frozen=True)
class Query:
    """A checked query.

    Attributes:
        text: words that must all stand in a line.
        kind: a key of ``KINDS``, or ``""`` for all.
        sort: name of a column; ``-`` before it for the largest first.
        page: of the list, from 1.
        runs: keys of chosen runs.
    """

    text: str = ""
    kind: str = ""
    sort: str = NEWEST
    page: int = 1
    runs: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """Name of the column that the list is ordered by."""
        return self.sort.removeprefix("-")

    @property
    def descending(self) -> bool:
        """The largest stands first."""
        return self.sort.startswith("-")

    @property
    def words(self) -> list[str]:
        """The words of the filter in lower case."""
        return self.text.lower().split()

    @property
    def reads_all(self) -> bool:
        """Documents of all runs must be read before one can be shown."""
        return bool(self.words or self.kind) or self.column not in RUN_KEYS

    def pressed(self, column: str) -> str:
        """Return the order that the button above a column asks for: numbers the largest first."""
        if self.column == column:
            return column if self.descending else f"-{column}"
        return column if column in ("name", "kind", "verdict") else f"-{column}"

    def address(self, **changes: Any) -> str:
        """Return the address of the list with other fields."""
        other = replace(self, **changes)
        fields = {"q": other.text, "kind": other.kind, "sort": other.sort, "page": other.page}
        return "/?" + urlencode([*fields.items(), *(("run", key) for key in other.runs)])

    def keeps(self, entry: Entry) -> bool:
        """Return whether the filter lets an entry through."""
        if self.kind and entry.kind != self.kind:
            return False
        line = " ".join((entry.run.name, entry.kind, entry.model, entry.verdict)).lower()
        return all(word in line for word in self.words)


def parse_query(text: str) -> Query:
    """Read the query of an address; of a field that stands twice the last one counts.

    Raises:
        ValueError: an unknown kind or column, a page that is no number, too many fields.

    Example:
        >>> parse_query("q=digits&sort=acc&run=audit/a&run=audit/b")
        Query(text='digits', kind='', sort='acc', page=1, runs=('audit/a', 'audit/b'))
    """
    pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="replace")
    fields = dict(pairs)
    query = Query(
        text=fields.get("q", "")[:_MOST_TEXT],
        kind=fields.get("kind", ""),
        sort=fields.get("sort") or NEWEST,
        page=_page(fields.get("page", "1")),
        runs=tuple(dict.fromkeys(value for name, value in pairs if name == "run" and value)),
    )
    if query.kind not in ("", *KINDS):
        raise ValueError(f"kind must be one of {', '.join(KINDS)}")
    if query.column not in (*ENTRY_KEYS, *RUN_KEYS):
        raise ValueError(f"sort must be one of {', '.join((*RUN_KEYS, *ENTRY_KEYS))}")
    return query


def _page(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 7):
        raise ValueError("page must be a number from 1")
    return max(1, int(text))


def ordered(items: Sequence[Any], key: Callable[[Any], Any], descending: bool) -> list[Any]:
    """Return items by a key, those without a value last.

    Example:
        >>> ordered([1, None, 3], lambda item: item, descending=True)
        [3, 1, None]
    """
    known = sorted((i for i in items if key(i) is not None), key=key, reverse=descending)
    return known + [i for i in items if key(i) is None]

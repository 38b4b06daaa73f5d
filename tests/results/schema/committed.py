"""Rows of the results files that this repository keeps, and of documents written by hand."""

from pathlib import Path

from d3fast.results.schema.fields import read_rows, tag_of
from d3fast.results.store import read_results

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def committed_rows(name):
    return read_results(RESULTS / f"{name}.json").rows


def first(kind, rows, **changes):
    """The first row of a kind, read with some fields changed."""
    row = next(row for row in rows if row["kind"] == tag_of(kind))
    (found,) = read_rows([{**row, **changes}], kind)
    return found


def check_committed(name, kinds):
    """All rows of a file are of these kinds; each is written as it was read."""
    rows = committed_rows(name)
    assert sum(len(read_rows(rows, kind)) for kind in kinds) == len(rows)
    for kind in kinds:
        old = [row for row in rows if row["kind"] == tag_of(kind)]
        new = [row.to_row() for row in read_rows(rows, kind)]
        assert [{key: to[key] for key in row} for row, to in zip(old, new, strict=True)] == old

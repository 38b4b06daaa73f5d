"""Rows of the results files that this repository keeps."""

from pathlib import Path

from d3fast.results.store import read_results

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def committed_rows(name):
    return read_results(RESULTS / f"{name}.json").rows

"""Study of steps in the backward pass: what is measured, and its table."""

from benchmarks.studies import in_backward as study
from d3fast.results.store import Results


def test_every_contender_is_measured_and_the_peak_falls_by_the_gradients():
    rows = study.measure(width=64, depth=6, rows=1, budget=0.0)
    assert [row["contender"] for row in rows] == [
        study.OURS,
        study.TORCH,
        study.OURS + study.INSIDE,
        study.TORCH + study.INSIDE,
    ]
    peaks = {row["contender"]: row["peak"] for row in rows}
    for name in (study.OURS, study.TORCH):
        assert peaks[name] >= 4 > 2 >= peaks[name + study.INSIDE]
    table = study.in_backward_table(Results("command", {}, rows)).splitlines()
    assert len(table) == 2 + 4
    assert table[2].rstrip("|").rstrip().endswith("1.00×")

"""Study of threads against processes: what is measured, and its table."""

from benchmarks.studies import threads as study
from d3fast.results.store import Results


def test_processes_share_the_tensors_and_every_contender_is_measured(monkeypatch):
    monkeypatch.setattr(study, "MODES", {"2 processes": (2, 1)})
    rows = study.study((2,), 1)
    assert [row["contender"] for row in rows] == list(study.CONTENDERS)
    assert {(row["mode"], row["elements"], row["rounds"]) for row in rows} == {
        ("2 processes", 72_000, 2)
    }


def test_the_table_says_how_much_of_a_doubling_is_attained():
    times = {"1 thread": 100.0, "2 threads": 62.5, "2 processes": 50.0}
    rows = [
        {"tensors": 2, "elements": 100_000, "mode": mode, "contender": name}
        | {"us": 2 * us * (k + 1), "us_least": us * (k + 1)}
        for mode, us in times.items()
        for k, name in enumerate(study.CONTENDERS)
    ]
    lines = study.threads_table(Results("command", {}, rows)).splitlines()
    assert len(lines) == 2 + len(study.CONTENDERS)
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[2] == "2.00 (4.00)"
    assert cells[5:] == ["80 %", "100 %", "2.00×"]

"""Cells: run once, side by side, and gone on with after a cut."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from d3fast.results.engine import Place, finished, key_of, run_cells


@dataclass(frozen=True)
class Counts:
    """Notes every run in a file, so that runs in other processes show too."""

    number: int
    factor: int = 2
    fails: bool = False

    @property
    def name(self):
        return f"count{self.number}"

    def run(self, place: Place, progress: bool):
        with (place.folder / "runs.txt").open("a") as file:
            file.write(f"{self.number}\n")
        if self.fails:
            raise ValueError(f"cell {self.number} cannot be run")
        return {"number": self.number, "value": self.number * self.factor}


def runs(folder: Path):
    path = folder / "runs.txt"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def values(folder, cells, **options):
    return [row["value"] for row in run_cells(cells, Place(folder), progress=False, **options)]


CELLS = [Counts(number) for number in range(4)]


def test_rows_come_in_the_order_of_the_cells_and_a_second_run_computes_nothing(tmp_path):
    assert values(tmp_path, CELLS) == [0, 2, 4, 6]
    assert values(tmp_path, CELLS[::-1]) == [6, 4, 2, 0]
    assert runs(tmp_path) == [0, 1, 2, 3]


def test_workers_give_the_same_rows(tmp_path):
    assert values(tmp_path, CELLS, workers=2) == [0, 2, 4, 6]
    assert values(tmp_path, CELLS, workers=2) == [0, 2, 4, 6]
    assert runs(tmp_path) == [0, 1, 2, 3]


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(ValueError, match="cell 2 cannot be run"):
        values(tmp_path, [CELLS[0], CELLS[1], Counts(2, fails=True), CELLS[3]])
    assert values(tmp_path, CELLS) == [0, 2, 4, 6]
    assert runs(tmp_path) == [0, 1, 2, 2, 3]


def test_an_error_in_a_worker_reaches_the_caller_and_what_was_done_stays(tmp_path):
    with pytest.raises(ValueError, match="cell 3 cannot be run"):
        values(tmp_path, [*CELLS[:3], Counts(3, fails=True)], workers=2)
    assert values(tmp_path, CELLS[:1]) == [0]
    assert runs(tmp_path).count(0) == 1


def test_a_changed_setting_is_another_cell(tmp_path):
    values(tmp_path, CELLS[:1])
    assert values(tmp_path, [Counts(0, factor=5), Counts(1, factor=5)]) == [0, 5]
    assert runs(tmp_path) == [0, 0, 1]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": {}, "row": {}}'])
def test_a_damaged_result_is_computed_anew(tmp_path, content):
    values(tmp_path, CELLS[1:2])
    path = tmp_path / "cells" / f"{key_of(CELLS[1])}.json"
    path.write_text(content)
    assert finished(CELLS[1], tmp_path) is None
    assert values(tmp_path, CELLS[1:2]) == [2]
    assert json.loads(path.read_text())["row"]["value"] == 2


def test_every_row_is_reported_once(tmp_path):
    seen = []
    values(tmp_path, CELLS[:2])
    values(tmp_path, CELLS, on_row=lambda cell, row: seen.append((cell.number, row["value"])))
    assert seen == [(0, 0), (1, 2), (2, 4), (3, 6)]


SLEEPS = """
import os, time
from dataclasses import dataclass
from pathlib import Path
from d3fast.results.engine import Place, run_cells

@dataclass(frozen=True)
class Sleeps:
    name: str

    def run(self, place, progress):
        (place.folder / f"{self.name}.pid").write_text(str(os.getpid()))
        time.sleep(60)
        return {}

if __name__ == "__main__":
    run_cells([Sleeps("a"), Sleeps("b")], Place(Path.cwd()), workers=2, progress=False)
"""


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_began_them(tmp_path, ending):
    script = tmp_path / "sleeps.py"
    script.write_text(SLEEPS)
    process = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.2)  # a name is there before the number is in it
        pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        assert len(pids) == 2
    finally:
        process.send_signal(ending)
        process.wait()
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, pids))

"""Small jobs that need each other: a number, or the sum of what others left in files."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from d3fast.io.files import make_folder
from d3fast.results.jobs import finished_row, key_of


@dataclass(frozen=True)
class Adds:
    """Adds its number to the files of the jobs it needs; appends its name to a log."""

    label: str
    log: str
    number: int = 1
    needs: "tuple[Adds, ...]" = ()
    fails: bool = False
    kind: ClassVar[str] = "Adds"

    @property
    def name(self):
        return self.label

    def file(self, folder):
        return folder / "models" / f"{key_of(self)}.txt"

    def run(self, run_dir, progress):
        with Path(self.log).open("a") as log:
            log.write(f"{self.label}\n")
        if self.fails:
            raise ValueError(f"{self.label} cannot be run")
        assert all(finished_row(job, run_dir.folder) for job in self.needs)
        total = self.number + sum(int(job.file(run_dir.folder).read_text()) for job in self.needs)
        make_folder(run_dir.folder / "models")
        self.file(run_dir.folder).write_text(str(total))
        return {"total": total}


def chain(log, **last):
    """A twin, a suspect on it, two repairs, and a test that needs twin and repair."""
    twin = Adds("twin", str(log))
    suspect = Adds("suspect", str(log), 10, (twin,))
    repairs = [Adds(f"repair{i}", str(log), i * 100, (suspect,)) for i in (1, 2)]
    return [twin, suspect, *repairs, Adds("test", str(log), 1000, (twin, repairs[0]), **last)]


TOTALS = [1, 11, 111, 211, 1112]


def ran(log):
    """The names of the jobs that ran, in their order."""
    return log.read_text().split() if log.exists() else []

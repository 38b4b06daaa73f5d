"""Hostile files through the command line: exit code 2, one line on stderr, nothing written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from d3fast.cli import app
from tests.hostile.arrays import ARRAYS
from tests.hostile.documents import RESULTS, results
from tests.hostile.images import FOLDERS
from tests.hostile.models import net, state, torch_file
from tests.hostile.triggers import TRIGGERS
from tests.hostile.weights import WEIGHTS

COMMANDS = ("inspect", "pilot", "detox", "spectrum")
MODEL = ("--model", f"{net.__module__}:{net.__name__}", "--no-progress")


def chosen(cases, *names):
    """Cases by name, the first of each."""
    return [next(case for case in cases if case.name == name) for name in names]


def _named(case):
    return case.name


@pytest.fixture
def place(tmp_path):
    """A folder with good weights and good samples, and one for the hostile file."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "good.pt").write_bytes(torch_file(state()))
    labels = np.arange(30) % 3
    np.savez(tmp_path / "good.npz", images=np.zeros((30, 3, 3), np.uint8), labels=labels)
    return tmp_path


def refused(place, *arguments):
    """The one line that a command prints; whatever else is there when it ends fails."""
    files = {path for path in place.rglob("*") if not path.is_dir()}
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert ran.exit_code == 2, ran.output
    assert ran.stdout == ""
    line = ran.stderr.removesuffix("\n")
    assert line.isprintable()
    assert line.startswith("error: ")
    assert {path for path in place.rglob("*") if not path.is_dir()} == files
    return line


def _asked(command, place, weights=None, samples=None):
    data = ("--data", samples or place / "good.npz")
    weights = weights or place / "good.pt"
    return command, "--checkpoint", weights, *data, "--out", place / "out", *MODEL


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "case",
    chosen(
        WEIGHTS,
        "os.system",
        "code in protocol 4",
        "code in the tar format",
        "TorchScript",
        "NaN",
        "a bomb in a storage",
        "a name with a line break",
        "names that print badly",
        "a pipe",
        "a tensor that repeats one number 2^50 times",
        "an endless device",
        "a header past the end",
    ),
    ids=_named,
)
def test_a_hostile_checkpoint(place, command, case):
    line = refused(place, *_asked(command, place, weights=case.make(place / "bad")))
    assert "bad/" in line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "case",
    [
        *chosen(
            FOLDERS,
            "a link to an image outside",
            "a pipe among the images",
            "an image whose name prints badly",
            "a class whose name prints badly",
            "a bomb among the images",
        ),
        *chosen(ARRAYS, "objects with code", "a bomb with a good header", "names that print badly"),
    ],
    ids=_named,
)
def test_hostile_samples(place, command, case):
    line = refused(place, *_asked(command, place, samples=case.make(place / "bad")))
    assert "bad/" in line


@pytest.mark.parametrize(
    "case", chosen(TRIGGERS, "a pipe", "a name with a line break", "an unknown attack"), ids=_named
)
def test_a_hostile_trigger(place, case):
    refused(place, *_asked("spectrum", place), "--trigger", case.make(place / "bad"))


HOSTILE_RESULTS = chosen(
    RESULTS, "a pipe", "brackets 100,000 deep", "NaN", "200 MB", "rows that are numbers"
)


@pytest.mark.parametrize("case", HOSTILE_RESULTS, ids=_named)
def test_hostile_results_in_the_folder_of_a_report(place, case):
    case.make(place / "bad").rename(place / "bad" / "inspect.json")
    refused(place, "report", place / "bad")


@pytest.mark.parametrize("case", HOSTILE_RESULTS, ids=_named)
@pytest.mark.parametrize("old", [True, False])
def test_hostile_results_to_compare_with(place, case, old):
    (place / "good.json").write_bytes(results())
    files = [case.make(place / "bad"), place / "good.json"]
    refused(place, "monitor", *(files if old else files[::-1]))


def test_no_escape_code_reaches_a_terminal(place):
    """The real bytes that a process writes."""
    (case,) = chosen(WEIGHTS, "a name with a line break")
    command = [str(a) for a in _asked("inspect", place, weights=case.make(place / "bad"))]
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "d3fast", *command], cwd=root, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr.count(b"\n") == 1
    assert not set(ran.stderr.removesuffix(b"\n")) & set(range(32))

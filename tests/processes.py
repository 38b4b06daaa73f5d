"""Child processes of tests: Ctrl-C reaches them, and none is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
needs_proc = pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="looks at processes through /proc"
)


@contextlib.contextmanager
def python(*arguments, cwd=None):
    """A Python process of this checkout in a process group of its own, ended with the block."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
        },
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def interrupt(process, presses=1):
    """Send Ctrl-C as a terminal does, to the whole group; return what was printed.

    A library that catches everything while it is imported may swallow one: with ``presses=2`` a
    process that does not end is interrupted again, as a user would.
    """
    for _ in range(presses):
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=60)
    raise AssertionError(f"the process did not end after {presses} interrupts")


def wait_until(condition, seconds=90.0):
    """Wait until a condition holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def alive_in_group(group):
    """Process ids of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found

"""A worker does not outlive the process that began it."""

import signal
import subprocess
import sys
import time

PARENT = """
import multiprocessing, time
from d3fast.processes import end_with_parent

def work(pipe):
    end_with_parent()
    pipe.send("ready")
    time.sleep(600)

if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=work, args=(theirs,))
    child.start()
    ours.recv()
    print(child.pid, flush=True)
    time.sleep(600)
"""


def is_running(pid):
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return shown.stdout.strip()[:1] not in ("", "Z")  # one that nobody has waited for is over


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE)
    with parent:
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while is_running(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(child)

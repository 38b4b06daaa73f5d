"""Ray with two raylets of one core each on loopback, one of which is killed in mid-run."""

import json
from collections import Counter
from importlib.util import find_spec

import pytest

from d3fast.benchmark.grid import run_grid
from d3fast.benchmark.plan import plan_jobs
from d3fast.results.jobs import RunDir, key_of
from tests.distributed.ray_run import NOT_STARTED, PRESET, rows_of
from tests.processes import python

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra d3fast[ray]")


def test_a_node_killed_in_mid_run_changes_no_bit_and_nothing_is_computed_twice(tmp_path):
    with python("-m", "tests.distributed.ray_run", tmp_path) as process:
        stdout, stderr = process.communicate(timeout=300)
    if process.returncode == NOT_STARTED:
        pytest.skip("the machine is too busy: no raylet started within Ray's 15 seconds")
    assert process.returncode == 0, stderr
    local = run_grid(PRESET, RunDir(tmp_path / "local"), seeds=[0], progress=False)
    assert json.loads(stdout.splitlines()[-1]) == json.loads(json.dumps(rows_of(local)))

    events = [line.split() for line in (tmp_path / "log.txt").read_text().splitlines()]
    count = Counter(event for event, *_ in events)
    jobs = {key_of(planned.job) for planned in plan_jobs(PRESET, [0]).all}
    assert {key for event, _, *key in events if event == "published" for key in key} == jobs
    # The killed job alone was started twice.
    assert (count["published"], count["stays"], count["started"]) == (len(jobs), 1, len(jobs) + 1)

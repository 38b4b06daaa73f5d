# SPDX-License-Identifier: Apache-2.0
"""One optimizer step: every workload with every contender, in turn within one process.

A workload is measured when its first test runs; the others show what was measured then. Nothing is
asserted about time: bytes, launches and allocations have tests, in ``tests``.
"""

import pytest

from benchmarks.replay import CLOCK


@pytest.mark.benchmark(timer=CLOCK)
def test_step(run, replay, workload, contender):
    measured = run.measured(workload)
    if contender in measured.skipped:
        pytest.skip(measured.skipped[contender])
    replay(measured.samples[contender], workload)

# SPDX-License-Identifier: Apache-2.0
"""One optimizer step: every workload with every contender, interleaved in one process.

The first test of a workload measures all its contenders. Nothing is asserted about time; bytes,
launches and allocations have tests in ``tests``.
"""

import pytest


def test_step(run, workload, contender):
    measured = run.measured(workload)
    if contender in measured.skipped:
        pytest.skip(measured.skipped[contender])
    assert measured.samples[contender]

# SPDX-License-Identifier: Apache-2.0
"""The yardsticks on buffers several times larger than the last cache."""

from benchmarks.speed.measure import bandwidth_rows
from benchmarks.speed.timing import interleave
from benchmarks.speed.yardsticks import BYTES, IN_MEMORY, Yardsticks


def test_bandwidth_in_memory(run):
    yardsticks = Yardsticks(IN_MEMORY // run.shrink, run.device)
    samples = interleave(yardsticks.contenders, run.device, run.budget)
    run.rows += bandwidth_rows("in memory", yardsticks, samples)
    assert set(samples) == set(BYTES)

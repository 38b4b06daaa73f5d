# SPDX-License-Identifier: Apache-2.0
"""The yardsticks on buffers several times larger than the last cache."""

import pytest

from benchmarks.measure import bandwidth_rows
from benchmarks.replay import CLOCK
from benchmarks.timing import interleave
from benchmarks.yardsticks import BYTES, IN_MEMORY, Yardsticks


@pytest.fixture(scope="module")
def samples(run):
    yardsticks = Yardsticks(IN_MEMORY // run.shrink, run.device)
    samples = interleave(yardsticks.contenders, run.device, run.budget)
    run.rows += bandwidth_rows("in memory", yardsticks, samples)
    return samples


@pytest.mark.parametrize("yardstick", BYTES)
@pytest.mark.benchmark(timer=CLOCK)
def test_bandwidth_in_memory(samples, replay, yardstick):
    replay(samples[yardstick], "in memory")

# SPDX-License-Identifier: Apache-2.0
"""Counting of operations and their bytes."""

import pytest
import torch

from benchmarks.studies.counting import OperationCounter, count


@pytest.mark.parametrize(
    ("call", "operations", "asked"),
    [
        (lambda a, b: a + b, 1, 12),
        (lambda a, b: a.add_(b), 1, 12),
        (lambda a, b: a.copy_(b), 1, 8),
        (lambda a, b: a.zero_(), 1, 4),
        (lambda a, b: a.double(), 1, 12),
        (lambda a, b: torch.empty_like(a), 0, 0),
        (lambda a, b: a.view(10, 10).T.detach(), 0, 0),
        (lambda a, b: a * b + 1.0, 2, 20),
    ],
)
def test_bytes_are_those_read_and_written(call, operations, asked):
    a, b = torch.rand(100), torch.rand(100)
    with OperationCounter() as watch:
        call(a, b)
    assert (watch.operations, watch.asked) == (operations, 100 * asked)


def test_a_tracked_step_asks_more_than_an_untracked_one():
    assert count(torch.float32, True).asked > count(torch.float32, False).asked >= 20

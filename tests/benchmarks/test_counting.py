# SPDX-License-Identifier: Apache-2.0
"""How operations and their bytes are counted."""

import pytest
import torch

from benchmarks.counting import Watch, count
from benchmarks.scaling import RESULTS
from d3fast.results.store import read_results


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
    with Watch() as watch:
        call(a, b)
    assert (watch.operations, watch.asked) == (operations, 100 * asked)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tracked", [True, False])
def test_the_committed_counts_are_about_those_of_this_code(precision, tracked):
    # Another torch, or a better step, counts a little differently; much more is another page.
    rows = read_results(RESULTS / "scaling.json").rows
    (row,) = (
        r
        for r in rows
        if r["kind"] == "bytes" and (r["precision"], r["tracked"]) == (precision, tracked)
    )
    now = count({"fp32": torch.float32, "bf16": torch.bfloat16}[precision], tracked)
    assert row["asked"] == pytest.approx(now.asked, rel=0.2)
    assert row["per_tensor"] == pytest.approx(now.per_tensor, rel=0.2)
    assert row["held"] + row["passing"] == pytest.approx(now.held + now.passing, rel=0.5)


def test_a_tracked_step_asks_more_than_an_untracked_one():
    assert count(torch.float32, True).asked > count(torch.float32, False).asked >= 20

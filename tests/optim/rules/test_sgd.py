"""The rule of SGD: which buffers its options need. Its formulas: backends/test_torch_backend."""

import pytest

from d3fast.optim.rules.sgd import SGD


@pytest.mark.parametrize(
    ("momentum", "dampening", "buffers", "dampened"),
    [
        (0.0, 0.3, {}, False),
        (0.9, 0.0, {"momentum": "momentum_buffer"}, False),
        (0.9, 0.3, {"momentum": "momentum_buffer"}, True),
    ],
)
def test_momentum_needs_a_buffer_and_dampening_another_first_step(
    momentum, dampening, buffers, dampened
):
    group = {"momentum": momentum, "dampening": dampening}
    assert SGD.buffers(group) == buffers
    assert SGD.starts_undampened(group) is dampened

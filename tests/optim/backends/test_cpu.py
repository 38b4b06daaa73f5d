"""The launcher on the CPU."""

import pytest
import torch

from d3fast.optim.backends.cpu import CpuLauncher, euclidean_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_norm_is_computed_in_float64(dtype):
    x = torch.randn(300, 500, generator=torch.Generator().manual_seed(0)).to(dtype).t()
    assert euclidean_norm(x) == pytest.approx(float(x.double().norm()), rel=1e-12)


def test_a_norm_does_not_overflow_the_dtype():
    assert euclidean_norm(torch.full((4,), 3e38)) == pytest.approx(6e38)


def test_it_takes_as_many_threads_as_torch():
    columns = ("compensation", "reference", "momentum", "distance")
    launcher = CpuLauncher({"theta": [torch.ones(3)], **{name: [] for name in columns}}, False)
    assert launcher.executor() == torch.get_num_threads()

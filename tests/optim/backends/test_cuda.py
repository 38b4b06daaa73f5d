"""The launcher on a GPU; its steps are tested in tests/gpu and tests/csrc/cuda."""

import pytest
import torch

from d3fast import _C
from d3fast.optim.backends.cuda import CudaLauncher

COLUMNS = ("compensation", "reference", "momentum", "distance")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_needs_a_gpu():
    with pytest.raises((AssertionError, RuntimeError)):
        CudaLauncher({"theta": [torch.ones(3)], **{name: [] for name in COLUMNS}}, False)


def test_an_extension_without_cuda_has_no_plan_for_it():
    assert hasattr(_C, "CudaPlan") == bool(_C.build_info()["cuda"])

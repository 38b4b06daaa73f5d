"""Errors of the extension name the argument, its value, the file and the line."""

import pytest
import torch

from d3fast import _C

PLACE = r"\[csrc/{}:\d+\]$"


def test_a_bad_argument_is_a_value_error_with_its_value():
    place = PLACE.format("common/partition.cpp")
    with pytest.raises(ValueError, match="^chunk_length must be > 0, got -3 " + place):
        _C.partition([1], False, -3)


@pytest.mark.skipif(not hasattr(_C, "CudaPlan"), reason="built without CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA calls succeed here")
def test_a_failed_cuda_call_is_a_runtime_error_with_the_call():
    plan = _C.CudaPlan(
        dtypes=_C.DTypeNames(weight="float32", momentum="float32", reference="float32"),
        columns=_C.Columns(theta=[64], numel=[1]),
        joint_norm=False,
    )
    place = PLACE.format("cuda/launch.cu")
    with pytest.raises(
        RuntimeError, match=r"^cudaSetDevice\(device\) must succeed, got .*" + place
    ):
        plan.attach(device=0, stream=0, memory=64, reference_norms=0)

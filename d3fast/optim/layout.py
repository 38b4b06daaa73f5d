# SPDX-License-Identifier: Apache-2.0
"""Memory layout of tensors: the kernels read and write addresses."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one shape have the same strides; sizes of 1 have none."""
    return a.stride() == b.stride() or all(
        n == 1 or x == y for n, x, y in zip(a.shape, a.stride(), b.stride(), strict=True)
    )


def is_deferred(tensor: Tensor) -> bool:
    """Return whether the memory does not hold the values: the negative bit is set, or a ZeroTensor.

    Autograd makes both for complex numbers: the gradient of an imaginary part may be a view of
    the opposite values, and one that is known to be zero may have no memory at all.
    """
    return tensor.is_neg() or tensor._is_zerotensor()


def is_fake(tensor: Tensor) -> bool:
    """Return whether the tensor has a shape and a dtype but no values, as in ``FakeTensorMode``.

    Memory estimators run a training step on such tensors.
    """
    return isinstance(tensor, FakeTensor)


def is_dense(tensor: Tensor) -> bool:
    """Return whether the values fill one stretch of memory without gaps or overlaps."""
    if is_deferred(tensor):
        return False
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def match_layout(tensor: Tensor, param: Tensor) -> Tensor:
    """Return the values in memory with the strides of ``param`` (same shape).

    They are copied only where the strides differ or the memory does not hold them.
    """
    if same_layout(tensor, param) and not is_deferred(tensor):
        return tensor
    return torch.empty_like(param, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def on_host(tensor: Tensor) -> Tensor:
    """Return the tensor in host memory, which is pinned where the tensor came from a GPU.

    A copy back from pinned memory does not make the host wait.
    """
    if not tensor.is_cuda:
        return tensor.cpu()
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)

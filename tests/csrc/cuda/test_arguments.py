"""Gradients as arguments of a step: 224 travel with the launch, longer lists lie in memory.

On the host the table in memory is written for the longer lists alone: reading it for a shorter one
would read zeros as addresses.
"""

import pytest
import torch

from d3fast.optim import D3FusedSGD


def steps(dtype, tensors):
    """Three steps over many small tensors; a dampened first step has entries of its own."""
    g = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(5, generator=g).to(dtype)) for _ in range(tensors)]
    references = [torch.randn(5, generator=g).to(dtype) for _ in range(tensors)]
    backend = "reference" if dtype == torch.float64 else "fused"
    options = {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "backend": backend}
    opt = D3FusedSGD(params, track="all", reference=references, **options)
    for t in range(3):
        for i, p in enumerate(params):
            p.grad = torch.randn(5, generator=g).to(dtype) if t != 1 or i % 2 else p.grad
        opt.step()
    return torch.cat([p.detach().double() for p in params])


@pytest.mark.parametrize("tensors", [1, 224, 225, 300])
def test_every_tensor_gets_its_own_gradient(cuda_on_host, tensors):
    got, want = steps(torch.float32, tensors), steps(torch.float64, tensors)
    assert float((got - want).norm() / want.norm()) <= 1e-6

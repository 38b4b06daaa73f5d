"""Accesses of 8 and 16 bytes, array by array."""

import pytest
import torch

from d3fast.optim import D3FusedSGD

N = 4096 + 17
ARRAYS = ("theta", "grad", "reference", "momentum_buffer")


def stepped(dtype, shifted, momentum_dtype=None):
    """Take two steps with some arrays one element off; return the weights, with the buffers."""

    def place(name, values):
        offset = int(name in shifted)
        return torch.empty(N + 1, dtype=values.dtype)[offset : offset + N].copy_(values)

    g = torch.Generator().manual_seed(0)
    start, reference, *grads = torch.randn(4, N, generator=g).to(dtype)
    p = torch.nn.Parameter(place("theta", start))
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, reference=[reference], backend="fused")
    p.grad = place("grad", grads[0])
    opt.step()
    for name in ("reference", "momentum_buffer"):
        opt.state[p][name] = place(name, opt.state[p][name])
    p.grad = place("grad", grads[1])
    opt.step()
    return p.detach().clone(), opt.state[p]["momentum_buffer"].clone()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shifted", [*((a,) for a in ARRAYS), ARRAYS], ids="+".join)
def test_an_array_that_is_not_aligned_leaves_the_others_wide(cuda_on_host, shifted, dtype):
    """A gradient in a DDP bucket lies where the tensors before it end."""
    usual = stepped(dtype, ())
    wide = cuda_on_host.report.wide_accesses
    other = stepped(dtype, shifted)
    narrowed = 1 - cuda_on_host.report.wide_accesses / wide
    assert all(torch.equal(a, b) for a, b in zip(usual, other, strict=True))
    # Counted are accesses with a cache hint: loads of gradient, reference and momentum, stores of
    # the momentum; by the projection loads and stores of the weights and of their compensations.
    share = {"theta": 2, "grad": 1, "reference": 1, "momentum_buffer": 2}
    total = sum(share.values()) + (2 if dtype != torch.float32 else 0)
    assert narrowed == pytest.approx(sum(share[a] for a in shifted) / total, abs=0.02)

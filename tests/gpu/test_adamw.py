"""AdamW's rule in the CUDA kernels against the float64 reference backend on the host."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from d3fast import D3FusedAdamW
from tests.gpu.test_step import FRESH, trajectory
from tests.optim.test_fused_adamw import GROUPS


@FRESH
@given(groups=GROUPS, seed=st.integers(0, 2**31))
def test_20_steps_follow_the_reference(device, relative_error, groups, seed):
    got, _ = trajectory(groups, device, torch.float32, "fused", seed, optimizer=D3FusedAdamW)
    want, _ = trajectory(groups, "cpu", torch.float64, "reference", seed, optimizer=D3FusedAdamW)
    if sum(p.numel() for p in want):
        assert relative_error(got, want) <= 1e-5


def test_replays_of_a_graph_count_steps_on_the_device(device):
    lr = torch.tensor(0.01, device=device)
    weights = []
    for captured in (False, True):
        g = torch.Generator().manual_seed(0)
        p = nn.Parameter(torch.randn(9001, generator=g).to(device))
        opt = D3FusedAdamW([p], track="all", lr=lr, capturable=True, backend="fused")
        p.grad = torch.randn(9001, generator=g).to(device)
        opt.step()
        graph = torch.cuda.CUDAGraph()
        if captured:
            with torch.cuda.graph(graph):
                opt.step()
        for _ in range(5):
            graph.replay() if captured else opt.step()
        assert float(opt.state[p]["step"]) == 6
        weights.append(p.detach())
    assert torch.equal(*weights)

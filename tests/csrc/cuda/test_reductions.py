"""Sums over chunks, segments and norm groups."""

import pytest
import torch

from d3fast.optim import D3FusedSGD
from tests.csrc.cuda.test_kernels import MOMENTA, SETS, relative_error, run


def problem(dtype, shapes, **options):
    """One group of many tensors, moved from their references."""
    g = torch.Generator().manual_seed(5)
    starts, references = ([torch.randn(s, generator=g).to(dtype) for s in shapes] for _ in "ab")
    params = [torch.nn.Parameter(s) for s in starts]
    backend = "reference" if dtype == torch.float64 else "fused"
    return params, D3FusedSGD(params, track="all", reference=references, backend=backend, **options)


def distance_errors(params, opt):
    """The relative error of each cached norm."""
    for p, cached in zip(params, opt.distances().values(), strict=True):
        actual = float((p.detach().double() - opt.state[p]["reference"].double()).norm())
        yield abs(float(cached) - actual) / max(actual, 1e-30)


@pytest.mark.parametrize("name", ["free", "sphere", "distance_ball"])
def test_a_group_of_hundreds_of_segments_has_one_norm(cuda_on_host, monkeypatch, name):
    monkeypatch.setattr(cuda_on_host, "chunk_length", 50)
    shapes = [(1 + i * 7 % 13,) for i in range(290)] + [(0,), (640,), (333,)]
    options = {"lr": 0.05, "scope": "group", **MOMENTA["heavy_ball"], **SETS[name]}
    got, opt = problem(torch.float32, shapes, **options)
    moved = run(got, opt, steps=2)
    want = run(*problem(torch.float64, shapes, **options), steps=2)
    assert relative_error(moved, want) <= 1e-5
    assert max(distance_errors(got, opt)) <= 1e-5


@pytest.mark.parametrize("name", ["free", "sphere"])
def test_runs_in_float_lose_less_than_the_tolerance_of_a_norm(cuda_on_host, name):
    """A cached norm counts as stale from 1e-5 on."""
    got, opt = problem(torch.float32, [(20_011,)], lr=0.05, momentum=0.9, **SETS[name])
    run(got, opt, steps=3)
    assert max(distance_errors(got, opt)) <= 2e-7


def test_the_grid_does_not_change_a_bit(cuda_on_host, monkeypatch):
    monkeypatch.setattr(cuda_on_host, "chunk_length", 40)
    shapes = [(640,), (3,), (333,)]
    results = []
    for blocks, host_threads in ((1, 1), (3, 2), (64, 4)):
        monkeypatch.setattr(cuda_on_host, "blocks", blocks)
        monkeypatch.setattr(cuda_on_host, "host_threads", host_threads)
        results.append(run(*problem(torch.float32, shapes, lr=0.05, momentum=0.9, scope="group")))
        assert cuda_on_host.report.most_blocks == min(blocks, 16 + 1 + 9)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))

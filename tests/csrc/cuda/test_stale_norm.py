"""Cached norms that are wrong: verified where they must be, corrected by blocks that are free."""

import ctypes

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3fast.optim import D3FusedSGD
from tests.csrc.cuda.test_kernels import MOMENTA, SETS, relative_error, run

COUNTS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(counts=COUNTS, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_blocks_take_every_chunk_of_the_stale_groups_once(host_library, counts, data):
    """A block takes one chunk at a time, so however many are free share the correction."""
    groups = data.draw(st.lists(st.sampled_from(range(len(counts))), unique=True))
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    taken = (ctypes.c_int64 * (sum(counts) + 1))()
    host_library.host_corrections(
        ctypes.c_int64(len(counts)),
        (ctypes.c_int64 * len(counts))(*counts),
        ctypes.c_int64(len(groups)),
        (ctypes.c_int64 * len(groups))(*groups),
        taken,
    )
    expected = [i for g in groups for i in range(ends[g] - counts[g], ends[g])]
    assert list(taken)[: len(expected) + 1] == [*expected, -1]


def large_problem(dtype, **options):
    """Two tensors of many chunks between small ones."""
    g = torch.Generator().manual_seed(3)
    shapes = [(3,), (4100,), (17, 5), (2900,), (1,)]
    starts, references = ([torch.randn(s, generator=g).to(dtype) for s in shapes] for _ in "ab")
    params = [torch.nn.Parameter(s) for s in starts]
    backend = "reference" if dtype == torch.float64 else "fused"
    return params, D3FusedSGD(params, track="all", reference=references, backend=backend, **options)


def edit_all(t, params):
    """Move every tensor behind the optimizer's back, after the second step."""
    if t == 2:
        for i, p in enumerate(params):
            p.data.mul_(1.5 + i)


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("name", ["free", "sphere", "distance_ball"])
@pytest.mark.parametrize("momentum", MOMENTA)
def test_corrections_of_many_chunks_match_the_reference(
    cuda_on_host, monkeypatch, momentum, name, scope
):
    monkeypatch.setattr(cuda_on_host, "chunk_length", 100)
    options = {"lr": 0.05, "weight_decay": 0.1, "scope": scope, **MOMENTA[momentum], **SETS[name]}
    got = run(*large_problem(torch.float32, **options), between=edit_all)
    want = run(*large_problem(torch.float64, **options), between=edit_all)
    assert relative_error(got, want) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("scope", "name"), [("tensor", "sphere"), ("group", "free")])
@pytest.mark.parametrize("blocks", [1, 2, 64])
@pytest.mark.parametrize(("lag", "host_threads"), [(1, 1), (3, 2), (1000, 6)])
def test_who_corrects_does_not_change_a_bit(
    cuda_on_host, monkeypatch, lag, host_threads, blocks, scope, name
):
    monkeypatch.setattr(cuda_on_host, "chunk_length", 100)
    options = {"lr": 0.05, "scope": scope, **MOMENTA["heavy_ball"], **SETS[name]}
    usual = run(*large_problem(torch.float32, **options), between=edit_all)
    for key, value in (("lag", lag), ("host_threads", host_threads), ("blocks", blocks)):
        monkeypatch.setattr(cuda_on_host, key, value)
    other = run(*large_problem(torch.float32, **options), between=edit_all)
    assert all(torch.equal(a, b) for a, b in zip(usual, other, strict=True))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(("lr", "verifies"), [(0.05, False), (8.0, True)])
def test_a_learning_rate_on_the_device_decides_there(cuda_on_host, lr, verifies, kind):
    """With Nesterov, a push cannot be undone where lr * weight_decay > 1/2."""
    p = torch.nn.Parameter(torch.ones(3000))
    options = {"lr": torch.tensor(lr, dtype=kind), "constraint": None, "weight_decay": 0.1}
    references = [torch.zeros(3000)]
    opt = D3FusedSGD(
        [p], track="all", reference=references, backend="fused", **options, **MOMENTA["nesterov"]
    )
    p.grad = torch.ones(3000)
    opt.step()
    assert cuda_on_host.report.verified  # the first step does
    p.data.mul_(3)
    opt.step()
    assert cuda_on_host.report.launches == 2  # the kernel looks at lr in either case
    assert cuda_on_host.report.verified == verifies


def test_a_stale_norm_of_infinite_weights_ends_the_step(cuda_on_host):
    p = torch.nn.Parameter(torch.ones(2500))
    opt = D3FusedSGD([p], track="all", reference=[torch.zeros(2500)], backend="fused", lr=0.1)
    p.grad = torch.ones(2500)
    opt.step()
    p.data.fill_(torch.inf)
    opt.step()
    assert not torch.isfinite(p).any()

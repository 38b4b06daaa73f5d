"""The CUDA kernels over half types, run on the host block by block, against the plain steps."""

import itertools

import pytest
import torch

from d3fast.optim import D3FusedSGD
from d3fast.optim.kahan import kahan_load
from tests.csrc.cuda.test_kernels import MOMENTA, SETS, SHAPES, run

HALVES = {"bf16": torch.bfloat16, "f16": torch.float16}


@pytest.fixture(params=HALVES.values(), ids=HALVES)
def half(request):
    """Both half types."""
    return request.param


def problem(dtype, backend, **options):
    """Parameters at some distance from their references, and the optimizer over them."""
    g = torch.Generator().manual_seed(0)
    starts = [torch.randn(s, generator=g).to(dtype) for s in SHAPES]
    references = [torch.randn(s, generator=g).to(dtype) for s in SHAPES]
    params = [torch.nn.Parameter(s) for s in starts]
    return params, D3FusedSGD(params, track="all", reference=references, backend=backend, **options)


def stepped(dtype, backend, options, between=None, steps=5):
    """The weights that the last step left, theta + c, in one vector of float64."""
    params, opt = problem(dtype, backend, **options)
    run(params, opt, steps, between)
    known = [kahan_load(p.detach(), opt.state[p].get("compensation")) for p in params]
    return torch.cat([x.double().flatten() for x in known])


def agrees(dtype, options, between=None, bound=None):
    got, want = (stepped(dtype, backend, options, between) for backend in ("fused", "reference"))
    if bound is None:
        bound = {torch.bfloat16: 1e-4, torch.float16: 1e-5, torch.float32: 1e-5}[dtype]
    assert float((got - want).norm() / want.norm()) <= bound


@pytest.mark.parametrize(
    ("momentum", "name"), list(itertools.product(MOMENTA, ("free", "sphere", "distance_ball")))
)
@pytest.mark.parametrize("momentum_dtype", [None, torch.float32], ids=["same", "f32"])
def test_steps_follow_the_plain_ones(cuda_on_host, half, momentum_dtype, momentum, name):
    scope = "group" if name == "sphere" else "tensor"
    options = {"lr": 0.01, "weight_decay": 0.01, "scope": scope, "momentum_dtype": momentum_dtype}
    # A last bit of float32 may round a momentum of a half type otherwise.
    rounded = momentum_dtype is None and momentum != "none"
    bound = torch.finfo(half).eps / 32 if rounded else None
    agrees(half, {**options, **MOMENTA[momentum], **SETS[name]}, bound=bound)


@pytest.mark.parametrize("options", [{"distance_p": 1.0}, {"distance_weight": 0.0}], ids=str)
def test_other_trackings_follow_the_plain_steps(cuda_on_host, half, options):
    agrees(half, {"lr": 0.01, "maximize": True, **options})


def test_untracked_weights_are_rounded_once(cuda_on_host, half):
    plain = {"lr": 0.01, "distance_weight": 0.0, "constraint": None}
    agrees(half, plain, bound=torch.finfo(half).eps / 32)


def test_a_bf16_reference_beside_float32_weights(cuda_on_host):
    agrees(torch.float32, {"lr": 0.01, "momentum": 0.9, "reference_dtype": torch.bfloat16})


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("name", ["free", "sphere", "distance_ball", "untracked"])
def test_a_bf16_momentum_and_reference_beside_float32_weights(cuda_on_host, name, momentum):
    narrow = {"momentum_dtype": torch.bfloat16, "reference_dtype": torch.bfloat16}
    kinds = {**SETS, "untracked": {"distance_weight": 0.0, "constraint": None}}
    agrees(torch.float32, {"lr": 0.01, **narrow, **MOMENTA[momentum], **kinds[name]}, bound=1e-4)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_stale_norm_is_noticed_and_corrected(cuda_on_host, half, momentum):
    def edit(t, params):
        if t == 2:
            params[0].data.mul_(3.0)
            params[4].data[1234] += 150.0

    options = {"lr": 0.01, "weight_decay": 0.1, "momentum_dtype": torch.float32}
    # The edit triples what rounding at a tie decided otherwise before it.
    agrees(half, {**options, **MOMENTA[momentum]}, edit, bound=torch.finfo(half).eps / 16)


def test_gradients_are_unscaled_in_place(cuda_on_host, half):
    params, opt = problem(half, "fused", lr=0.01, momentum=0.9)
    opt.grad_scale, opt.found_inf = torch.tensor(3.0), torch.tensor(0.0)
    grads = [torch.randn(p.shape).to(half) for p in params]
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad.clone()
    opt.step()
    for p, grad in zip(params, grads, strict=True):
        assert torch.equal(p.grad, grad / 3)


def test_on_overflow_nothing_moves(cuda_on_host, half):
    params, opt = problem(half, "fused", lr=0.01, momentum=0.9)
    run(params, opt, steps=2)
    before = [x.clone() for p in params for x in (p.detach(), *opt.state[p].values())]
    opt.grad_scale, opt.found_inf = torch.tensor(3.0), torch.tensor(1.0)
    run(params, opt, steps=1)
    after = [x for p in params for x in (p.detach(), *opt.state[p].values())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_unaligned_storage_gives_the_bits_of_aligned_storage(cuda_on_host, half):
    def with_offset(offset):
        g = torch.Generator().manual_seed(0)
        values, theta_0 = torch.randn(2, 2999, generator=g).to(half)
        p = torch.nn.Parameter(torch.empty(3000, dtype=half)[offset : offset + 2999].copy_(values))
        return [p], D3FusedSGD(
            [p], track="all", lr=0.1, momentum=0.9, reference=[theta_0], backend="fused"
        )

    assert torch.equal(run(*with_offset(0))[0], run(*with_offset(1))[0])


def test_block_order_does_not_change_a_bit(cuda_on_host, half, monkeypatch):
    monkeypatch.setattr(cuda_on_host, "chunk_length", 100)
    options = {"lr": 0.01, "scope": "group", **MOMENTA["heavy_ball"]}
    first = stepped(half, "fused", options)
    monkeypatch.setattr(cuda_on_host, "host_threads", 1)
    cuda_on_host.shuffle = 1000
    assert torch.equal(first, stepped(half, "fused", options))

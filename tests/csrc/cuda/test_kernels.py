"""The CUDA kernels against the float64 reference backend, run on the host block by block."""

import itertools

import pytest
import torch

from d3fast.optim import D3FusedSGD

MOMENTA = {
    "none": {},
    "heavy_ball": {"momentum": 0.9, "dampening": 0.1},
    "nesterov": {"momentum": 0.8, "nesterov": True},
}
SETS = {
    "free": {"constraint": None},
    "sphere": {"constraint": "norm_sphere"},
    "ball": {"constraint": "norm_ball", "radius": 0.9},
    "distance_ball": {"constraint": "distance_ball", "radius": 0.9},
    "floor": {"constraint": "distance_floor", "radius": 1.4},
    "shell": {"constraint": "distance_shell", "radius": (5.0, 40.0), "radius_unit": "absolute"},
}
SHAPES = [(37, 61), (), (0,), (1,), (2500,)]


def problem(dtype, **options):
    """Parameters at some distance from their references, and the optimizer over them."""
    g = torch.Generator().manual_seed(0)
    starts = [torch.randn(s, generator=g, dtype=torch.float32).to(dtype) for s in SHAPES]
    references = [torch.randn(s, generator=g, dtype=torch.float32).to(dtype) for s in SHAPES]
    params = [torch.nn.Parameter(s) for s in starts]
    backend = "reference" if dtype == torch.float64 else "fused"
    return params, D3FusedSGD(params, track="all", reference=references, backend=backend, **options)


def run(params, opt, steps=5, between=None):
    g = torch.Generator().manual_seed(1)
    for t in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=g, dtype=torch.float32).to(p.dtype)
        if between is not None:
            between(t, params)
        opt.step()
    return [p.detach().double() for p in params]


def relative_error(got, want):
    got, want = (torch.cat([t.flatten() for t in ts]) for ts in (got, want))
    return float((got - want).norm() / want.norm())


def agrees(options, between=None, bound=1e-5):
    got = run(*problem(torch.float32, **options), between=between)
    want = run(*problem(torch.float64, **options), between=between)
    assert relative_error(got, want) <= bound


@pytest.mark.parametrize(
    ("momentum", "scope", "name"), list(itertools.product(MOMENTA, ("tensor", "group"), SETS))
)
def test_step_matches_reference(cuda_on_host, momentum, scope, name):
    options = {"lr": 0.05, "weight_decay": 0.01, "scope": scope}
    agrees({**options, **MOMENTA[momentum], **SETS[name]})


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize(
    "options",
    [{"distance_p": 1.0}, {"distance_weight": 0.0}, {"distance_weight": 0.0, "constraint": None}],
    ids=["p1", "measured", "plain"],
)
def test_other_trackings_match_reference(cuda_on_host, momentum, options):
    agrees({"lr": 0.05, "maximize": True, **MOMENTA[momentum], **options})


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("factor", [3.0, 0.3, 0.0], ids=["farther", "closer", "zero"])
def test_stale_norm_is_noticed_and_corrected(cuda_on_host, momentum, scope, factor):
    def edit(t, params):
        if t == 2:
            params[0].data.mul_(factor)
            params[4].data[1234] += 50.0 * factor

    agrees({"lr": 0.05, "weight_decay": 0.1, "scope": scope, **MOMENTA[momentum]}, edit)


def test_the_last_bit_of_a_weight_edited_under_full_weight_decay_is_no_nan(cuda_on_host):
    theta_0 = torch.full((1,), 1024.0)
    p = torch.nn.Parameter(theta_0.clone())
    options = {"lr": 1.0, "constraint": None, "weight_decay": 0.0}
    opt = D3FusedSGD([p], track="all", reference=[theta_0], backend="fused", **options)
    p.grad = torch.zeros(1)
    opt.step()
    opt.param_groups[0]["weight_decay"] = 1.0
    p.data.copy_(torch.nextafter(theta_0, torch.tensor(torch.inf)))
    opt.step()
    assert torch.isfinite(p).all()


def test_block_order_does_not_change_a_bit(cuda_on_host):
    options = {"lr": 0.05, "scope": "group", **MOMENTA["heavy_ball"]}
    first = run(*problem(torch.float32, **options))
    cuda_on_host.shuffle = 1000
    second = run(*problem(torch.float32, **options))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sphere", "distance_ball"])
def test_segments_of_many_chunks_store_their_norms(cuda_on_host, monkeypatch, name):
    monkeypatch.setattr(cuda_on_host, "chunk_length", 30)  # some above, some below kFewChunks
    options = {"lr": 0.05, "scope": "group", **MOMENTA["heavy_ball"], **SETS[name]}
    agrees(options)
    params, opt = problem(torch.float32, **options)
    run(params, opt)
    for p, carried in zip(params, opt.distances().values(), strict=True):
        actual = (p.detach() - opt.state[p]["reference"]).double().norm()
        assert float(carried) == pytest.approx(float(actual), rel=1e-5)


def test_unaligned_storage_gives_the_bits_of_aligned_storage(cuda_on_host):
    def with_offset(offset):
        g = torch.Generator().manual_seed(0)
        values, theta_0 = torch.randn(2, 2999, generator=g)
        p = torch.nn.Parameter(torch.empty(3000)[offset : offset + 2999].copy_(values))
        return [p], D3FusedSGD(
            [p], track="all", lr=0.1, momentum=0.9, reference=[theta_0], backend="fused"
        )

    assert torch.equal(run(*with_offset(0))[0], run(*with_offset(1))[0])


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("lag", [1, 3, 1000])
@pytest.mark.parametrize("host_threads", [1, 2, 6])
def test_projections_wait_for_their_norm_group_alone(
    cuda_on_host, monkeypatch, lag, host_threads, scope
):
    """With one block at a time as with six, behind any number of updates: the same bits."""
    monkeypatch.setattr(cuda_on_host, "chunk_length", 100)
    options = {"lr": 0.05, "scope": scope, **MOMENTA["heavy_ball"], **SETS["distance_ball"]}
    usual = run(*problem(torch.float32, **options))
    monkeypatch.setattr(cuda_on_host, "lag", lag)
    monkeypatch.setattr(cuda_on_host, "host_threads", host_threads)
    other = run(*problem(torch.float32, **options))
    assert all(torch.equal(a, b) for a, b in zip(usual, other, strict=True))
    want = run(*problem(torch.float64, **options))
    assert relative_error(usual, want) <= 1e-5


def test_one_launch_whatever_the_number_of_tensors(cuda_on_host):
    params, opt = problem(torch.float32, lr=0.05, momentum=0.9)
    run(params, opt, steps=1)
    assert cuda_on_host.report.launches == 2  # the first step verifies the norms
    run(params, opt, steps=1)
    assert cuda_on_host.report.launches == 1
    free, opt = problem(torch.float32, lr=0.05, momentum=0.9, constraint=None)
    run(free, opt, steps=2)
    assert cuda_on_host.report.launches == 1


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_gradients_are_unscaled_in_place(cuda_on_host, scale):
    params, opt = problem(torch.float32, lr=0.05, momentum=0.9)
    want = run(*problem(torch.float64, lr=0.05, momentum=0.9), steps=1)
    opt.grad_scale, opt.found_inf = torch.tensor(scale), torch.tensor(0.0)
    g = torch.Generator().manual_seed(1)
    grads = [torch.randn(p.shape, generator=g) for p in params]
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad * scale
    opt.step()
    assert relative_error([p.detach().double() for p in params], want) <= 1e-6
    assert all(torch.equal(p.grad, grad) for p, grad in zip(params, grads, strict=True))


SCALARS = {
    "lr": {"lr": 0.0625},
    "radius": {"radius": 0.75},
    "both": {"lr": 0.0625, "radius": 0.75},
    "distance": {"constraint": "distance_ball", "radius": 1.25},
    "shell": {"constraint": "distance_shell", "radius": (0.5, 1.25)},
    "lower": {"constraint": "distance_floor", "radius": 1.5},
    "free": {"lr": 0.0625, "constraint": None},
}


@pytest.mark.parametrize("kind", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name", SCALARS)
def test_options_as_tensors_are_read_by_the_kernels(cuda_on_host, name, kind):
    # With Nesterov momentum and weight decay what has to be verified depends on lr.
    numbers = {"lr": 0.05, "weight_decay": 0.01, **MOMENTA["nesterov"], **SCALARS[name]}
    tensors = dict(numbers)
    for key in SCALARS[name].keys() - {"constraint"}:
        value = numbers[key]
        if isinstance(value, tuple):  # one bound stays a number
            tensors[key] = (value[0], torch.tensor(value[1], dtype=kind))
        else:
            tensors[key] = torch.tensor(value, dtype=kind)
    plain, read = (run(*problem(torch.float32, **o)) for o in (numbers, tensors))
    assert all(torch.equal(a, b) for a, b in zip(plain, read, strict=True))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_options_in_tensors_may_change_without_the_host(cuda_on_host, kind):
    results = []
    for tensors in (True, False):
        values = {"lr": 0.25, "radius": 0.5}
        if tensors:
            values = {name: torch.tensor(x, dtype=kind) for name, x in values.items()}
        params, opt = problem(torch.float32, momentum=0.9, **values)

        def halve(t, params, values=values, group=opt.param_groups[0]):
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    value.mul_(0.5)
                else:
                    group[name] *= 0.5

        results.append(run(params, opt, between=halve))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

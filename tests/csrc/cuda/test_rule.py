"""The rule of AdamW in the CUDA kernels, run on the host block by block."""

import itertools

import pytest
import torch

from d3fast import D3FusedAdamW
from tests.csrc.cuda.test_kernels import SETS, SHAPES, relative_error, run

RULES = {
    "coupled": {"betas": (0.8, 0.9), "decoupled_push": False},
    "decoupled_push": {"decoupled_push": True, "eps": 1e-3},
}


def problem(dtype=torch.float32, backend="fused", **options):
    """Parameters at some distance from their references, and the optimizer over them."""
    g = torch.Generator().manual_seed(0)
    draw = lambda: [torch.randn(s, generator=g).to(dtype) for s in SHAPES]  # noqa: E731
    params, references = [torch.nn.Parameter(t) for t in draw()], draw()
    options = {"lr": 0.02, "weight_decay": 0.1, **options}
    return params, D3FusedAdamW(
        params, track="all", reference=references, backend=backend, **options
    )


def agrees(options, between=None, bound=1e-5):
    got = run(*problem(**options), between=between)
    want = run(*problem(torch.float64, "reference", **options), between=between)
    assert relative_error(got, want) <= bound


@pytest.mark.parametrize(
    ("rule", "scope", "name"), list(itertools.product(RULES, ("tensor", "group"), SETS))
)
def test_step_matches_reference(cuda_on_host, rule, scope, name):
    agrees({"scope": scope, **RULES[rule], **SETS[name]})


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "options",
    [{"distance_p": 1.0}, {"distance_weight": 0.0}, {"distance_weight": 0.0, "constraint": None}],
    ids=["p1", "measured", "plain"],
)
def test_other_trackings_match_reference(cuda_on_host, rule, options):
    agrees({"maximize": True, **RULES[rule], **options})


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("factor", [3.0, 0.3, 0.0], ids=["farther", "closer", "zero"])
def test_stale_norm_is_noticed_and_corrected(cuda_on_host, rule, scope, factor):
    def edit(t, params):
        if t == 2:
            params[0].data.mul_(factor)
            params[4].data[1234] += 50.0 * factor

    agrees({"scope": scope, **RULES[rule]}, edit)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("momentum_dtype", [None, torch.float32], ids=["same", "f32"])
def test_half_types_follow_the_plain_steps(cuda_on_host, half, momentum_dtype):
    options = {"momentum_dtype": momentum_dtype, **RULES["coupled"]}
    got, want = (run(*problem(half, kind, **options)) for kind in ("fused", "reference"))
    assert relative_error(got, want) <= torch.finfo(half).eps / 8


def test_bf16_state_beside_float32_follows_the_plain_steps(cuda_on_host):
    kinds = {"reference_dtype": torch.bfloat16, "momentum_dtype": torch.bfloat16}
    got, want = (run(*problem(backend=kind, **kinds)) for kind in ("fused", "reference"))
    assert relative_error(got, want) <= 1e-4


def test_a_learning_rate_on_the_device_is_read_by_the_kernels(cuda_on_host):
    results = []
    for lr in (0.0625, torch.tensor(0.0625)):
        params, opt = problem(lr=lr, decoupled_push=True)

        def halve(t, params, group=opt.param_groups[0]):
            group["lr"] *= 0.5  # in place where it is a tensor

        results.append(run(params, opt, between=halve))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("overflow", [0.0, 1.0])
@pytest.mark.parametrize("constraint", ["norm_sphere", None])
def test_an_overflow_counts_no_step(cuda_on_host, constraint, overflow):
    options = {"constraint": constraint, "distance_weight": 0.0 if constraint is None else 1.0}
    params, opt = problem(**options)
    run(params, opt, steps=2)
    before = [p.detach().clone() for p in params]
    opt.grad_scale, opt.found_inf = torch.tensor(4.0), torch.tensor(overflow)
    run(params, opt, steps=1)
    # A single number cannot move on its sphere.
    pairs = zip(params, before, strict=True)
    moved = [not torch.equal(p, b) for p, b in pairs if p.numel() > 1]
    assert moved == [not overflow] * len(moved)
    assert {float(opt.state[p]["step"]) for p in params} == {2.0 if overflow else 3.0}


def test_block_order_does_not_change_a_bit(cuda_on_host):
    first = run(*problem(scope="group"))
    cuda_on_host.shuffle = 1000
    second = run(*problem(scope="group"))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_one_launch_counts_the_steps_of_all_tensors(cuda_on_host):
    params, opt = problem()
    run(params, opt, steps=2)
    assert cuda_on_host.report.launches == 2

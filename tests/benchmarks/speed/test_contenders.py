# SPDX-License-Identifier: Apache-2.0
"""The contenders do the same step, and each variant of ours does what its name says."""

import pytest
import torch

from benchmarks.speed.contenders import LR, MOMENTUM, VARIANTS, WEIGHT, optimizer, ours, variants
from benchmarks.speed.peers import AUTOGRAD, FOREACH, PEERS, SGD, peers
from benchmarks.speed.workloads import FULL, Workload, draw
from d3fast.optim import D3FusedSGD

CPU = torch.device("cpu")
WORKLOAD = Workload("mixed", ((40, 50), (300,)), ((7, 5), (11,)), constraints=FULL)


def problem_with_momentum():
    problem = draw(WORKLOAD, CPU)
    g = torch.Generator().manual_seed(1)
    for v in problem.momenta:
        v.normal_(0, 0.01, generator=g)
    return problem


def expected(problem, tracked):
    """Weights and momentum after one step of the reference backend in float64."""
    params = [torch.nn.Parameter(t.double()) for t in problem.thetas]
    references = [r.double() for r in problem.references]
    groups = [{"params": params[: len(references)], "reference": references}]
    if not tracked:
        groups[0] |= {"distance_weight": 0.0, "constraint": None}
    groups.append({"params": params[len(references) :], "distance_weight": 0.0, "constraint": None})
    opt = D3FusedSGD(
        groups,
        lr=LR,
        momentum=MOMENTUM,
        distance_weight=WEIGHT,
        track="all",
        backend="reference",
    )
    for p, grad, v in zip(params, problem.grads, problem.momenta, strict=True):
        p.grad = grad.double()
        opt.state[p]["momentum_buffer"] = v.double()
    opt.step()
    return params, [opt.state[p]["momentum_buffer"] for p in params]


@pytest.mark.parametrize("name", [SGD, AUTOGRAD, FOREACH])
def test_a_peer_takes_the_step_of_the_reference(name):
    problem = problem_with_momentum()
    thetas, momenta = expected(problem, tracked=name != SGD)
    PEERS[name](problem).call()
    got = [*problem.thetas, *problem.momenta]
    for a, b in zip(got, [*thetas, *momenta], strict=True):
        torch.testing.assert_close(a.double(), b.detach(), rtol=2e-5, atol=1e-7)


def at_bound(variant, params, references):
    """Which tensors are at a bound of the variant's set."""
    radius = 1.0 if variant.radius is None else variant.radius
    bounds = radius if isinstance(radius, tuple) else (radius,)
    around_origin = (variant.constraint or "norm").startswith("norm")
    reached = []
    for p, theta_0 in zip(params, references, strict=True):
        vector = p.detach() if around_origin else p.detach() - theta_0
        norm = float(vector.norm() / theta_0.norm())
        reached.append(any(norm == pytest.approx(bound, rel=1e-6) for bound in bounds))
    return reached


def test_a_variant_projects_all_tensors_or_none_as_named_however_they_take_turns():
    problem = draw(WORKLOAD, CPU)
    contenders = ours(problem)
    params = contenders[0].call.__self__.param_groups[0]["params"]
    for turn in range(40):
        for contender in contenders[turn % 3 :: 1 + turn % 2]:
            contender.prepare()
            contender.call()
            variant = VARIANTS[contender.name]
            wanted = [variant.active] * len(params)
            assert at_bound(variant, params, problem.references) == wanted, contender.name


def test_ours_leaves_the_shared_numbers_alone():
    problem, untouched = draw(WORKLOAD, CPU), draw(WORKLOAD, CPU)
    for contender in ours(problem):
        contender.prepare()
        contender.call()
    for name in ("thetas", "grads", "momenta", "references"):
        pairs = zip(getattr(problem, name), getattr(untouched, name), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_half_type_is_measured_with_every_tensor_in_it():
    workload = Workload("half", ((40, 50), (300,)), ((7, 5),), dtype=torch.bfloat16)
    problem = draw(workload, CPU)
    every = [*problem.thetas, *problem.grads, *problem.momenta, *problem.references]
    assert {t.dtype for t in every} == {torch.bfloat16}
    assert workload.bytes == 16 * 2300 + 10 * 35
    contenders = [*ours(problem), *(PEERS[name](problem) for name in peers(workload))]
    assert [c.name for c in contenders] == [*variants(workload), *peers(workload)]
    for contender in contenders:
        contender.prepare()
        contender.call()


def test_a_narrow_state_is_that_of_d3fast_alone():
    workload = Workload("narrow", ((40, 50), (300,)), ((7, 5),), narrow=True)
    problem = draw(workload, CPU)
    assert workload.bytes == 18 * 2300 + 16 * 35
    assert workload.footprint == 12 * 2300 + 10 * 35
    every = [*problem.thetas, *problem.grads, *problem.momenta, *problem.references]
    assert {t.dtype for t in every} == {torch.float32}
    for contender in [*ours(problem), *(PEERS[name](problem) for name in peers(workload))]:
        contender.prepare()
        contender.call()
    opt = optimizer(problem)
    opt.step()
    kinds = [{n: t.dtype for n, t in opt.state[p].items()} for p in opt.state]
    assert all(kind["momentum_buffer"] == torch.bfloat16 for kind in kinds)
    assert [kind.get("reference") for kind in kinds] == [torch.bfloat16, torch.bfloat16, None]

"""The plain-PyTorch backend against the formulas written out in numpy, number by number."""

import numpy as np
import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD
from d3fast.optim.backends.torch_backend import distance_gradient, joint_norm

LR, W, DECAY, MOMENTUM, DAMPENING = 0.1, 2.0, 0.01, 0.9, 0.3


def by_formula(theta, theta_0, grads, p, nesterov=False, maximize=False):
    """DESIGN, "One optimizer step, exactly", for one tensor on the sphere of its reference."""
    v = None
    damping = 0.0 if nesterov else DAMPENING
    for g in grads:
        delta = theta - theta_0
        distance = (np.abs(delta) ** p).sum() ** (1 / p)
        u = W * np.sign(delta) * np.abs(delta) ** (p - 1) / distance ** (p - 1)
        d = (-g if maximize else g) + DECAY * theta - u
        v = d if v is None else MOMENTUM * v + (1 - damping) * d
        theta = theta - LR * (d + MOMENTUM * v if nesterov else v)
        theta = theta * np.linalg.norm(theta_0) / np.linalg.norm(theta)
    return theta


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("variant", [{}, {"nesterov": True}, {"maximize": True}], ids=str)
def test_three_steps_follow_the_formulas(p, variant):
    rng = np.random.default_rng(0)
    theta, theta_0 = rng.standard_normal((2, 8))
    grads = rng.standard_normal((3, 8))
    weights = nn.Parameter(torch.tensor(theta))
    opt = D3FusedSGD(
        [weights],
        track="all",
        lr=LR,
        momentum=MOMENTUM,
        dampening=0.0 if variant.get("nesterov") else DAMPENING,
        weight_decay=DECAY,
        distance_weight=W,
        distance_p=p,
        reference=[torch.tensor(theta_0)],
        backend="reference",
        **variant,
    )
    for g in grads:
        weights.grad = torch.tensor(g)
        opt.step()
    want = by_formula(theta, theta_0, grads, p, **variant)
    np.testing.assert_allclose(weights.detach().numpy(), want, rtol=1e-12)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 4.0])
def test_distance_gradient_is_that_of_autograd(p):
    delta = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    delta.requires_grad_()
    distance = torch.linalg.vector_norm(delta, p)
    (want,) = torch.autograd.grad(distance, delta)
    torch.testing.assert_close(distance_gradient(delta, distance, p), want)


def test_distance_gradient_is_0_at_distance_0():
    assert distance_gradient(torch.zeros(3), torch.tensor(0.0), 2.0).tolist() == [0.0] * 3


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_joint_norm_is_the_norm_of_all_elements_together(p):
    tensors = [torch.ones(2, 2), torch.tensor(2.0), torch.empty(0), torch.full((3,), -3.0)]
    together = torch.cat([t.flatten() for t in tensors])
    torch.testing.assert_close(joint_norm(tensors, p), torch.linalg.vector_norm(together, p))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_compute_in_float32_and_store_rounded(dtype, far_apart, descend):
    params, opt = far_apart(dtype, ((40,),), backend="reference", momentum=0.9)
    start = params[0].detach().float()
    twin = nn.Parameter(start.clone())
    theta_0 = opt.state[params[0]]["reference"].float()
    exact = D3FusedSGD(
        [twin], track="all", lr=0.05, momentum=0.9, reference=[theta_0], backend="reference"
    )
    params[0].grad = torch.full_like(params[0], 0.5)
    twin.grad = torch.full((40,), 0.5)
    opt.step()
    exact.step()
    assert torch.equal(params[0].detach(), twin.detach().to(dtype))


def test_a_group_may_mix_dtypes(descend, far_apart):
    g = torch.Generator().manual_seed(0)
    params = [
        nn.Parameter(torch.randn(4, generator=g).to(t)) for t in (torch.float32, torch.float64)
    ]
    opt = D3FusedSGD(params, track="all", lr=0.1, scope="group", backend="reference")
    opt.warm_start("far")
    descend(opt, 2)
    norm = lambda ts: torch.cat([t.detach().double() for t in ts]).norm().item()  # noqa: E731
    assert norm(params) == pytest.approx(norm([opt.state[p]["reference"] for p in params]))

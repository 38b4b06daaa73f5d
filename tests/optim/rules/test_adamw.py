"""The rule of AdamW in plain PyTorch, against its formulas written out in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from d3fast import D3FusedAdamW

LR, W, DECAY, BETAS, EPS = 0.1, 2.0, 0.01, (0.8, 0.95), 1e-3


def by_formula(theta, theta_0, grads, p, decoupled_push=True, maximize=False):
    """DESIGN, "AdamW", for one tensor on the sphere of its reference."""
    m, s = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(grads, 1):
        delta = theta - theta_0
        distance = (np.abs(delta) ** p).sum() ** (1 / p)
        u = W * np.sign(delta) * np.abs(delta) ** (p - 1) / distance ** (p - 1)
        d = (-g if maximize else g) - (0 if decoupled_push else u)
        m = BETAS[0] * m + (1 - BETAS[0]) * d
        s = BETAS[1] * s + (1 - BETAS[1]) * d**2
        adaptive = (m / (1 - BETAS[0] ** t)) / (np.sqrt(s / (1 - BETAS[1] ** t)) + EPS)
        theta = theta * (1 - LR * DECAY) - LR * adaptive + (LR * u if decoupled_push else 0)
        theta = theta * np.linalg.norm(theta_0) / np.linalg.norm(theta)
    return theta


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("variant", [{}, {"decoupled_push": False}, {"maximize": True}], ids=str)
def test_three_steps_follow_the_formulas(p, variant):
    rng = np.random.default_rng(0)
    theta, theta_0 = rng.standard_normal((2, 8))
    grads = rng.standard_normal((3, 8))
    weights = nn.Parameter(torch.tensor(theta))
    opt = D3FusedAdamW(
        [weights],
        track="all",
        lr=LR,
        betas=BETAS,
        eps=EPS,
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amsgrad": True}, "amsgrad=True"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must be < 1, got 1.0"),
        ({"betas": (-0.1, 0.9)}, r"betas\[0\] must be finite and >= 0, got -0.1"),
        ({"betas": (0.9,)}, r"betas must be two numbers, got \(0.9,\)"),
        ({"betas": (torch.tensor(0.9), 0.9)}, r"betas\[0\] must be a number, got a tensor"),
        ({"eps": -1e-8}, "eps must be finite and >= 0, got -1e-08"),
        ({"weight_decay": -0.1}, "weight_decay must be finite and >= 0, got -0.1"),
    ],
    ids=str,
)
def test_an_option_outside_its_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        D3FusedAdamW([nn.Parameter(torch.ones(2, 2))], **options)

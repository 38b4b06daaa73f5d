"""``torch.ops.d3fast.step``, the operator that a compiled graph calls."""

import math

import pytest
import torch

import d3fast  # noqa: F401  registers it

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def scalars(*values):
    """lr, weight decay, distance weight, then the numbers of the rule; or the radii."""
    return [torch.tensor(v, dtype=torch.float64) for v in values]


def arguments(kind=torch.float32, **given):
    """Of ``torch.ops.d3fast.step``, for two tensors and SGD with momentum 0.9."""
    g = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (5,))
    column = lambda: [torch.randn(s, generator=g).to(kind) for s in shapes]  # noqa: E731
    half = kind in (torch.bfloat16, torch.float16)
    own = {
        "params": column(),
        "grads": column(),
        "scaled_grads": [],
        "references": column(),
        "momenta": column(),
        "variances": [],
        "steps": [],
        "distances": [torch.tensor(math.nan, dtype=torch.float64) for _ in shapes],
        "compensations": [torch.zeros(s, dtype=kind) for s in shapes] if half else [],
        "numbers": scalars(0.1, 0.01, 1.0, 0.9, 0.0),
        "radii": [],
        "grad_scale": None,
        "found_inf": None,
        "rule": "SGD",
        "variant": "sgd",
        "maximize": False,
        "capturable": False,
        "distance_p": 2.0,
        "scope": "tensor",
        "constraint": "norm_sphere",
        "radius_unit": "relative",
        "backend": "reference" if half else "fused",
        "cache": -1,
        "group": 0,
    }
    return {**own, **given}


ADAMW = {
    "rule": "AdamW",
    "variant": "adamw",
    "variances": [torch.ones(3, 4), torch.ones(5)],
    "steps": [torch.tensor(3.0), torch.tensor(0.0)],
    "numbers": scalars(0.1, 0.01, 1.0, 0.9, 0.99, 1e-8),
}

SCALED = {
    "grads": [],
    "scaled_grads": [torch.ones(3, 4), torch.ones(5)],
    "grad_scale": torch.tensor(8.0),
    "found_inf": torch.tensor(0.0),
}


@pytest.mark.parametrize(
    "given",
    [
        arguments(),
        arguments(torch.bfloat16),
        arguments(**SCALED),
        arguments(radii=scalars(0.5, 2.0), constraint="distance_shell"),
        arguments(**ADAMW),
    ],
    ids=["fused", "bf16", "scaled", "shell", "adamw"],
)
def test_the_operator_keeps_torchs_rules(given):
    torch.library.opcheck(torch.ops.d3fast.step.default, (), given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"grads": [torch.ones(3, 4), torch.ones(6)]}, r"a gradient has shape \(6,\)"),
        ({"references": [torch.ones(3, 4), torch.ones(6)]}, r"reference has shape \(6,\)"),
        ({"momenta": [torch.ones(4, 3).T, torch.ones(5)]}, r"momentum has strides \(1, 3\)"),
        ({"references": [torch.ones(3, 4)]}, "reference: 2 tensors or none, got 1"),
        ({"references": [torch.ones(3, 4).double(), torch.ones(5).double()]}, "float64 differs"),
        ({"momenta": [torch.ones(3, 4), torch.ones(5).half()]}, "momentum: tensors of one dtype"),
        ({"distances": [torch.ones(()), torch.ones(())]}, "distance must be a 0-dim float64"),
        ({"params": [torch.ones(3, 8)[:, ::2], torch.ones(5)]}, "fill its memory densely"),
        ({"numbers": scalars(-1.0, 0.0, 1.0, 0.9, 0.0)}, "lr must be finite and >= 0"),
        (
            {**ADAMW, "steps": [torch.tensor(3), torch.tensor(0)]},
            "steps must be a 0-dim float32 tensor on cpu",
        ),
        (
            {**ADAMW, "variances": [torch.ones(3, 4).double(), torch.ones(5).double()]},
            "variance has torch.float64, torch.float32 parameters need torch.float32",
        ),
        (
            {**ADAMW, "numbers": scalars(0.1, 0.01, 1.0, 0.9, 1.0, 1e-8)},
            r"betas\[1\] must be < 1, got 1.0",
        ),
    ],
)
def test_the_operator_refuses_tensors_that_do_not_fit(wrong, message):
    given = arguments(**wrong)
    before = [p.clone() for p in given["params"]]
    with pytest.raises(ValueError, match=message):
        torch.ops.d3fast.step(**given)
    assert all(torch.equal(p, q) for p, q in zip(given["params"], before, strict=True))

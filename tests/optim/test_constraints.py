"""The constraint sets: each projection's formula, and what a projection may not do."""

import math

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD
from d3fast.optim.constraints import CONSTRAINTS, projection_coefficient, resolve_bounds

THETA, THETA_0 = [3.0, 4.0], [0.0, 4.0]  # norms 5 and 4, distance 3

# name, radius, unit, expected theta
FORMULAS = [
    ("norm_sphere", None, "relative", [2.4, 3.2]),  # theta * 4/5
    ("norm_sphere", 2.0, "relative", [4.8, 6.4]),
    ("norm_sphere", 10.0, "absolute", [6.0, 8.0]),
    ("norm_sphere", 0.0, "absolute", [0.0, 0.0]),
    ("norm_ball", None, "relative", [2.4, 3.2]),
    ("norm_ball", 1.0, "absolute", [0.6, 0.8]),
    ("norm_ball", 6.0, "absolute", THETA),
    ("distance_ball", 0.25, "relative", [1.0, 4.0]),  # theta_0 + delta * 1/3
    ("distance_ball", 2.0, "absolute", [2.0, 4.0]),
    ("distance_ball", 4.0, "absolute", THETA),
    ("distance_floor", 1.5, "relative", [6.0, 4.0]),
    ("distance_floor", 9.0, "absolute", [9.0, 4.0]),
    ("distance_floor", 2.0, "absolute", THETA),
    ("distance_shell", (1.0, 2.0), "absolute", [2.0, 4.0]),
    ("distance_shell", (4.0, 9.0), "absolute", [4.0, 4.0]),
    ("distance_shell", (1.0, 2.0), "relative", [4.0, 4.0]),
    ("distance_shell", (2.0, 4.0), "absolute", THETA),
    ("distance_shell", (2.0, 2.0), "absolute", [2.0, 4.0]),
]


def projected(theta, theta_0, backend, dtype, steps=1, **options):
    """Steps that move nothing but by their projection."""
    p = nn.Parameter(torch.tensor(theta, dtype=dtype))
    reference = [torch.tensor(theta_0, dtype=dtype)]
    opt = D3FusedSGD([p], track="all", lr=0.0, reference=reference, backend=backend, **options)
    p.grad = torch.ones_like(p)
    for _ in range(steps):
        opt.step()
    return p.detach()


@pytest.mark.parametrize(("name", "radius", "unit", "want"), FORMULAS, ids=str)
def test_projection_follows_its_formula(name, radius, unit, want, backend, dtype):
    got = projected(
        THETA, THETA_0, backend, dtype, constraint=name, radius=radius, radius_unit=unit
    )
    torch.testing.assert_close(got, torch.tensor(want, dtype=dtype))


@pytest.mark.parametrize(("name", "radius", "unit", "want"), FORMULAS, ids=str)
def test_projecting_again_changes_nothing_more(name, radius, unit, want, backend, dtype):
    options = {"constraint": name, "radius": radius, "radius_unit": unit}
    once, often = (projected(THETA, THETA_0, backend, dtype, n, **options) for n in (1, 5))
    torch.testing.assert_close(often, once)


@pytest.mark.parametrize(
    ("name", "radius"),
    [
        ("norm_ball", 7.0),
        ("distance_ball", 7.0),
        ("distance_floor", 0.01),
        ("distance_shell", (0.01, 7.0)),
    ],
)
@pytest.mark.parametrize("scope", ["tensor", "group"])
def test_an_inactive_set_leaves_the_bits_of_a_free_step(
    name, radius, scope, backend, dtype, far_apart, descend, same_bits
):
    bound = {"constraint": name, "radius": radius, "scope": scope}
    free = {"constraint": None, "scope": scope}
    shapes = ((7, 5), (300,))
    results = [
        descend(far_apart(dtype, shapes, backend=backend, momentum=0.9, **o)[1], 5)
        for o in (bound, free)
    ]
    assert same_bits(*results)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_after_every_step_the_weights_are_in_their_set(name, backend, dtype, far_apart, descend):
    radius = {"distance_ball": 0.3, "distance_floor": 6.0, "distance_shell": (2.0, 2.5)}.get(name)
    shapes = ((7, 5), (300,))
    options = {"momentum": 0.9, "lr": 0.5, "constraint": name, "radius": radius}
    params, opt = far_apart(dtype, shapes, backend=backend, **options)
    kind = CONSTRAINTS[name]
    for t in range(6):
        descend(opt, 1, start=t)
        for p in params:
            theta_0 = opt.state[p]["reference"].double()
            theta = p.detach().double()
            norm = (theta if kind.center == "origin" else theta - theta_0).norm() / theta_0.norm()
            lower, upper = radius if isinstance(radius, tuple) else (radius or 1.0,) * 2
            assert not kind.bounded_below or norm >= lower * (1 - 1e-6)
            assert not kind.bounded_above or norm <= upper * (1 + 1e-6)


def test_scope_decides_what_is_rescaled_together(backend, dtype):
    results = {}
    for scope in ("tensor", "group"):
        params = [nn.Parameter(torch.tensor(t, dtype=dtype)) for t in ([3.0, 0.0], [0.0, 4.0])]
        opt = D3FusedSGD(
            params,
            track="all",
            lr=0.0,
            scope=scope,
            radius=1.0,
            radius_unit="absolute",
            backend=backend,
        )
        for p in params:
            p.grad = torch.zeros_like(p)
        opt.step()
        results[scope] = torch.cat([p.detach() for p in params])
    torch.testing.assert_close(results["tensor"], torch.tensor([1, 0, 0, 1], dtype=dtype))
    torch.testing.assert_close(results["group"], torch.tensor([0.6, 0, 0, 0.8], dtype=dtype))


def test_the_radius_is_euclidean_whatever_p_is(backend, dtype):
    got = projected(THETA, THETA_0, backend, dtype, constraint="norm_sphere", distance_p=1.0)
    assert got.norm().item() == pytest.approx(4.0)


def test_zero_has_no_direction_to_be_projected_along(backend, dtype):
    got = projected([0.0, 0.0], THETA_0, backend, dtype, constraint="norm_sphere")
    assert got.tolist() == [0.0, 0.0]
    got = projected(THETA_0, THETA_0, backend, dtype, constraint="distance_floor", radius=1.0)
    assert got.tolist() == THETA_0


def test_projection_coefficient_is_clamp_over_norm():
    c = lambda *x: projection_coefficient(*map(torch.tensor, x)).item()  # noqa: E731
    assert c(5.0, 1.0, 2.0) == pytest.approx(0.4)
    assert c(0.5, 1.0, 2.0) == 2.0
    assert c(1.5, 1.0, 2.0) == 1.0
    assert c(0.0, 3.0, 4.0) == 1.0
    assert c(7.0, 1.0, math.inf) == 1.0


def test_an_unbounded_side_stays_unbounded_beside_a_zero_reference():
    group = {"constraint": "distance_floor", "radius": 2.0, "radius_unit": "relative"}
    lower, upper = resolve_bounds(group).scaled(torch.tensor(0.0))
    assert (lower.item(), upper.item()) == (0.0, math.inf)


def test_the_constraints_of_the_public_interface_are_these():
    assert list(CONSTRAINTS) == [
        "norm_sphere",
        "norm_ball",
        "distance_ball",
        "distance_floor",
        "distance_shell",
    ]

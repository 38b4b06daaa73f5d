"""Little work of every kind, for compute-sanitizer: every kernel, odd sizes, several blocks."""

import itertools

import pytest
import torch

MOMENTA = {"none": {"momentum": 0.0}, "heavy": {"dampening": 0.1}, "nesterov": {"nesterov": True}}
KINDS = {
    "sphere": {},
    "free": {"constraint": None},
    "distance": {"constraint": "distance_ball", "radius": 0.5},
    "p1": {"distance_p": 1.0},
    "measured": {"distance_weight": 0.0},
    "plain": {"distance_weight": 0.0, "constraint": None},
}


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize(("momentum", "kind"), list(itertools.product(MOMENTA, KINDS)))
def test_every_kernel_leaves_finite_weights(make, momentum, kind, scope):
    params, opt = make(scope=scope, **MOMENTA[momentum], **KINDS[kind])
    for _ in range(3):
        opt.step()
    assert all(torch.isfinite(p).all() for p in params)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_a_stale_norm_is_corrected_without_touching_anything_else(make, momentum):
    params, opt = make(**MOMENTA[momentum])
    opt.step()
    params[3].data.mul_(3)
    opt.step()
    assert all(torch.isfinite(p).all() for p in params)

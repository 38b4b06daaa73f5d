"""Same inputs, same bits: repeated runs, other thread counts and SIMD levels, resumed runs."""

import io
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from d3fast import _C, D3FusedSGD

VARIANTS = {
    "defaults": {},
    "heavy_ball": {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01},
    "nesterov_ball": {"momentum": 0.8, "nesterov": True, "constraint": "norm_ball"},
    "group_shell": {"scope": "group", "constraint": "distance_shell", "radius": (0.5, 0.9)},
    "floor": {"momentum": 0.9, "constraint": "distance_floor", "radius": 2.0},
    "free": {"momentum": 0.9, "constraint": None, "distance_weight": 5.0},
    "p1": {"momentum": 0.9, "distance_p": 1.0},
    "decaying": {"weight_decay": 19.0, "constraint": None},
}


def made(options, backend, dtype=torch.float32):
    """An optimizer over fresh parameters with its references, the same each time."""
    g = torch.Generator().manual_seed(0)
    shapes = ((7, 5), (), (0,), (1,), (33000,))
    params = [nn.Parameter(torch.randn(s, generator=g).to(dtype)) for s in shapes]
    opt = D3FusedSGD(params, track="all", lr=0.05, backend=backend, **options)
    opt.warm_start("random", generator=g)
    return opt


def through_a_file(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_resuming_at_step_10_equals_20_steps_bit_for_bit(
    name, backend, any_dtype, descend, same_bits
):
    whole = made(VARIANTS[name], backend, any_dtype)
    want = descend(whole, 20)
    first = made(VARIANTS[name], backend, any_dtype)
    weights = through_a_file(descend(first, 10))
    saved = through_a_file(first.state_dict())
    # A new process: a model from the checkpoint, whose weights are no longer theta_0.
    params = [nn.Parameter(w) for w in weights]
    second = D3FusedSGD(params, track="all", lr=0.05, backend=backend, **VARIANTS[name])
    second.load_state_dict(saved)
    assert same_bits(descend(second, 10, start=10), want)
    distances = (opt.distances().values() for opt in (second, whole))
    assert same_bits(*map(list, distances))


def test_resumed_reference_is_the_original_theta_0(backend, descend, same_bits):
    first = made({}, backend)
    theta_0 = [first.state[p]["reference"].clone() for p in first.param_groups[0]["params"]]
    descend(first, 3)
    second = made({}, backend)
    second.load_state_dict(through_a_file(first.state_dict()))
    loaded = [second.state[p]["reference"] for p in second.param_groups[0]["params"]]
    assert same_bits(loaded, theta_0)


@pytest.mark.parametrize("name", VARIANTS)
def test_two_runs_are_equal_bit_for_bit(name, backend, descend, same_bits):
    first, second = (descend(made(VARIANTS[name], backend), 5) for _ in range(2))
    assert same_bits(first, second)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Above 131072 elements a tensor is shared between threads; below, threads take whole tensors.
@pytest.mark.parametrize("shapes", [[(140_000,)], [(60_000,), (50_000,), (30_000,)]], ids=str)
@pytest.mark.parametrize(
    "options", [{"scope": "tensor"}, {"scope": "group"}, {"distance_weight": 0, "constraint": None}]
)
def test_the_number_of_threads_changes_no_bit(
    shapes, options, threads, any_dtype, far_apart, descend, same_bits
):
    results = []
    for count in (1, 2):
        threads(count)
        _, opt = far_apart(any_dtype, shapes=shapes, momentum=0.9, **options)
        results.append(descend(opt, 3))
    assert same_bits(*results)


# Without torch, whose import would take most of the time: the kernels need addresses alone.
DIGEST = """
import hashlib, importlib.machinery, importlib.util, sys
import numpy as np

loader = importlib.machinery.ExtensionFileLoader("_C", sys.argv[1])
_C = importlib.util.module_from_spec(importlib.util.spec_from_loader("_C", loader))
loader.exec_module(_C)
rng = np.random.default_rng(0)
digest = hashlib.sha256()
F32, F64, BF16, F16 = "float32", "float64", "bfloat16", "float16"
TYPES = [(F32, F32, F32), (F32, F32, BF16), (F64, F64, F64), (BF16, BF16, BF16), (BF16, F32, BF16),
         (F16, F16, F16), (F16, F32, F16)]
for weight, momentum_type, reference_type in TYPES:
    for p, nesterov, center in ((2, False, 1), (2, True, 2), (1, False, 1)):
        def column(dtype):
            numbers = [rng.standard_normal(n).astype(F32) for n in (5, 9001, 64)]
            if dtype == BF16:
                return [(x.view("uint32") >> 16).astype("uint16") for x in numbers]
            return [x.astype(dtype) for x in numbers]
        at = lambda arrays: [a.ctypes.data for a in arrays]
        theta, grads, momentum = column(weight), column(weight), column(momentum_type)
        reference, distance = column(reference_type), [np.full((), np.nan) for _ in theta]
        compensation = [np.zeros_like(a) for a in theta] if weight in (BF16, F16) else []
        plan = _C.CpuPlan(
            dtypes=_C.DTypeNames(weight=weight, momentum=momentum_type, reference=reference_type),
            columns=_C.Columns(
                theta=at(theta), numel=[a.size for a in theta], compensation=at(compensation),
                reference=at(reference), momentum=at(momentum), distance=at(distance),
            ),
            joint_norm=False, reference_norms=[a.size ** 0.5 for a in reference],
        )
        options = _C.StepOptions(
            lr=0.05, momentum=0.9, dampening=0.0, weight_decay=0.01, nesterov=nesterov,
            maximize=False, distance_weight=1.0, p=p, center=_C.Center(center), lower=0.9,
            upper=1.1, relative=True,
        )
        for step in range(4):
            plan.step(grads=at(grads), first_step=[False] * 3, verify=step == 0, options=options,
                      grad_scale=2.0, executor=1)
            if step == 2:
                theta[1][::2] = theta[1][1]  # a stale norm, to be corrected
        for a in theta + compensation + momentum + distance:
            digest.update(a.tobytes())
print(digest.hexdigest())
"""


def digest_at(level):
    return subprocess.run(
        [sys.executable, "-c", DIGEST, _C.__file__],
        env={**os.environ, "D3FAST_SIMD": level},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_simd_level_changes_no_bit():
    runs = [digest_at(level) for level in _C.build_info()["simd_levels"]]
    outputs = [r.stdout for r in runs if "must be a level of this CPU" not in r.stderr]
    assert outputs[0]
    assert len(set(outputs)) == 1


def test_an_unknown_simd_level_is_refused_by_name():
    assert "D3FAST_SIMD must be a level compiled in, got x86-64-v9" in digest_at("x86-64-v9").stderr

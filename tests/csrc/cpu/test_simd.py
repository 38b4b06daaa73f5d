"""Half types on the CPU: every SIMD level reads and rounds every number alike."""

import os
import subprocess
import sys

import pytest

from d3fast import _C

# Without torch, whose import would take most of the time.
SCRIPT = """
import importlib.machinery, importlib.util, sys
import numpy as np

loader = importlib.machinery.ExtensionFileLoader("_C", sys.argv[1])
_C = importlib.util.module_from_spec(importlib.util.spec_from_loader("_C", loader))
loader.exec_module(_C)


def nearest(x, dtype):
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).view(np.uint16)
    bits = x.view(np.uint32).astype(np.uint64)
    even = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), bits >> 16 | 0x40, even).astype(np.uint16)


def step(theta, dtype, lr, momentum=None):
    at = lambda array: [] if array is None else [array.ctypes.data]
    plan = _C.CpuPlan(
        dtypes=_C.DTypeNames(weight=dtype, momentum=dtype if momentum is None else "float32",
                         reference=dtype),
        columns=_C.Columns(theta=at(theta), numel=[theta.size], compensation=[], reference=[],
                           momentum=at(momentum), distance=[]),
        reference_norms=[], joint_norm=False,
    )
    kept = 0.0 if momentum is None else 1.0
    options = _C.StepOptions(
        lr=lr, momentum=kept, dampening=kept, weight_decay=0.0, nesterov=False, maximize=False,
        distance_weight=0.0,
    )
    grad = np.zeros_like(theta)
    plan.step(grads=at(grad), verify=False, options=options, executor=1)
    return theta


every = np.arange(1 << 16, dtype=np.uint16)
values = {
    "bfloat16": (every.astype(np.uint32) << 16).view(np.float32),
    "float16": every.view(np.float16).astype(np.float32),
}
for dtype, half_way in (("bfloat16", 1 << 15), ("float16", 1 << 12)):
    exact = values[dtype]
    # Every number, the middle between it and the next, what is beside these, and what is tiny.
    bits = np.concatenate([exact.view(np.uint32), exact.view(np.uint32) + half_way])
    v = np.concatenate([bits, bits + 1, bits - 1]).view(np.float32)
    tiny = np.random.default_rng(0).standard_normal(5000) * 2.0 ** np.arange(-150, -100).repeat(100)
    v = np.concatenate([v[~np.isnan(v)], tiny.astype(np.float32), np.float32([np.nan])])
    stored = step(np.zeros(v.size, np.uint16), dtype, 1.0, v)  # -v
    nan = np.isnan(v)
    wrong = np.where(nan, ~np.isnan(exact[stored]), stored != nearest(0 - v, dtype))
    kept = step(every.copy(), dtype, 0.0)
    finite = np.isfinite(exact)
    changed = np.where(finite, kept != every, np.isfinite(exact[kept]))
    print(dtype, int(wrong.sum()), int(changed.sum()))
"""


@pytest.mark.parametrize("level", _C.build_info()["simd_levels"])
def test_every_number_is_read_as_it_is_and_stored_to_nearest_even(level):
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, _C.__file__],
        env={**os.environ, "D3FAST_SIMD": level},
        capture_output=True,
        text=True,
        check=False,
    )
    if "must be a level of this CPU" in ran.stderr:
        pytest.skip(f"this CPU does not have {level}")
    assert ran.stdout.split() == ["bfloat16", "0", "0", "float16", "0", "0"], ran.stderr

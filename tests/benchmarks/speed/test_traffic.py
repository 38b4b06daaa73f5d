# SPDX-License-Identifier: Apache-2.0
"""Bytes, not seconds: what a CPU step asks of memory, how often it wakes cores, what it allocates.

The step of csrc/cpu runs with counters around its kernels (see traffic.cpp). 24 bytes per
tracked parameter are the least there can be; a projection touches the weights once more, while they
are as far back as one tensor is large.
"""

import ctypes
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.speed.contenders import VARIANTS, ours
from benchmarks.speed.memory import allocations, storage_bytes
from benchmarks.speed.workloads import FULL, Workload, draw

HERE = Path(__file__).parent
KINDS = ("update", "correct", "verify", "rescale", "unscale", "reuse", "teams")
ORIGIN, REFERENCE = 1, 2
LARGE = [300_000, 300_000]  # shared by the cores one after the other
SMALL = [40_000] * 20  # a core takes them whole
TINY = [500] * 20  # not worth waking a core


@pytest.fixture(scope="session")
def counters(shared_library):
    sources = ("common/partition.cpp", "cpu/launch.cpp", "cpu/kernels.cpp")
    counted = "-DD3_CPU_DTYPES=DTypeTriples<DTypeTriple<float, float, float>>"
    flags = ("-O2", "-Wno-psabi", "-DD3_SIMD_LEVEL=baseline", "-Wno-ignored-attributes", counted)
    return shared_library(HERE / "traffic.cpp", *sources, flags=flags)


def addresses(tensors):
    return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))


@pytest.fixture
def count(counters):
    """Takes one step over tensors of these sizes and says what it moved, per element."""

    def run(
        sizes,
        center=0,
        lower=0.0,
        upper=math.inf,
        *,
        joint_norm=False,
        verify=False,
        tracked=True,
        momentum=0.9,
        cached=1.0,
    ):
        g = torch.Generator().manual_seed(0)
        references, thetas, grads = ([torch.randn(n, generator=g) for n in sizes] for _ in range(3))
        momenta = [torch.zeros(n) for n in sizes]
        distances = [
            cached * torch.linalg.vector_norm(t - r, dtype=torch.float64)
            for t, r in zip(thetas, references, strict=True)
        ]
        norms = [float(r.norm()) for r in references]
        counts = (ctypes.c_int64 * len(KINDS))()
        counters.count_traffic(
            ctypes.c_int64(len(sizes)),
            addresses(thetas),
            addresses(references) if tracked else None,
            addresses(momenta) if momentum else None,
            addresses(distances) if tracked else None,
            addresses(grads),
            (ctypes.c_int64 * len(sizes))(*sizes),
            (ctypes.c_double * len(norms))(*norms),
            ctypes.c_bool(joint_norm),
            ctypes.c_bool(verify),
            ctypes.c_int(center),
            (ctypes.c_double * 5)(1e-3, momentum, 1.0 if tracked else 0.0, lower, upper),
            counts,
        )
        found = dict(zip(KINDS, counts, strict=True))
        total = sum(sizes)
        per_element = {kind: found[kind] / total for kind in KINDS[:5]}
        return SimpleNamespace(**per_element, reuse=found["reuse"], teams=found["teams"])

    return run


@pytest.mark.parametrize("sizes", [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("joint_norm", [False, True])
@pytest.mark.parametrize(
    ("center", "lower", "upper"),
    [(0, 0.0, math.inf), (ORIGIN, 0.0, 1e9), (REFERENCE, 0.0, 1e9), (REFERENCE, 1e-9, 1e9)],
    ids=["free", "norm ball", "distance ball", "distance shell"],
)
def test_a_step_that_need_not_project_moves_24_bytes(
    count, sizes, joint_norm, center, lower, upper
):
    moved = count(sizes, center, lower, upper, joint_norm=joint_norm)
    assert moved.update == 24
    assert moved.correct == moved.verify == moved.rescale == moved.unscale == 0


@pytest.mark.parametrize("sizes", [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize(("center", "second"), [(ORIGIN, 8), (REFERENCE, 12)])
def test_a_projection_is_one_more_sweep_over_what_the_last_tensor_left(
    count, sizes, center, second
):
    moved = count(sizes, center, 0.0, 1.0)
    assert (moved.update, moved.rescale) == (24, second)
    assert moved.correct == moved.verify == 0
    assert moved.reuse <= (24 + second) * max(sizes)


def test_the_projection_starts_with_what_was_updated_last(count, counters):
    whole = count([300_000], ORIGIN, 0.0, 1.0)
    # The first chunk waits for all others, the last one for none; forwards all would wait long.
    assert whole.reuse == (24 + 8) * (300_000 - counters.cpu_chunk())


def test_untracked_tensors_move_20_bytes_and_12_without_momentum(count):
    assert count(LARGE, tracked=False).update == 20
    assert count(LARGE, tracked=False, momentum=0.0).update == 12


def test_a_norm_to_verify_costs_8_bytes_and_a_stale_one_a_second_update(count):
    assert count(LARGE, verify=True).verify == 8
    stale = count(LARGE, cached=2.0)
    assert (stale.update, stale.correct) == (24, 24)


def test_other_cores_are_woken_once_per_sweep_of_a_large_tensor_and_once_for_all_small_ones(count):
    assert count(LARGE).teams == 2
    assert count(LARGE, ORIGIN, 0.0, 1.0).teams == 4
    assert count(SMALL).teams == count(SMALL, ORIGIN, 0.0, 1.0).teams == 1
    assert count(SMALL, tracked=False).teams == 1
    assert count(TINY).teams == count(TINY, tracked=False).teams == 0


@pytest.fixture(scope="module")
def contenders():
    workload = Workload("mixed", ((40, 50), (3,), ()), ((7, 5), ()), constraints=FULL)
    return {c.name: c for c in ours(draw(workload, torch.device("cpu")))}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_steady_step_allocates_no_tensor(contenders, name):
    contender = contenders[name]
    contender.prepare()
    contender.prepare()
    assert allocations(contender.call) == []


def test_a_tracked_tensor_keeps_its_reference_and_one_double(contenders):
    held = next(iter(contenders.values())).held
    assert storage_bytes(held) == 4 * (40 * 50 + 3 + 1) + 3 * 8

"""Plans check the tensors they are made for, alike for both backends."""

import pytest

from d3fast import _C

KINDS = [name for name in ("CpuPlan", "CudaPlan") if hasattr(_C, name)]


@pytest.fixture(params=KINDS)
def plan(request):
    """Makes a plan of float32 tensors unless told otherwise."""

    def make(*names, **columns):
        dtypes = dict(
            zip(("weight", "momentum", "reference"), names or ["float32"] * 3, strict=True)
        )
        more = {"reference_norms": []} if request.param == "CpuPlan" else {}
        return getattr(_C, request.param)(
            dtypes=_C.DTypeNames(**dtypes),
            columns=_C.Columns(**columns),
            joint_norm=False,
            **more,
        )

    return make


def test_both_kinds_are_plans(plan):
    assert isinstance(plan(theta=[64, 128], numel=[3, 0]), _C.Plan)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"numel": [1]}, "numel must have 2 entries, got 1 entries"),
        ({"momentum": [8]}, "momentum must have 2 entries or none, got 1 entries"),
        ({"theta": [8, 0]}, r"theta\[1\] must be an address, got 0"),
        ({"compensation": [8, 8]}, "compensation .*, got 2 entries for float32"),
    ],
    ids=str,
)
def test_columns_that_do_not_fit_are_refused_by_name(plan, columns, text):
    with pytest.raises(ValueError, match=text):
        plan(**{"theta": [8, 16], "numel": [1, 1], **columns})


def test_dtypes_without_kernels_are_refused_by_name(plan):
    with pytest.raises(ValueError, match="weight = int8, momentum = int8, reference = int8"):
        plan("int8", "int8", "int8", theta=[8], numel=[1])


@pytest.mark.skipif("CudaPlan" not in KINDS, reason="built without CUDA")
def test_a_cuda_plan_steps_in_memory_that_it_was_given():
    plan = _C.CudaPlan(
        dtypes=_C.DTypeNames(weight="float32", momentum="float32", reference="float32"),
        columns=_C.Columns(theta=[64], numel=[9000]),
        joint_norm=False,
    )
    assert plan.memory_bytes % 8 == 0
    assert plan.memory_bytes > 2 * 100  # two chunks
    with pytest.raises(ValueError, match=r"attach\(\) must come before step\(\)"):
        plan.step(grads=[64], verify=False, options=_C.StepOptions(lr=0.1), executor=0)

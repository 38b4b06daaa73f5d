"""``backend="auto"``: kernels where there are some, otherwise one warning that says why."""

import contextlib
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from d3fast import D3FusedSGD
from d3fast.optim.backends import native
from d3fast.optim.backends.choose import choose_backend
from d3fast.optim.backends.native import why_not

SPREAD = torch.ones(4, 2)[:, ::2]
UNSERVED = {
    "p": ([torch.ones(2)], {"distance_p": 3.0}, "distance_p=3.0 has no fused kernel"),
    "float8": (
        [torch.ones(2).to(torch.float8_e5m2)],
        {},
        "no kernels for torch.float8_e5m2 on cpu",
    ),
    "mixed": ([torch.ones(2), torch.ones(2).double()], {}, "the group mixes dtypes"),
    "gaps": ([SPREAD], {}, "does not fill its memory densely"),
    "overlap": ([torch.ones(1).expand(3)], {}, "does not fill its memory densely"),
    "reference": (
        [torch.ones(2)],
        {"reference_dtype": torch.float64},
        "reference_dtype=torch.float64 differs",
    ),
    "half reference": (
        [torch.ones(2).half()],
        {"reference_dtype": torch.bfloat16},
        "reference_dtype=torch.bfloat16 differs",
    ),
    "wide reference": (
        [torch.ones(2).bfloat16()],
        {"reference_dtype": torch.float32},
        "reference_dtype=torch.float32 differs",
    ),
    "half momentum": (
        [torch.ones(2)],
        {"momentum": 0.9, "momentum_dtype": torch.float16},
        "momentum_dtype=torch.float16 differs",
    ),
    "bf16 momentum alone": (
        [torch.ones(2)],
        {"momentum": 0.9, "momentum_dtype": torch.bfloat16},
        "needs reference_dtype=torch.bfloat16, got None",
    ),
    "momentum": (
        [torch.ones(2)],
        {"momentum": 0.9, "momentum_dtype": torch.float64},
        "momentum_dtype=torch.float64 differs",
    ),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_auto_falls_back_with_one_warning_that_says_why(name):
    tensors, options, reason = UNSERVED[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opt = D3FusedSGD([nn.Parameter(t) for t in tensors], track="all", **options)
        if name not in ("overlap", "float8"):
            for _ in range(2):
                for p in opt.param_groups[0]["params"]:
                    p.grad = torch.ones_like(p)
                opt.step()
    assert len(caught) == 1
    assert reason in str(caught[0].message)
    assert "backend='reference' to silence" in str(caught[0].message)
    assert caught[0].filename == __file__  # the line to change is the caller's


def test_the_warning_for_a_group_added_later_points_at_its_line():
    opt = D3FusedSGD([nn.Parameter(torch.ones(2))], track="all")
    with pytest.warns(UserWarning, match="param group 1 runs on the slower") as caught:
        opt.add_param_group({"params": [nn.Parameter(torch.ones(2))], "distance_p": 3.0})
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", UNSERVED)
def test_fused_raises_where_auto_falls_back(name):
    tensors, options, reason = UNSERVED[name]
    with pytest.raises(ValueError, match=f"backend='fused' cannot serve param group 0: .*{reason}"):
        D3FusedSGD([nn.Parameter(t) for t in tensors], track="all", backend="fused", **options)


@pytest.mark.parametrize("name", UNSERVED)
def test_asking_for_the_reference_is_silent(name):
    tensors, options, _ = UNSERVED[name]
    D3FusedSGD([nn.Parameter(t) for t in tensors], track="all", backend="reference", **options)


def test_a_device_without_kernels_is_named():
    group = {"params": [torch.ones(2, device="meta")]}
    assert why_not(group) == "there are no kernels for device 'meta'"


def test_untracked_groups_are_served_whatever_their_p():
    params = [nn.Parameter(torch.ones(2))]
    D3FusedSGD(params, distance_p=3.0, distance_weight=0.0, constraint=None, backend="fused")


def test_a_fused_group_scheduled_to_another_p_raises_with_the_reason(descend):
    opt = D3FusedSGD([nn.Parameter(torch.ones(2))], track="all", distance_p=1.0, backend="fused")
    descend(opt, 1)
    opt.param_groups[0]["distance_p"] = 1.5
    with pytest.raises(ValueError, match=r"distance_p=1.5 has no fused kernel"):
        descend(opt, 1)


def test_parameters_of_size_1_and_odd_strides_count_as_dense(descend):
    p = nn.Parameter(torch.ones(3, 1, 2).as_strided((3, 1, 2), (2, 77, 1)))
    opt = D3FusedSGD([p], track="all", backend="fused")
    opt.warm_start("far")
    descend(opt, 1)
    assert torch.isfinite(p).all()


@pytest.fixture
def gpu_group(monkeypatch):
    """A param group on a faked GPU, and the dtypes that the extension was asked about."""
    asked = []

    def obstacle(device, dtypes):
        asked.append((device, dtypes.weight, dtypes.momentum, dtypes.reference))
        return "no kernel image is available" if dtypes.weight == "float32" else ""

    native._probe.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(native.extension, "CudaPlan", object, raising=False)
    monkeypatch.setattr(native.extension, "cuda_obstacle", obstacle, raising=False)

    def make(**options):
        with FakeTensorMode():
            kind = options.pop("dtype", torch.float32)
            params = [torch.ones(2, 2, device="cuda:0", dtype=kind)]
        opt = D3FusedSGD([nn.Parameter(torch.ones(2, 2))], momentum=0.9, **options)
        return {**opt.param_groups[0], "params": params}

    yield make, asked
    native._probe.cache_clear()


def test_a_gpu_without_code_for_it_falls_back_with_one_warning(gpu_group):
    make, asked = gpu_group
    group = make()
    with pytest.warns(UserWarning, match=r"cuda:0 cannot run them \(no kernel image") as seen:
        assert choose_backend(0, group, announce=True) == "reference"
    assert len(seen) == 1
    assert choose_backend(0, group) == "reference"  # at the first step: no warning, no second probe
    assert asked == [(0, "float32", "float32", "float32")]


def test_a_gpu_without_code_for_it_is_refused_where_fused_was_asked_for(gpu_group):
    make, _ = gpu_group
    with pytest.raises(ValueError, match=r"param group 0: cuda:0 cannot run them \(no kernel"):
        choose_backend(0, {**make(), "backend": "fused"})


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_kernels_of_the_groups_dtypes_are_probed(gpu_group, momentum):
    make, asked = gpu_group
    group = {**make(dtype=torch.bfloat16, momentum_dtype=torch.float32), "momentum": momentum}
    assert choose_backend(0, group, announce=True) == "fused"
    assert asked == [(0, "bfloat16", "float32" if momentum else "bfloat16", "bfloat16")]


def test_nothing_is_probed_while_a_graph_is_captured_or_without_a_gpu(gpu_group, monkeypatch):
    make, asked = gpu_group
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert why_not(make()) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why_not(make()) is None
    assert asked == []


@pytest.mark.skipif(not hasattr(native.extension, "CudaPlan"), reason="built without CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_driver_the_probe_says_so():
    dtypes = native.extension.DTypeNames(weight="float32", momentum="float32", reference="float32")
    assert "driver" in native.extension.cuda_obstacle(device=0, dtypes=dtypes)

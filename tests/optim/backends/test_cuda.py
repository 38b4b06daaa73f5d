"""The launcher on a GPU; its steps are tested in tests/gpu and tests/csrc/cuda.

Where there is no GPU its own decisions are tested over faked streams and a plan on the host.
"""

import contextlib
import gc
import types
import weakref

import pytest
import torch
from torch import nn

from d3fast import _C, D3FusedSGD
from d3fast.optim.backends import cuda, group_plan, native
from d3fast.optim.backends.cuda import CudaLauncher

COLUMNS = ("compensation", "reference", "momentum", "distance")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_needs_a_gpu():
    with pytest.raises((AssertionError, RuntimeError)):
        CudaLauncher({"theta": [torch.ones(3)], **{name: [] for name in COLUMNS}}, False)


def test_an_extension_without_cuda_has_no_plan_for_it():
    assert hasattr(_C, "CudaPlan") == bool(_C.build_info()["cuda"])


class HostPlan(_C.CpuPlan):
    """A plan on the host with the interface of one on a GPU; the stream counts as threads."""

    memory_bytes = 64

    def __init__(self, dtypes, columns, joint_norm):
        norms = [1.0] * len(columns.reference)
        _C.CpuPlan.__init__(
            self, dtypes=dtypes, columns=columns, reference_norms=norms, joint_norm=joint_norm
        )

    def attach(self, **addresses):
        pass


@pytest.fixture
def device(monkeypatch):
    """A faked GPU: ``stream`` is the current one, ``capturing`` what torch says of it."""
    fake = types.SimpleNamespace(stream=1, capturing=False)
    stream = lambda device=None: types.SimpleNamespace(cuda_stream=fake.stream)  # noqa: E731
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: fake.capturing)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)  # as the index of "cpu"
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(native.extension, "CudaPlan", HostPlan, raising=False)
    monkeypatch.setattr(group_plan, "make_launcher", lambda *given: CudaLauncher(*given[:2]))
    return fake


@pytest.fixture
def optimizer():
    p = nn.Parameter(torch.arange(1.0, 7.0).reshape(2, 3))
    p.grad = torch.ones(2, 3)
    return D3FusedSGD([p], lr=0.1, momentum=0.9, constraint=None, backend="fused", capturable=True)


def launcher_of(opt):
    return opt._stepper._plans[0]._launcher


@pytest.mark.parametrize("stream", [1, 2])
def test_a_captured_step_is_remembered(device, optimizer, stream):
    optimizer.step()
    device.stream = stream
    optimizer.step()
    assert not launcher_of(optimizer).captured
    device.capturing = True
    optimizer.step()
    device.capturing = False
    optimizer.step()
    assert launcher_of(optimizer).captured


def test_a_step_that_needs_python_is_remembered_too(device, optimizer):
    optimizer.step()
    device.capturing = True
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3, 2).T  # copied in another order
    optimizer.step()
    assert launcher_of(optimizer).captured


def test_memory_that_a_graph_addresses_outlives_its_plan(device, optimizer):
    optimizer.step()
    device.capturing = True
    optimizer.step()
    device.capturing = False
    launcher = launcher_of(optimizer)
    kept = [weakref.ref(launcher._memory), weakref.ref(launcher._reference_norms)]
    del launcher
    optimizer.refresh_distances()
    optimizer.step()
    gc.collect()
    assert all(tensor() is not None for tensor in kept)


@pytest.mark.parametrize("captures", [False, True])
def test_an_lr_that_a_graph_reads_outlives_its_place_in_the_group(
    device, optimizer, monkeypatch, captures
):
    monkeypatch.setattr(
        CudaLauncher,
        "_scalar",
        lambda self, name, value: self._remember(name, value) if name == "lr" else float(value),
    )
    monkeypatch.setattr(cuda, "_on_device", float)
    group = optimizer.param_groups[0]
    group["lr"] = torch.tensor(0.1)
    optimizer.step()
    device.capturing = captures
    optimizer.step()
    device.capturing = False
    lr = weakref.ref(group["lr"])
    group["lr"] = torch.tensor(0.2)
    optimizer.step()
    gc.collect()
    assert (lr() is not None) == captures


def test_the_first_step_cannot_be_captured(device):
    device.capturing = True
    with pytest.raises(RuntimeError, match="take one step with the same gradients"):
        cuda.refuse_capture(torch.device("cpu"))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_a_norm_is_that_of_float64_without_a_copy_in_float64(kind, monkeypatch):
    monkeypatch.setattr(cuda, "NORM_PIECE", 1000)
    g = torch.Generator().manual_seed(0)
    for shape in [(), (0,), (1,), (1000,), (1001,), (64, 33)]:
        tensor = torch.randn(shape, generator=g).to(kind)
        norm = cuda.euclidean_norm(tensor)
        assert (norm.dtype, norm.shape) == (torch.float64, ())
        assert float(norm) == pytest.approx(float(tensor.double().norm()), rel=1e-14)


@pytest.mark.parametrize("layout", [lambda t: t, lambda t: t.T])
def test_a_norm_takes_pieces_of_bounded_size(layout, monkeypatch):
    monkeypatch.setattr(cuda, "NORM_PIECE", 1000)
    sizes, norm = [], torch.linalg.vector_norm
    monkeypatch.setattr(
        torch.linalg, "vector_norm", lambda t, **o: sizes.append(t.numel()) or norm(t, **o)
    )
    cuda.euclidean_norm(layout(torch.ones(50, 70)))
    assert max(sizes) <= 1000

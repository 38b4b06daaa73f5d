"""The CUDA kernels compiled for the host (see cuda_on_host.cpp), put behind the native backend."""

import ctypes
import math
from pathlib import Path

import pytest
import torch

from d3fast.optim.backends import cpu
from d3fast.optim.backends.native import dtype_names, grad_entries
from d3fast.optim.constraints import resolve_bounds
from d3fast.optim.options import is_tracked

HERE = Path(__file__).parent


def _pointers(values, kind=ctypes.c_void_p):
    return (kind * len(values))(*values) if values else None


def _address(tensor):
    return ctypes.c_void_p(tensor.data_ptr() if tensor is not None else None)


@pytest.fixture(scope="session")
def host_library(shared_library):
    flags = ("-O1", "-pthread", "-Wno-unknown-pragmas")
    return shared_library(HERE / "cuda_on_host.cpp", "plan.cpp", flags=flags)


class HostLauncher:
    """Stands in for a device's launcher: same tables, same kernels, run on the host."""

    library = None
    chunk_length = 1000
    lag = 2
    host_threads = 3
    launches = 0
    shuffle = 0

    def __init__(self, tensors, joint):
        self.tensors, self.joint = tensors, joint
        self.columns = {n: _pointers([t.data_ptr() for t in c]) for n, c in tensors.items()}
        self.numel = _pointers([t.numel() for t in tensors["theta"]], ctypes.c_int64)
        self.dtypes = _pointers([name.encode() for name in dtype_names(tensors)], ctypes.c_char_p)
        norms = [float(torch.linalg.vector_norm(t.double())) for t in tensors["reference"]]
        self.norms = _pointers(norms, ctypes.c_double)
        chunks = sum(math.ceil(t.numel() / self.chunk_length) for t in tensors["theta"])
        self.workspace = torch.zeros(64 * (chunks + len(norms) + 1), dtype=torch.uint8)

    def step(self, grads, fresh, verify, group, options, grad_scale, found_inf):
        entries = grad_entries(grads, fresh)
        bounds = resolve_bounds(group)
        values = (group["lr"], *((bounds.lower, bounds.upper) if bounds else (0.0, math.inf)))
        # As on a device: what lies in a tensor is for the kernels alone to read.
        scalars = [v.data_ptr() if isinstance(v, torch.Tensor) else None for v in values]
        wide = [isinstance(v, torch.Tensor) and v.dtype == torch.float64 for v in values]
        values = tuple(math.nan if isinstance(v, torch.Tensor) else v for v in values)
        center = {"origin": 1, "reference": 2}[bounds.center] if bounds else 0
        options = [
            values[0],
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            group["nesterov"],
            group["maximize"],
            group["distance_weight"],
            group["distance_p"] if is_tracked(group) else 2,
            center,
            *values[1:],
            bounds.relative if bounds else False,
        ]
        launches = self.library.host_steps(
            self.dtypes,
            ctypes.c_int64(len(grads)),
            self.columns["theta"],
            self.numel,
            self.columns["compensation"],
            self.columns["reference"],
            self.columns["momentum"],
            self.columns["distance"],
            self.norms,
            _pointers(entries, ctypes.c_int64),
            ctypes.c_bool(self.joint),
            ctypes.c_int64(self.chunk_length),
            ctypes.c_int64(self.lag),
            ctypes.c_uint(self.host_threads),
            ctypes.c_bool(verify),
            _address(grad_scale),
            _address(found_inf),
            _pointers(scalars),
            _pointers(wide, ctypes.c_bool),
            _pointers([float(o) for o in options], ctypes.c_double),
            _address(self.workspace),
            ctypes.c_int64(self.workspace.numel()),
            ctypes.c_uint(HostLauncher.shuffle),
        )
        assert launches != -1, "the workspace is too small for the cut"
        assert launches != -2, "there are no kernels for these dtypes"
        HostLauncher.launches = launches
        HostLauncher.shuffle += 1


@pytest.fixture
def cuda_on_host(host_library, monkeypatch):
    """`backend="fused"` on CPU tensors runs the CUDA kernels, blocks in a new order each step."""
    monkeypatch.setattr(HostLauncher, "library", host_library)
    monkeypatch.setattr(HostLauncher, "shuffle", 0)
    monkeypatch.setattr(cpu, "CpuLauncher", HostLauncher)
    return HostLauncher

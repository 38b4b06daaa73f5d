"""The CUDA kernels, run on the host, in place of the CPU launcher."""

import pytest

from d3fast.optim.backends import cpu
from tests.csrc.cuda.on_host import FLAGS, SOURCES, HostLauncher


@pytest.fixture(scope="session")
def host_library(shared_library):
    return shared_library(*SOURCES, flags=FLAGS)


@pytest.fixture
def cuda_on_host(host_library, monkeypatch):
    """`backend="fused"` on CPU tensors runs the CUDA kernels, blocks in a new order each step."""
    monkeypatch.setattr(HostLauncher, "library", host_library)
    monkeypatch.setattr(HostLauncher, "shuffle", 0)
    monkeypatch.setattr(cpu, "CpuLauncher", HostLauncher)
    return HostLauncher

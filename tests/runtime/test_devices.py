"""Where devices are chosen."""

import pytest
import torch
from torch import nn

from d3fast.runtime.devices import is_out_of_memory, resolve_device, synchronize

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch):
    """A torch that says it sees two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize("device", ["cpu", CPU])
def test_a_device_or_its_name_is_taken(device):
    assert resolve_device(device) == CPU


def test_none_means_where_the_model_is():
    assert resolve_device(None, nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert resolve_device(None, nn.Linear(2, 2)) == CPU


def test_none_without_a_model_or_its_parameters_means_the_cpu():
    assert resolve_device() == CPU
    assert resolve_device(None, nn.ReLU()) == CPU


def test_a_device_said_outright_beats_the_models():
    assert resolve_device("cpu", nn.Linear(2, 2, device="meta")) == CPU


def test_auto_means_the_gpu_where_there_is_one(two_gpus):
    assert resolve_device("auto") == torch.device("cuda")


def test_auto_means_the_cpu_elsewhere(no_gpu):
    assert resolve_device("auto") == CPU


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_gpus_that_are_there_are_taken(two_gpus, device):
    assert resolve_device(device) == torch.device(device)


def test_a_gpu_past_the_last_one_is_refused(two_gpus):
    with pytest.raises(
        ValueError, match=r"'cuda:2' is not available: torch .* sees 2 CUDA devices"
    ):
        resolve_device("cuda:2")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda", 1)])
def test_without_gpus_every_cuda_device_is_refused(no_gpu, device):
    with pytest.raises(ValueError, match=r"is not available: torch .* sees 0 CUDA devices"):
        resolve_device(device)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cuda:-1", "CPU", "mps", "xpu", "meta"])
def test_unknown_and_unsupported_devices_are_refused_by_name(device):
    with pytest.raises(
        ValueError, match=f"device must be 'auto', 'cpu', 'cuda', .* got '{device}'"
    ):
        resolve_device(device)


def test_waiting_for_the_cpu_returns():
    synchronize(CPU)


def test_waiting_for_a_gpu_synchronizes_that_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    synchronize(torch.device("cuda", 1))
    assert waited == [torch.device("cuda", 1)]


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**60), lambda: bytearray(2**60)])
def test_the_error_of_an_allocator_is_recognised(allocate):
    with pytest.raises((MemoryError, RuntimeError)) as raised:
        allocate()
    assert is_out_of_memory(raised.value)


def test_other_errors_are_not_out_of_memory():
    assert is_out_of_memory(torch.cuda.OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError())

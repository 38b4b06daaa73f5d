"""Worker processes: lists of devices, threads, blocked interrupts."""

import signal

import pytest
import torch

from d3fast.runtime.processes import interrupts_blocked, parse_devices, torch_threads


@pytest.fixture
def nine_cores(monkeypatch):
    monkeypatch.setattr("d3fast.runtime.environment.cores", lambda: 9)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("cpu", ["cpu"]),
        ("cpu, cpu", ["cpu", "cpu"]),
        ("cpu:3", ["cpu"] * 3),
        ("cuda:0,cuda:1", ["cuda:0", "cuda:1"]),
        ("cuda:1, cpu:2", ["cuda:1", "cpu", "cpu"]),
        ("auto", ["cpu"] * 4),
        ("warp", ["warp"]),
    ],
)
def test_a_list_of_devices_names_one_worker_each(nine_cores, text, devices):
    assert parse_devices(text) == devices


def test_auto_means_every_cuda_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert parse_devices("auto") == ["cuda:0", "cuda:1"]


def test_a_number_of_cpu_workers_is_at_least_one():
    with pytest.raises(ValueError, match="'cpu:0'"):
        parse_devices("cpu:0")


def test_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs signal masks")
def test_an_interrupt_in_a_block_arrives_at_its_end():
    reached = []

    def block():
        with interrupts_blocked():
            signal.raise_signal(signal.SIGINT)
            reached.append("after the signal")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached

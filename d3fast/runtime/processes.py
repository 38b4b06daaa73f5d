# SPDX-License-Identifier: Apache-2.0
"""Worker processes: signals, threads, devices, and an end together with the parent process."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

import torch

from d3fast.runtime import environment

AUTO_CPU_WORKERS = 4


def parse_devices(text: str, cpu_workers: int = AUTO_CPU_WORKERS) -> list[str]:
    """Return the devices of a list such as ``"cuda:0,cuda:1"``: one worker each.

    Args:
        text: names separated by commas. A name may be repeated; ``cpu:N`` means N workers on the
            CPU. ``auto`` means every CUDA device, or without one a worker per CPU core.
        cpu_workers: largest number of CPU workers of ``auto``.

    Raises:
        ValueError: a number of CPU workers below 1.

    Example:
        >>> parse_devices("cuda:0, cpu:2")
        ['cuda:0', 'cpu', 'cpu']
    """
    devices: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        kind, _, count = name.partition(":")
        if name == "auto":
            cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
            devices += cards or ["cpu"] * min(environment.cores(), cpu_workers)
        elif kind == "cpu" and count.isdecimal():
            if int(count) < 1:
                raise ValueError(f"devices must have >= 1 worker per name, got {name!r}")
            devices += ["cpu"] * int(count)
        else:
            devices.append(name)
    return devices


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` CPU threads inside a ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block SIGINT inside a ``with`` block: processes started in it inherit the blocked signal.

    This process receives a Ctrl-C of that time at the end of the block. Systems without signal
    masks block nothing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # unblocks the signal itself when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Ignore SIGINT in a worker process: its parent receives Ctrl-C too and ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_parent() -> None:
    """End this process as soon as its parent process ends, whatever the cause."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
